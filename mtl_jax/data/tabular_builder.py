"""The TFDS builder of plain tables; `tabular_sets.load_tabular` reads the result."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from mtl_jax.data.blocks import manual_folder
from mtl_jax.data.tabular_sets import FINDERS, SPLITS, TabularSet, blocks, write_common


class TabularBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """A builder whose subclass has a row in `tabular_sets.FINDERS`, `VERSION` and `ABOUT`.

    A record is a block of rows of one split: `inputs` [n, F] and `labels` [n, T], float32, NaN
    where missing.

    Attributes:
      ABOUT: one line, for the set's TFDS description.
      sources: lines about where the data came from.
    """

    VERSION = tfds.core.Version("1.0.0")
    MANUAL_DOWNLOAD_INSTRUCTIONS = "Optional; see `python -m mtl_jax.data list`."
    ABOUT = "A table of numbers with several targets."
    sources: list[str]

    def _info(self) -> tfds.core.DatasetInfo:
        matrix = tfds.features.Tensor(shape=(None, None), dtype=np.float32, encoding="bytes")
        return tfds.core.DatasetInfo(
            builder=self,
            description=self.ABOUT,
            features=tfds.features.FeaturesDict({"inputs": matrix, "labels": matrix}),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        found, origin = FINDERS[self.name](manual_folder(dl_manager))
        self.sources = [origin]
        write_common(Path(str(self.data_path)), found, self.sources)
        return {split: self._generate_examples(found, split) for split in SPLITS}

    def _generate_examples(
        self, found: TabularSet, split: str
    ) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
        yield from enumerate(blocks(found, split))

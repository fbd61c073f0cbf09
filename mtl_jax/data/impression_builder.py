"""The TFDS builder that every impression set is made with; `load_impressions` reads the result."""

from __future__ import annotations

import abc
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from mtl_jax.data.blocks import manual_folder
from mtl_jax.data.impressions import SPLITS, ImpressionSet
from mtl_jax.data.impressions_io import ROW_ARRAYS, VECTORS, Spool, load_impressions, pieces
from mtl_jax.errors import UserError

__all__ = ["ImpressionBuilder", "load_impressions"]


class ImpressionBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """A builder whose subclass has `VERSION`, perhaps `BUILDER_CONFIGS`, `ABOUT` and `parts`.

    A record is a block of at most `impressions_io.BLOCK` rows: each array of
    `impressions_io.ROW_ARRAYS`, with the rows first.

    Attributes:
      ABOUT: one line, for the set's TFDS description.
      sources: lines about where the data came from; `parts` sets them.
      vocabularies: {column or attribute: [size - 2] raw values of ids 2, 3, ...}; `parts` may set
        them, for those who meet raw values later.
    """

    VERSION = tfds.core.Version("1.0.0")
    MANUAL_DOWNLOAD_INSTRUCTIONS = "Raw files of your own; see `python -m mtl_jax.data list`."
    ABOUT = "Impressions with behaviour histories."
    sources: list[str]
    vocabularies: Mapping[str, np.ndarray]

    @abc.abstractmethod
    def parts(self, manual_dir: Path | None) -> Iterator[ImpressionSet]:
        """Yields the set in parts, each the rows and the history streams of some users.

        `starts` and `ends` are positions in the part's own streams. All parts have the same
        names, columns and sizes; the attributes of the first are kept. Rows in no split are
        dropped. Must set `sources`.

        Raises:
          UserError: nothing to build from, or wrong files.
        """

    def _info(self) -> tfds.core.DatasetInfo:
        features = {
            key: tfds.features.Tensor(
                shape=(None,) if key in VECTORS else (None, None), dtype=dtype, encoding="bytes"
            )
            for key, dtype in ROW_ARRAYS.items()
        }
        return tfds.core.DatasetInfo(
            builder=self,
            description=self.ABOUT,
            features=tfds.features.FeaturesDict(features),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        self.vocabularies = {}
        spool = Spool(Path(str(self.data_path)))
        for part in self.parts(manual_folder(dl_manager)):
            spool.add(part)
        counts = spool.finish(self.sources, self.vocabularies)
        if empty := [split for split in SPLITS if not counts[split]]:
            raise UserError(
                f"data set {self.name}: no row falls into the split {empty[0]} "
                f"(rows: {', '.join(f'{n} {split}' for split, n in counts.items())}); "
                "change where the splits begin and end"
            )
        return {
            piece: self._generate_examples(spool, split, first, last)
            for split in SPLITS
            for piece, (first, last) in pieces(split, counts[split]).items()
        }

    def _generate_examples(
        self, spool: Spool, split: str, first: int, last: int
    ) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
        yield from enumerate(spool.blocks(split, first, last))

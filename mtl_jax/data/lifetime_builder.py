"""The TFDS builder that every lifetime set is made with; `load_lifetimes` reads the result."""

from __future__ import annotations

import abc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from mtl_jax.data.blocks import manual_folder
from mtl_jax.data.lifetimes import LifetimeSet, check_lifetimes
from mtl_jax.data.lifetimes_io import (
    COMPRESSED,
    MATRICES,
    VECTORS,
    blocks,
    load_lifetimes,
    pieces,
    write_common,
)

__all__ = ["LifetimeBuilder", "load_lifetimes"]


class LifetimeBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """A builder whose subclass has `VERSION`, perhaps `BUILDER_CONFIGS`, `ABOUT` and `lifetimes`.

    A record is a block of at most `lifetimes_io.BLOCK` rows: each array of `lifetimes_io.VECTORS`
    and `lifetimes_io.MATRICES`, with the rows first.

    Attributes:
      ABOUT: one line, for the set's TFDS description.
      sources: lines about where the data came from; `lifetimes` sets them.
    """

    VERSION = tfds.core.Version("1.0.0")
    MANUAL_DOWNLOAD_INSTRUCTIONS = "Raw files of your own; see `python -m mtl_jax.data list`."
    ABOUT = "Lifetimes with covariates."
    sources: list[str]

    @abc.abstractmethod
    def lifetimes(self, manual_dir: Path | None) -> LifetimeSet:
        """Returns the whole set. Must set `sources`.

        Raises:
          UserError: nothing to build from, or wrong files.
        """

    def _info(self) -> tfds.core.DatasetInfo:
        features = {
            key: tfds.features.Tensor(
                shape=(None,) if key in VECTORS else (None, None),
                dtype=dtype,
                encoding="zlib" if key in COMPRESSED else "bytes",
            )
            for key, dtype in {**VECTORS, **MATRICES}.items()
        }
        return tfds.core.DatasetInfo(
            builder=self,
            description=self.ABOUT,
            features=tfds.features.FeaturesDict(features),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        found = check_lifetimes(self.lifetimes(manual_folder(dl_manager)), self.name)
        common = write_common(Path(str(self.data_path)), found, self.sources)
        return {
            piece: self._generate_examples(found, first, last)
            for piece, (first, last) in pieces(common["rows"], common["row_bytes"]).items()
        }

    def _generate_examples(
        self, found: LifetimeSet, first: int, last: int
    ) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
        yield from enumerate(blocks(found, first, last))

"""MovieLens-1M; see `mtl_jax.data.recommendation.movielens`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import tensorflow_datasets as tfds

from mtl_jax.data.impression_builder import ImpressionBuilder
from mtl_jax.data.impressions import ImpressionSet
from mtl_jax.data.recommendation.movielens import CONFIGS, movielens_impressions
from mtl_jax.data.recommendation.movielens_files import MANUAL_1M, original_1m


class Builder(ImpressionBuilder):
    """TFDS builder of `movielens1m`."""

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS: ClassVar = [
        tfds.core.BuilderConfig(name=name, description=f"Split by {split}, {policy} histories.")
        for name, (split, policy) in CONFIGS.items()
    ]
    MANUAL_DOWNLOAD_INSTRUCTIONS = MANUAL_1M
    ABOUT = "1,000,209 ratings of films with what each user rated before."

    def parts(self, manual_dir: Path | None) -> Iterator[ImpressionSet]:
        """Yields the whole set; see `ImpressionBuilder.parts`."""
        ratings = original_1m(manual_dir)
        self.sources = [str(manual_dir)]
        found, self.vocabularies = movielens_impressions(
            ratings, *CONFIGS[self.builder_config.name]
        )
        yield found

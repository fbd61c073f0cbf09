"""MovieLens-100K; see `mtl_jax.data.recommendation.movielens`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import tensorflow_datasets as tfds

from mtl_jax.data.impression_builder import ImpressionBuilder
from mtl_jax.data.impressions import ImpressionSet
from mtl_jax.data.recommendation.movielens import CONFIGS, movielens_impressions
from mtl_jax.data.recommendation.movielens_files import MANUAL_100K, find_movielens100k


class Builder(ImpressionBuilder):
    """TFDS builder of `movielens100k`."""

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS: ClassVar = [
        tfds.core.BuilderConfig(name=name, description=f"Split by {split}, {policy} histories.")
        for name, (split, policy) in CONFIGS.items()
    ]
    MANUAL_DOWNLOAD_INSTRUCTIONS = f"Optional: {MANUAL_100K}."
    ABOUT = "100,000 ratings of films with what each user rated before."

    def parts(self, manual_dir: Path | None) -> Iterator[ImpressionSet]:
        """Yields the whole set; see `ImpressionBuilder.parts`."""
        ratings, origin = find_movielens100k(manual_dir)
        self.sources = [origin]
        found, self.vocabularies = movielens_impressions(
            ratings, *CONFIGS[self.builder_config.name]
        )
        yield found

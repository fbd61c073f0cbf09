"""Census-Income (KDD); see `mtl_jax.data.recommendation.census`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import tensorflow_datasets as tfds

from mtl_jax.data.impression_builder import ImpressionBuilder
from mtl_jax.data.impressions import ImpressionSet
from mtl_jax.data.recommendation.census import CONFIGS, FILES, census_impressions, find_census


class Builder(ImpressionBuilder):
    """TFDS builder of `census_income`."""

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS: ClassVar = [
        tfds.core.BuilderConfig(name=name, description=f"Tasks {', '.join(tasks)}.")
        for name, tasks in CONFIGS.items()
    ]
    MANUAL_DOWNLOAD_INSTRUCTIONS = f"Optional: {' and '.join(FILES)}."
    ABOUT = "299,285 people of two surveys; no histories."

    def parts(self, manual_dir: Path | None) -> Iterator[ImpressionSet]:
        """Yields the whole set; see `ImpressionBuilder.parts`."""
        people, origin = find_census(manual_dir)
        self.sources = [origin]
        found, self.vocabularies = census_impressions(people, CONFIGS[self.builder_config.name])
        yield found

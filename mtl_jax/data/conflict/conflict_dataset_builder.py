"""Generated impressions; see `mtl_jax.data.recommendation.conflict`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import tensorflow_datasets as tfds

from mtl_jax.data.impression_builder import ImpressionBuilder
from mtl_jax.data.impressions import ImpressionSet
from mtl_jax.data.recommendation.conflict import CONFIGS, generate


class Builder(ImpressionBuilder):
    """TFDS builder of `conflict`."""

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS: ClassVar = [
        tfds.core.BuilderConfig(name=name, description=f"Conflict {settings.conflict}.")
        for name, settings in CONFIGS.items()
    ]
    ABOUT = "Tasks that want different things of the same inputs, with the attainable optimum."

    def parts(self, manual_dir: Path | None) -> Iterator[ImpressionSet]:
        """Yields the whole set; see `ImpressionBuilder.parts`."""
        settings = CONFIGS[self.builder_config.name]
        self.sources = [f"drawn here: {settings}, seed 0"]
        yield generate(settings, seed=0).found

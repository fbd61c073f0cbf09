"""Generated ad creatives; see `mtl_jax.data.survival.creatives`."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import tensorflow_datasets as tfds

from mtl_jax.data.lifetime_builder import LifetimeBuilder
from mtl_jax.data.lifetimes import LifetimeSet
from mtl_jax.data.survival.creatives import CONFIGS, generate


class Builder(LifetimeBuilder):
    """TFDS builder of `creatives`."""

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS: ClassVar = [
        tfds.core.BuilderConfig(name=name, description=str(settings))
        for name, settings in CONFIGS.items()
    ]
    ABOUT = "Ad creatives and when their operator stops them, with all that is hidden."

    def lifetimes(self, manual_dir: Path | None) -> LifetimeSet:
        """Returns the set; see `LifetimeBuilder.lifetimes`."""
        settings = CONFIGS[self.builder_config.name]
        self.sources = [f"drawn here: {settings}, seed 0"]
        return generate(settings, seed=0)

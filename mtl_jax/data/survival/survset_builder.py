"""The TFDS builder that the sets of SurvSet share; see `mtl_jax.data.survival.survset`."""

from __future__ import annotations

from pathlib import Path

import tensorflow_datasets as tfds

from mtl_jax.data.lifetime_builder import LifetimeBuilder
from mtl_jax.data.lifetimes import LifetimeSet
from mtl_jax.data.survival.survset import RECIPES, survset_lifetimes


class SurvSetBuilder(LifetimeBuilder, skip_registration=True):
    """A builder whose subclass is named, by its package, after one of `survset.RECIPES`."""

    VERSION = tfds.core.Version("1.0.0")

    def lifetimes(self, manual_dir: Path | None) -> LifetimeSet:
        """Returns the set; see `LifetimeBuilder.lifetimes`."""
        config = self.builder_config.name if self.BUILDER_CONFIGS else None
        found, origin = survset_lifetimes(self.name, config, manual_dir)
        self.sources = [origin]
        return found


def configs(name: str) -> list[tfds.core.BuilderConfig]:
    """Returns the configs of a set; none where there is one."""
    return [
        tfds.core.BuilderConfig(
            name=config, description=f"Without {', '.join(dropped)}." if dropped else "Everything."
        )
        for config, dropped in RECIPES[name].configs.items()
    ]

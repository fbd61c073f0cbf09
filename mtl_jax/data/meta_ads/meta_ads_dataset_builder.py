"""Meta's Ad Library; see `mtl_jax.data.survival.meta_ads`."""

from __future__ import annotations

import tensorflow_datasets as tfds

from mtl_jax.data.lifetimes import LifetimeSet
from mtl_jax.data.survival.meta_ads import meta_ads_lifetimes
from mtl_jax.data.survival.table_ads import AdsOptions
from mtl_jax.data.survival.table_builder import AdsBuilder


class Builder(AdsBuilder):
    """TFDS builder of `meta_ads`; its configs are those of options, with a digest in the name."""

    VERSION = tfds.core.Version("1.0.0")
    ABOUT = "Ads on Facebook and Instagram and when their delivery stopped."
    PATTERNS = ("*.csv*", "*.json", "*.jsonl", "*.zip")

    @classmethod
    def make(cls, options: AdsOptions) -> tuple[LifetimeSet, list[str]]:
        """Returns the set; see `FilesBuilder.make`."""
        return meta_ads_lifetimes(options)

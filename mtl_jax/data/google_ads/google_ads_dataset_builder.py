"""Google's political ads; see `mtl_jax.data.survival.google_ads`."""

from __future__ import annotations

import tensorflow_datasets as tfds

from mtl_jax.data.lifetimes import LifetimeSet
from mtl_jax.data.survival.google_ads import google_ads_lifetimes
from mtl_jax.data.survival.table_ads import AdsOptions
from mtl_jax.data.survival.table_builder import AdsBuilder


class Builder(AdsBuilder):
    """TFDS builder of `google_ads`; its configs are those of options, with a digest in the name."""

    VERSION = tfds.core.Version("1.0.0")
    ABOUT = "Political ads of Google and when they had their last impression."
    PATTERNS = ("google-political-ads-creative-stats.csv*", "*creative[-_]stats*", "*.csv*")

    @classmethod
    def make(cls, options: AdsOptions) -> tuple[LifetimeSet, list[str]]:
        """Returns the set; see `FilesBuilder.make`."""
        return google_ads_lifetimes(options)

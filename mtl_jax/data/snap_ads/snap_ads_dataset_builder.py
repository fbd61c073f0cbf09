"""Snap's library of political ads; see `mtl_jax.data.survival.snap_ads`."""

from __future__ import annotations

import tensorflow_datasets as tfds

from mtl_jax.data.lifetimes import LifetimeSet
from mtl_jax.data.survival.snap_ads import snap_ads_lifetimes
from mtl_jax.data.survival.table_ads import AdsOptions
from mtl_jax.data.survival.table_builder import AdsBuilder


class Builder(AdsBuilder):
    """TFDS builder of `snap_ads`; its configs are those of options, with a digest in the name."""

    VERSION = tfds.core.Version("1.0.0")
    ABOUT = "Political ads on Snapchat and when they ended."
    PATTERNS = ("*[Aa]ds*.csv*", "*.csv*", "*.zip")

    @classmethod
    def make(cls, options: AdsOptions) -> tuple[LifetimeSet, list[str]]:
        """Returns the set; see `FilesBuilder.make`."""
        return snap_ads_lifetimes(options)

"""RF1; see `mtl_jax.data.tabular_sets`."""

from __future__ import annotations

import tensorflow_datasets as tfds

from mtl_jax.data.tabular_builder import TabularBuilder
from mtl_jax.data.tabular_sets import RF1_MANUAL


class Builder(TabularBuilder):
    """TFDS builder of `rf1`."""

    VERSION = tfds.core.Version("1.0.0")
    MANUAL_DOWNLOAD_INSTRUCTIONS = f"Optional: {RF1_MANUAL}."
    ABOUT = "9,125 hours of a river: 64 flows and the flows at eight gauges 48 hours later."

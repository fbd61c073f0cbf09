"""Yeast; see `mtl_jax.data.tabular_sets`."""

from __future__ import annotations

import tensorflow_datasets as tfds

from mtl_jax.data.tabular_builder import TabularBuilder
from mtl_jax.data.tabular_sets import YEAST_MANUAL


class Builder(TabularBuilder):
    """TFDS builder of `yeast`."""

    VERSION = tfds.core.Version("1.0.0")
    MANUAL_DOWNLOAD_INSTRUCTIONS = f"Optional: {YEAST_MANUAL}."
    ABOUT = "2,417 genes, 103 numbers and 14 functional classes each."

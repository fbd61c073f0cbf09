"""SUPPORT2; see `mtl_jax.data.survival.survset`."""

from __future__ import annotations

from typing import ClassVar

import tensorflow_datasets as tfds

from mtl_jax.data.survival.survset_builder import SurvSetBuilder, configs


class Builder(SurvSetBuilder):
    """TFDS builder of `support2`."""

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS: ClassVar = configs("support2")
    ABOUT = "Seriously ill patients of five hospitals and when they died."

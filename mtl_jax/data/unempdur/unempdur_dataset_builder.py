"""Spells without a job; see `mtl_jax.data.survival.survset`."""

from __future__ import annotations

from typing import ClassVar

import tensorflow_datasets as tfds

from mtl_jax.data.survival.survset_builder import SurvSetBuilder, configs


class Builder(SurvSetBuilder):
    """TFDS builder of `unempdur`."""

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS: ClassVar = configs("unempdur")
    ABOUT = "People who lost a job and when they had another, in intervals of two weeks."

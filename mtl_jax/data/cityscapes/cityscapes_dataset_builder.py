"""CityScapes: 7-class segmentation and depth of streets; see `dense_files`."""

from __future__ import annotations

import tensorflow_datasets as tfds

from mtl_jax.data.dense_builder import DenseMixin


class Builder(DenseMixin, tfds.core.GeneratorBasedBuilder):
    """TFDS builder of `cityscapes`."""

    VERSION = tfds.core.Version("1.0.0")

"""NYUv2: 13-class segmentation, depth and surface normals of rooms; see `dense_files`."""

from __future__ import annotations

import tensorflow_datasets as tfds

from mtl_jax.data.dense_builder import DenseMixin


class Builder(DenseMixin, tfds.core.GeneratorBasedBuilder):
    """TFDS builder of `nyuv2`."""

    VERSION = tfds.core.Version("1.0.0")

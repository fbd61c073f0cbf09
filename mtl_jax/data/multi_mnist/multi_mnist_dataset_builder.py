"""Multi-MNIST: two digits on one canvas, as source images; see `overlay_builder`."""

from __future__ import annotations

import tensorflow_datasets as tfds

from mtl_jax.data.overlay_builder import OverlayMixin


class Builder(OverlayMixin, tfds.core.GeneratorBasedBuilder):
    """TFDS builder of `multi_mnist`."""

    VERSION = tfds.core.Version("1.0.0")
    POOLS = ("mnist", "mnist")

"""Multi-Fashion: two garments on one canvas, as source images; see `overlay_builder`."""

from __future__ import annotations

import tensorflow_datasets as tfds

from mtl_jax.data.overlay_builder import OverlayMixin


class Builder(OverlayMixin, tfds.core.GeneratorBasedBuilder):
    """TFDS builder of `multi_fashion`."""

    VERSION = tfds.core.Version("1.0.0")
    POOLS = ("fashion_mnist", "fashion_mnist")

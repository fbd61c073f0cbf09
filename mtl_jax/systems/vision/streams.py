"""Batches read from disk while the step runs: for sets that are not worth a place on the device."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np

from mtl_jax.data.loader import batch_indices, eval_batches, prefetch, steps_per_epoch
from mtl_jax.data.records import RecordSource
from mtl_jax.systems.base import Data

Array = jax.Array
Tree = Any


def as_read(resident: Tree, host: Tree, keys: Array | None) -> Tree:
    """The `assemble` of records that need nothing done: the batch is what was read."""
    del resident, keys
    return host


def stream_data(
    sources: Mapping[str, RecordSource],
    *,
    batch_size: int,
    seed: int,
    shard: int,
    shards: int,
    assemble: Callable[[Tree, Tree, Array | None], Tree] = as_read,
) -> Data:
    """Returns the data of record sources; nothing is resident.

    Host batches hold the fields of the records stacked, [B, ...]. Training batches are drawn ahead
    by the training loop, evaluation batches here, in a thread.

    Args:
      sources: "train" and the evaluation splits by name. Each is read by a thread of its own, so
        no two of them may share a reader.
      batch_size: global batch size.
      seed: of the order.
      shard: this process.
      shards: number of processes.
      assemble: see `systems.base.Data`.
    """
    train = sources["train"]
    per_epoch = steps_per_epoch(len(train), batch_size)

    def train_batch(step: int) -> Tree:
        return train.gather(batch_indices(seed, step, len(train), batch_size, shard, shards))

    def read(split: str) -> Iterator[dict[str, np.ndarray]]:
        source = sources[split]
        for index, mask in eval_batches(len(source), batch_size, shard, shards):
            yield {**source.gather(index), "mask": mask}

    def batches(split: str) -> Iterator[Tree]:
        with prefetch(read(split)) as ahead:
            yield from ahead

    splits = tuple(split for split in sources if split != "train")
    return Data({}, train_batch, batches, assemble, per_epoch, splits)

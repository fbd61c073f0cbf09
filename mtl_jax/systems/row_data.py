"""Sets of rows as batches: row numbers are dealt out, and a batch is gathered from whole columns.

The columns lie on the devices and the compiled step gathers from them; where they do not fit there
the same gather runs on the host.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mtl_jax.data.loader import batch_indices, eval_batches
from mtl_jax.data.loader import steps_per_epoch as full_batches
from mtl_jax.systems.base import Data

Array = jax.Array
Tree = Any


def row_data(
    columns: Mapping[str, np.ndarray],
    splits: Mapping[str, np.ndarray],
    gather: Callable[[Any, Tree, Any, bool], Tree],
    *,
    batch_size: int,
    eval_batch_size: int,
    seed: int,
    shard: int,
    shards: int,
    resident: bool = True,
) -> Data:
    """Returns the data of a set of rows.

    Args:
      columns: what batches are gathered from.
      splits: row numbers of "train" and the other splits.
      gather: `gather(xp, columns, rows, training) -> batch`, xp being numpy or jax.numpy.
      batch_size: global batch size of training.
      eval_batch_size: of evaluation, at most.
      seed: of the order.
      shard: this process.
      shards: number of processes.
      resident: keep the columns on the devices; else batches are put together on the host.
    """
    train = splits["train"]
    others = tuple(split for split in splits if split != "train")
    # One size for all splits: a compiled step takes no other. A multiple of the training batch,
    # which divides over the devices.
    longest = max(len(splits[split]) for split in others)
    count = max(min(eval_batch_size // batch_size, -(-longest // batch_size)), 1)
    eval_size = count * batch_size

    def host_batch(rows: np.ndarray, training: bool) -> Tree:
        rows = rows.astype(np.int32)
        if resident:
            return {"row": rows}
        found = gather(np, columns, rows, training)
        # What has no columns is not read, and cannot be dealt out to devices.
        return {"row": rows, **{name: leaf for name, leaf in found.items() if leaf.size}}

    def train_batch(step: int) -> Tree:
        at = batch_indices(seed, step, len(train), batch_size, shard, shards)
        return host_batch(train[at], True)

    def batches(split: str) -> Iterator[Tree]:
        own = splits[split]
        for index, mask in eval_batches(len(own), eval_size, shard, shards):
            yield {**host_batch(own[index], False), "mask": mask}

    def assemble(placed: Tree, host: Tree, keys: Array | None) -> Tree:
        batch = {name: leaf for name, leaf in host.items() if name not in ("row", "mask")}
        if resident:
            batch = gather(jnp, placed, host["row"], keys is not None)
        if keys is not None:
            batch["keys"] = keys
        if "mask" in host:
            batch["mask"], batch["row"] = host["mask"], host["row"]
        return batch

    per_epoch = full_batches(len(train), batch_size)
    return Data(
        dict(columns) if resident else {}, train_batch, batches, assemble, per_epoch, others
    )

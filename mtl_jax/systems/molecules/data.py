"""Molecules as batches: everything on the devices, batches of row numbers."""

from __future__ import annotations

from typing import Any

import numpy as np

from mtl_jax.data.molecules import MoleculeSet
from mtl_jax.systems.base import Data
from mtl_jax.systems.row_data import row_data

Tree = Any


def gather(xp: Any, columns: Tree, rows: Any, training: bool) -> Tree:
    """Returns the batch of some rows, see `model.make_system`."""
    del xp, training  # indexing is the same for numpy and JAX, and nothing is augmented
    return {name: column[rows] for name, column in columns.items()}


def molecule_data(
    found: MoleculeSet,
    *,
    batch_size: int,
    eval_batch_size: int,
    seed: int,
    shard: int = 0,
    shards: int = 1,
    resident: bool = True,
) -> Data:
    """Returns the data of a set of molecules; see `row_data` for what is not said here.

    Atoms that are padding in all molecules of the set are left out.

    Args:
      found: the set.
      batch_size: global batch size of training.
      eval_batch_size: of evaluation, at most.
      seed: of the order.
      shard: this process.
      shards: number of processes.
      resident: keep the set on the devices.
    """
    width = int((found.charges > 0).sum(1).max())
    columns = {
        "charges": found.charges[:, :width],
        "positions": found.positions[:, :width],
        "target": found.targets.astype(np.float32),
    }
    return row_data(
        columns,
        found.splits,
        gather,
        batch_size=batch_size,
        eval_batch_size=eval_batch_size,
        seed=seed,
        shard=shard,
        shards=shards,
        resident=resident,
    )

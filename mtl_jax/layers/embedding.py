"""Embedding tables: `params["tables"][name]` [V, D], looked up the same way however they train.

A model calls `lookup` with the ids of the batch. Where the engine updates a table row by row
(`engine.tables`) it has put the few rows that the batch touches in the table's place, and their
positions into `batch["slots"]`; elsewhere the ids themselves are the positions. Id 0 is padding:
its vector is zero and it has no gradient, whatever row 0 holds. So are ids outside the table.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

Array = jax.Array
Tree = Any
PAD = 0


def init_table(key: Array, rows: int, dim: int, stddev: float = 0.05) -> Array:
    """Returns a table [rows, dim] of normal draws, float32, whose padding row is zero."""
    return (stddev * jax.random.normal(key, (rows, dim), jnp.float32)).at[PAD].set(0)


def lookup(params: Tree, batch: Tree, table: str, use: str, ids: Array) -> Array:
    """Looks vectors up.

    Args:
      params: the parameters; `params["tables"][table]` is [V, D].
      batch: the assembled batch, which may hold the engine's `slots`.
      table: name of the table.
      use: name that `System.table_ids` gives to these ids of the table.
      ids: int [...].

    Returns:
      [..., D]; zeros for id 0 and for ids outside 1 .. V - 1.
    """
    rows = params["tables"][table]
    if table in batch.get("slots", {}):
        at = batch["slots"][table][use]
    else:
        at = jnp.where(ids == PAD, rows.shape[0], ids)
    return rows.at[at].get(mode="fill", fill_value=0, wrap_negative_indices=False)

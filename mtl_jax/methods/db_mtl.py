"""DB-MTL: gradients of log losses, averaged and brought to one length (Lin et al.)."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from mtl_jax.methods.base import Aggregator, Array, Traits, Tree
from mtl_jax.methods.elementwise import along, rows_aggregator, zero_rows
from mtl_jax.methods.gram import combine, scale_rows, squared_norms
from mtl_jax.methods.prenormalise import row_factors


class DbMtlState(NamedTuple):
    """State of `db_mtl`.

    Attributes:
      steps: int32, number of steps so far.
      average: tree like the task gradients [T, ...].
    """

    steps: Array
    average: Tree


def db_mtl(beta: float = 0.9, decay: float = 0.0) -> Aggregator:
    """Dual balancing: d = max_k |y_k| sum_i y_i / |y_i|, y a moving average of grad log L_i.

    In step k: y_i <- beta_k y_i + (1 - beta_k) g_i / L_i with beta_k = beta / k^decay.

    Source: Lin et al., "Dual-Balancing for Multi-Task Learning", arXiv 2308.12029, algorithm 1,
    with the constants of the authors' library. The average starts at 0, as there: the first
    directions are short. Losses count by absolute value, one of 0 as machine epsilon times their
    mean. In the paper the heads take the gradients of the log losses too; here, as with every
    aggregator, those of the losses.

    The state is a vector of the shared parameters' size for each task. `Info` has no weights: the
    direction is a sum of averages.

    Args:
      beta: weight of the old average, in [0, 1).
      decay: exponent of the number of steps by which beta shrinks, >= 0.

    Raises:
      ValueError: an option out of range.
    """
    if not 0 <= beta < 1:
        raise ValueError(f"beta must be in [0, 1), found {beta}")
    if not decay >= 0:
        raise ValueError(f"decay must be non-negative, found {decay}")

    def init(shared: Tree, num_tasks: int) -> DbMtlState:
        return DbMtlState(jnp.int32(0), zero_rows(shared, num_tasks))

    def rows_fn(
        grads: Tree, state: DbMtlState, *, losses: Array, active: Array, key: Array
    ) -> tuple[Tree, None, DbMtlState]:
        del key
        steps = state.steps + 1
        factors = row_factors(grads, losses, active, "loss")
        old = beta * steps.astype(jnp.float32) ** -decay

        def track(y: Array, g: Array) -> Array:
            new = scale_rows(g.astype(y.dtype), factors)
            moved = new + old.astype(y.dtype) * (y - new)
            return jnp.where(along(active, y), moved, y)

        average = jax.tree.map(track, state.average, grads)
        norms = jnp.sqrt(jnp.where(active, squared_norms(average, active.shape[0]), 0))
        scale = jnp.where(norms > 0, norms.max() / jnp.where(norms > 0, norms, 1), 0)
        return combine(average, scale), None, DbMtlState(steps, average)

    return rows_aggregator(
        rows_fn,
        init=init,
        traits=Traits(on_equal=lambda num_tasks, norm: (1 - beta) * num_tasks),
    )

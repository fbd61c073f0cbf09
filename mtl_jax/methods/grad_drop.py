"""GradDrop: one sign for every coordinate, drawn by its share (Chen et al.)."""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp

from mtl_jax.methods.base import Aggregator, Array, Traits, Tree
from mtl_jax.methods.elementwise import rows_aggregator


def drop_signs(rows: Array, uniform: Array, leak: float = 0.0) -> Array:
    """Returns the sum of what is left of `rows` [T, ...] after one sign was picked.

    With P = (1 + sum_i g_i / sum_i |g_i|) / 2, the share of the positive part, a coordinate keeps
    its positive entries where uniform < P and its negative ones elsewhere; `leak` of the others
    stays.

    Args:
      rows: [T, ...] gradients.
      uniform: [...] numbers in [0, 1).
      leak: in [0, 1].
    """
    above, below = jnp.maximum(rows, 0).sum(0), jnp.maximum(-rows, 0).sum(0)
    # Exactly 1 or 0 without conflict, so that nothing is dropped by rounding.
    total = above + below
    positive = uniform < above / jnp.where(total > 0, total, 1)
    kept, dropped = jnp.where(positive, above, -below), jnp.where(positive, -below, above)
    return kept + leak * dropped if leak else kept


def grad_drop(leak: float = 0.0, reduction: Literal["sum", "mean"] = "sum") -> Aggregator:
    """Gradient sign dropout: every coordinate keeps the entries of one sign.

    Source: Chen et al., "Just Pick a Sign: Optimizing Deep Multitask Models with Gradient Sign
    Dropout", arXiv 2010.06808, algorithm 1 with the identity for f. Differs from it: acts on the
    gradients of the shared parameters (as CAGrad's code does), where the paper acts on those of a
    representation times its sign; one leak for all tasks. The direction is no sum of whole
    gradients: `Info` has no weights.

    Args:
      leak: share of the dropped entries that stays, in [0, 1]; 1 is the plain sum.
      reduction: "sum" of what is left (the paper), or that over the number of active tasks.

    Raises:
      ValueError: an option out of range.
    """
    if not 0 <= leak <= 1:
        raise ValueError(f"leak must be in [0, 1], found {leak}")
    if reduction not in ("sum", "mean"):
        raise ValueError(f"reduction must be 'sum' or 'mean', found {reduction!r}")

    def rows_fn(
        grads: Tree, state: Tree, *, losses: Array, active: Array, key: Array
    ) -> tuple[Tree, None, Tree]:
        del losses
        leaves, structure = jax.tree.flatten(grads)
        out = []
        for i, leaf in enumerate(leaves):
            wide = leaf.astype(jnp.promote_types(leaf.dtype, jnp.float32))
            # The same draw for all tasks: whether a task is there does not change it.
            uniform = jax.random.uniform(jax.random.fold_in(key, i), wide.shape[1:], wide.dtype)
            left = drop_signs(wide, uniform, leak)
            out.append(left / active.sum() if reduction == "mean" else left)
        return jax.tree.unflatten(structure, out), None, state

    return rows_aggregator(
        rows_fn,
        traits=Traits(
            on_equal=lambda num_tasks, norm: float(num_tasks) if reduction == "sum" else 1.0,
            linear=leak == 1,
        ),
    )

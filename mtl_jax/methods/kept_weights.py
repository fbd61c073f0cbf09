"""Weights on the simplex that a method keeps from step to step.

Only the ratios among the tasks of the current batch count: on use they are scaled to sum 1 over
the active tasks; an absent task keeps the weight that it had.
"""

from __future__ import annotations

import jax.numpy as jnp

from mtl_jax.methods.base import Array, Tree
from mtl_jax.methods.trained import share


def equal_weights(shared: Tree, num_tasks: int) -> Array:
    """The `init` of a method whose state is such weights: 1 / T each, float32."""
    del shared
    return jnp.full(num_tasks, 1 / num_tasks, jnp.float32)


def normalised(weights: Array, active: Array) -> Array:
    """Returns `weights` [T] scaled to sum 1 over the active tasks, 0 elsewhere.

    Equal ones where the active tasks have weight 0 (the weight was all with tasks that left).
    """
    weights = jnp.where(active, weights, 0)
    total = weights.sum()
    scaled = weights / jnp.where(total > 0, total, 1)
    return jnp.where(total > 0, scaled, share(active, weights.dtype))


def keep(old: Array, new: Array, active: Array) -> Array:
    """Returns the next state [T] float32: `new` for active tasks, `old` for the others."""
    return jnp.where(active, new, old).astype(jnp.float32)


def project(point: Array, active: Array) -> Array:
    """Returns the point of the simplex over the active tasks nearest to `point` [T]."""
    # max(v - tau, 0) with tau the largest of T candidates: one for each possible smallest entry.
    floor = jnp.finfo(point.dtype).min
    v = jnp.where(active, point, floor)
    inside = (v[None, :] >= v[:, None]) & active[None, :]
    sums = jnp.where(inside, v[None, :], 0).sum(1)
    tau = jnp.where(active, (sums - 1) / jnp.maximum(inside.sum(1), 1), floor).max()
    return jnp.where(active, jnp.maximum(v - tau, 0), 0)

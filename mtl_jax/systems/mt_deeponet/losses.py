"""Losses of one task: sums over samples or points, and what to divide them by.

relative_l2   mean over samples of ||prediction - solution|| / ||solution|| inside (our default:
              every sample and every geometry weighs the same)
interior_mse  mean over the points inside of the squared normalised error
grid_mse      the same sum over all points of the grid, those outside counting as right (the
              paper's: a geometry weighs as much as its area)
"""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp

from mtl_jax.metrics.operators import relative_l2

Array = jax.Array
Loss = Literal["relative_l2", "interior_mse", "grid_mse"]


def loss_sum(
    kind: Loss,
    prediction: Array,
    solution: Array,
    mean: Array,
    std: Array,
    inside: Array,
    weight: Array,
    grid_points: float,
) -> tuple[Array, Array]:
    """Returns (sum, weight) of one task's samples, float32.

    Args:
      kind: see above.
      prediction: [b, n], normalised.
      solution: [b, n], normalised.
      mean: [n] or [1] mean of the normalisation, for the relative error.
      std: [n] or [1], its standard deviation.
      inside: [b, n] bool.
      weight: [b], 0 for samples that do not count.
      grid_points: how many points of the grid stand for the n points (those that were left out
        because no geometry holds them included); for grid_mse.
    """
    counted = (weight != 0)[:, None]
    use = inside & counted
    if kind == "relative_l2":
        ratios = relative_l2(
            prediction * std[None] + mean[None], solution * std[None] + mean[None], use
        )
        return jnp.sum(jnp.where(counted[:, 0], ratios, 0)), jnp.sum(counted, dtype=jnp.float32)
    squared = jnp.square(jnp.where(use, prediction - solution, 0))
    if kind == "interior_mse":
        return jnp.sum(squared), jnp.sum(use, dtype=jnp.float32)
    return jnp.sum(squared), jnp.sum(counted, dtype=jnp.float32) * grid_points

"""Losses of one task: sums over samples or points, and what to divide them by.

relative_l2   mean over samples of ||prediction - solution|| / ||solution|| inside (our default:
              every sample and every geometry weighs the same). Where query points are drawn, the
              error is that of the points drawn, as a root mean square, and the solution's is that
              of all points: no sample is divided by the little that a draw happens to show of it
interior_mse  mean over the points inside of the squared normalised error
grid_mse      the same sum over all points of the grid, those outside counting as right (the
              paper's: a geometry weighs as much as its area)
"""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp

from mtl_jax.metrics.operators import sample_norms

Array = jax.Array
Loss = Literal["relative_l2", "interior_mse", "grid_mse"]


def loss_sum(
    kind: Loss,
    prediction: Array,
    solution: Array,
    std: Array,
    inside: Array,
    size: Array,
    weight: Array,
    grid_points: float,
) -> tuple[Array, Array]:
    """Returns (sum, weight) of one task's samples, float32.

    Args:
      kind: see above.
      prediction: [b, n], normalised.
      solution: [b, n], normalised.
      std: [n] or [1], standard deviation of the normalisation, for the relative error.
      inside: [b, n] bool.
      size: [b] root mean square of the whole solution inside, in its own unit, for the relative
        error.
      weight: [b], 0 for samples that do not count.
      grid_points: how many points of the grid stand for the n points (those that were left out
        because no geometry holds them included); for grid_mse.
    """
    counted = (weight != 0)[:, None]
    use = inside & counted
    if kind == "relative_l2":
        points = jnp.sum(use, axis=1, dtype=jnp.float32)
        seen = points > 0
        error = sample_norms((prediction - solution) * std[None], use)
        # As in `metrics.operators.relative_l2`: no division by a solution that is 0 everywhere.
        whole = jnp.maximum(size, jnp.finfo(error.dtype).tiny)
        ratios = error / jnp.where(seen, jnp.sqrt(points) * whole, 1)
        return jnp.sum(ratios), jnp.sum(seen, dtype=jnp.float32)
    squared = jnp.square(jnp.where(use, prediction - solution, 0))
    if kind == "interior_mse":
        return jnp.sum(squared), jnp.sum(use, dtype=jnp.float32)
    return jnp.sum(squared), jnp.sum(counted, dtype=jnp.float32) * grid_points

"""Errors of predicted solutions: relative L2 two ways, root mean square, at the boundary.

The two relative errors differ and are named apart: `rel_l2_mean` is the mean over samples of
||prediction - solution|| / ||solution||, `rel_l2_global` the ratio of the norms over all samples
together (Frobenius norms), in which samples with large solutions weigh more.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mtl_jax.metrics.base import ratio

Array = jax.Array


class OperatorError(NamedTuple):
    """Sums over samples; fields are [] or lead with a task axis.

    Attributes:
      samples: number of samples, int32.
      ratios: sum of the samples' relative L2 errors.
      error: sum of the squared errors inside.
      norm: sum of the squared solutions inside.
      points: number of points inside.
      edge_error: sum of the squared errors at boundary points.
      edge_points: number of boundary points.
    """

    samples: Array
    ratios: Array
    error: Array
    norm: Array
    points: Array
    edge_error: Array
    edge_points: Array

    def compute(self) -> dict[str, float]:
        """Returns `rel_l2_mean`, `rel_l2_global`, `rmse`, and `boundary_rmse` if there are points.

        NaN where nothing was counted. The last two have the unit of the solution.
        """
        out = {
            "rel_l2_mean": ratio(self.ratios, self.samples),
            "rel_l2_global": float(np.sqrt(ratio(self.error, self.norm))),
            "rmse": float(np.sqrt(ratio(self.error, self.points))),
        }
        if np.asarray(self.edge_points).sum():
            out["boundary_rmse"] = float(np.sqrt(ratio(self.edge_error, self.edge_points)))
        return out


def sample_norms(values: Array, inside: Array) -> Array:
    """Returns the L2 norms [B] of values [B, N] over the points of a mask [B, N]."""
    return jnp.sqrt(jnp.sum(jnp.square(jnp.where(inside, values, 0)), axis=1))


def relative_l2(prediction: Array, solution: Array, inside: Array) -> Array:
    """Returns ||prediction - solution|| / ||solution|| for each sample, over the points inside.

    Args:
      prediction: [B, N].
      solution: [B, N].
      inside: [B, N] bool; what the others hold makes no difference, NaN included.

    Returns:
      [B]; for a solution that is 0 everywhere the error's norm over the smallest normal number.
    """
    error = jnp.where(inside, prediction - solution, 0)
    squared = jnp.sum(jnp.square(error), axis=1)
    # The square root has no gradient at 0, where the prediction is perfect. NaN stays NaN.
    perfect = squared == 0
    norm = jnp.where(perfect, 0, jnp.sqrt(jnp.where(perfect, 1, squared)))
    tiny = jnp.finfo(solution.dtype).tiny
    return norm / jnp.maximum(sample_norms(solution, inside), tiny)


def operator_error(
    prediction: Array, solution: Array, inside: Array, edge: Array, weight: Array
) -> OperatorError:
    """Returns the sums of one batch.

    Args:
      prediction: [B, N].
      solution: [B, N].
      inside: [B, N] bool.
      edge: [B, N] bool, the boundary points among those inside.
      weight: [B] bool or 0/1; samples of weight 0 are ignored, whatever they hold.
    """
    counted = weight != 0
    use, border = inside & counted[:, None], edge & counted[:, None]
    squared = jnp.square(jnp.where(use, prediction - solution, 0))
    ratios = relative_l2(prediction, solution, use)
    return OperatorError(
        samples=jnp.sum(counted, dtype=jnp.int32),
        ratios=jnp.sum(jnp.where(counted, ratios, 0)),
        error=jnp.sum(squared),
        norm=jnp.sum(jnp.square(jnp.where(use, solution, 0))),
        points=jnp.sum(use, dtype=jnp.int32),
        edge_error=jnp.sum(jnp.where(border, squared, 0)),
        edge_points=jnp.sum(border, dtype=jnp.int32),
    )

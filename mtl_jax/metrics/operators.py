"""Errors of predicted solutions: relative L2 two ways, root mean square, at the boundary.

The two relative errors differ and are named apart: `rel_l2_mean` is the mean over samples of
||prediction - solution|| / ||solution||, `rel_l2_global` the ratio of the norms over all samples
together (Frobenius norms), in which samples with large solutions weigh more. Where a set has a
`background` (the air around a heated body), the same two of solution - background stand beside
them, under names that end in `_excess`: a background of the solution's size flatters the first two.
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
      excess_ratios: like `ratios`, relative to solution - background; None without a background.
      excess_norm: sum of the squares of solution - background inside; likewise.
    """

    samples: Array
    ratios: Array
    error: Array
    norm: Array
    points: Array
    edge_error: Array
    edge_points: Array
    excess_ratios: Array | None = None
    excess_norm: Array | None = None

    def compute(self) -> dict[str, float]:
        """Returns `rel_l2_mean`, `rel_l2_global`, `rmse`, and what else there is to say.

        `boundary_rmse` where there are boundary points, `rel_l2_mean_excess` and
        `rel_l2_global_excess` where there is a background. NaN where nothing was counted. The two
        root mean squares have the unit of the solution.
        """
        out = {
            "rel_l2_mean": ratio(self.ratios, self.samples),
            "rel_l2_global": float(np.sqrt(ratio(self.error, self.norm))),
            "rmse": float(np.sqrt(ratio(self.error, self.points))),
        }
        if np.asarray(self.edge_points).sum():
            out["boundary_rmse"] = float(np.sqrt(ratio(self.edge_error, self.edge_points)))
        if self.excess_ratios is not None:
            out["rel_l2_mean_excess"] = ratio(self.excess_ratios, self.samples)
            out["rel_l2_global_excess"] = float(np.sqrt(ratio(self.error, self.excess_norm)))
        return out


def sample_norms(values: Array, inside: Array) -> Array:
    """Returns the L2 norms [B] of values [B, N] over the points of a mask [B, N].

    Where values are 0 throughout, as the error of a perfect prediction, the gradient is 0 too.
    """
    squared = jnp.sum(jnp.square(jnp.where(inside, values, 0)), axis=1)
    # The square root has no gradient at 0. NaN stays NaN.
    zero = squared == 0
    return jnp.where(zero, 0, jnp.sqrt(jnp.where(zero, 1, squared)))


def relative_l2(prediction: Array, solution: Array, inside: Array) -> Array:
    """Returns ||prediction - solution|| / ||solution|| for each sample, over the points inside.

    Args:
      prediction: [B, N].
      solution: [B, N].
      inside: [B, N] bool; what the others hold makes no difference, NaN included.

    Returns:
      [B]; for a solution that is 0 everywhere the error's norm over the smallest normal number.
    """
    tiny = jnp.finfo(solution.dtype).tiny
    error = sample_norms(prediction - solution, inside)
    return error / jnp.maximum(sample_norms(solution, inside), tiny)


def operator_error(
    prediction: Array,
    solution: Array,
    inside: Array,
    edge: Array,
    weight: Array,
    background: float = 0.0,
) -> OperatorError:
    """Returns the sums of one batch.

    Args:
      prediction: [B, N].
      solution: [B, N].
      inside: [B, N] bool.
      edge: [B, N] bool, the boundary points among those inside.
      weight: [B] bool or 0/1; samples of weight 0 are ignored, whatever they hold.
      background: the errors relative to solution - background too; 0 for none.
    """
    counted = weight != 0
    use, border = inside & counted[:, None], edge & counted[:, None]
    squared = jnp.square(jnp.where(use, prediction - solution, 0))
    ratios = relative_l2(prediction, solution, use)
    excess_ratios = excess_norm = None
    if background:
        excess = solution - background
        against = relative_l2(prediction - background, excess, use)
        excess_ratios = jnp.sum(jnp.where(counted, against, 0))
        excess_norm = jnp.sum(jnp.square(jnp.where(use, excess, 0)))
    return OperatorError(
        samples=jnp.sum(counted, dtype=jnp.int32),
        ratios=jnp.sum(jnp.where(counted, ratios, 0)),
        error=jnp.sum(squared),
        norm=jnp.sum(jnp.square(jnp.where(use, solution, 0))),
        points=jnp.sum(use, dtype=jnp.int32),
        edge_error=jnp.sum(jnp.where(border, squared, 0)),
        edge_points=jnp.sum(border, dtype=jnp.int32),
        excess_ratios=excess_ratios,
        excess_norm=excess_norm,
    )

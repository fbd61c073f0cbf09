"""FairGrad: alpha-fair allocation of progress between tasks (Ban and Ji)."""

from __future__ import annotations

from typing import Literal

import jax.numpy as jnp

from mtl_jax.methods.base import Aggregator, Array, Traits, Tree
from mtl_jax.methods.newton import power_equation
from mtl_jax.methods.simplex import min_norm_simplex
from mtl_jax.methods.weighting import gram_aggregator

_SOLVED = 0.1


def fairgrad_weights(gram: Array, alpha: float = 2.0, active: Array | None = None) -> Array:
    """Returns w [T] with G w = w ** (-1 / alpha), or MGDA's weights where there are none.

    No solution exists at Pareto-stationary points (0 is a convex combination of the gradients);
    MGDA's direction is 0 exactly there, and short nearby, where float32 cannot tell. Its weights,
    of sum 1, are meant for a Gram matrix whose diagonal is of order 1. A gradient of length 0 has
    weight 0 and does not take part.
    """
    weights, residual = power_equation(gram, alpha, active=active)
    return jnp.where(residual < _SOLVED, weights, min_norm_simplex(gram, active=active))


def fairgrad(
    alpha: float = 2.0, max_norm: float = 1.0, reduction: Literal["sum", "mean"] = "sum"
) -> Aggregator:
    """Fair resource allocation: w > 0 with G w = w ** (-1 / alpha); d = T J^T w, clipped.

    alpha = 1 is Nash-MTL, alpha to 0 the sum of the gradients, alpha to infinity max-min fairness.

    Source: Ban and Ji, "Fair Resource Allocation in Multi-Task Learning", arXiv 2402.15638, the
    stationarity condition of its alpha-fair objective. alpha = 2 is the value of all the authors'
    run scripts (1 in their classes). Differs from their code: damped Newton on the device instead
    of SciPy's least squares, and MGDA's direction, of the same degree, where the equation has no
    solution.

    Args:
      alpha: fairness exponent, > 0.
      max_norm: the direction is shortened to this length; 0 for off. Unclipped the direction
        scales as |J| ** ((1 - alpha) / (1 + alpha)): small gradients make it long.
      reduction: "sum": times the number of active tasks, as the authors do; "mean": not.

    Raises:
      ValueError: an option out of range.
    """
    if not alpha > 0:
        raise ValueError(f"alpha must be positive, found {alpha}")
    if reduction not in ("sum", "mean"):
        raise ValueError(f"reduction must be 'sum' or 'mean', found {reduction!r}")

    def weights_fn(
        gram: Array, state: Tree, *, losses: Array, active: Array, key: Array
    ) -> tuple[Array, Tree]:
        del losses, key
        weights = fairgrad_weights(gram, alpha, active)
        return (weights * active.sum() if reduction == "sum" else weights), state

    def on_equal(num_tasks: int, norm: float) -> float:
        # T |g|^2 w = w ** (-1 / alpha), d = T w g or T^2 w g.
        weight = (num_tasks * norm**2) ** (-alpha / (1 + alpha))
        return weight * num_tasks ** (2 if reduction == "sum" else 1)

    return gram_aggregator(
        weights_fn,
        traits=Traits(degree=(1 - alpha) / (1 + alpha), on_equal=on_equal),
        max_norm=max_norm,
    )

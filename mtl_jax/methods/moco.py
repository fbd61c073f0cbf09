"""MoCo: MGDA's weights on tracked gradients (Fernando et al.)."""

from __future__ import annotations

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from mtl_jax.methods.base import Aggregator, Array, Traits, Tree
from mtl_jax.methods.elementwise import along, rows_aggregator, zero_rows
from mtl_jax.methods.gram import combine, gram, scale_rows
from mtl_jax.methods.kept_weights import equal_weights, keep, normalised, project
from mtl_jax.methods.prenormalise import row_factors
from mtl_jax.methods.trained import softmax


class MocoState(NamedTuple):
    """State of `moco`.

    Attributes:
      steps: int32, number of steps so far.
      tracked: tree like the task gradients [T, ...], y.
      weights: [T] float32, lambda.
    """

    steps: Array
    tracked: Tree
    weights: Array


def moco(
    beta: float = 0.5,
    gamma: float = 0.1,
    rho: float = 0.0,
    decay: float = 0.5,
    simplex: Literal["softmax", "projection"] = "softmax",
) -> Aggregator:
    """Multi-objective gradient correction: d = Y^T lambda with moving averages Y of the gradients.

    In step k: y_i moves by beta / k^decay of the way to L_i g_i / |g_i|; then lambda descends on
    lambda.(Y Y^T + rho I) lambda / 2 with step gamma / k^decay and is brought back to the simplex.

    Source: Fernando et al., "Mitigating Gradient Bias in Multi-objective Learning: A Provably
    Convergent Stochastic Approach", arXiv 2210.12624, algorithm 1, with the gradient scaling and
    constants of the authors' code (as in LibMTL). That code ends each step of lambda with a
    softmax, which keeps the weights close to equal; the paper, with a projection: see `simplex`.
    Losses count by absolute value, so that a negative one does not turn its gradient around.

    The state is a vector of the shared parameters' size for each task, and starts at 0 as in the
    paper: the first direction is `beta` times a later one. `Info` has no weights: the direction
    is a sum of averages.

    Args:
      beta: step of the averages, in (0, 1].
      gamma: step of lambda, > 0.
      rho: pull of lambda towards equal weights, >= 0.
      decay: exponent of the number of steps by which both steps shrink, >= 0.
      simplex: "softmax" (the authors' code) or "projection" (the paper).

    Raises:
      ValueError: an option out of range.
    """
    if not 0 < beta <= 1:
        raise ValueError(f"beta must be in (0, 1], found {beta}")
    if not gamma > 0:
        raise ValueError(f"gamma must be positive, found {gamma}")
    for name, value in (("rho", rho), ("decay", decay)):
        if not value >= 0:
            raise ValueError(f"{name} must be non-negative, found {value}")
    if simplex not in ("softmax", "projection"):
        raise ValueError(f"simplex must be 'softmax' or 'projection', found {simplex!r}")

    def init(shared: Tree, num_tasks: int) -> MocoState:
        return MocoState(
            jnp.int32(0), zero_rows(shared, num_tasks), equal_weights(shared, num_tasks)
        )

    def rows_fn(
        grads: Tree, state: MocoState, *, losses: Array, active: Array, key: Array
    ) -> tuple[Tree, None, MocoState]:
        del key
        steps = state.steps + 1
        shrink = steps.astype(jnp.float32) ** -decay
        factors = row_factors(grads, losses, active, "l2") * jnp.abs(losses)

        def track(y: Array, g: Array) -> Array:
            target = scale_rows(g.astype(y.dtype), factors)
            moved = y - (beta * shrink).astype(y.dtype) * (y - target)
            return jnp.where(along(active, y), moved, y)

        tracked = jax.tree.map(track, state.tracked, grads)
        inner = gram(tracked)
        w = normalised(state.weights.astype(inner.dtype), active)
        slope = jnp.matmul(jnp.where(active[None, :], inner, 0), w) + rho * w
        moved = w - gamma * shrink * slope
        w = softmax(moved, active) if simplex == "softmax" else project(moved, active)
        next_state = MocoState(steps, tracked, keep(state.weights, w, active))
        return combine(tracked, w), None, next_state

    return rows_aggregator(
        rows_fn,
        init=init,
        traits=Traits(degree=0.0, on_equal=lambda num_tasks, norm: beta / norm),
    )

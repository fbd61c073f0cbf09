"""SDMGrad: MGDA regularised towards the mean gradient (Xiao, Ban and Ji)."""

from __future__ import annotations

import jax.numpy as jnp
from jax import lax

from mtl_jax.methods.base import Aggregator, Array, Tree
from mtl_jax.methods.kept_weights import equal_weights, keep, normalised, project
from mtl_jax.methods.linalg import highest_precision
from mtl_jax.methods.trained import share
from mtl_jax.methods.weighting import gram_aggregator

_MOMENTUM = 0.5


@highest_precision
def sdmgrad_steps(
    gram: Array,
    weights: Array,
    lam: float = 0.3,
    lr: float = 10.0,
    iterations: int = 20,
    active: Array | None = None,
) -> Array:
    """Returns w [T] after projected descent on |J^T w + lam g0|^2 / 2 over the simplex.

    Args:
      gram: [T, T], divided here by the square of the gradients' mean length.
      weights: [T] where to start, on the simplex of the active tasks.
      lam: weight of the mean gradient g0.
      lr: learning rate; the momentum is 0.5, from rest.
      iterations: number of steps.
      active: [T] bool; None for all.
    """
    active = jnp.ones(gram.shape[0], bool) if active is None else active
    equal = share(active, gram.dtype)
    length = (equal * jnp.sqrt(jnp.where(active, jnp.diag(gram), 0))).sum()
    scaled = gram / jnp.where(length > 0, length * length, 1)

    def step(_: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        w, speed = carry
        speed = _MOMENTUM * speed + jnp.matmul(scaled, w + lam * equal)
        return project(w - lr * speed, active), speed

    return lax.fori_loop(0, iterations, step, (weights, jnp.zeros_like(weights)))[0]


def sdmgrad(lam: float = 0.3, lr: float = 10.0, iterations: int = 20) -> Aggregator:
    """Direction-oriented multi-objective descent: d = (J^T w + lam g0) / (1 + lam).

    w, on the simplex and kept from step to step, descends on |J^T w + lam g0| in each of them.
    Its optimum is MGDA's for the shifted gradients g_i + lam g0: MGDA at lam = 0, the mean
    gradient for large lam.

    Source: Xiao, Ban and Ji, "Direction-oriented Multi-objective Learning: Simple and Provable
    Stochastic Algorithms", arXiv 2305.18409, algorithm 1, with the scaling and momentum of the
    authors' code. One batch: the paper takes three independent ones, so that the estimate of the
    gradient of w has no bias; the authors' code, by an aliased buffer, uses one too. An
    aggregator sees the gradients of one batch only.

    Args:
      lam: weight of the mean gradient, >= 0 (0.3; 0.6 in the authors' reinforcement learning).
      lr: learning rate of w (10 in the authors' code, 5 in LibMTL). For gradients of one length
        steps beyond 2 / T may go from corner to corner instead of converging; so does theirs.
      iterations: steps of w in each step.

    Raises:
      ValueError: an option out of range.
    """
    if not lam >= 0:
        raise ValueError(f"lam must be non-negative, found {lam}")
    if not lr > 0:
        raise ValueError(f"lr must be positive, found {lr}")
    if not iterations >= 1:
        raise ValueError(f"iterations must be at least 1, found {iterations}")

    def weights_fn(
        gram: Array, state: Tree, *, losses: Array, active: Array, key: Array
    ) -> tuple[Array, Tree]:
        del losses, key
        first = normalised(state.astype(gram.dtype), active)
        w = sdmgrad_steps(gram, first, lam, lr, iterations, active)
        return (w + lam * share(active, gram.dtype)) / (1 + lam), keep(state, w, active)

    return gram_aggregator(weights_fn, init=equal_weights)

"""CAGrad: the mean gradient, bent within a ball towards the worst-off task (Liu et al.)."""

from __future__ import annotations

import jax.numpy as jnp

from mtl_jax.methods.base import Aggregator, Array, Traits, Tree
from mtl_jax.methods.linalg import dot, highest_precision, product
from mtl_jax.methods.simplex import min_norm_simplex
from mtl_jax.methods.weighting import gram_aggregator


@highest_precision
def cagrad_weights(
    gram: Array, c: float = 0.4, rescale: int = 1, active: Array | None = None
) -> Array:
    """Returns CAGrad's weights [T] for a Gram matrix [T, T] of any scale; see `cagrad`."""
    active = jnp.ones(gram.shape[0], bool) if active is None else active
    count = jnp.maximum(active.sum(), 1)
    mean = active.astype(gram.dtype) / count
    if not c:
        return mean
    inner = product(gram, mean)  # g_i . g0
    radius = c * jnp.sqrt(jnp.maximum(dot(mean, inner), 0))
    linear = jnp.where(radius > 0, inner / jnp.where(radius > 0, radius, 1), 0)
    w = min_norm_simplex(gram, linear, active=active)
    square = dot(w, product(gram, w))
    # Below rounding, g_w is 0 (a Pareto-stationary point) and has no direction: d is then g0.
    rounding = jnp.finfo(gram.dtype).eps * dot(w * w, jnp.diag(gram))
    some = square > rounding
    bend = jnp.where(some, radius / jnp.sqrt(jnp.where(some, square, 1)), 0)
    return (mean + bend * w) / (1.0, 1 + c * c, 1 + c)[rescale]


def cagrad(c: float = 0.4, rescale: int = 1) -> Aggregator:
    """Conflict-averse gradient descent: max over |d - g0| <= c |g0| of min_i g_i.d.

    With g0 the mean gradient and w = argmin over the simplex of g_w.g0 + c |g0| |g_w|,
    g_w = J^T w: d = g0 + c |g0| g_w / |g_w|. At c = 0 the mean; towards MGDA as c grows.

    Source: Liu et al., "Conflict-Averse Gradient Descent for Multi-task Learning", arXiv
    2110.14048, algorithm 1. Differs from the authors' code: the dual is solved exactly (they call
    SLSQP with absolute offsets 1e-8), and no factor T (a copy of theirs multiplies by it).

    Args:
      c: relative radius of the ball, >= 0.
      rescale: 0: d as it is; 1 (the authors' default): d / (1 + c^2); 2: d / (1 + c).

    Raises:
      ValueError: a negative c or another `rescale`.
    """
    if not c >= 0:
        raise ValueError(f"c must be non-negative, found {c}")
    if rescale not in (0, 1, 2):
        raise ValueError(f"rescale must be 0, 1 or 2, found {rescale!r}")

    def weights_fn(
        gram: Array, state: Tree, *, losses: Array, active: Array, key: Array
    ) -> tuple[Array, Tree]:
        del losses, key
        return cagrad_weights(gram, c, rescale, active), state

    # Divided by the length in case of the mean: c = 0 has rescale factor 1 in all three.
    factor = (1 + c) / (1.0, 1 + c * c, 1 + c)[rescale]
    return gram_aggregator(
        weights_fn,
        traits=Traits(on_equal=lambda num_tasks, norm: factor, linear=c == 0),
    )

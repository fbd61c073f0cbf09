"""MoDo: one small step of MGDA's weights for every step of the parameters (Chen et al.)."""

from __future__ import annotations

import jax.numpy as jnp

from mtl_jax.methods.base import Aggregator, Array, Tree
from mtl_jax.methods.kept_weights import equal_weights, keep, normalised, project
from mtl_jax.methods.weighting import gram_aggregator


def modo(gamma: float = 1e-3, rho: float = 0.1) -> Aggregator:
    """Multi-objective gradient with double sampling: d = J^T w, w one projected step further.

    w <- P(w - gamma (G w + rho w)), P the projection on the simplex; w starts equal.

    Source: Chen et al., "Three-Way Trade-Off in Multi-Objective Learning: Optimization,
    Generalization and Conflict-Avoidance", arXiv 2305.20057, algorithm 1. Two deliberate
    differences. One batch: the paper (and its code) takes G = J_1 J_2^T and J of three
    independent ones; an aggregator sees one. G is divided by the gradients' mean squared length,
    so that `gamma` and `rho` do not depend on the units of the losses.

    Args:
      gamma: learning rate of w, > 0.
      rho: pull towards equal weights, >= 0.

    Raises:
      ValueError: an option out of range.
    """
    if not gamma > 0:
        raise ValueError(f"gamma must be positive, found {gamma}")
    if not rho >= 0:
        raise ValueError(f"rho must be non-negative, found {rho}")

    def weights_fn(
        gram: Array, state: Tree, *, losses: Array, active: Array, key: Array
    ) -> tuple[Array, Tree]:
        del losses, key
        w = normalised(state.astype(gram.dtype), active)
        w = project(w - gamma * (jnp.matmul(gram, w) + rho * w), active)
        return w, keep(state, w, active)

    return gram_aggregator(weights_fn, init=equal_weights)

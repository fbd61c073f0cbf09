"""MGDA: the direction that is steepest for the worst-off task (Sener and Koltun)."""

from __future__ import annotations

from mtl_jax.methods.base import Aggregator, Array, Tree
from mtl_jax.methods.simplex import min_norm_simplex
from mtl_jax.methods.weighting import gram_aggregator


def mgda_weights(gram: Array, active: Array | None = None) -> Array:
    """Returns MGDA's weights [T] for a Gram matrix [T, T] of any scale."""
    return min_norm_simplex(gram, active=active)


def mgda() -> Aggregator:
    """Multiple-gradient descent: d = J^T w, w = argmin over the simplex of |J^T w|.

    Source: Sener and Koltun, "Multi-Task Learning as Multi-Objective Optimization", arXiv
    1810.04650, equation 3; the row scalings of their code are `prenormalise`. Differs from it:
    the min-norm point is exact (the authors stop Frank-Wolfe after 250 steps; copies of it clip
    the weights of two tasks to [0.001, 0.999]), and weights sum to 1 (copies multiply by T or 40).
    """

    def weights_fn(
        gram: Array, state: Tree, *, losses: Array, active: Array, key: Array
    ) -> tuple[Array, Tree]:
        del losses, key
        return mgda_weights(gram, active), state

    return gram_aggregator(weights_fn)

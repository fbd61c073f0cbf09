"""IMTL-G: a direction with equal projections on all gradients (Liu et al.)."""

from __future__ import annotations

import jax.numpy as jnp

from mtl_jax.methods.base import Aggregator, Array, Tree
from mtl_jax.methods.linalg import highest_precision, pseudo_inverse, unit_diagonal
from mtl_jax.methods.weighting import gram_aggregator


@highest_precision
def imtl_g_weights(gram: Array, active: Array | None = None) -> Array:
    """Returns IMTL-G's weights [T] for a Gram matrix [T, T] of any scale; see `imtl_g`."""
    eps = jnp.finfo(gram.dtype).eps
    cosines, inverse_norms = unit_diagonal(gram, active)
    live = inverse_norms > 0
    # d.u_i = 1 for all unit gradients u_i: C y = 1, w = y / |g|.
    inverse, vectors = pseudo_inverse(cosines, live.sum())
    v = inverse_norms * (vectors @ (inverse * (vectors.T @ live.astype(gram.dtype))))
    total = v.sum()
    # The sum cancels where the weights blow up: at rounding level it means nothing.
    sound = jnp.abs(total) > 10 * gram.shape[0] * eps * jnp.abs(v).sum()
    return jnp.where(sound, v / jnp.where(sound, total, 1), 0)


def imtl_g() -> Aggregator:
    """Impartial multi-task learning, the gradient part: d.u_i equal for all i, weights of sum 1.

    Source: Liu et al., "Towards Impartial Multi-task Learning", ICLR 2021, section 3.1. Weights may
    be negative, and grow without bound where no such direction with sum 1 exists; there (at
    rounding level) the direction is 0.

    Differs from the authors' formula only for linearly dependent gradients, where theirs does not
    exist: the equations are solved for weights of the *unit* gradients, in the least-squares
    sense with minimum norm. That keeps their conditioning free of the gradients' lengths. A
    gradient of length 0 has no direction to project on and is left out.
    """

    def weights_fn(
        gram: Array, state: Tree, *, losses: Array, active: Array, key: Array
    ) -> tuple[Array, Tree]:
        del losses, key
        return imtl_g_weights(gram, active), state

    return gram_aggregator(weights_fn)

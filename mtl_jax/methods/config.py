"""ConFIG: the direction with equal cosines to all gradients (Liu et al.)."""

from __future__ import annotations

import jax.numpy as jnp

from mtl_jax.methods.base import Aggregator, Array, Traits, Tree
from mtl_jax.methods.linalg import highest_precision, pseudo_inverse, unit_diagonal
from mtl_jax.methods.weighting import gram_aggregator


@highest_precision
def config_weights(gram: Array, active: Array | None = None) -> Array:
    """Returns ConFIG's weights [T] for a Gram matrix [T, T] of any scale; see `config`."""
    eps = jnp.finfo(gram.dtype).eps
    cosines, inverse_norms = unit_diagonal(gram, active)
    live = inverse_norms > 0
    count = live.sum()
    inverse, vectors = pseudo_inverse(cosines, count)
    # In the eigenbasis, where nothing cancels: c = V^T 1, y = C^+ 1, and |U^T y|^2 = 1.C^+ 1.
    c = vectors.T @ live.astype(gram.dtype)
    y = vectors @ (inverse * c)
    kept = jnp.where(inverse > 0, c, 0)
    square = (inverse * c * c).sum()
    # u.u_i = (C y)_i / |U^T y|: the projection of 1 onto the range of C.
    reach = vectors @ kept
    # Rounding is all that is left of 1 where no direction has a positive sum of cosines.
    sound = jnp.sqrt((kept * kept).sum()) > 10 * gram.shape[0] * eps * jnp.sqrt(
        jnp.maximum(count, 1).astype(gram.dtype)
    )
    norms = jnp.where(live, 1 / jnp.where(live, inverse_norms, 1), 0)
    factor = jnp.where(sound, (norms * reach).sum() / jnp.where(sound, square, 1), 0)
    return factor * y * inverse_norms


def config() -> Aggregator:
    """Conflict-free inverse gradients: u with equal cosines to all gradients, |d| = sum_i g_i.u.

    With U the unit gradients: u = U^+ 1 / |U^+ 1|, d = (sum_i g_i.u) u.

    Source: Liu, Chu and Thuerey, "ConFIG: Towards Conflict-free Training of Physics Informed
    Neural Networks", arXiv 2408.11104, section 3. The pseudo-inverse is taken of the T x T matrix
    of cosines: U^+ = U^T (U U^T)^+. IMTL-G has the same direction and weights of sum 1. Where no
    direction exists (opposite gradients; at rounding level) d is 0; a gradient of length 0 has no
    cosine and is left out. The authors' momentum variant is not included.
    """

    def weights_fn(
        gram: Array, state: Tree, *, losses: Array, active: Array, key: Array
    ) -> tuple[Array, Tree]:
        del losses, key
        return config_weights(gram, active), state

    return gram_aggregator(
        weights_fn, traits=Traits(on_equal=lambda num_tasks, norm: float(num_tasks))
    )

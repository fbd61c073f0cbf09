"""Rows of the task Jacobian rescaled before they are aggregated."""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp

from mtl_jax.methods.base import Aggregator, Array, Info, Tree
from mtl_jax.methods.gram import scale_rows, squared_norms

How = Literal["none", "l2", "loss", "loss+"]


def row_factors(grads: Tree, losses: Array, active: Array, how: How) -> Array:
    """Returns the [T] factors that `prenormalise` multiplies the gradients by; 0 for absent tasks.

    See `factors_of`.
    """
    squares = squared_norms(grads, active.shape[0]) if how in ("l2", "loss+") else losses
    return factors_of(squares, losses, active, how)


def factors_of(squares: Array, losses: Array, active: Array, how: How) -> Array:
    """Returns the factors [T] from squared norms [T], which "loss" does not look at.

    A loss or norm of 0 is replaced by machine epsilon times the mean over the active tasks, so
    that a factor is always finite (1 where all of them are 0).
    """

    def inverse(values: Array) -> Array:
        mean = jnp.where(active, values, 0).sum() / jnp.maximum(active.sum(), 1)
        floor = jnp.where(mean > 0, jnp.finfo(values.dtype).eps * mean, 1)
        return 1 / jnp.maximum(values, floor)

    factors = active.astype(jnp.promote_types(losses.dtype, jnp.float32))
    if how in ("l2", "loss+"):
        factors = factors * inverse(jnp.sqrt(squares))
    if how in ("loss", "loss+"):
        factors = factors * inverse(jnp.abs(losses))
    return factors


def prenormalise(aggregator: Aggregator, how: How = "none") -> Aggregator:
    """Wraps `aggregator` so that it sees g_i / |g_i| ("l2"), g_i / L_i ("loss") or both ("loss+").

    These are the `gradient normalizers` of Sener and Koltun's MGDA code (arXiv 1810.04650); the
    FS-MTL authors use "l2" on NYUv2, for gradients and flat parts alike. The direction is not
    scaled back. `Info` is in terms of the gradients as they came. Losses count by absolute value.

    The traits change: with "l2" and "loss+" the degree is 0 and nothing is linear any more;
    `on_equal` holds for losses of 1.

    Raises:
      ValueError: an unknown `how`.
    """
    if how not in ("none", "l2", "loss", "loss+"):
        raise ValueError(f"how must be 'none', 'l2', 'loss' or 'loss+', found {how!r}")
    if how == "none":
        return aggregator

    def update(
        grads: Tree, state: Tree, *, losses: Array, active: Array, key: Array
    ) -> tuple[Tree, Tree, Info]:
        if not jax.tree.leaves(grads):
            return aggregator.update(grads, state, losses=losses, active=active, key=key)
        factors = row_factors(grads, losses, active, how)
        direction, state, info = aggregator.update(
            scale_rows(grads, factors), state, losses=losses, active=active, key=key
        )
        if info.weights is not None:
            info = info._replace(weights=info.weights * factors)
        if info.gram is not None:
            back = jnp.where(active, 1 / jnp.where(active, factors, 1), 0)
            info = info._replace(gram=info.gram * back[:, None] * back[None, :])
        return direction, state, info

    inner_weights = aggregator.gram_weights

    def gram_weights(
        gram: Array, state: Tree, losses: Array, active: Array, key: Array
    ) -> tuple[Array, Tree]:
        assert inner_weights is not None
        factors = factors_of(jnp.diag(gram), losses, active, how)
        scaled = gram * factors[:, None] * factors[None, :]
        weights, state = inner_weights(scaled, state, losses, active, key)
        return weights * factors, state

    traits = aggregator.traits
    if how in ("l2", "loss+"):
        inner = traits.on_equal
        traits = traits._replace(
            degree=0.0,
            on_equal=lambda num_tasks, norm: inner(num_tasks, 1.0) / norm,
            linear=False,
        )
    by_gram = None if inner_weights is None else gram_weights
    return Aggregator(aggregator.init, update, traits, by_gram)

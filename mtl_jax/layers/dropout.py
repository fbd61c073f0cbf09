"""Dropout that follows from each example's own key."""

from __future__ import annotations

import jax
import jax.numpy as jnp

Array = jax.Array


def dropout(x: Array, keys: Array | None, rate: float, layer: int) -> Array:
    """Drops values of x [B, ...] example by example; keys None for evaluation.

    A mask follows from the example's own key and the layer's number, so that it does not depend
    on how a batch is spread over devices, and both passes of flat regions draw the same.
    """
    if keys is None or not rate:
        return x

    def one(row: Array, key: Array) -> Array:
        keep = jax.random.bernoulli(jax.random.fold_in(key, layer), 1 - rate, row.shape)
        return jnp.where(keep, row / (1 - rate), 0)

    return jax.vmap(one)(x, keys)

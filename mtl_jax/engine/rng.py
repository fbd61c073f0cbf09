"""Keys are functions of (seed, step, stream): none is stored, so a resumed run is the same run."""

from __future__ import annotations

import zlib

import jax
import jax.numpy as jnp

Array = jax.Array


def key_for(seed: int, step: Array | int, stream: str) -> Array:
    """Returns the key of one step of one named stream ("init", "train", "method", ...)."""
    root = jax.random.fold_in(jax.random.key(seed), zlib.crc32(stream.encode()) & 0x7FFFFFFF)
    return jax.random.fold_in(root, step)


def example_keys(key: Array, index: Array) -> Array:
    """Returns one key an example from its position [B] in the global batch.

    Dropout drawn from these is the same on one device and on many, with and without
    micro-batches.
    """
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, jnp.asarray(index))

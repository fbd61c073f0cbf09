"""Dense layers, stacks of them and layer normalisation as plain functions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from mtl_jax.layers.dropout import dropout
from mtl_jax.layers.precision import wide

Array = jax.Array
Tree = Any

_kernel = nn.initializers.glorot_uniform()


def init_dense(key: Array, inputs: int, outputs: int) -> dict[str, Array]:
    """Returns {"kernel" [inputs, outputs], "bias" [outputs]}: Glorot uniform, zeros."""
    return {"kernel": _kernel(key, (inputs, outputs)), "bias": jnp.zeros(outputs)}


def dense(params: Tree, x: Array) -> Array:
    """Maps x [..., inputs] to [..., outputs]."""
    return along_last(x @ params["kernel"], params["bias"])


def along_last(x: Array, bias: Array) -> Array:
    """Adds a bias [K] to x [..., K]."""
    return x + bias.reshape((1,) * (x.ndim - 1) + bias.shape)


def normalise(x: Array, eps: float = 1e-6) -> Array:
    """Returns x with zero mean and unit variance over the last axis: LayerNorm without scale.

    Statistics are at least float32; the result is of the dtype of x.
    """
    own = wide(x)
    centred = own - own.mean(-1, keepdims=True)
    scaled = centred * jax.lax.rsqrt(jnp.square(centred).mean(-1, keepdims=True) + eps)
    return scaled.astype(x.dtype)


def init_mlp(key: Array, inputs: int, widths: Sequence[int]) -> list[dict[str, Array]]:
    """Returns the layers of an MLP [inputs] -> widths[0] -> ... -> widths[-1]."""
    sizes = [inputs, *widths]
    keys = jax.random.split(key, max(len(widths), 1))
    return [init_dense(k, a, b) for k, a, b in zip(keys, sizes[:-1], sizes[1:], strict=False)]


def mlp(
    params: Sequence[Tree], x: Array, keys: Array | None = None, rate: float = 0.0, site: int = 0
) -> Array:
    """Applies dense, ReLU and dropout, layer by layer, to x [B, inputs].

    Args:
      params: of `init_mlp`.
      x: [B, inputs].
      keys: one an example for dropout; None for evaluation.
      rate: of dropout.
      site: number of the first layer, so that no two layers of a network draw the same mask.
    """
    for number, layer in enumerate(params):
        x = dropout(jax.nn.relu(dense(layer, x)), keys, rate, site + number)
    return x


def init_experts(key: Array, count: int, inputs: int, widths: Sequence[int]) -> Tree:
    """Returns the parameters of `count` equal MLPs, each leaf [count, ...]."""
    return jax.vmap(lambda k: init_mlp(k, inputs, widths))(jax.random.split(key, count))


def experts(params: Tree, x: Array, keys: Array | None, rate: float, site: int) -> Array:
    """Applies all experts to x [B, inputs]: [count, B, width]. Their dropout masks are equal."""
    return jax.vmap(lambda own: mlp(own, x, keys, rate, site))(params)


def mix(gate: Tree, x: Array, outputs: Array) -> Array:
    """Weighs the experts' outputs [count, B, width] by softmax(gate(x)) [B, count]: [B, width]."""
    weights = jax.nn.softmax(dense(gate, x), axis=-1)
    return jnp.einsum("bk,kbw->bw", weights, outputs)

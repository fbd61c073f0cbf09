"""Networks over sequences: LSTMs, a transformer encoder and attention pooling, all with masks.

Sequences are [B, L, D] with a mask [B, L], true where there is something. Padding may stand
anywhere; behind the last valid place it changes nothing. B examples, L places, D width, H units.

LSTM. Gates i, f, g, o with forget bias 1 at first; the input part of all places is one matrix
product before the loop. The derivative is written by hand (`jax.custom_vjp`): it keeps the gates,
and one matrix product outside of the loop makes the gradient of the recurrent matrix. That took
about a sixth less processor time than the derivative of `lax.scan` (256 x 30 places, 64 units,
two cores). It can be differentiated again in reverse; it has no forward mode. The loop is not
unrolled: on the CPU that made it slower and its compilation far longer.
Attention pooling is that of Kitada, Iyatomi and Seki (KDD 2019), the ancestor of the survival
network of 2022; that the network of 2022 pools so is our choice.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from mtl_jax.layers.dropout import dropout
from mtl_jax.layers.nets import dense, init_dense, normalise
from mtl_jax.layers.precision import wide

Array = jax.Array
Tree = Any

FAR = -1e9  # finite: a row in which everything is masked stays finite
FEED_FORWARD = 4  # hidden width of a transformer layer, in widths

_kernel = nn.initializers.glorot_uniform()
_orthogonal = nn.initializers.orthogonal()


def init_lstm(key: Array, inputs: int, hidden: int) -> dict[str, Array]:
    """Returns {"input" [inputs, 4 H], "state" [H, 4 H], "bias" [4 H]}, gates i, f, g, o.

    Input matrices are Glorot uniform and recurrent ones orthogonal, each gate by itself.
    """
    keys = jax.random.split(key, 8)
    zeros, ones = jnp.zeros(hidden), jnp.ones(hidden)
    return {
        "input": jnp.concatenate([_kernel(k, (inputs, hidden)) for k in keys[:4]], axis=1),
        "state": jnp.concatenate([_orthogonal(k, (hidden, hidden)) for k in keys[4:]], axis=1),
        "bias": jnp.concatenate([zeros, ones, zeros, zeros]),
    }


def lstm(params: Tree, x: Array, mask: Array, reverse: bool = False) -> Array:
    """Runs an LSTM over x from a state of zeros.

    Args:
      params: of `init_lstm`.
      x: [B, L, D]; values at masked places do not matter as long as they are finite.
      mask: [B, L] bool or 0 and 1; masked places leave the state as it is.
      reverse: from the last place to the first.

    Returns:
      [B, L, H] outputs. A masked place repeats the output before it (behind it, for `reverse`),
      zeros where there is none; the final state is thus at place -1 (0, for `reverse`).
    """
    batch, length, width = x.shape
    # sigmoid(z) = (1 + tanh(z / 2)) / 2: with the halves in the weights one tanh makes all gates.
    half = jnp.array([0.5, 0.5, 1.0, 0.5], params["bias"].dtype)
    half = jnp.repeat(half, params["bias"].shape[0] // 4)[None]
    steps = jnp.swapaxes(x, 0, 1).reshape(length * batch, width)
    z = steps @ (params["input"] * half) + params["bias"][None] * half
    z = z.reshape(length, batch, z.shape[-1])
    live = jnp.swapaxes(mask, 0, 1)[..., None] > 0
    return jnp.swapaxes(_recur(z, params["state"] * half, live, reverse), 0, 1)


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def _recur(z: Array, state: Array, live: Array, reverse: bool) -> Array:
    """Outputs [L, B, H] for z [L, B, 4 H], its sigmoid gates halved, and live [L, B, 1]."""
    return _recur_forward(z, state, live, reverse)[0]


def _gates(tanhs: Array) -> tuple[Array, Array, Array, Array]:
    i, f, g, o = jnp.split(tanhs, 4, axis=-1)
    return 0.5 + 0.5 * i, 0.5 + 0.5 * f, g, 0.5 + 0.5 * o


def _recur_forward(z: Array, state: Array, live: Array, reverse: bool) -> tuple[Array, Any]:
    def step(carry: Any, now: Any) -> Any:
        (c, h), (z, live) = carry, now
        tanhs = jnp.tanh(z + h @ state)
        i, f, g, o = _gates(tanhs)
        new = f * c + i * g
        c, h = jnp.where(live, new, c), jnp.where(live, o * jnp.tanh(new), h)
        return (c, h), (h, c, tanhs)

    start = jnp.zeros((z.shape[1], state.shape[0]), z.dtype)
    _, (h, c, tanhs) = jax.lax.scan(step, (start, start), (z, live), reverse=reverse)
    return h, (h, c, tanhs, state, live)


def _recur_backward(reverse: bool, kept: Any, d_out: Array) -> tuple[Array, Array, None]:
    h, c, tanhs, state, live = kept
    transposed = state.T

    def before(x: Array) -> Array:
        zero = jnp.zeros_like(x[:1])
        parts = [x[1:], zero] if reverse else [zero, x[:-1]]
        return jnp.concatenate(parts)

    def step(carry: Any, now: Any) -> Any:
        (dc, dh), (d_out, tanhs, c, c_before, live) = carry, now
        dh = dh + d_out
        i, f, g, o = _gates(tanhs)
        tanh_c = jnp.tanh(c)
        d_new = dc + dh * o * (1 - tanh_c * tanh_c)
        # With respect to half its logit a sigmoid s has the derivative 2 s (1 - s).
        dz = jnp.concatenate(
            [
                d_new * g * (2 * i * (1 - i)),
                d_new * c_before * (2 * f * (1 - f)),
                d_new * i * (1 - g * g),
                dh * tanh_c * (2 * o * (1 - o)),
            ],
            axis=-1,
        )
        dz = jnp.where(live, dz, 0)
        return (jnp.where(live, d_new * f, dc), dz @ transposed + jnp.where(live, 0, dh)), dz

    start = jnp.zeros_like(d_out[0])
    past = (d_out, tanhs, c, before(c), live)
    _, dz = jax.lax.scan(step, (start, start), past, reverse=not reverse)
    flat = dz.reshape(-1, dz.shape[-1])
    return dz, before(h).reshape(-1, h.shape[-1]).T @ flat, None


_recur.defvjp(_recur_forward, _recur_backward)


def init_bilstm(key: Array, inputs: int, hidden: int) -> dict[str, Tree]:
    """Returns two LSTMs, {"forward", "backward"}."""
    a, b = jax.random.split(key)
    return {"forward": init_lstm(a, inputs, hidden), "backward": init_lstm(b, inputs, hidden)}


def bilstm(params: Tree, x: Array, mask: Array) -> Array:
    """Runs one LSTM from the left and one from the right over x [B, L, D]: [B, L, 2 H].

    The one from the right starts at the last valid place, since masked places carry its zeros.
    """
    both = lstm(params["forward"], x, mask), lstm(params["backward"], x, mask, reverse=True)
    return jnp.concatenate(both, axis=-1)


def init_transformer(key: Array, width: int, layers: int, length: int | None = None) -> Tree:
    """Returns the parameters of `transformer`.

    Args:
      key: to draw them.
      width: D.
      layers: how many.
      length: the longest sequence, to learn a vector for every position; None for sinusoids.
    """

    def one(key: Array) -> Tree:
        a, b, c, d = jax.random.split(key, 4)
        return {
            "norm_attention": _init_norm(width),
            "qkv": init_dense(a, width, 3 * width),
            "attended": init_dense(b, width, width),
            "norm_mlp": _init_norm(width),
            "up": init_dense(c, width, FEED_FORWARD * width),
            "down": init_dense(d, FEED_FORWARD * width, width),
        }

    keys = jax.random.split(key, layers + 1)
    params: dict[str, Any] = {"layers": [one(k) for k in keys[1:]], "norm": _init_norm(width)}
    if length is not None:
        params["positions"] = 0.02 * jax.random.normal(keys[0], (length, width))
    return params


def transformer(
    params: Tree,
    x: Array,
    mask: Array,
    heads: int,
    keys: Array | None = None,
    rate: float = 0.0,
    site: int = 0,
) -> Array:
    """Encodes x by layers that normalise first (pre-LN), with GELU.

    Args:
      params: of `init_transformer`.
      x: [B, L, D] finite.
      mask: [B, L]; nothing attends to a masked place.
      heads: a divisor of D.
      keys: one an example for dropout of what a layer adds; None for evaluation.
      rate: of dropout.
      site: number of the first dropout; a layer takes two.

    Returns:
      [B, L, D] normalised, zeros at masked places.

    Raises:
      ValueError: heads that do not divide D, or a sequence longer than the learned positions.
    """
    _, length, width = x.shape
    if width % heads:
        raise ValueError(f"width {width} is no multiple of {heads} heads")
    if "positions" not in params:
        places = sinusoids(length, width)
    elif length <= len(params["positions"]):
        places = params["positions"][:length]
    else:
        raise ValueError(f"length {length}; positions are learned up to {len(params['positions'])}")
    x = x + places[None].astype(x.dtype)
    for number, layer in enumerate(params["layers"]):
        here = site + 2 * number
        added = _attend(layer, _norm(layer["norm_attention"], x), mask, heads)
        x = x + dropout(added, keys, rate, here)
        up = jax.nn.gelu(dense(layer["up"], _norm(layer["norm_mlp"], x)))
        x = x + dropout(dense(layer["down"], up), keys, rate, here + 1)
    return jnp.where(mask[..., None] > 0, _norm(params["norm"], x), 0)


def sinusoids(length: int, width: int) -> Array:
    """Positions [length, width] of Vaswani et al. (2017), all sines before all cosines."""
    pairs = (width + 1) // 2
    rates = jnp.exp(jnp.arange(pairs) * (-math.log(10000.0) / pairs))
    angles = jnp.arange(length)[:, None] * rates[None]
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)[:, :width]


def _init_norm(width: int) -> dict[str, Array]:
    return {"scale": jnp.ones(width), "bias": jnp.zeros(width)}


def _norm(params: Tree, x: Array) -> Array:
    scale, bias = (params[name].reshape(1, 1, -1) for name in ("scale", "bias"))
    return normalise(x) * scale + bias


def _attend(layer: Tree, x: Array, mask: Array, heads: int) -> Array:
    batch, length, width = x.shape
    qkv = dense(layer["qkv"], x).reshape(batch, length, 3, heads, width // heads)
    q, k, v = jnp.moveaxis(qkv, 2, 0)
    scores = wide(jnp.einsum("bihd,bjhd->bhij", q, k)) / math.sqrt(width // heads)
    scores += jnp.where(mask > 0, 0.0, FAR)[:, None, None]
    weights = jax.nn.softmax(scores, axis=-1).astype(v.dtype)
    out = jnp.einsum("bhij,bjhd->bihd", weights, v).reshape(batch, length, width)
    return dense(layer["attended"], out)


def init_attention_pool(key: Array, width: int, hidden: int) -> Tree:
    """Returns {"hidden": a linear map [width] -> [hidden], "query" [hidden]}."""
    a, b = jax.random.split(key)
    query = jax.random.normal(b, (hidden,)) / math.sqrt(hidden)
    return {"hidden": init_dense(a, width, hidden), "query": query}


def attention_pool(params: Tree, h: Array, mask: Array) -> tuple[Array, Array]:
    """Averages h by softmax(query . tanh(dense(h))) over valid places (Kitada et al., KDD 2019).

    Args:
      params: of `init_attention_pool`.
      h: [B, L, D] finite.
      mask: [B, L].

    Returns:
      ([B, D], [B, L] weights); a row adds to 1, or is 0 throughout where nothing is valid.
    """
    scores = (jnp.tanh(dense(params["hidden"], h)) @ params["query"]).astype(jnp.float32)
    valid = mask > 0
    scores = jnp.where(valid, scores, FAR)
    top = jax.lax.stop_gradient(scores.max(-1, keepdims=True))
    raw = jnp.where(valid, jnp.exp(scores - top), 0)
    # With a valid place the sum is at least 1; without one the result is 0 / 1.
    weights = (raw / jnp.maximum(raw.sum(-1, keepdims=True), 1)).astype(h.dtype)
    return (h * weights[..., None]).sum(1), weights

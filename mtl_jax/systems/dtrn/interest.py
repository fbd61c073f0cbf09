"""TIM: a transformer over behaviour sequences, conditioned on task and behaviour type.

One transformer serves every pair of a task and a behaviour type; what differs between pairs is
the scale and shift of its layer normalisations, which a small network makes from an embedding of
the task and one of the behaviour type (DTRN, task-specific interest module). That much is the
paper's. Widths, pre-normalisation, the pooling and the folding are ours.

Shapes: S behaviour types, B examples, L events, D width, H heads, d the width of an interest.

Folding. gamma * xhat + beta in front of a matrix W is xhat (diag(gamma) W) + beta W: the condition
moves into the small matrix, xhat is normalised once for all tasks, and the layer is one matrix
product over all B * L tokens a behaviour type. `fold=False` computes it as written, for tests.
"""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from mtl_jax.layers.dropout import dropout
from mtl_jax.layers.nets import along_last, dense, init_dense, normalise
from mtl_jax.layers.precision import wide

Array = jax.Array
Tree = Any
Conditioning = Literal["hyper", "table", "none", "separate"]
Pool = Literal["target", "mean", "cand_token"]

FAR = -1e9  # finite: a row in which everything is masked stays finite
SITES = 2  # normalisations a layer: before attention, before the feed-forward part
FEED_FORWARD = 2  # its hidden width, in widths
# On the CPU a product and a sum beat a batched matrix product up to about this many numbers a
# head and sequence (benchmarks/dtrn_step.py).
SMALL = 128


class Setting(NamedTuple):
    """What a TIM is made of.

    Attributes:
      behaviours: S.
      length: L.
      width: D, a multiple of `heads`.
      heads: H.
      layers: number of transformer layers.
      out: d.
      conditioning: hyper (the paper's), table (free scale and shift for every pair), none (one
        plain transformer for all), separate (one for every pair).
      pool: target (the candidate attends to the events), mean, or cand_token (the candidate is a
        token of the sequence, whose output is the interest).
      norm_first: normalise before attention and feed-forward part, or after them.
      embedding: width of task and behaviour embeddings, hyper only.
      hidden: width of the hypernetwork.
      rate: dropout of the tokens and after attention.
      residual: adds the mean of the events, their first d numbers, past the transformer, whose own
        part of the interest is zero at first: before training an interest is what the network
        without a transformer has. It is scaled and shifted by the pair's first condition. No
        matrix is on this way: one more layer in front of a deep network cost some 0.03 of AUC on
        `conflict`.
      fold: see the module.
    """

    behaviours: int
    length: int
    width: int
    heads: int
    layers: int
    out: int
    conditioning: Conditioning = "hyper"
    pool: Pool = "target"
    norm_first: bool = True
    embedding: int = 8
    hidden: int = 32
    rate: float = 0.0
    residual: bool = True
    fold: bool = True

    @property
    def sites(self) -> int:
        """Number of normalisations."""
        return SITES * self.layers

    @property
    def deltas(self) -> tuple[int, ...]:
        """Shape of a task's conditions: changes of gamma and beta by behaviour and site."""
        return (self.behaviours, self.sites, 2, self.width)


def init_shared(key: Array, setting: Setting) -> Tree:
    """Returns what all tasks share: transformer, hypernetwork, pooling."""
    width, keys = setting.width, jax.random.split(key, 8)
    kernel = nn.initializers.glorot_uniform()
    # With a way past it the transformer starts from nothing: what it says of untrained embeddings
    # would be noise, and large beside them.
    out = (
        jnp.zeros((width, setting.out))
        if setting.residual
        else kernel(keys[0], (width, setting.out))
    )
    params: dict[str, Any] = {"out": out}
    if setting.conditioning != "separate":
        params["encoder"] = _init_encoder(keys[1], setting, ())
    if setting.pool == "target":
        params["query"] = kernel(keys[2], (width, width))
        params["key"] = kernel(keys[3], (width, width))
        params["value"] = kernel(keys[4], (width, width))
    if setting.conditioning == "hyper":
        outputs = math.prod(setting.deltas[1:])
        params["behaviours"] = _normal(keys[5], (setting.behaviours, setting.embedding))
        params["hyper"] = {
            "hidden": init_dense(keys[7], 2 * setting.embedding, setting.hidden),
            # Zero: before training all pairs share one plain transformer.
            "out": {"kernel": jnp.zeros((setting.hidden, outputs)), "bias": jnp.zeros(outputs)},
        }
    return params


def init_own(key: Array, setting: Setting) -> Tree:
    """Returns what one task has of its own."""
    if setting.conditioning == "hyper":
        return {"embedding": _normal(key, (setting.embedding,))}
    if setting.conditioning == "table":
        return {"deltas": jnp.zeros(setting.deltas)}
    if setting.conditioning == "separate":
        return {"encoder": _init_encoder(key, setting, (setting.behaviours,))}
    return {}


def _normal(key: Array, shape: tuple[int, ...]) -> Array:
    return jax.random.normal(key, shape) / math.sqrt(shape[-1])


def _init_encoder(key: Array, setting: Setting, lead: tuple[int, ...]) -> Tree:
    width, inner = setting.width, FEED_FORWARD * setting.width
    kernel = nn.initializers.glorot_uniform(batch_axis=tuple(range(len(lead))))

    def one(key: Array) -> Tree:
        a, b, c, d = jax.random.split(key, 4)
        return {
            "qkv": kernel(a, (*lead, width, 3 * width)),
            "attended": kernel(b, (*lead, width, width)),
            "up": kernel(c, (*lead, width, inner)),
            "up_bias": jnp.zeros((*lead, inner)),
            "down": kernel(d, (*lead, inner, width)),
            "down_bias": jnp.zeros((*lead, width)),
        }

    return {
        "layers": [one(k) for k in jax.random.split(key, setting.layers)],
        "gamma": jnp.ones((*lead, setting.sites, width)),
        "beta": jnp.zeros((*lead, setting.sites, width)),
    }


def conditions(shared: Tree, own: Tree, setting: Setting) -> Array | None:
    """Returns one task's changes of scale and shift, `setting.deltas`; None for no conditions."""
    if setting.conditioning == "table":
        return own["deltas"]
    if setting.conditioning != "hyper":
        return None
    tasks = jnp.broadcast_to(own["embedding"], shared["behaviours"].shape)
    pairs = jnp.concatenate([tasks, shared["behaviours"]], axis=-1)  # [S, 2k]
    hidden = jax.nn.relu(dense(shared["hyper"]["hidden"], pairs))
    return dense(shared["hyper"]["out"], hidden).reshape(setting.deltas)


def interests(
    shared: Tree,
    own: Tree,
    x: Array,
    xhat: Array,
    valid: Array,
    candidate: Array,
    setting: Setting,
    keys: Array | None = None,
) -> tuple[Array, Array]:
    """Encodes the sequences for one task.

    Args:
      shared: of `init_shared`.
      own: of `init_own`, this task's.
      x: [S, B, L, D] tokens; with pool cand_token one more, the candidate, in front.
      xhat: normalise(x), which no task changes and all share.
      valid: [S, B, L] 1 for an event, 0 for padding; the candidate's token counts as an event.
      candidate: [S, B, D], what attends to the events.
      setting: see `Setting`.
      keys: one an example for dropout; None for evaluation.

    Returns:
      ([B, S, d] interests, [B, S, L] weights of the events in the pooling, over all heads).
    """
    first = x[..., : setting.out]
    deltas = conditions(shared, own, setting)
    encoder = own["encoder"] if setting.conditioning == "separate" else shared["encoder"]
    shape = (setting.behaviours, setting.sites, setting.width)
    gamma, beta = (jnp.broadcast_to(encoder[name], shape) for name in ("gamma", "beta"))
    if deltas is not None:
        gamma, beta = gamma + deltas[:, :, 0], beta + deltas[:, :, 1]
    for r, layer in enumerate(encoder["layers"]):
        here = slice(SITES * r, SITES * (r + 1))
        normed = xhat if r == 0 else None
        x = _layer(layer, gamma[:, here], beta[:, here], x, normed, valid, setting, keys, r)
    if setting.pool == "cand_token":
        pooled, weights = x[:, :, 0], valid / jnp.maximum(valid.sum(-1, keepdims=True), 1)
    elif setting.pool == "mean":
        weights = valid / jnp.maximum(valid.sum(-1, keepdims=True), 1)
        pooled = (x * weights[..., None]).sum(2).astype(x.dtype)
    else:
        pooled, weights = _attend(shared, x, valid, candidate, setting.heads)
    # No bias: nobody's history is 0.
    out = pooled @ shared["out"]
    if setting.residual:
        events = slice(1, None) if setting.pool == "cand_token" else slice(None)
        mask = valid[:, :, events]
        count = mask.sum(-1, keepdims=True)
        mean = (first[:, :, events] * mask[..., None]).sum(2) / jnp.maximum(count, 1)
        mean = mean.astype(out.dtype)
        some = (count > 0).astype(mean.dtype)
        out += mean * gamma[:, :1, : setting.out] + some * beta[:, :1, : setting.out]
    return jnp.swapaxes(out, 0, 1), jnp.swapaxes(weights, 0, 1)


def _layer(
    layer: Tree,
    gamma: Array,
    beta: Array,
    x: Array,
    xhat: Array | None,
    valid: Array,
    setting: Setting,
    keys: Array | None,
    number: int,
) -> Array:
    """One transformer layer over [S, B, L, D], with the pair's gamma and beta [S, 2, D]."""

    def conditioned(xhat: Array, site: int, kernel: Array, bias: Array | None) -> Array:
        g, b = gamma[:, site], beta[:, site]
        if setting.fold:
            kernel = jnp.broadcast_to(kernel, (len(g), *kernel.shape[-2:]))
            moved = jnp.einsum("sd,sdk->sk", b, kernel)
            shift = moved if bias is None else moved + jnp.broadcast_to(bias, moved.shape)
            return _times(xhat, g[:, :, None] * kernel, shift)
        return _times(xhat * g[:, None, None] + b[:, None, None], kernel, bias)

    def normed(x: Array, site: int) -> Array:
        return normalise(x) * gamma[:, site, None, None] + beta[:, site, None, None]

    def drop(x: Array) -> Array:
        moved = jnp.moveaxis(x, 1, 0)
        return jnp.moveaxis(dropout(moved, keys, setting.rate, 100 + number), 0, 1)

    if setting.norm_first:
        qkv = conditioned(normalise(x) if xhat is None else xhat, 0, layer["qkv"], None)
    else:
        qkv = _times(x, layer["qkv"], None)
    a = x + drop(_times(attention(qkv, valid, setting.heads), layer["attended"], None))
    if setting.norm_first:
        up = conditioned(normalise(a), 1, layer["up"], layer["up_bias"])
    else:
        a = normed(a, 0)
        up = _times(a, layer["up"], layer["up_bias"])
    y = a + _times(jax.nn.relu(up), layer["down"], layer["down_bias"])
    return y if setting.norm_first else normed(y, 1)


def _times(x: Array, kernel: Array, bias: Array | None) -> Array:
    """Returns x [S, B, L, D] times a kernel [D, K] or [S, D, K], plus a bias [K] or [S, K]."""
    out = x @ kernel if kernel.ndim == 2 else jnp.einsum("sbld,sdk->sblk", x, kernel)
    if bias is None:
        return out
    return along_last(out, bias) if bias.ndim == 1 else out + bias[:, None, None]


def attention(qkv: Array, valid: Array, heads: int) -> Array:
    """Attention of every event to all of its sequence: [S, B, L, 3 D] to [S, B, L, D].

    Sequences are short and there are many, so on the CPU the call of a small matrix product costs
    more than the product: there scores are a product and a sum, which XLA makes one loop.
    """
    *lead, length, three = qkv.shape
    q, k, v = jnp.moveaxis(qkv.reshape(*lead, length, 3, heads, three // (3 * heads)), -3, 0)
    q, k, v = (jnp.swapaxes(each, -3, -2) for each in (q, k, v))  # [S, B, H, L, D / H]
    scale = 1 / math.sqrt(q.shape[-1])
    mask = jnp.where(valid > 0, 0.0, FAR)[:, :, None, None]
    if jax.default_backend() == "cpu" and length * q.shape[-1] <= SMALL:
        scores = (q[..., :, None, :] * k[..., None, :, :]).sum(-1)
        weights = jax.nn.softmax(wide(scores) * scale + mask, axis=-1).astype(v.dtype)
        out = (weights[..., None] * v[..., None, :, :]).sum(-2)
    else:
        scores = jnp.einsum("...id,...jd->...ij", q, k)
        weights = jax.nn.softmax(scores.astype(jnp.float32) * scale + mask, axis=-1)
        out = jnp.einsum("...ij,...jd->...id", weights.astype(v.dtype), v)
    return jnp.swapaxes(out, -3, -2).reshape(*lead, length, three // 3)


def _attend(
    shared: Tree, y: Array, valid: Array, candidate: Array, heads: int
) -> tuple[Array, Array]:
    """The candidate's attention to the events: ([S, B, D], [S, B, L] mean weight over heads).

    A place of logit 0 and value 0 takes part, so that a candidate may attend to nothing: a
    sequence without events gives 0. Keys and values are never formed for every event: their
    matrices go to the query and to the pooled event.
    """
    *_, width = y.shape
    size = width // heads
    split = (width, heads, size)
    # Normalised, or the small embeddings of the beginning would attend to everything alike.
    query = (normalise(candidate) @ shared["query"]).reshape(*candidate.shape[:-1], heads, size)
    query = jnp.einsum("sbhk,dhk->sbhd", query, shared["key"].reshape(split))
    scores = (query[:, :, None] * y[:, :, :, None]).sum(-1)  # [S, B, L, H]
    scores = wide(scores) / math.sqrt(size)
    scores += jnp.where(valid > 0, 0.0, FAR)[..., None]
    top = jax.lax.stop_gradient(jnp.maximum(scores.max(2, keepdims=True), 0))
    raw = jnp.exp(scores - top)
    weights = raw / (raw.sum(2, keepdims=True) + jnp.exp(-top))
    pooled = (weights[..., None].astype(y.dtype) * y[:, :, :, None]).sum(2)  # [S, B, H, D]
    value = jnp.einsum("sbhd,dhk->sbhk", pooled, shared["value"].reshape(split))
    return value.reshape(*candidate.shape), weights.mean(-1)

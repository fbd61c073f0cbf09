"""TRM: each task weighs the embeddings that it reads (DTRN, section on representation refinement).

A squeeze-and-excitation gate over embeddings (Hu et al. 2018, for embeddings Huang et al. 2019),
one for each task: squeeze every embedding to a number, let a small network see all of them, and
multiply every embedding by the weight that it gives. Reduction 2 and the gate 2 sigmoid, which is
1 before training, are ours: the sources we have do not say.
"""

from __future__ import annotations

from typing import Any, Literal

import jax
import jax.numpy as jnp

from mtl_jax.layers.nets import dense, init_dense

Array = jax.Array
Tree = Any
Granularity = Literal["field", "element"]
Gate = Literal["2sigmoid", "relu"]
Squeeze = Literal["mean", "concat"]


def init_refine(
    key: Array,
    count: int,
    dim: int,
    *,
    reduction: int,
    granularity: Granularity,
    gate: Gate,
    squeeze: Squeeze,
) -> Tree:
    """Returns the parameters of one task's gate over `count` embeddings of `dim` numbers."""
    inputs = count if squeeze == "mean" else count * dim
    outputs = count if granularity == "field" else count * dim
    first = init_dense(key, inputs, max(4, inputs // reduction))
    # All weights are 1 before training, whatever the gate.
    bias = jnp.full(outputs, 0.0 if gate == "2sigmoid" else 1.0)
    hidden = first["bias"].shape[0]
    return {"squeeze": first, "excite": {"kernel": jnp.zeros((hidden, outputs)), "bias": bias}}


def refine_weights(
    params: Tree, z: Array, *, granularity: Granularity, gate: Gate, squeeze: Squeeze
) -> Array:
    """Returns the weights of the embeddings z [B, n, d]: [B, n, 1], or [B, n, d] by element."""
    batch, count, dim = z.shape
    seen = z.mean(-1) if squeeze == "mean" else z.reshape(batch, count * dim)
    raw = dense(params["excite"], jax.nn.relu(dense(params["squeeze"], seen)))
    weights = 2 * jax.nn.sigmoid(raw) if gate == "2sigmoid" else jax.nn.relu(raw)
    return weights.reshape(batch, count, 1 if granularity == "field" else dim)

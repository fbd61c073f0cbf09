"""Aligned-MTL: gradients made orthogonal and equally long (Senushkin et al.)."""

from __future__ import annotations

from typing import Literal

import jax.numpy as jnp

from mtl_jax.methods.base import Aggregator, Array, Traits, Tree
from mtl_jax.methods.linalg import highest_precision
from mtl_jax.methods.weighting import gram_aggregator

Scale = Literal["min", "median", "rmse"]


@highest_precision
def alignment(gram: Array, scale: Scale = "min") -> Array:
    """Returns B [T, T], symmetric, such that the rows of B J are orthogonal with equal lengths.

    Their Gram matrix is B G B = lambda I on the range of G, with lambda the smallest eigenvalue of
    G above rounding ("min"), the lower median of those ("median") or their mean ("rmse").
    """
    size = gram.shape[0]
    values, vectors = jnp.linalg.eigh(gram)  # ascending
    count = jnp.maximum((jnp.diag(gram) > 0).sum(), 1)
    kept = values > jnp.finfo(gram.dtype).eps * count * values.max()
    rank = kept.sum()
    safe = jnp.where(kept, values, 1)
    if scale == "rmse":
        level = jnp.where(kept, values, 0).sum() / jnp.maximum(rank, 1)
    else:
        position = size - rank + (0 if scale == "min" else (rank - 1) // 2)
        level = values[jnp.clip(position, 0, size - 1)]
    root = jnp.where(kept, jnp.sqrt(jnp.maximum(level, 0) / safe), 0)
    return jnp.matmul(vectors * root[None, :], vectors.T)


def aligned_mtl(scale: Scale = "min", reduction: Literal["sum", "mean"] = "sum") -> Aggregator:
    """Alignment of gradients: the principal components of J, all given one singular value.

    With G = V diag(lambda) V^T: w = sqrt(level) V diag(lambda) ** (-1/2) V^T p, d = J^T w.

    Source: Senushkin et al., "Independent Component Alignment for Multi-Task Learning", arXiv
    2305.19000, algorithm 1. Components below rounding (machine epsilon times T times the largest
    eigenvalue) are dropped, as in the authors' code; the median is the lower of the two middle
    ones, as there. Their variant on representation gradients is not included.

    Args:
      scale: the eigenvalue that all components get: "min", "median" or "rmse" (their mean).
      reduction: "sum": p = 1 (the authors); "mean": p = 1 / number of active tasks.
    """
    if scale not in ("min", "median", "rmse"):
        raise ValueError(f"scale must be 'min', 'median' or 'rmse', found {scale!r}")
    if reduction not in ("sum", "mean"):
        raise ValueError(f"reduction must be 'sum' or 'mean', found {reduction!r}")

    def weights_fn(
        gram: Array, state: Tree, *, losses: Array, active: Array, key: Array
    ) -> tuple[Array, Tree]:
        del losses, key
        weights = jnp.matmul(alignment(gram, scale), active.astype(gram.dtype))
        return (weights / active.sum() if reduction == "mean" else weights), state

    return gram_aggregator(
        weights_fn,
        traits=Traits(
            on_equal=lambda num_tasks, norm: float(num_tasks) if reduction == "sum" else 1.0
        ),
    )

"""Inner products and weighted sums of stacked gradients, leaf by leaf.

Nothing is concatenated: the Gram matrix is a sum over leaves, so the only T x P array is the
stack of gradients itself. Products accumulate in float32 (float64 for float64 input) at the
highest matmul precision, whatever the gradients' dtype: on accelerators the default precision
would lose the small differences that the solvers live on.
"""

from __future__ import annotations

import functools
import operator

import jax
import jax.numpy as jnp

from mtl_jax.methods.base import Array, Tree


def _accumulator(dtype: jnp.dtype) -> jnp.dtype:
    return jnp.promote_types(dtype, jnp.float32)


def gram(grads: Tree, other: Tree | None = None) -> Array:
    """Returns the [T, S] inner products of `grads` [T, ...] with `other` [S, ...].

    Without `other`: the [T, T] Gram matrix of `grads`.
    """

    def leaf(a: Array, b: Array) -> Array:
        acc = _accumulator(a.dtype)
        a, b = a.reshape(a.shape[0], -1), b.reshape(b.shape[0], -1)
        return jnp.matmul(a, b.T, precision="highest", preferred_element_type=acc)

    products = jax.tree.map(leaf, grads, grads if other is None else other)
    return functools.reduce(operator.add, jax.tree.leaves(products))


def combine(grads: Tree, weights: Array) -> Tree:
    """Returns sum_t weights[t] * grads[t]: a tree like one gradient.

    Written as one multiply-add chain a leaf, which XLA fuses into a single pass over memory.
    """

    def leaf(a: Array) -> Array:
        w = weights.astype(_accumulator(a.dtype))
        terms = [w[t] * a[t] for t in range(a.shape[0])]
        return functools.reduce(operator.add, terms).astype(a.dtype)

    return jax.tree.map(leaf, grads)


def squared_norms(grads: Tree, num_tasks: int) -> Array:
    """Returns the [T] squared norms of `grads` [T, ...]; zeros for a tree without leaves."""
    leaves = jax.tree.leaves(grads)
    if not leaves:
        return jnp.zeros(num_tasks, jnp.float32)

    def leaf(a: Array) -> Array:
        return jnp.sum(jnp.square(a.astype(_accumulator(a.dtype))), axis=tuple(range(1, a.ndim)))

    return functools.reduce(operator.add, map(leaf, leaves))


def scale_rows(grads: Tree, factors: Array) -> Tree:
    """Returns `grads` [T, ...] with row t multiplied by factors[t]."""

    def leaf(a: Array) -> Array:
        return a * factors.reshape(-1, *(1,) * (a.ndim - 1)).astype(a.dtype)

    return jax.tree.map(leaf, grads)


def cosines(gram_matrix: Array) -> Array:
    """Returns the [T, T] cosines of a Gram matrix; 0 where a gradient is exactly zero."""
    norms = jnp.sqrt(jnp.diag(gram_matrix))
    product = norms[:, None] * norms[None, :]
    safe = jnp.where(product > 0, product, 1.0)
    return jnp.where(product > 0, gram_matrix / safe, 0.0)

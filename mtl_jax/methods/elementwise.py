"""Lifts a function of the gradients themselves to an `Aggregator`.

For methods that `gram_aggregator` cannot express: those that treat coordinates apart, and those
that keep a vector of the parameters' size for every task. Their state is a tree like the
gradients; tables that are updated row by row cannot have one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import jax
import jax.numpy as jnp

from mtl_jax.methods.base import Aggregator, Array, Info, Traits, Tree
from mtl_jax.methods.gram import gram
from mtl_jax.methods.linalg import highest_precision
from mtl_jax.methods.weighting import no_state


class RowsFn(Protocol):
    """`rows_fn(grads, state, *, losses, active, key) -> (direction, weights, state)`.

    Args:
      grads: tree of task gradients [T, ...]; the rows of absent tasks are 0.
      state: what `init` or the last call returned.
      losses: [T].
      active: [T] bool; at least one is True.
      key: a PRNG key.

    The weights are [T] where the direction is a sum of the gradients, else None.
    """

    def __call__(
        self, grads: Tree, state: Tree, *, losses: Array, active: Array, key: Array
    ) -> tuple[Tree, Array | None, Tree]: ...


def along(factors: Array, leaf: Array) -> Array:
    """Returns `factors` [T] in the shape that broadcasts against `leaf` [T, ...]."""
    return factors.reshape(-1, *(1,) * (leaf.ndim - 1))


def zero_rows(shared: Tree, num_tasks: int) -> Tree:
    """Returns zeros [T, ...] for every leaf of the shared parameters, at least in float32.

    Averages of half-precision gradients would stop moving in half precision.
    """

    def rows(leaf: Array) -> Array:
        return jnp.zeros((num_tasks, *leaf.shape), jnp.promote_types(leaf.dtype, jnp.float32))

    return jax.tree.map(rows, shared)


def rows_aggregator(
    rows_fn: RowsFn,
    *,
    init: Callable[[Tree, int], Tree] = no_state,
    traits: Traits | None = None,
) -> Aggregator:
    """Makes an aggregator of a function of the gradients, with the guards of `gram_aggregator`.

    When all active gradients are exactly 0 the direction is 0 and the state stays as it was;
    gradients that are not finite (or whose Gram matrix is not) give a direction of NaN, and the
    state stays too. `Info` holds the Gram matrix, and the weights where there are any.

    Args:
      rows_fn: see `RowsFn`.
      init: `init(shared, num_tasks) -> state`.
      traits: of the method from its first state.

    Returns:
      An `Aggregator`; a tree without leaves is returned as it is, with an empty `Info`.
    """

    def update(
        grads: Tree, state: Tree, *, losses: Array, active: Array, key: Array
    ) -> tuple[Tree, Tree, Info]:
        if not jax.tree.leaves(grads):
            return grads, state, Info()
        raw = jnp.where(active[:, None] & active[None, :], gram(grads), 0)
        some, finite = (jnp.diag(raw) != 0).any(), jnp.isfinite(raw).all()
        present = jax.tree.map(lambda g: jnp.where(along(active, g), g, 0), grads)
        run = highest_precision(rows_fn)
        direction, weights, new_state = run(present, state, losses=losses, active=active, key=key)

        def guard(value: Array) -> Array:
            return jnp.where(finite, jnp.where(some, value, 0), jnp.nan)

        direction = jax.tree.map(lambda d, g: guard(d).astype(g.dtype), direction, grads)
        keep = some & finite
        new_state = jax.tree.map(lambda old, new: jnp.where(keep, new, old), state, new_state)
        weights = None if weights is None else jnp.where(active, guard(weights), 0)
        return direction, new_state, Info(weights=weights, gram=raw)

    return Aggregator(init, update, Traits() if traits is None else traits)

"""Lifts a function of the Gram matrix to an `Aggregator`.

Most aggregators are d = J^T w with weights that depend on J through G = J J^T only. Such a method
is one function `weights_fn(gram, state, *, losses, active, key) -> (w [T], state)`, usable and
loggable by itself; `gram_aggregator` does what all of them need.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol

import jax
import jax.numpy as jnp

from mtl_jax.methods.base import Aggregator, Array, Info, Traits, Tree
from mtl_jax.methods.gram import combine, gram
from mtl_jax.methods.linalg import highest_precision


class GramWeights(Protocol):
    """`weights_fn(gram, state, *, losses, active, key) -> (w, state)`.

    Args:
      gram: [T, T] inner products of the task gradients; rows and columns of absent tasks are 0, the
        mean of the diagonal over the active tasks is 1.
      state: what `init` or the last call returned.
      losses: [T].
      active: [T] bool; at least one is True.
      key: a PRNG key.
    """

    def __call__(
        self, gram: Array, state: Tree, *, losses: Array, active: Array, key: Array
    ) -> tuple[Array, Tree]: ...


def no_state(shared: Tree, num_tasks: int) -> tuple[()]:
    """The `init` of a method without state."""
    del shared, num_tasks
    return ()


def gram_aggregator(
    weights_fn: GramWeights,
    *,
    init: Callable[[Tree, int], Tree] = no_state,
    traits: Traits | None = None,
    max_norm: float = 0.0,
) -> Aggregator:
    """Makes an aggregator d = sum_t w_t g_t of a function of the Gram matrix.

    Before `weights_fn`: rows and columns of absent tasks are zeroed and the matrix is divided by
    the mean of its active diagonal, so that no method depends on the size of the gradients beyond
    its degree. After it: the weights are brought back to that size (exactly: scaling J by s scales
    w by s ** (degree - 1)), clipped, and zeroed for absent tasks. When all active gradients are
    exactly 0 the direction is 0 and the state stays as it was. A Gram matrix that is not finite
    (a NaN gradient, or one beyond 1e19 in float32) gives a direction of NaN: a training loop must
    be able to see it.

    Args:
      weights_fn: see `GramWeights`.
      init: `init(shared, num_tasks) -> state`.
      traits: of the method without the clip, by default `Traits()`; the degree must be exact.
      max_norm: the direction is shortened to this length when longer; 0 for off. A method whose
        degree is not 0 has none once it is clipped: the degree is then NaN.

    Returns:
      An `Aggregator`; a tree without leaves is returned as it is, with an empty `Info`.

    Raises:
      ValueError: a negative `max_norm`.
    """
    if not max_norm >= 0:
        raise ValueError(f"max_norm must be non-negative (0: off), found {max_norm}")
    traits = Traits() if traits is None else traits
    degree, on_equal = traits.degree, traits.on_equal
    if max_norm:
        traits = traits._replace(
            degree=0.0 if degree == 0 else math.nan,
            on_equal=lambda num_tasks, norm: min(on_equal(num_tasks, norm), max_norm / norm),
        )

    @highest_precision
    def weigh(
        raw: Array, state: Tree, losses: Array, active: Array, key: Array
    ) -> tuple[Array, Tree]:
        size = jnp.where(active, jnp.diag(raw), 0).sum() / jnp.maximum(active.sum(), 1)
        some, finite = size != 0, jnp.isfinite(raw).all()
        unit = jnp.where(some, raw / jnp.where(some, size, 1), 0)
        weights, new_state = weights_fn(unit, state, losses=losses, active=active, key=key)
        factor = jnp.where(some, size, 1) ** ((degree - 1) / 2)
        if max_norm:
            # |J^T w| at full size, without squaring what may be tiny or huge.
            length = jnp.sqrt(size * jnp.maximum(weights @ (unit @ weights), 0)) * factor
            factor = factor * jnp.minimum(1, max_norm / jnp.where(length > 0, length, max_norm))
        weights = jnp.where(active & some, factor * weights, 0)
        # The solvers end on whatever they are given; a gradient that is not finite must be seen.
        weights = jnp.where(finite, weights, jnp.nan)
        keep = some & finite
        new_state = jax.tree.map(lambda old, new: jnp.where(keep, new, old), state, new_state)
        return weights, new_state

    def update(
        grads: Tree, state: Tree, *, losses: Array, active: Array, key: Array
    ) -> tuple[Tree, Tree, Info]:
        if not jax.tree.leaves(grads):
            return grads, state, Info()
        raw = jnp.where(active[:, None] & active[None, :], gram(grads), 0)
        weights, state = weigh(raw, state, losses, active, key)
        return combine(grads, weights), state, Info(weights=weights, gram=raw)

    return Aggregator(init, update, traits, weigh)

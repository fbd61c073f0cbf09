"""What methods with one trained number for each task share.

Absent tasks count nowhere: a softmax runs over the active ones, and the numbers and moments of
the others stay as they were.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from mtl_jax.methods.base import Array, Tree


def share(active: Array, dtype: Any) -> Array:
    """1 / number of active tasks for those, 0 for the others."""
    return active.astype(dtype) / jnp.maximum(active.sum(), 1).astype(dtype)


def softmax(logits: Array, active: Array) -> Array:
    """Softmax over the active tasks; zeros when there are none."""
    weights = jax.nn.softmax(jnp.where(active, logits, -jnp.inf))
    return jnp.where(active & active.any(), weights, 0)


def exponentiated(logits: Array, step: Array, active: Array) -> Array:
    """Returns logits [T] after weights = softmax(logits) were multiplied by exp(step).

    They move around their mean over the active tasks, which leaves the weights as they are; the
    logits of absent tasks stay.
    """
    step = jnp.where(active, step, 0)
    centre = (share(active, step.dtype) * step).sum()
    return jnp.where(active, logits + step - centre, logits)


def random_logits(key: Array, num_tasks: int, dtype: Any) -> Array:
    """Standard normal numbers [T]; that of task t depends on (key, t) only."""
    keys = jax.vmap(lambda t: jax.random.fold_in(key, t))(jnp.arange(num_tasks))
    return jax.vmap(lambda k: jax.random.normal(k, dtype=dtype))(keys)


class TrainedState(NamedTuple):
    """State of a method with one trained number for each task.

    Attributes:
      values: [T] float32.
      optimiser: its optax state.
    """

    values: Array
    optimiser: Tree


def adam(lr: float) -> optax.GradientTransformation:
    """Adam for the numbers themselves.

    Raises:
      ValueError: a learning rate that is not positive.
    """
    if not lr > 0:
        raise ValueError(f"lr must be positive, found {lr}")
    return optax.adam(lr)


def start(optimiser: optax.GradientTransformation, num_tasks: int, value: float) -> TrainedState:
    """The first state, with the same value for every task."""
    values = jnp.full(num_tasks, value, jnp.float32)
    return TrainedState(values, optimiser.init(values))


def descend(
    optimiser: optax.GradientTransformation, state: TrainedState, grad: Array, active: Array
) -> TrainedState:
    """One optimiser step for the active tasks; the values and moments of the others stay."""
    updates, new_optimiser = optimiser.update(
        jnp.where(active, grad, 0), state.optimiser, state.values
    )
    moved = state.values + jnp.asarray(updates)
    values = jnp.where(active, moved, state.values)

    def keep(old: Array, new: Array) -> Array:
        return jnp.where(active, new, old) if jnp.shape(old) == active.shape else new

    return TrainedState(values, jax.tree.map(keep, state.optimiser, new_optimiser))

"""Nash-MTL: the bargaining solution between tasks (Navon et al.)."""

from __future__ import annotations

import math
from typing import NamedTuple

import jax.numpy as jnp
from jax import lax

from mtl_jax.methods.base import Aggregator, Array, Traits, Tree
from mtl_jax.methods.fairgrad import fairgrad_weights
from mtl_jax.methods.weighting import gram_aggregator, no_state


class NashState(NamedTuple):
    """State of `nash_mtl` when weights are kept for several steps.

    Attributes:
      age: int32, steps since the weights were solved for; -1 before the first time.
      weights: [T] float32, relative to the size of the gradients at that time.
      active: [T] bool, the tasks they were solved for.
    """

    age: Array
    weights: Array
    active: Array


def nash_weights(gram: Array, active: Array | None = None) -> Array:
    """Returns w [T] with G w = 1 / w, or MGDA's where there are none; see `fairgrad_weights`."""
    return fairgrad_weights(gram, 1.0, active)


def nash_mtl(max_norm: float = 1.0, update_every: int = 1) -> Aggregator:
    """Multi-task learning as a bargaining game: w > 0 with G w = 1 / w, d = J^T w.

    Then |d|^2 = w.G w = T whatever the gradients: clipped at `max_norm` <= 1, d is a unit vector.

    Source: Navon et al., "Multi-Task Learning as a Bargaining Game", arXiv 2202.01017, claim 3.1.
    Differs from the authors' code: damped Newton to the solution instead of 20 convex programs on
    the host; weights kept between updates are relative to the mean length of the gradients (so
    that |d| stays put) and are solved for anew when another set of tasks is active; MGDA's
    direction where the game has no solution (they keep the last weights).

    Args:
      max_norm: the direction is shortened to this length; 0 for off.
      update_every: steps between two solutions.

    Raises:
      ValueError: an option out of range.
    """
    if not update_every >= 1:
        raise ValueError(f"update_every must be at least 1, found {update_every}")

    def init(shared: Tree, num_tasks: int) -> NashState:
        del shared
        return NashState(
            jnp.int32(-1), jnp.zeros(num_tasks, jnp.float32), jnp.zeros(num_tasks, bool)
        )

    def weights_fn(
        gram: Array, state: Tree, *, losses: Array, active: Array, key: Array
    ) -> tuple[Array, Tree]:
        del losses, key
        if update_every == 1:
            return nash_weights(gram, active), state
        due = (state.age < 0) | (state.age + 1 >= update_every) | (state.active != active).any()
        weights = lax.cond(
            due,
            lambda: nash_weights(gram, active),
            lambda: state.weights.astype(gram.dtype),
        )
        age = jnp.where(due, 0, state.age + 1).astype(jnp.int32)
        return weights, NashState(age, weights.astype(jnp.float32), active)

    return gram_aggregator(
        weights_fn,
        init=no_state if update_every == 1 else init,
        traits=Traits(degree=0.0, on_equal=lambda num_tasks, norm: math.sqrt(num_tasks) / norm),
        max_norm=max_norm,
    )

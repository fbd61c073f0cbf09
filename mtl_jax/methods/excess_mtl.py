"""ExcessMTL: weight to the tasks that are furthest from their optimum (He et al.)."""

from __future__ import annotations

import functools
import operator
from typing import NamedTuple

import jax
import jax.numpy as jnp

from mtl_jax.methods.base import Aggregator, Array, Traits, Tree
from mtl_jax.methods.elementwise import rows_aggregator, zero_rows
from mtl_jax.methods.gram import combine
from mtl_jax.methods.trained import exponentiated, softmax

_LARGEST = 50.0
"""A step of the logits beyond which float32 weights are 0 or 1 anyway."""


class ExcessState(NamedTuple):
    """State of `excess_mtl`.

    Attributes:
      squares: tree like the task gradients [T, ...], sums of the squared gradients.
      first: [T] float32, the first excess risk of each task; 0 before there is one.
      logits: [T] float32, logarithms of the weights.
    """

    squares: Tree
    first: Array
    logits: Array


def excess_risks(grads: Tree, squares: Tree) -> Array:
    """Returns e_i = g_i . diag(squares_i)^(-1/2) g_i [T]; coordinates that never moved count 0.

    Args:
      grads: tree [T, ...].
      squares: tree [T, ...], sums of squared gradients, those of `grads` among them.
    """

    def leaf(g: Array, s: Array) -> Array:
        g = g.astype(s.dtype)
        terms = jnp.where(s > 0, g * g / jnp.sqrt(jnp.where(s > 0, s, 1)), 0)
        return terms.sum(axis=tuple(range(1, terms.ndim)))

    return functools.reduce(operator.add, jax.tree.leaves(jax.tree.map(leaf, grads, squares)))


def excess_mtl(lr: float = 0.01) -> Aggregator:
    """Excess risks: d = sum_i w_i g_i, w_i of sum T, multiplied by exp(lr e_i / e_i(0)) a step.

    e_i = g_i . diag(sum over steps of g_i^2)^(-1/2) g_i estimates how far loss i is from its
    optimum, to second order, with a diagonal as in AdaGrad for the Hessian.

    Source: He et al., "Robust Multi-Task Learning with Excess Risks", arXiv 2402.02009, algorithm
    1, with the scaling by the first excess risk and the step of the authors' code. Differs from
    it: no 1e-7 under the root; the weights are kept as logarithms, which move around their mean
    over the active tasks (the same weights, and an absent task keeps its own). From the first
    excess risk on, e_i / e_i(0) is 1: the first step is the plain sum. In the authors' code the
    heads' losses are weighted too; here, as with every aggregator, they are not.

    The state is a vector of the shared parameters' size for each task.

    Args:
      lr: step of the weights, > 0 (0.01 in the authors' code).

    Raises:
      ValueError: a step that is not positive.
    """
    if not lr > 0:
        raise ValueError(f"lr must be positive, found {lr}")

    def init(shared: Tree, num_tasks: int) -> ExcessState:
        zeros = jnp.zeros(num_tasks, jnp.float32)
        return ExcessState(zero_rows(shared, num_tasks), zeros, zeros)

    def rows_fn(
        grads: Tree, state: ExcessState, *, losses: Array, active: Array, key: Array
    ) -> tuple[Tree, Array, ExcessState]:
        del losses, key
        # The rows of absent tasks are 0 and add nothing.
        squares = jax.tree.map(lambda s, g: s + jnp.square(g.astype(s.dtype)), state.squares, grads)
        excess = excess_risks(grads, squares).astype(jnp.float32)
        first = jnp.where(active & (state.first <= 0), excess, state.first)
        ratio = jnp.where(first > 0, excess / jnp.where(first > 0, first, 1), 0)
        logits = exponentiated(state.logits, jnp.minimum(lr * ratio, _LARGEST), active)
        weights = active.sum() * softmax(logits, active)
        return combine(grads, weights), weights, ExcessState(squares, first, logits)

    return rows_aggregator(
        rows_fn, init=init, traits=Traits(on_equal=lambda num_tasks, norm: float(num_tasks))
    )

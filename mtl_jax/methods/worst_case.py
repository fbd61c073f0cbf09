"""Weightings that look after the task with the largest loss: Tchebycheff, group DRO.

Both compare losses as they are: scale them, or prefer `stch`, where their units differ.
"""

from __future__ import annotations

import jax.numpy as jnp

from mtl_jax.methods.base import Array, LossWeighting, Tree
from mtl_jax.methods.trained import exponentiated, share, softmax


def tchebycheff() -> LossWeighting:
    """Tchebycheff scalarisation: max_i L_i. The weight is 1 for the largest loss, 0 for others.

    Equal largest losses share the weight equally, one of the subgradients there.

    Source: the weighted Tchebycheff metric of multi-objective optimisation (Miettinen, "Nonlinear
    Multiobjective Optimization", 1999, section 3.4) with equal weights and the ideal point 0; the
    limit of `stch` for mu = 0 with nadirs of 1, but for its factor.
    """

    def start(num_tasks: int) -> tuple[()]:
        del num_tasks
        return ()

    def weights(losses: Array, state: Tree, *, active: Array, key: Array) -> tuple[Array, Tree]:
        del key
        largest = jnp.where(active, losses, -jnp.inf).max()
        return share(active & (losses == largest), losses.dtype), state

    return LossWeighting(start, weights)


def group_dro(lr: float = 0.01) -> LossWeighting:
    """Distributionally robust weights: multiplied by exp(lr L_i) at every step, of sum 1.

    A weight is moved before it is used, as in the source: exponentiated gradient ascent for
    max over the simplex of sum_i w_i L_i.

    Source: Sagawa et al., "Distributionally Robust Neural Networks for Group Shifts", arXiv
    1911.08731, algorithm 1, with tasks for groups. There a step sees one group; here it sees all
    tasks of the batch. Kept as logarithms, which move around their mean over the active tasks:
    the same weights, and an absent task keeps its own. Without their regularisation and group
    adjustments, which belong to the optimiser and the losses.

    Args:
      lr: step of the weights, > 0 (0.01 in the authors' code).

    Raises:
      ValueError: a step that is not positive.
    """
    if not lr > 0:
        raise ValueError(f"lr must be positive, found {lr}")

    def start(num_tasks: int) -> Array:
        return jnp.zeros(num_tasks, jnp.float32)

    def weights(losses: Array, state: Array, *, active: Array, key: Array) -> tuple[Array, Array]:
        del key
        logits = exponentiated(state, (lr * losses).astype(jnp.float32), active)
        return softmax(logits, active).astype(losses.dtype), logits

    return LossWeighting(start, weights)

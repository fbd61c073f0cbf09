"""Loss weightings: weights from the task losses alone, so that one backward pass is enough.

Absent tasks (no label in the batch) have weight 0 and do not move anything they own in the state:
the others are weighted as if the absent ones had not been listed.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import jax.numpy as jnp

from mtl_jax.methods import trained
from mtl_jax.methods.base import Array, LossWeighting, Tree
from mtl_jax.methods.trained import TrainedState, adam, descend, random_logits, share, softmax

Reduction = Literal["mean", "sum"]


def _no_state(num_tasks: int) -> tuple[()]:
    del num_tasks
    return ()


def _check_reduction(reduction: str) -> None:
    if reduction not in ("mean", "sum"):
        raise ValueError(f"reduction must be 'mean' or 'sum', found {reduction!r}")


def linear_scalarization(reduction: Reduction = "mean") -> LossWeighting:
    """Linear scalarisation (equal weighting): 1, or 1 / number of active tasks with "mean"."""
    _check_reduction(reduction)

    def weights(losses: Array, state: Tree, *, active: Array, key: Array) -> tuple[Array, Tree]:
        del key
        equal = share(active, losses.dtype)
        return (equal if reduction == "mean" else active.astype(losses.dtype)), state

    return LossWeighting(_no_state, weights)


def uncertainty(lr: float = 0.025, init: float = 0.0) -> LossWeighting:
    """Uncertainty weighting: minimises sum_i exp(-s_i) L_i / 2 + s_i / 2 over s too.

    Source: Kendall et al., "Multi-Task Learning Using Uncertainty to Weigh Losses for Scene
    Geometry and Semantics", arXiv 1705.07115, section 3.2, with s = log sigma^2 and one form for
    all kinds of loss. s has an Adam optimiser of its own and its gradient, (1 - exp(-s_i) L_i) / 2,
    is written out: no pass through the network. The weights of a step use s from before it.

    Args:
      lr: Adam's learning rate for s (0.025 in the trainers of Nash-MTL and FAMO).
      init: first value of s (0 in Nash-MTL's code, -0.5 in LibMTL).

    Raises:
      ValueError: a learning rate that is not positive.
    """
    optimiser = adam(lr)

    def start(num_tasks: int) -> TrainedState:
        return trained.start(optimiser, num_tasks, init)

    def weights(
        losses: Array, state: TrainedState, *, active: Array, key: Array
    ) -> tuple[Array, TrainedState]:
        del key
        precision = jnp.exp(-state.values)
        grad = (1 - precision * losses.astype(jnp.float32)) / 2
        w = jnp.where(active, precision / 2, 0).astype(losses.dtype)
        return w, descend(optimiser, state, grad, active)

    return LossWeighting(start, weights)


def random_loss_weighting() -> LossWeighting:
    """Random loss weighting: softmax of standard normal numbers, drawn anew every step.

    Source: Lin et al., "Reasonable Effectiveness of Random Weighting", arXiv 2111.10603, with the
    normal distribution of the authors' library.
    """

    def weights(losses: Array, state: Tree, *, active: Array, key: Array) -> tuple[Array, Tree]:
        return softmax(random_logits(key, losses.shape[0], losses.dtype), active), state

    return LossWeighting(_no_state, weights)


class DwaState(NamedTuple):
    """State of `dwa`: two windows of losses, oldest first.

    Attributes:
      losses: [2 window, T] float32, 0 where absent.
      seen: [2 window, T] bool, whether the task was there.
      steps: int32, number of steps so far.
    """

    losses: Array
    seen: Array
    steps: Array


def dwa(temperature: float = 2.0, window: int = 25) -> LossWeighting:
    """Dynamic weight average: T softmax(r / temperature), r the ratio of the last two mean losses.

    Source: Liu et al., "End-to-End Multi-Task Learning with Attention", arXiv 1803.10704, equation
    7, over sliding windows of steps (as Nash-MTL's code does) in the place of epochs, so that the
    weights do not depend on how long an epoch is. Until both windows are full all r are 1; a
    task that is missing from one of them has r = 1.

    Args:
      temperature: > 0; the larger, the more equal the weights.
      window: steps in a window, >= 1.

    Raises:
      ValueError: an option out of range.
    """
    if not temperature > 0:
        raise ValueError(f"temperature must be positive, found {temperature}")
    if not window >= 1:
        raise ValueError(f"window must be at least 1, found {window}")

    def start(num_tasks: int) -> DwaState:
        shape = (2 * window, num_tasks)
        return DwaState(jnp.zeros(shape, jnp.float32), jnp.zeros(shape, bool), jnp.int32(0))

    def weights(
        losses: Array, state: DwaState, *, active: Array, key: Array
    ) -> tuple[Array, DwaState]:
        del key
        now = jnp.where(active, losses, 0).astype(jnp.float32)
        history = jnp.concatenate([state.losses[1:], now[None]])
        seen = jnp.concatenate([state.seen[1:], active[None]])
        sums = history.reshape(2, window, -1).sum(1)
        counts = seen.reshape(2, window, -1).sum(1)
        means = sums / jnp.maximum(counts, 1)
        old, new = means
        known = (counts > 0).all(0) & (old > 0) & (state.steps + 1 >= 2 * window)
        ratio = jnp.where(known, new / jnp.where(known, old, 1), 1)
        w = active.sum() * softmax(ratio / temperature, active)
        return w.astype(losses.dtype), DwaState(history, seen, state.steps + 1)

    return LossWeighting(start, weights)


def scale_invariant(reduction: Reduction = "sum", eps: float = 1e-12) -> LossWeighting:
    """Scale-invariant objective: sum (or mean) of log L_i, so that w_i = 1 / L_i.

    A baseline of Nash-MTL's experiments. For losses that are not negative; `eps` is added to them
    (the FS-MTL code's value, with "mean").

    Raises:
      ValueError: an option out of range.
    """
    _check_reduction(reduction)
    if not eps > 0:
        raise ValueError(f"eps must be positive, found {eps}")

    def weights(losses: Array, state: Tree, *, active: Array, key: Array) -> tuple[Array, Tree]:
        del key
        equal = share(active, losses.dtype)
        factor = equal if reduction == "mean" else active.astype(losses.dtype)
        return factor / (jnp.where(active, jnp.maximum(losses, 0), 1) + eps), state

    return LossWeighting(_no_state, weights)


def famo(lr: float = 0.025, gamma: float = 0.001) -> LossWeighting:
    """Fast adaptive multitask optimisation: an MGDA-like update from loss values alone.

    With z = softmax(xi): w_i = c z_i / L_i, c = 1 / sum(z_i / L_i). After the parameter update the
    losses are evaluated again on the same batch, and xi descends on z (delta - z.delta) + gamma xi,
    delta = log L(before) - log L(after), with Adam.

    Source: Liu et al., "FAMO: Fast Adaptive Multitask Optimization", arXiv 2306.03792, algorithm 1.
    For losses whose lower bound is 0 (the authors' default); 1e-8 is added to them, as there. The
    clipping of the shared gradient in their training loop belongs to the optimiser here.

    Args:
      lr: Adam's learning rate for xi.
      gamma: weight decay of xi, added to its gradient (0.001 in most of the authors' scripts).

    Raises:
      ValueError: an option out of range.
    """
    optimiser = adam(lr)
    if not gamma >= 0:
        raise ValueError(f"gamma must be non-negative, found {gamma}")
    offset = 1e-8

    def start(num_tasks: int) -> TrainedState:
        return trained.start(optimiser, num_tasks, 0.0)

    def weights(
        losses: Array, state: TrainedState, *, active: Array, key: Array
    ) -> tuple[Array, TrainedState]:
        del key
        safe = jnp.where(active, jnp.maximum(losses, 0), 1) + offset
        w = softmax(state.values, active) / safe
        total = w.sum()
        return (w / jnp.where(total > 0, total, 1)).astype(losses.dtype), state

    def after_step(
        state: TrainedState, before: Array, after: Array, *, active: Array
    ) -> TrainedState:
        def log(losses: Array) -> Array:
            safe = jnp.where(active, jnp.maximum(losses, 0), 1) + offset
            return jnp.log(safe).astype(jnp.float32)

        z = softmax(state.values, active)
        delta = log(before) - log(after)
        grad = z * (delta - jnp.vdot(z, delta)) + gamma * state.values
        return descend(optimiser, state, grad, active)

    return LossWeighting(start, weights, after_step)

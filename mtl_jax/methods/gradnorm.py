"""GradNorm: gradient lengths kept at one size times each task's rate of progress (Chen et al.)."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp

from mtl_jax.methods import trained
from mtl_jax.methods.base import Aggregator, Array, Traits, Tree
from mtl_jax.methods.trained import TrainedState, adam, descend, share, softmax
from mtl_jax.methods.weighting import gram_aggregator


class GradNormState(NamedTuple):
    """State of `gradnorm`.

    Attributes:
      first: [T] float32, each task's first positive loss; 0 before there is one.
      logits: the weights' logits and their optimiser.
    """

    first: Array
    logits: TrainedState


def gradnorm_slope(weights: Array, norms: Array, rates: Array, alpha: float, n: Array) -> Array:
    """Returns the gradient [T] of sum_i |w_i |g_i| - target_i| for the logits of w.

    w = n softmax(logits), and the targets, mean_k(w_k |g_k|) rates_i^alpha, count as constants.

    Args:
      weights: [T] w, sum n; 0 for absent tasks.
      norms: [T] |g_i|.
      rates: [T] relative inverse training rates, of mean 1.
      alpha: strength of the pull back to a common rate.
      n: number of active tasks.
    """
    lengths = weights * norms
    targets = lengths.sum() / jnp.maximum(n, 1) * rates**alpha
    gap = lengths - targets
    # The sign of a rounding error is none: a single task, or tasks that are level, stay put.
    level = jnp.abs(gap) <= 16 * jnp.finfo(gap.dtype).eps * jnp.maximum(lengths, targets)
    slope = jnp.where(level, 0, jnp.sign(gap)) * norms * weights
    return slope - weights / jnp.maximum(n, 1) * slope.sum()


def gradnorm(alpha: float = 1.5, lr: float = 0.025) -> Aggregator:
    """Gradient normalisation: d = sum_i w_i g_i with w_i = T softmax(s_i), trained by Adam.

    s descends on sum_i |n_i - mean(n) r_i^alpha| with n_i = w_i |g_i| and r_i = L_i / L_i(0) over
    its mean: tasks that learn slowly get long gradients. The weights of a step use s from before.

    Source: Chen et al., "GradNorm: Gradient Normalization for Adaptive Loss Balancing in Deep
    Multitask Networks", arXiv 1711.02257, algorithm 1. It needs the lengths of the task gradients,
    so it is an aggregator here: over all shared parameters, where the paper takes the last shared
    layer, and the heads' gradients are not weighted, while the paper weighs the losses. The
    gradient of s is written out: no second-order differentiation. The weights are a softmax (as
    in LibMTL), so that they stay positive. L_i(0) is the task's first positive loss.

    Args:
      alpha: strength of the pull back to a common training rate, >= 0.
      lr: Adam's learning rate for s; the papers train the weights with the network's.

    Raises:
      ValueError: an option out of range.
    """
    if not alpha >= 0:
        raise ValueError(f"alpha must be non-negative, found {alpha}")
    optimiser = adam(lr)

    def init(shared: Tree, num_tasks: int) -> GradNormState:
        del shared
        zeros = jnp.zeros(num_tasks, jnp.float32)
        return GradNormState(zeros, trained.start(optimiser, num_tasks, 0.0))

    def weights_fn(
        gram: Array, state: GradNormState, *, losses: Array, active: Array, key: Array
    ) -> tuple[Array, GradNormState]:
        del key
        now = jnp.where(active, jnp.maximum(losses, 0), 0).astype(jnp.float32)
        first = jnp.where(state.first > 0, state.first, now)
        known = active & (first > 0)
        ratio = jnp.where(known, jnp.minimum(now / jnp.where(known, first, 1), 1e30), active)
        mean = (share(active, ratio.dtype) * ratio).sum()
        rates = jnp.where(mean > 0, ratio / jnp.where(mean > 0, mean, 1), active)
        count = active.sum()
        weights = count * softmax(state.logits.values.astype(gram.dtype), active)
        norms = jnp.sqrt(jnp.where(active, jnp.diag(gram), 0))
        slope = gradnorm_slope(weights, norms, rates.astype(gram.dtype), alpha, count)
        logits = descend(optimiser, state.logits, slope.astype(jnp.float32), active)
        return weights, GradNormState(first, logits)

    return gram_aggregator(
        weights_fn,
        init=init,
        traits=Traits(on_equal=lambda num_tasks, norm: float(num_tasks), linear=True),
    )

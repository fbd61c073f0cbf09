"""Scalarisations of the losses by one smooth function: geometric mean, smooth Tchebycheff.

For losses that are not negative; 1e-12 is added to them, as in `scale_invariant`, so that a loss of
0 has a finite weight.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp

from mtl_jax.methods.base import Array, LossWeighting, Tree
from mtl_jax.methods.trained import share, softmax

_OFFSET = 1e-12


def _positive(losses: Array, active: Array) -> Array:
    return jnp.where(active, jnp.maximum(losses, 0), 1) + _OFFSET


def gls() -> LossWeighting:
    """Geometric loss strategy: (prod_i L_i)^(1 / T), so that w_i = (prod_k L_k)^(1 / T) / (T L_i).

    Source: Chennupati et al., "MultiNet++: Multi-Stream Feature Aggregation and Geometric Loss
    Strategy for Multi-Task Learning", arXiv 1904.08492, equation 2. Computed by logarithms.
    """

    def start(num_tasks: int) -> tuple[()]:
        del num_tasks
        return ()

    def weights(losses: Array, state: Tree, *, active: Array, key: Array) -> tuple[Array, Tree]:
        del key
        equal = share(active, losses.dtype)
        logs = jnp.log(_positive(losses, active))
        # The logarithms are subtracted before the exponential: a ratio of two tiny numbers.
        return equal * jnp.exp((equal * logs).sum() - logs), state

    return LossWeighting(start, weights)


class StchState(NamedTuple):
    """State of `stch`.

    Attributes:
      steps: int32, number of steps so far.
      sums: [T] float32, sum of the losses that make the nadir point.
      counts: [T] int32, how many they are.
    """

    steps: Array
    sums: Array
    counts: Array


def stch(mu: float = 1.0, warmup: int = 500) -> LossWeighting:
    """Smooth Tchebycheff scalarisation: T mu log sum_i exp(log(L_i / nadir_i) / mu).

    So w_i = T softmax(log(L / nadir) / mu)_i / L_i: the smaller mu, the more the task counts that
    is worst relative to its nadir. Before, sum log L_i is minimised for `warmup` steps, the last
    fifth of which makes nadir_i, the mean of L_i.

    Source: Lin et al., "Smooth Tchebycheff Scalarization for Multi-Objective Optimization", arXiv
    2402.19078, equation 6, with the logarithms, the factor T and the warm-up of the authors' code,
    which warms up for four epochs and takes the mean over a fifth. Here these are steps, so that
    nothing depends on how long an epoch is. A task that is first seen later has its first loss
    as its nadir.

    Args:
      mu: smoothing, > 0.
      warmup: steps before the scalarisation starts, >= 1.

    Raises:
      ValueError: an option out of range.
    """
    if not mu > 0:
        raise ValueError(f"mu must be positive, found {mu}")
    if not warmup >= 1:
        raise ValueError(f"warmup must be at least 1, found {warmup}")
    measured_from = warmup - max(1, warmup // 5)

    def start(num_tasks: int) -> StchState:
        return StchState(
            jnp.int32(0), jnp.zeros(num_tasks, jnp.float32), jnp.zeros(num_tasks, jnp.int32)
        )

    def weights(
        losses: Array, state: StchState, *, active: Array, key: Array
    ) -> tuple[Array, StchState]:
        del key
        positive = _positive(losses, active)
        measured = (state.steps >= measured_from) & (state.steps < warmup)
        late = (state.steps >= warmup) & (state.counts == 0)
        counted = active & (measured | late)
        sums = state.sums + jnp.where(counted, positive, 0).astype(jnp.float32)
        counts = state.counts + counted
        nadir = jnp.where(counts > 0, sums / jnp.maximum(counts, 1), 1).astype(losses.dtype)
        shares = active.sum() * softmax(jnp.log(positive / nadir) / mu, active)
        w = jnp.where(state.steps < warmup, active.astype(losses.dtype), shares) / positive
        return w, StchState(state.steps + 1, sums, counts)

    return LossWeighting(start, weights)

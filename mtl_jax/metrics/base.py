"""The contract of a metric: a pytree of sums, merged by addition, computed at the end.

A metric state is a NamedTuple of sums over examples, so that merging states is adding them:
over the devices (psum), over batches and over processes. `state.compute()` divides the sums, in
numpy float64, and returns `{name: value}`.

Precision. A float32 sum loses whole examples beyond 2^24, so two things are done. Counts of
unweighted or masked examples are int32, exact up to 2^31 in one state on the device. And states
of different batches are merged on the host, by `accumulate`, in int64 and float64. What remains
is the rounding of one batch's float32 sum, about 1e-7 of it whatever the batch: sums over
examples are written as reductions, never as scatter-adds or matrix products, whose running
float32 sums are off by 1e-3 at a million pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array
Tree = Any
State = TypeVar("State")


class MetricState(Protocol):
    """A pytree of sums that knows what to make of them."""

    def compute(self) -> dict[str, float]:
        """Returns the metrics by name; the name "" means the name that the state goes by."""
        ...


class Mean(NamedTuple):
    """A weighted mean.

    Attributes:
      total: sum of weight times value.
      weight: sum of the weights; int32 if they are a mask or absent.
    """

    total: Array
    weight: Array

    def compute(self) -> dict[str, float]:
        """Returns `{"": mean}`, NaN if nothing was counted."""
        return {"": ratio(self.total, self.weight)}


def mean(values: Array, weights: Array | None = None) -> Mean:
    """Returns the `Mean` state of the values of one batch.

    Args:
      values: [B, ...], any real or boolean type.
      weights: [B] or [B, ...] with leading axes of `values`; None counts everything once. A
        boolean or integer mask keeps counts exact; floats are weights. Values of weight 0 are
        ignored whatever they are, NaN included.
    """
    weights = spread_weights(weights, values.shape)
    return Mean(weighted_sum(values, weights), jnp.sum(weights, dtype=weights.dtype))


def spread_weights(weights: Array | None, shape: Sequence[int]) -> Array:
    """Returns the weights broadcast to `shape`: int32 for None or a mask, else float32 or wider.

    Raises:
      ValueError: the shape of `weights` is not a prefix of `shape`.
    """
    shape = tuple(shape)
    if weights is None:
        return jnp.ones(shape, jnp.int32)
    weights = jnp.asarray(weights)
    if weights.shape != shape[: weights.ndim]:
        raise ValueError(f"weights {weights.shape} must be the leading axes of values {shape}")
    if jnp.issubdtype(weights.dtype, jnp.floating):
        weights = weights.astype(jnp.promote_types(weights.dtype, jnp.float32))
    else:
        weights = weights.astype(jnp.int32)
    missing = len(shape) - weights.ndim
    return jnp.broadcast_to(weights.reshape(weights.shape + (1,) * missing), shape)


def weighted_sum(values: Array, weights: Array, axis: int | tuple[int, ...] | None = None) -> Array:
    """Sums weight times value over `axis`, where the weight is not 0.

    int32 if both are whole numbers (bool counts as such), else float32 or wider.
    """
    dtype = jnp.promote_types(values.dtype, weights.dtype)
    if not jnp.issubdtype(dtype, jnp.integer):
        dtype = jnp.promote_types(dtype, jnp.float32)
    values = jnp.where(weights != 0, values.astype(dtype), 0)
    return jnp.sum(values * weights.astype(dtype), axis=axis, dtype=dtype)


def ratio(total: Any, weight: Any) -> float:
    """Divides two sums in float64; NaN if the weight is 0."""
    denominator = np.float64(np.asarray(weight))
    return float(np.asarray(total, np.float64) / denominator) if denominator else float("nan")


def merge(first: State, *others: State) -> State:
    """Adds metric states of the same structure, on the device or on the host."""
    for other in others:
        first = jax.tree.map(lambda a, b: a + b, first, other)
    return first


def accumulate(total: State | None, state: State) -> State:
    """Adds the state of one batch to a running total on the host, in int64 and float64.

    Use: `total = None`, then `total = accumulate(total, state)` for every batch. It waits for the
    device; call it one batch behind to keep the device busy.
    """

    def widen(leaf: Any) -> np.ndarray:
        leaf = np.asarray(leaf)
        return leaf.astype(np.int64 if np.issubdtype(leaf.dtype, np.integer) else np.float64)

    wide = jax.tree.map(widen, jax.device_get(state))
    return wide if total is None else merge(total, wide)


def unstack(state: State, names: Sequence[str]) -> dict[str, State]:
    """Splits a state whose leaves lead with a task axis [T, ...] into one state a task."""
    return {name: jax.tree.map(lambda leaf, i=i: leaf[i], state) for i, name in enumerate(names)}


def compute(states: MetricState | Mapping[str, Any]) -> dict[str, float]:
    """Computes a state, or a nested dict of states into one flat dict.

    `{"left": Classification}` gives `{"left/accuracy": ..., "left/nll": ...}`, and
    `{"loss": Mean}` gives `{"loss": ...}`.
    """
    if not isinstance(states, Mapping):
        return states.compute()
    return {
        f"{name}/{metric}" if metric else name: value
        for name, state in states.items()
        for metric, value in compute(state).items()
    }

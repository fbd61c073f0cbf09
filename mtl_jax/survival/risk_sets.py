"""Sums over risk sets in log space, O(N log N), without an N x N matrix and without subtraction.

Row j is at risk at time t if entry_j < t <= time_j, within its stratum. With rows sorted by stratum
and time, the risk sets that row j belongs to are a range of positions. So a sum over every risk set
is a sum over the ranges that cover a position. Where all ranges begin at the first position (no
entry times, one stratum), it is a cumulative sum from the end. Else each range is cut into the
O(log N) nodes of a binary tree, and a position adds up the nodes above it. The usual way, "all with
time >= t minus all with entry >= t", cancels: one large risk score that enters late would wipe out
all before it.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from mtl_jax.survival.logspace import LOG_ZERO, log_sums_from

Array = jax.Array


class RiskSets(NamedTuple):
    """Rows in the order of stratum and time. Made from data alone, for any number of sums.

    Attributes:
      order: [N] rows by position.
      first: [N] position at which the run of rows of the same stratum and time begins.
      begin: [N] first position whose risk set the row at a position belongs to; None: all begin
        at 0.
      end: [N] one past the last such position, the end of the row's run.
    """

    order: Array
    first: Array
    begin: Array | None
    end: Array

    def back(self, values: Array) -> Array:
        """Puts values [N] by position in the order of the rows."""
        return jnp.zeros_like(values).at[self.order].set(values, unique_indices=True)


def risk_sets(time: Array, entry: Array | None = None, strata: Array | None = None) -> RiskSets:
    """Sorts the rows.

    A row whose entry is not before its own time is at risk at its own time, and only then.

    Args:
      time: [N].
      entry: [N] or None.
      strata: [N] whole numbers, or None.
    """
    n = time.shape[0]
    place = jnp.arange(n, dtype=jnp.int32)
    if strata is None:
        order = jnp.argsort(time)
        new = jnp.diff(time[order]) != 0
    else:
        order = jnp.lexsort((time, strata))
        new = (jnp.diff(time[order]) != 0) | (jnp.diff(strata[order]) != 0)
    first = jax.lax.cummax(jnp.where(jnp.concatenate([jnp.ones(1, bool), new]), place, 0))
    closes = jnp.concatenate([new, jnp.ones(1, bool)])
    end = jax.lax.cummin(jnp.where(closes, place + 1, n), reverse=True)
    if entry is None and strata is None:
        return RiskSets(order, first, None, end)
    entry = jnp.full_like(time, -jnp.inf) if entry is None else entry.astype(time.dtype)
    strata = jnp.zeros(n, jnp.int32) if strata is None else strata
    # Entries sorted among the times, after times that equal them: the times before an entry are
    # those at which its row is not yet at risk.
    late = jnp.concatenate([jnp.zeros(n, jnp.int32), jnp.ones(n, jnp.int32)])
    both = jnp.lexsort((late, jnp.concatenate([time, entry]), jnp.concatenate([strata, strata])))
    passed = jnp.cumsum(late[both] == 0, dtype=jnp.int32)
    begin = jnp.zeros(2 * n, jnp.int32).at[both].set(passed, unique_indices=True)[n:][order]
    return RiskSets(order, first, jnp.minimum(begin, first), end)


def log_risk(sets: RiskSets, values: Array) -> Array:
    """Log of the sum of exp(values) over each row's risk set at its own time; [N], by position.

    Args:
      sets: of the rows.
      values: [N] by position, `LOG_ZERO` for rows that do not count.
    """
    if sets.begin is None:
        return log_sums_from(values)[sets.first]
    return _cover(values, sets.begin, sets.end)


def log_run(sets: RiskSets, values: Array) -> Array:
    """Log of the sum of exp(values) over rows of one stratum and time; [N], by position."""
    return _segments(values, sets.first, values.shape[0])[sets.first]


def _cover(values: Array, begin: Array, end: Array) -> Array:
    """At each position, log of the sum of exp(values) of the ranges [begin, end) over it; [N]."""
    n = values.shape[0]
    depth = max(n - 1, 0).bit_length()
    # Nodes as in a heap: the positions are the leaves 2^depth + i, the parent of node i is i // 2.
    # From the leaves upwards a range [left, right) takes its left end if that is a right child,
    # and its right end if that is a left child's neighbour; what is left goes on with parents.
    levels = jnp.arange(depth + 1, dtype=jnp.int32)[:, None]
    left, right = begin[None, :] + (1 << depth), end[None, :] + (1 << depth)
    left, right = -(-left >> levels), right >> levels
    take_left = (left < right) & (left % 2 == 1)
    take_right = (left + take_left < right) & (right % 2 == 1)
    nodes = jnp.stack([jnp.where(take_left, left, 0), jnp.where(take_right, right - 1, 0)])
    spread = jnp.broadcast_to(values[None, None, :], nodes.shape)
    # Node 0 is none of the heap's: it takes what is not taken.
    sums = _segments(spread.ravel(), nodes.ravel(), 2 << depth)
    above = (jnp.arange(n, dtype=jnp.int32)[None, :] + (1 << depth)) >> levels
    return jax.nn.logsumexp(sums[above], axis=0)


def _segments(values: Array, ids: Array, number: int) -> Array:
    """Log of the sum of exp(values) by segment; [number], about `LOG_ZERO` for empty ones."""
    top = jax.ops.segment_max(jax.lax.stop_gradient(values), ids, number)
    top = jnp.maximum(top, LOG_ZERO)
    total = jax.ops.segment_sum(jnp.exp(values - top[ids]), ids, number)
    some = total > 0
    return jnp.where(some, jnp.log(jnp.where(some, total, 1)) + top, LOG_ZERO)

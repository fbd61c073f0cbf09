"""Which pairs of rows are compared, as items for `pairs`: shared by all concordances.

The contract is that of `metrics.survival.concordance_index`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from mtl_jax.metrics.survival import pairs
from mtl_jax.metrics.survival.inputs import Rows, check_cause, dense_rank
from mtl_jax.metrics.survival.nonparametric import (
    FLOOR,
    SurvivalCurve,
    censoring_probability,
)


class Pass(NamedTuple):
    """Items whose pairs are counted at once, see `pairs`; their counts are added or taken away.

    Attributes:
      sign: 1 or -1.
      rank: [M] int64.
      block: [M] int64.
      query: [M] weights.
      point: [M] weights.
      row: [M] whose the item is; the weights above are multiples of this row's.
    """

    sign: int
    rank: np.ndarray
    block: np.ndarray
    query: np.ndarray
    point: np.ndarray
    row: np.ndarray


def uno_weights(
    rows: Rows, cause: int, censoring: SurvivalCurve, tau: float | None, limit: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns (events that count [N], their factors [N], factors of rows as partners [N])."""
    if tau is not None:
        censoring_probability(censoring, tau)
    own = rows.event == check_cause(cause)
    if tau is not None:
        own = own & (rows.time < tau)
    seen = np.ones(len(own))
    if rows.truncated:
        late = np.isfinite(rows.entry)
        seen[late] = np.maximum(censoring.at(rows.entry[late]), FLOOR)
    queries = np.zeros(len(own))
    queries[own] = seen[own] / censoring_probability(censoring, rows.time[own], limit=limit) ** 2
    return own, queries, seen


def harrell_passes(rows: Rows, rank: np.ndarray, own: np.ndarray, competing: str) -> list[Pass]:
    """The passes of `concordance`; rank [N] of the risk, own [N] the events that count."""
    time = rows.time
    if competing == "never":
        time = np.where((rows.event > 0) & ~own, np.inf, time)
    unit = np.ones(len(time), np.int64)
    return _ordered(time, own, own, rows, rank, unit, unit)


def uno_passes(
    rows: Rows,
    rank: np.ndarray,
    own: np.ndarray,
    cause: int,
    competing: str,
    queries: np.ndarray,
    points: np.ndarray,
    censoring: SurvivalCurve,
    limit: str,
) -> list[Pass]:
    """The passes of `uno_concordance`."""
    if competing == "censor":
        return _ordered(rows.time, own, own, rows, rank, queries, points)
    # Another cause at T_j is a later partner for T_i < T_j, and an earlier one for T_i >= T_j.
    others = (rows.event > 0) & (rows.event != cause)
    found = _ordered(rows.time, own, own | others, rows, rank, queries, points)
    last = rows.time[own].max(initial=-np.inf)
    j, i = np.flatnonzero(others & (rows.time <= last)), np.flatnonzero(own)
    weight = points[j] / censoring_probability(censoring, rows.time[j], limit=limit)
    asks = queries[i] * censoring_probability(censoring, rows.time[i], limit=limit)
    return [*found, _merged(1, rows.time[j], rows.time[i], rank, j, i, weight, asks)]


def total_counts(passes: Sequence[Pass], weights: np.ndarray) -> pairs.PairCounts:
    """Adds up the passes on the host with weights [N] of the rows."""
    found = pairs.PairCounts(0, 0, 0)
    for one in passes:
        w = weights[one.row]
        counts = pairs.count_pairs(one.rank, one.block, one.query * w, one.point * w)
        found = pairs.PairCounts(*(a + one.sign * b for a, b in zip(found, counts, strict=True)))
    return found


def _ordered(
    time: np.ndarray,
    own: np.ndarray,
    first: np.ndarray,
    rows: Rows,
    rank: np.ndarray,
    queries: np.ndarray,
    points: np.ndarray,
) -> list[Pass]:
    """Passes for the pairs of i in `own` with the j that come after T_i and are at risk at T_i.

    Args:
      time: [N], may be inf.
      own: [N] mask of the i.
      first: [N] mask of the rows that come before the others at the same time.
      rows: for their entries.
      rank: [N].
      queries: [N] factors of the i.
      points: [N] factors of the j.
    """
    block = dense_rank(-time) * 2 + first  # by falling time, at one time the censored ones first
    top = int(rank.max(initial=0))
    order = np.argsort(block * (top + 1) + (top - rank))
    query = queries * own
    found = [Pass(1, rank[order], block[order], query[order], points[order], order)]
    if rows.truncated:
        j, i = np.flatnonzero(np.isfinite(rows.entry)), np.flatnonzero(own)
        late = -rows.entry[j], -time[i]
        found.append(_merged(-1, *late, rank, j, i, points[j], queries[i]))
    return found


def _merged(
    sign: int,
    point_key: np.ndarray,
    query_key: np.ndarray,
    rank: np.ndarray,
    j: np.ndarray,
    i: np.ndarray,
    points: np.ndarray,
    queries: np.ndarray,
) -> Pass:
    """A pass of the pairs with point_key_j <= query_key_i; j and i are the rows of the keys."""
    asks = np.repeat([0, 1], [len(j), len(i)])
    order = np.argsort(dense_rank(np.concatenate([point_key, query_key])) * 2 + asks)
    row = np.concatenate([j, i])[order]
    block = np.arange(len(row))
    query = np.concatenate([np.zeros(len(j), queries.dtype), queries])[order]
    point = np.concatenate([points, np.zeros(len(i), points.dtype)])[order]
    return Pass(sign, rank[row], block, query, point, row)

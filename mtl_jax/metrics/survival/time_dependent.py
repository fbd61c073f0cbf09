"""Antolini's time-dependent concordance of survival curves: C_td.

A row i with an event at T_i is compared, at T_i, with the rows j that are at risk and known to live
longer: concordant if S(T_i | i) < S(T_i | j) (Antolini, Boracchi and Biganzoli 2005). Which pairs
are comparable is the contract of `concordance_index`. Curves may cross, so that every
event time needs an order of its own; but on a grid all events of an interval share one column, and
the pairs of a column are one count in O(n log n): O(K n log n) for K columns.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mtl_jax.metrics.survival import pairs
from mtl_jax.metrics.survival.concordance_index import (
    COMPETING,
    Concordance,
    tie_value,
)
from mtl_jax.metrics.survival.curves import INTERPOLATIONS, column_at, curves_at
from mtl_jax.metrics.survival.inputs import (
    NAN,
    Rows,
    check_cause,
    check_choice,
    check_curves,
    check_rows,
    dense_rank,
    warn_nan,
)
from mtl_jax.metrics.survival.passes import harrell_passes, total_counts

FEW = 32
"""Up to so many events of a column are compared one by one, each in O(n), which is faster."""


def antolini_concordance(
    time: Any,
    event: Any,
    survival: Any,
    grid: Any,
    *,
    weights: Any = None,
    entry: Any = None,
    cause: int = 1,
    competing: str = "censor",
    interpolation: str = "step",
    ties: str = "half",
) -> Concordance:
    """C_td of survival curves on a grid.

    Args:
      time: [N].
      event: [N].
      survival: [N, K] chances to be without event at the times of the grid; for one of several
        causes, 1 minus its cumulative incidence.
      grid: [K] rising times.
      weights: [N] or None.
      entry: [N] or None.
      cause: whose events are ranked.
      competing: as in `concordance`.
      interpolation: "step" takes the column of the last grid time at or before T_i (before the
        first all curves are 1, a tie); "linear" and "log_linear" (constant hazard) go between the
        columns, at the cost of O(n) for every event.
      ties: "half"; "zero", which is Antolini's and pycox's "antolini"; "drop"; or
        "pycox_adjusted", which is pycox's default "adj_antolini": equal curves count half, pairs of
        an event and a row censored at the same time count twice, and two events at one time, in
        both orders, count 1 if the curves are equal there, else half. The counts returned never
        hold these additions; only the value does.

    Returns:
      as of `concordance`, with `tied_risk` the pairs of equal survival.
    """
    check_choice("competing", competing, COMPETING)
    check_choice("ties", ties, ("half", "zero", "drop", "pycox_adjusted"))
    check_choice("interpolation", interpolation, INTERPOLATIONS)
    rows = check_rows(time, event, weights, entry)
    curves, grid = check_curves(survival, grid, rows)
    own = rows.event == check_cause(cause)
    name = "Antolini's concordance"
    found = pairs.PairCounts(0, 0, 0)
    extra = _Extra()
    if interpolation == "step":
        column = np.searchsorted(grid, rows.time, "right") - 1
        groups = ((k, own & (column == k)) for k in np.unique(column[own]))
    else:
        groups = ((t, own & (rows.time == t)) for t in np.unique(rows.time[own]))
    for where, asks in groups:
        values = (
            column_at(curves, int(where))
            if interpolation == "step"
            else curves_at(curves, grid, np.asarray([where]), interpolation)[:, 0]
        )
        new = _column(rows, own, asks, values, competing)
        found = pairs.PairCounts(*(a + b for a, b in zip(found, new, strict=True)))
        extra.add(rows, own, asks, values, competing)
    if not found.comparable > 0:
        value = warn_nan(
            name, f"no pair is comparable among {len(own)} rows with {int(own.sum())} events"
        )
    elif np.isnan(curves).any():
        value = warn_nan(name, "the survival curves hold NaN")
    elif ties == "pycox_adjusted":
        value = float(
            (found.concordant + found.tied / 2 + extra.above)
            / (found.comparable + extra.comparable)
        )
    else:
        value = float(tie_value(found, ties))
        if np.isnan(value):
            value = warn_nan(name, 'all comparable pairs are tied, and ties is "drop"')
    discordant = found.comparable - found.concordant - found.tied
    return Concordance(
        value, found.concordant, discordant, found.tied, found.comparable, extra.tied_time
    )


def _column(
    rows: Rows, own: np.ndarray, asks: np.ndarray, values: np.ndarray, competing: str
) -> pairs.PairCounts:
    """Counts the pairs of the events `asks` at the survival `values` [N]."""
    if asks.sum() <= FEW:
        return _one_by_one(rows, own, asks, values, competing)
    later = (rows.time >= rows.time[asks].min()) | ((competing == "never") & (rows.event > 0))
    some = rows.only(later)
    passes = harrell_passes(some, dense_rank(-values[later]), own[later], competing)
    asked = asks[later]
    passes = [one._replace(query=one.query * asked[one.row]) for one in passes]
    return total_counts(passes, some.weights)


def _one_by_one(
    rows: Rows, own: np.ndarray, asks: np.ndarray, values: np.ndarray, competing: str
) -> pairs.PairCounts:
    exact = rows.weights.dtype.kind == "i"
    sums = [0, 0, 0] if exact else [0.0, 0.0, 0.0]
    for i in np.flatnonzero(asks):
        t = rows.time[i]
        partner = (rows.time > t) | ((rows.time == t) & ~own)
        if competing == "never":
            partner |= (rows.event > 0) & ~own
        partner &= rows.entry < t
        w, s = rows.weights[partner], values[partner]
        for k, part in enumerate((w[s > values[i]], w[s == values[i]], w)):
            sums[k] += rows.weights[i].item() * part.sum().item()
    return pairs.PairCounts(*sums)


class _Extra:
    """What pairs at the same time add in pycox's adjusted rule, and their weight.

    Attributes:
      above: added to the concordant pairs.
      comparable: added to all pairs.
      tied_time: weight of the pairs of an event and a row censored at the same time.
    """

    def __init__(self) -> None:
        self.above = 0.0
        self.comparable = 0.0
        self.tied_time: Any = 0

    def add(
        self, rows: Rows, own: np.ndarray, asks: np.ndarray, values: np.ndarray, competing: str
    ) -> None:
        """Adds the pairs at the times of the events `asks`."""
        # Only the rows of the column's span of time are looked at.
        span = rows.time[asks]
        near = (rows.time >= span.min()) & (rows.time <= span.max())
        rows, own, asks, values = rows.only(near), own[near], asks[near], values[near]
        censored = ~own if competing == "censor" else rows.event == 0
        events, others = np.flatnonzero(asks), np.flatnonzero(censored)
        # By time, and at one time by survival: equal pairs are runs, below and above are counts.
        rank, times = dense_rank(values), dense_rank(rows.time)
        size = int(rank.max(initial=0)) + 1
        key = times * size + rank
        w = rows.weights
        order = others[np.argsort(key[others])]
        sums = np.concatenate([[0], np.cumsum(w[order])])

        def weight_below(keys: np.ndarray, side: Any) -> np.ndarray:
            return sums[np.searchsorted(key[order], keys, side)]

        end = weight_below((times[events] + 1) * size, "left")
        all_of_time = end - weight_below(times[events] * size, "left")
        above = end - weight_below(key[events], "right")
        equal = weight_below(key[events], "right") - weight_below(key[events], "left")
        # Between two events: ordered pairs of equal survival count 1, the others half.
        groups = [_squares(w[events], group[events]) for group in (key, times)]
        itself = float((w[events] ** 2).sum())
        self.above += float((w[events] * (above + equal / 2)).sum())
        self.above += (groups[0] + groups[1]) / 2 - itself
        weight = (w[events] * all_of_time).sum().item()
        self.comparable += weight + groups[1] - itself
        self.tied_time += weight


def _squares(weights: np.ndarray, group: np.ndarray) -> float:
    """The sum over groups of the squared weight of each."""
    if not len(group):
        return NAN
    return float((np.bincount(dense_rank(group), weights) ** 2).sum())

"""Do as many creatives stop as predicted: by week of age or of the calendar, and by risk?

The expected stops of a week are the sum of the predicted hazards of all rows and days at risk in
it, row i being at risk on days entry_i < t <= time_i. Observed less expected is then a martingale
whatever the censoring, and if hazards are right its variance is the sum of h (1 - h). It does not
matter whether they come from one curve or are predicted anew each day, as long as column t - 1
knows no day from t on. D-calibration and the distance from Kaplan-Meier's curve are in
`metrics.survival`.

The interval of observed / expected is that of a Poisson count (Garwood 1936), which is a little
wide for stops of chances that are not small; with `groups` it is that of resampled campaigns, for
stops that depend on each other.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from scipy.stats import chi2

from mtl_jax.errors import UserError
from mtl_jax.metrics.survival.inputs import check_rows
from mtl_jax.systems.ad_survival.resampling import ratio, resamples


class Stops(NamedTuple):
    """Observed against expected stops in B bins (weeks, or groups of risk).

    Attributes:
      bin: [B] the first day of a week; or the number of a group of risk, from 0 on.
      at_risk: [B] rows at risk on some day of the bin.
      observed: [B] stops.
      expected: [B] stops, if the hazards are right.
      variance: [B] of the observed, if the hazards are right.
      ratio: [B] observed / expected; NaN where nothing is expected.
      low: [B] lower end of its interval.
      high: [B] upper end.
      total: observed / expected of all bins together.
      statistic: sum of (observed - expected)^2 / variance over bins with a variance.
      p_value: of it, by chi squared with as many degrees of freedom as there are such bins, as for
        hazards that were not fitted to these rows. It is rough below about 5 expected stops a bin.
    """

    bin: np.ndarray
    at_risk: np.ndarray
    observed: np.ndarray
    expected: np.ndarray
    variance: np.ndarray
    ratio: np.ndarray
    low: np.ndarray
    high: np.ndarray
    total: float
    statistic: float
    p_value: float


def weekly_stops(
    time: Any,
    event: Any,
    hazards: Any,
    *,
    days: int = 7,
    start: Any = None,
    entry: Any = 0,
    groups: Any = None,
    replicates: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> Stops:
    """Observed against expected stops by week of age, or of the calendar.

    Args:
      time: [N] days.
      event: [N]; any cause is a stop. Stops after day D are not counted.
      hazards: [N, D], predicted P(stop on day t | alive, what is known before t).
      days: of a week; 30 for months.
      start: [N] calendar day of day 1: bins are then of the calendar, the first of them beginning
        on the earliest start, which shows drift. None for bins of age.
      entry: [N] or a number: rows are at risk after this day, the landmark of the hazards.
      groups: [N] campaign ids for the intervals; None for Poisson's.
      replicates: number of resamples.
      seed: of the resamples.
      level: probability that an interval should cover.
    """
    if days < 1:
        raise UserError(f"days is {days}; a week has 1 or more")
    risky, stops, hazards = _cells(time, event, hazards, entry)
    day = np.arange(hazards.shape[1])[None]
    first, offset = 1, np.zeros((len(hazards), 1), np.int64)
    if start is not None:
        start = np.asarray(start).astype(np.int64)
        first, offset = int(start.min()), (start - start.min())[:, None]
    where = np.broadcast_to((offset + day) // days, hazards.shape)
    used = int(where[risky].max(initial=-1)) + 1
    where = np.where(risky, where, used)  # Cells outside the risk set go to a bin that is dropped.
    row = np.arange(len(hazards))[:, None]
    predicted = np.where(risky, hazards, 0.0)
    tables = [
        np.bincount((row * (used + 1) + where).ravel(), values.ravel(), len(hazards) * (used + 1))
        for values in (risky, stops, predicted, predicted * (1 - predicted))
    ]
    counts, *sums = (table.reshape(len(hazards), used + 1)[:, :used] for table in tables)
    names = first + days * np.arange(used)
    return _stops(names, counts > 0, sums, groups, replicates, seed, level)


def stops_by_risk(
    time: Any,
    event: Any,
    hazards: Any,
    *,
    bins: int = 10,
    until: int | None = None,
    entry: Any = 0,
    by: Any = None,
    groups: Any = None,
    replicates: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> Stops:
    """Observed against expected stops in groups of rows of like risk.

    Rows are ordered by the predicted chance of a stop on days entry + 1..until and cut into groups
    of equal size, equal chances together; groups that cannot be told apart are joined.

    Args:
      time: [N] days.
      event: [N]; any cause is a stop.
      hazards: [N, D], see `weekly_stops`.
      bins: groups.
      until: last day that counts; None for D.
      entry: [N] or a number, see `weekly_stops`; rows not alive then are left out.
      by: [N] another number to order rows by; one that looks ahead (such as hazards that saw days
        after `entry`) would make groups that are not at random given the past.
      groups: [N] campaign ids for the intervals; None for Poisson's.
      replicates: number of resamples.
      seed: of the resamples.
      level: probability that an interval should cover.
    """
    if bins < 1:
        raise UserError(f"bins is {bins}; it must be 1 or more")
    risky, stops, hazards = _cells(time, event, hazards, entry)
    days = hazards.shape[1]
    until = days if until is None else until
    if not 1 <= until <= days:
        raise UserError(f"until is day {until}; it must be one of 1..{days}")
    late = np.broadcast_to(np.asarray(entry), len(hazards))[:, None] <= np.arange(days)
    window = late & (np.arange(days) < until)
    risky = risky & window
    alive = np.asarray(risky.any(1))
    if by is None:
        # Days after the stop count, too: else the order would tell of the outcome.
        needed = window & alive[:, None]
        _check_hazards(hazards, needed)
        safe = np.where(needed, np.minimum(hazards, 1 - 1e-12), 0.0)
        score = -np.log1p(-safe).sum(1)
    else:
        score = np.asarray(by, np.float64)
    distinct, place = np.unique(score[alive], return_inverse=True)
    mass = np.cumsum(np.bincount(place, minlength=len(distinct)))
    middle = (mass + np.concatenate([[0], mass[:-1]])) / 2 / max(alive.sum(), 1)
    cut = np.minimum((middle * bins).astype(np.int64), bins - 1)[place]
    names, group = np.unique(cut, return_inverse=True)
    inside = np.zeros((len(hazards), len(names)), bool)
    inside[np.flatnonzero(alive), group] = True
    predicted = np.where(risky, hazards, 0.0)
    each = (stops & risky, predicted, predicted * (1 - predicted))
    sums = [inside * values.sum(1)[:, None] for values in each]
    return _stops(names, inside, sums, groups, replicates, seed, level)


def _cells(
    time: Any, event: Any, hazards: Any, entry: Any
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows and days at risk, and those of stops, [N, D] bool each; hazards float64."""
    time, event = np.asarray(time), np.asarray(event)
    check_rows(time, event)
    hazards = np.asarray(hazards, np.float64)
    if hazards.ndim != 2 or len(hazards) != len(time):
        raise UserError(f"hazards are {hazards.shape}; they must be rows by days ({len(time)}, D)")
    day = np.arange(1, hazards.shape[1] + 1)
    entry = np.broadcast_to(np.asarray(entry), time.shape)
    risky = (day > entry[:, None]) & (day <= time[:, None])
    _check_hazards(hazards, risky)
    return risky, risky & (day == time[:, None]) & (event > 0)[:, None], hazards


def _check_hazards(hazards: np.ndarray, needed: np.ndarray) -> None:
    wrong = needed & ~((hazards >= 0) & (hazards <= 1))
    if wrong.any():
        row, at = np.argwhere(wrong)[0]
        raise UserError(
            f"the hazard of row {row} on day {at + 1} is {hazards[row, at]}; it must be a"
            " probability, summed over causes"
        )


def _stops(
    names: np.ndarray,
    inside: np.ndarray,
    sums: list[np.ndarray],
    groups: Any,
    replicates: int,
    seed: int,
    level: float,
) -> Stops:
    if not 0 < level < 1:
        raise UserError(f"level is {level}; it must lie between 0 and 1")
    observed, expected, variance = (each.sum(0) for each in sums)
    value = ratio(observed, expected)
    if groups is None:
        ends = poisson_interval(observed, level)
        low, high = (ratio(end, expected) for end in ends)
    else:
        drawn = resamples(groups, replicates=replicates, seed=seed)
        each = ratio(drawn.sums(sums[0]), drawn.sums(sums[1]))
        low, high = _quantiles(each, level)
    some = variance > 0
    statistic = float(((observed - expected)[some] ** 2 / variance[some]).sum())
    p_value = float(chi2.sf(statistic, some.sum())) if some.any() else float("nan")
    total = float(ratio(observed.sum(), expected.sum()))
    rows = inside.sum(0)
    return Stops(
        names, rows, observed, expected, variance, value, low, high, total, statistic, p_value
    )


def poisson_interval(count: Any, level: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
    """Returns the exact limits of a Poisson mean from its counts, any shape (Garwood 1936)."""
    count = np.asarray(count, np.float64)
    tail = (1 - level) / 2
    low = np.where(count > 0, chi2.ppf(tail, 2 * np.maximum(count, 1)) / 2, 0.0)
    return low, chi2.ppf(1 - tail, 2 * (count + 1)) / 2


def _quantiles(drawn: np.ndarray, level: float) -> tuple[np.ndarray, np.ndarray]:
    """Ends [B] of percentile intervals of [R, B], NaN left out; NaN where all are."""
    ends = np.full((2, drawn.shape[1]), np.nan)
    for b, column in enumerate(drawn.T):
        some = column[~np.isnan(column)]
        if len(some) > 1:
            ends[:, b] = np.quantile(some, [(1 - level) / 2, (1 + level) / 2])
    return ends[0], ends[1]

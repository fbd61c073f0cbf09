"""Are predicted chances right? D-calibration, calibration at a time, and of the mean curve."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from scipy.stats import chi2

from mtl_jax.errors import UserError
from mtl_jax.metrics.survival.curves import mean_over_time
from mtl_jax.metrics.survival.inputs import (
    NAN,
    check_cause,
    check_curves,
    check_rows,
    check_scores,
    warn_nan,
)
from mtl_jax.metrics.survival.nonparametric import aalen_johansen, kaplan_meier


class Calibration(NamedTuple):
    """A chi-squared test of calibration; a small p-value speaks against it.

    Attributes:
      statistic: chi squared; NaN without rows.
      p_value: of it.
      freedom: degrees of freedom.
      observed: [B] in each bin.
      expected: [B] in each bin, if calibrated.
    """

    statistic: float
    p_value: float
    freedom: int
    observed: np.ndarray
    expected: np.ndarray


def d_calibration(
    time: Any, event: Any, survival_at_time: Any, *, bins: int = 10, weights: Any = None
) -> Calibration:
    """Is S(T), each row's own predicted survival at its time, uniform (Haider et al. 2020)?

    A row with an event falls into the bin of its S(T). One censored at S(C) = c would have fallen
    somewhere below c: the bins below take its weight in proportion to their width, and c's own
    bin (c - its lower edge) / c. Bins are [k / B, (k + 1) / B), the last one with 1; c = 0 belongs
    to the first. The statistic sums (observed - n / B)^2 / (n / B), with B - 1 degrees of freedom.

    The p-value takes rows as independent and counts weights as repeated rows. With late entries
    pass S(T) / S(entry). The test is for a single kind of event.

    Args:
      time: [N]; only checked.
      event: [N]; any cause is an event.
      survival_at_time: [N] predicted survival of each row at its own time.
      bins: B, 2 or more.
      weights: [N] or None.
    """
    _check_bins(bins)
    rows = check_rows(time, event, weights)
    survival = _probabilities(check_scores(survival_at_time, rows, "survival_at_time"))
    if not len(survival) or np.isnan(survival).any():
        nothing = np.full(bins, np.nan)
        why = "a survival is NaN" if len(survival) else "there are no rows"
        return Calibration(warn_nan("D-calibration", why), NAN, bins - 1, nothing, nothing)
    low = np.arange(bins) / bins
    own = np.minimum((survival * bins).astype(np.int64), bins - 1)
    # Rounding must not put a value on an edge below it.
    own = np.where(survival < own / bins, own - 1, own)
    inside = np.arange(bins)[None] == own[:, None]
    positive = survival > 0
    safe = np.where(positive, survival, 1.0)[:, None]
    spread = np.where(inside, survival[:, None] - low[None], 1 / bins) / safe
    spread = np.where(np.arange(bins)[None] <= own[:, None], spread, 0.0)
    shares = np.where(((rows.event > 0) | ~positive)[:, None], inside, spread)
    observed = np.sum(rows.weights[:, None] * shares, axis=0)
    expected = np.full(bins, observed.sum() / bins)
    statistic = float(np.sum((observed - expected) ** 2 / expected))
    return Calibration(statistic, float(chi2.sf(statistic, bins - 1)), bins - 1, observed, expected)


def one_calibration(
    time: Any,
    event: Any,
    probability: Any,
    at: float,
    *,
    bins: int = 10,
    lost: int = 1,
    cause: int | None = None,
    weights: Any = None,
    entry: Any = None,
) -> Calibration:
    """Are the chances of an event by one time right (Hosmer-Lemeshow; D'Agostino and Nam 2004)?

    Rows are ordered by the predicted chance and cut into groups of equal weight, rows of equal
    chance together. A group of weight n with mean chance p and Kaplan-Meier chance q adds
    n (q - p)^2 / (p (1 - p)). Groups that cannot be told apart are joined, so that there may be
    fewer than `bins`.

    Args:
      time: [N].
      event: [N].
      probability: [N] predicted chance of the event by `at`.
      at: the time.
      bins: groups, 2 or more.
      lost: degrees of freedom are the groups less this; 1 as D'Agostino and Nam, for chances fitted
        to these rows. For rows that the model has not seen, 0 gives the test its nominal size.
      cause: None for any cause; else q is the Aalen-Johansen incidence of this cause.
      weights: [N] or None.
      entry: [N] or None.

    Returns:
      observed and expected events n q and n p of the groups.
    """
    _check_bins(bins)
    rows = check_rows(time, event, weights, entry)
    chance = _probabilities(check_scores(probability, rows, "probability"))
    if not len(chance) or np.isnan(chance).any():
        nothing = np.full(bins, np.nan)
        why = "a probability is NaN" if len(chance) else "there are no rows"
        return Calibration(warn_nan("1-calibration", why), NAN, bins - 1, nothing, nothing)
    distinct, place = np.unique(chance, return_inverse=True)
    mass = np.cumsum(np.bincount(place, rows.weights, len(distinct)))
    # A run of equal chances belongs where its middle lies.
    middle = (mass + np.concatenate([[0.0], mass[:-1]])) / 2 / mass[-1]
    group = np.unique(np.minimum((middle * bins).astype(np.int64), bins - 1)[place], True, True)[2]
    observed, expected, statistic = [], [], 0.0
    for g in range(int(group.max()) + 1):
        mine = group == g
        part = {"weights": rows.weights[mine], "entry": rows.entry[mine]}
        if cause is None:
            q = 1 - kaplan_meier(rows.time[mine], rows.event[mine], **part).at(at)
        else:
            curve = aalen_johansen(
                rows.time[mine], rows.event[mine], cause=check_cause(cause), **part
            )
            q = curve.at(at)
        n = rows.weights[mine].sum()
        p = float(np.sum(rows.weights[mine] * chance[mine]) / n)
        observed.append(n * float(q))
        expected.append(n * p)
        inside = p * (1 - p)
        if inside > 0:
            statistic += n * (float(q) - p) ** 2 / inside
        elif float(q) != p:
            statistic = np.inf
    freedom = len(observed) - lost
    p_value = float(chi2.sf(statistic, freedom)) if freedom > 0 else NAN
    if freedom < 1:
        warn_nan(
            "p-value of 1-calibration", f"there are no degrees of freedom, {len(observed)} group"
        )
    return Calibration(
        float(statistic), p_value, freedom, np.asarray(observed), np.asarray(expected)
    )


def km_calibration(
    time: Any,
    event: Any,
    survival: Any,
    grid: Any,
    *,
    weights: Any = None,
    entry: Any = None,
) -> float:
    """Mean over time of the squared distance of the mean predicted curve from Kaplan-Meier's.

    Args:
      time: [N].
      event: [N]; any cause is an event.
      survival: [N, K].
      grid: [K] rising.
      weights: [N] or None.
      entry: [N] or None; the mean is then over rows of any entry, so predict from time 0.
    """
    rows = check_rows(time, event, weights, entry)
    survival, grid = check_curves(survival, grid, rows)
    if not len(rows.time):
        return warn_nan("calibration with Kaplan-Meier", "there are no rows")
    curve = kaplan_meier(rows.time, rows.event, weights=rows.weights, entry=rows.entry)
    return mean_over_time((_mean(survival, rows.weights) - curve.at(grid)) ** 2, grid)


def aj_calibration(
    time: Any,
    event: Any,
    incidence: Any,
    grid: Any,
    *,
    cause: int = 1,
    weights: Any = None,
    entry: Any = None,
) -> float:
    """As `km_calibration`, of the mean incidence [N, K] of a cause from Aalen-Johansen's."""
    rows = check_rows(time, event, weights, entry)
    incidence, grid = check_curves(incidence, grid, rows, "incidence")
    if not len(rows.time):
        return warn_nan("calibration with Aalen-Johansen", "there are no rows")
    curve = aalen_johansen(
        rows.time, rows.event, cause=cause, weights=rows.weights, entry=rows.entry
    )
    return mean_over_time((_mean(incidence, rows.weights) - curve.at(grid)) ** 2, grid)


def _mean(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return np.sum(values * weights[:, None], axis=0) / weights.sum()


def _probabilities(values: np.ndarray) -> np.ndarray:
    wrong = (values < -1e-6) | (values > 1 + 1e-6)
    if wrong.any():
        raise UserError(f"a probability is {values[wrong][0]:g}; it must lie between 0 and 1")
    return np.clip(values, 0, 1)


def _check_bins(bins: int) -> None:
    if bins < 2:
        raise UserError(f"bins is {bins}; it must be 2 or more")

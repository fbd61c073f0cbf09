"""Curves estimated from rows: Kaplan-Meier, Aalen-Johansen, and the chance to be uncensored.

Arguments are as in `metrics.survival.inputs`. At risk at t are the rows with entry < t <= time, in
the sum of their weights; weights count as repeated rows in the variances too. What happens at one
time happens in this order: events, then censoring, then entries.

With late entries the risk set can run empty, or die out, long before the last time; the
Kaplan-Meier curve is then 0 from there on, whatever happens later, and a warning says so.
"""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import norm

from mtl_jax.errors import UserError
from mtl_jax.metrics.survival.inputs import (
    Rows,
    check_cause,
    check_choice,
    check_rows,
)

FLOOR = 1e-3
"""The least probability that a weight divides by."""


class SurvivalCurve(NamedTuple):
    """A step function that starts at 1 and falls at `time`.

    Attributes:
      time: [M] distinct times of all rows that count, rising.
      survival: [M] S(time), the value from `time` on (right-continuous).
      variance: [M] of the survival, by Greenwood's formula; NaN where the survival is 0.
      at_risk: [M] weight at risk just before `time`.
      events: [M] weight of what happens at `time`.
    """

    time: np.ndarray
    survival: np.ndarray
    variance: np.ndarray
    at_risk: np.ndarray
    events: np.ndarray

    def at(self, times: Any, side: str = "right") -> np.ndarray:
        """Returns S(t), or with side "left" S(t-), the value just before; shape of `times`.

        Beyond the last time it is the last value.
        """
        return _step(self.time, self.survival, times, side, 1.0)

    def quantile(self, p: float = 0.5) -> float:
        """The first time at which the survival is at most 1 - p; inf if it never is."""
        below = np.flatnonzero(self.survival <= 1 - p + 1e-12)
        return float(self.time[below[0]]) if len(below) else np.inf

    def interval(self, level: float = 0.95, transform: str = "loglog") -> np.ndarray:
        """Pointwise confidence limits [2, M], low and high.

        "loglog" is symmetric about log(-log S) (Kalbfleisch and Prentice) and stays in [0, 1];
        "plain" is S +- z std, clipped. NaN where the variance is, and for loglog where S is 1.
        """
        check_choice("transform", transform, ("loglog", "plain"))
        return _limits(self.survival, self.variance, level, transform, falling=True)


class IncidenceCurve(NamedTuple):
    """The chance that the event of one cause has happened, a step function that starts at 0.

    Attributes:
      time: [M] distinct times of all rows that count, rising.
      incidence: [M] the value from `time` on.
      variance: [M] of the incidence.
      at_risk: [M] weight at risk just before `time`.
      events: [M] weight of the events of the cause at `time`.
    """

    time: np.ndarray
    incidence: np.ndarray
    variance: np.ndarray
    at_risk: np.ndarray
    events: np.ndarray

    def at(self, times: Any, side: str = "right") -> np.ndarray:
        """Returns F(t), or with side "left" F(t-); shape of `times`."""
        return _step(self.time, self.incidence, times, side, 0.0)

    def interval(self, level: float = 0.95, transform: str = "loglog") -> np.ndarray:
        """Pointwise confidence limits [2, M]; "loglog" is symmetric about log(-log F)."""
        check_choice("transform", transform, ("loglog", "plain"))
        return _limits(self.incidence, self.variance, level, transform, falling=False)


def kaplan_meier(time: Any, event: Any, *, weights: Any = None, entry: Any = None) -> SurvivalCurve:
    """The product-limit estimate of P(T > t), any cause of event (Kaplan and Meier 1958)."""
    rows = check_rows(time, event, weights, entry)
    return _curve(*_table(rows, rows.event > 0))


def nelson_aalen(
    time: Any, event: Any, *, weights: Any = None, entry: Any = None
) -> tuple[np.ndarray, np.ndarray]:
    """Returns (times [M], cumulative hazard [M]), the sum of events over rows at risk.

    Events at one time are taken as simultaneous; lifelines by default spreads them (its
    `nelson_aalen_smoothing`).
    """
    rows = check_rows(time, event, weights, entry)
    times, at_risk, events = _table(rows, rows.event > 0)
    return times, np.cumsum(_share(events, at_risk))


def censoring_curve(
    time: Any, event: Any, *, weights: Any = None, entry: Any = None
) -> SurvivalCurve:
    """The Kaplan-Meier estimate G(t) = P(C > t) of the time of censoring, from training rows.

    An event comes before a censoring at the same time, so that rows with an event at t are no
    longer at risk of being censored at t, as in scikit-survival. (lifelines, asked with the
    indicator turned round, keeps them at risk.)
    """
    rows = check_rows(time, event, weights, entry)
    times, at_risk, gone = _table(rows, rows.event > 0)
    events = _table(rows, rows.event == 0)[2]
    return _curve(times, at_risk - gone, events)


def censoring_probability(
    censoring: SurvivalCurve, times: Any, *, limit: str = "left", floor: float = FLOOR
) -> np.ndarray:
    """Returns G at `times`, not below `floor`; to divide by.

    Args:
      censoring: by `censoring_curve`, of the training rows.
      times: any shape.
      limit: "left" for G(t-), the chance to be still seen at t, which an event at t needs; "right"
        for G(t). They differ only where rows were censored at t itself. scikit-survival takes the
        right limit everywhere.
      floor: least value returned; a row then weighs at most 1 / floor.

    Raises:
      UserError: a time beyond the last training time, where nothing is known of G.
    """
    check_choice("limit", limit, ("left", "right"))
    times = np.asarray(times, np.float64)
    last = censoring.time[-1] if len(censoring.time) else -np.inf
    if times.size and times.max() > last:
        raise UserError(
            f"time {times.max():g} lies beyond the last training time {last:g}, where the chance to"
            f" be uncensored is unknown; use times or a tau of at most {last:g}"
        )
    return np.maximum(censoring.at(times, limit), floor)


def aalen_johansen(
    time: Any, event: Any, *, cause: int = 1, weights: Any = None, entry: Any = None
) -> IncidenceCurve:
    """The estimate of P(T <= t, cause) with competing causes (Aalen and Johansen 1978).

    Tied times are taken as they are; lifelines jitters them at random. The variance is that of the
    delta method, Greenwood's with causes (Marubini and Valsecchi 1995):

      sum over t_l <= t of  (F(t) - F(t_l))^2 d_l / (n_l (n_l - d_l))
                            + S(t_l-)^2 d_kl (n_l - d_kl) / n_l^3
                            - 2 (F(t) - F(t_l)) S(t_l-) d_kl / n_l^2

    with n at risk, d events of any cause and d_k of this one.
    """
    rows = check_rows(time, event, weights, entry)
    times, n, d = _table(rows, rows.event > 0)
    dk = _table(rows, rows.event == check_cause(cause))[2]
    survival = np.cumprod(1 - _share(d, n))
    before = np.concatenate([[1.0], survival])[:-1]
    F = np.cumsum(before * _share(dk, n))
    # (F(t) - F_l)^2 is multiplied out, so that running sums give every t at once.
    a, b = _share(d, n * (n - d)), before * _share(dk, n**2)
    c = before**2 * _share(dk * (n - dk), n**3)
    sums = [np.cumsum(x) for x in (a, a * F, a * F**2, b, b * F, c)]
    variance = F**2 * sums[0] - 2 * F * sums[1] + sums[2] - 2 * (F * sums[3] - sums[4]) + sums[5]
    return IncidenceCurve(times, F, np.maximum(variance, 0), n, dk)


def _table(rows: Rows, happens: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns (times, weight at risk, weight of rows of the mask `happens`), all [M]."""
    times, place = np.unique(rows.time, return_inverse=True)
    leaves = np.bincount(place, rows.weights, len(times))
    events = np.bincount(place, rows.weights * happens, len(times))
    at_risk = leaves[::-1].cumsum()[::-1]
    if rows.truncated:
        order = np.argsort(rows.entry)
        entered = np.concatenate([[0.0], np.cumsum(rows.weights[order])])
        late = entered[-1] - entered[np.searchsorted(rows.entry[order], times, "left")]
        at_risk = at_risk - late
    return times, at_risk, events


def _curve(times: np.ndarray, at_risk: np.ndarray, events: np.ndarray) -> SurvivalCurve:
    # Sums of weights that should be equal may differ by rounding.
    events = np.where(np.isclose(events, at_risk, rtol=1e-9, atol=0), at_risk, events)
    survival = np.cumprod(1 - _share(events, at_risk))
    dead = np.flatnonzero(survival == 0)
    if len(dead) and events[dead[0] + 1 :].any():
        warnings.warn(
            f"the risk set dies out at time {times[dead[0]]:g} though rows enter later; the curve"
            " is 0 from there on",
            UserWarning,
            stacklevel=3,
        )
    spread = np.cumsum(_share(events, at_risk * (at_risk - events)))
    variance = np.where(survival > 0, survival**2 * spread, np.nan)
    return SurvivalCurve(times, survival, variance, at_risk, events)


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """The ratio part / whole, 0 where the whole is not positive."""
    some = whole > 0
    return np.where(some, part / np.where(some, whole, 1.0), 0.0)


def _step(time: np.ndarray, values: np.ndarray, times: Any, side: str, start: float) -> np.ndarray:
    check_choice("side", side, ("left", "right"))
    place = np.searchsorted(time, np.asarray(times, np.float64), side)  # type: ignore[arg-type]
    return np.concatenate([[start], values])[place]


def _limits(
    value: np.ndarray, variance: np.ndarray, level: float, transform: str, *, falling: bool
) -> np.ndarray:
    if not 0 < level < 1:
        raise UserError(f"level is {level}; it must lie between 0 and 1")
    z, std = norm.ppf((1 + level) / 2), np.sqrt(variance)
    if transform == "plain":
        return np.clip(np.stack([value - z * std, value + z * std]), 0, 1)
    inside = (value > 0) & (value < 1)
    safe = np.where(inside, value, 0.5)
    width = z * std / (safe * -np.log(safe))
    low, high = (np.where(inside, safe ** np.exp(s * width), np.nan) for s in (1, -1))
    return np.stack([low, high])

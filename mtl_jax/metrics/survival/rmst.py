"""Restricted mean survival time: of predicted curves, of an estimated one, and its error."""

from __future__ import annotations

from typing import Any

import numpy as np

from mtl_jax.errors import UserError
from mtl_jax.metrics.survival.curves import curves_at, integrate_curves
from mtl_jax.metrics.survival.inputs import (
    check_choice,
    check_rows,
    check_scores,
    warn_nan,
)
from mtl_jax.metrics.survival.nonparametric import SurvivalCurve, censoring_probability


def restricted_mean(
    survival: Any,
    grid: Any,
    tau: float,
    *,
    start: float = 0.0,
    given_alive: bool = False,
    interpolation: str = "step",
) -> np.ndarray:
    """E[min(T, tau) - start, not below 0] of each curve: its area from `start` to `tau`.

    Args:
      survival: [N, K] on the grid; 1 at time 0.
      grid: [K] rising times.
      tau: end, within the grid.
      start: begin.
      given_alive: divide by S(start), for rows known to be alive there; where S(start) is 0 the
        result is 0.
      interpolation: "step", "linear" or "log_linear" (constant hazard), see `curves.curves_at`.

    Returns:
      [N], in the unit of time.
    """
    survival, grid = np.asarray(survival, np.float64), np.asarray(grid, np.float64)
    if survival.ndim != 2 or grid.shape != survival.shape[1:] or not np.all(np.diff(grid) > 0):
        raise UserError(
            f"survival {survival.shape} and grid {grid.shape} must be [N, K] and [K] rising times"
        )
    area = integrate_curves(survival, grid, start, tau, interpolation)
    if not given_alive:
        return area
    alive = curves_at(survival, grid, np.asarray([start]), interpolation)[:, 0]
    return np.where(alive > 0, area / np.where(alive > 0, alive, 1.0), 0.0)


def curve_restricted_mean(curve: SurvivalCurve, tau: float) -> tuple[float, float]:
    """Returns (mean, standard error) of min(T, tau) under an estimated curve.

    The variance is the sum over event times of (area from t to tau)^2 d / (n (n - d)) (Klein and
    Moeschberger 2003, section 4.5, for tau in the place of the last time).

    Raises:
      UserError: tau lies beyond the last time of a curve that is not 0 there.
    """
    if len(curve.time) and curve.survival[-1] > 0 and tau > curve.time[-1]:
        raise UserError(
            f"tau {tau:g} lies beyond the last time {curve.time[-1]:g}, where"
            f" {curve.survival[-1]:.3g} are still alive; lower it"
        )
    if not tau > 0:
        raise UserError(f"tau is {tau:g}; it must be above 0")
    if not len(curve.time):
        return warn_nan("restricted mean", "the curve has no rows"), np.nan
    early = curve.time < tau
    knots = np.concatenate([[0.0], curve.time[early], [tau]])
    pieces = np.concatenate([[1.0], curve.survival[early]]) * np.diff(knots)
    after = pieces[::-1].cumsum()[::-1][1:]  # area from each event time on
    n, d = curve.at_risk[early], curve.events[early]
    spread = n * (n - d)
    share = np.where(spread > 0, d / np.where(spread > 0, spread, 1.0), 0.0)
    return float(pieces.sum()), float(np.sqrt(np.sum(after**2 * share)))


def restricted_mean_error(
    time: Any,
    event: Any,
    predicted: Any,
    tau: float,
    *,
    training: SurvivalCurve | None = None,
    censoring: SurvivalCurve | None = None,
    method: str = "ipcw",
    weights: Any = None,
    limit: str = "left",
) -> float:
    """Mean absolute error of predicted restricted lifetimes against min(T, tau).

    What to do with rows censored before tau, whose lifetime c is only a lower bound:

      "ipcw"     leaves them out; the others weigh 1 / G(min(T, tau)-), normalised by the sum of
                 the weights. Needs `censoring`.
      "hinge"    counts max(c - predicted, 0), which no prediction above c pays.
      "margin"   takes the mean of min(T, tau) given T > c under the Kaplan-Meier curve of the
                 training rows, with confidence weight 1 - S(c) (Haider et al. 2020). Needs
                 `training`.

    Args:
      time: [N].
      event: [N]; any cause is an event.
      predicted: [N] predicted E[min(T, tau)].
      tau: restriction, in the unit of time.
      training: by `kaplan_meier`, for "margin".
      censoring: by `censoring_curve`, for "ipcw".
      method: see above.
      weights: [N] or None.
      limit: of G, see `censoring_probability`.
    """
    check_choice("method", method, ("ipcw", "hinge", "margin"))
    if not tau > 0:
        raise UserError(f"tau is {tau:g}; it must be above 0")
    rows = check_rows(time, event, weights)
    predicted = check_scores(predicted, rows, "predicted")
    lived = np.minimum(rows.time, tau)
    known = (rows.event > 0) | (rows.time >= tau)
    weight = rows.weights * np.ones(len(lived))
    error = np.abs(predicted - lived)
    if method == "ipcw":
        if censoring is None:
            raise UserError('method "ipcw" needs censoring=censoring_curve(...) of training rows')
        weight = weight * known
        weight[known] /= censoring_probability(censoring, lived[known], limit=limit)
        error = np.where(known, error, 0.0)
    elif method == "hinge":
        error = np.where(known, error, np.maximum(lived - predicted, 0))
    else:
        if training is None:
            raise UserError('method "margin" needs training=kaplan_meier(...) of training rows')
        guess, alive = _expected_lifetime(training, lived, tau)
        error = np.where(known, error, np.abs(predicted - guess))
        weight = np.where(known, weight, weight * (1 - alive))
    if not weight.sum() > 0:
        return warn_nan("error of restricted means", "no row has a known lifetime")
    return float(np.sum(weight * error) / weight.sum())


def _expected_lifetime(
    curve: SurvivalCurve, after: np.ndarray, tau: float
) -> tuple[np.ndarray, np.ndarray]:
    """Returns (E[min(T, tau) | T > c], S(c)) at c = `after` [N]; c itself where S(c) is 0.

    Beyond its last time the curve keeps its value.
    """
    knots = np.unique(np.concatenate([[0.0], curve.time[curve.time < tau], [tau]]))
    area = np.concatenate([[0.0], np.cumsum(curve.at(knots[:-1]) * np.diff(knots))])
    place = np.clip(np.searchsorted(knots, after, "right") - 1, 0, len(knots) - 1)
    until = area[place] + curve.at(knots[place]) * (after - knots[place])
    alive = curve.at(after)
    rest = (area[-1] - until) / np.where(alive > 0, alive, 1.0)
    return after + np.where(alive > 0, rest, 0.0), alive

"""Brier score and binomial log-likelihood of predicted curves, weighted for censoring (IPCW).

At a time t of the grid a row's outcome is known if its event came by t, or it was seen beyond t.
These rows weigh the inverse of the chance that it is known, the others nothing (Graf et al. 1999):

  event by t      1 / G(T-)         outcome 1 for an event (of the cause), else 0
  T > t           1 / G(t)          outcome 0
  censored by t   0

and the score is the sum of weight times error over the number of rows. G is the Kaplan-Meier curve
of the censoring in the training rows (`censoring_curve`), never below 0.001. With late entries the
predictions must be conditional on being alive at entry; a row counts at t only if it has entered,
entry < t, and the chances are conditional too, G(T-) / G(entry). Other packages take no entries.

scikit-survival takes the right limit G(T): `limit="right"` gives its numbers.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mtl_jax.metrics.survival.curves import mean_over_time
from mtl_jax.metrics.survival.inputs import (
    Rows,
    check_cause,
    check_choice,
    check_curves,
    check_rows,
    warn_nan,
)
from mtl_jax.metrics.survival.nonparametric import FLOOR, SurvivalCurve, censoring_probability


def brier_score(
    time: Any,
    event: Any,
    survival: Any,
    grid: Any,
    censoring: SurvivalCurve,
    *,
    weights: Any = None,
    entry: Any = None,
    limit: str = "left",
) -> np.ndarray:
    """Brier score [K] of survival curves at the times of the grid; 0 is best, 1/4 a coin.

    Args:
      time: [N].
      event: [N]; any cause is an event.
      survival: [N, K].
      grid: [K] rising times, within the training times.
      censoring: of training rows, by `censoring_curve`.
      weights: [N] or None.
      entry: [N] or None.
      limit: of G at events, see `censoring_probability`.

    Returns:
      [K]; NaN at times at which no row counts.
    """
    rows = check_rows(time, event, weights, entry)
    survival, grid = check_curves(survival, grid, rows)
    happened = rows.event > 0
    known = known_weights(rows, grid, censoring, limit)
    return _score("Brier score", rows, grid, happened, 1 - survival, known, _squared)


def incidence_brier_score(
    time: Any,
    event: Any,
    incidence: Any,
    grid: Any,
    censoring: SurvivalCurve,
    *,
    cause: int = 1,
    weights: Any = None,
    entry: Any = None,
    limit: str = "left",
) -> np.ndarray:
    """Brier score [K] of cumulative incidences [N, K] of one of several causes.

    A row with another cause by t is known to have outcome 0 (Schoop et al. 2011); other arguments
    as in `brier_score`.
    """
    rows = check_rows(time, event, weights, entry)
    incidence, grid = check_curves(incidence, grid, rows, "incidence")
    happened = rows.event == check_cause(cause)
    known = known_weights(rows, grid, censoring, limit)
    return _score("incidence Brier score", rows, grid, happened, incidence, known, _squared)


def negative_log_likelihood(
    time: Any,
    event: Any,
    survival: Any,
    grid: Any,
    censoring: SurvivalCurve,
    *,
    weights: Any = None,
    entry: Any = None,
    limit: str = "left",
    floor: float = 1e-7,
) -> np.ndarray:
    """Negative binomial log-likelihood [K] (NBLL), the same weights with -log p of the outcome.

    Args:
      time: [N].
      event: [N].
      survival: [N, K].
      grid: [K].
      censoring: of training rows.
      weights: [N] or None.
      entry: [N] or None.
      limit: see `censoring_probability`.
      floor: probabilities are kept within [floor, 1 - floor]; pycox's is 1e-7 too.
    """
    rows = check_rows(time, event, weights, entry)
    survival, grid = check_curves(survival, grid, rows)
    happened = rows.event > 0
    known = known_weights(rows, grid, censoring, limit)

    def error(forecast: np.ndarray, outcome: np.ndarray) -> np.ndarray:
        right = np.where(outcome, forecast, 1 - forecast)
        return -np.log(np.clip(right, floor, 1 - floor))

    return _score("binomial log-likelihood", rows, grid, happened, 1 - survival, known, error)


def integrated_brier_score(
    time: Any, event: Any, survival: Any, grid: Any, censoring: SurvivalCurve, **options: Any
) -> float:
    """The mean of `brier_score` over the time from the first to the last of the grid."""
    return mean_over_time(brier_score(time, event, survival, grid, censoring, **options), grid)


def integrated_incidence_brier_score(
    time: Any, event: Any, incidence: Any, grid: Any, censoring: SurvivalCurve, **options: Any
) -> float:
    """The mean of `incidence_brier_score` over the time of the grid."""
    scores = incidence_brier_score(time, event, incidence, grid, censoring, **options)
    return mean_over_time(scores, grid)


def integrated_negative_log_likelihood(
    time: Any, event: Any, survival: Any, grid: Any, censoring: SurvivalCurve, **options: Any
) -> float:
    """The mean of `negative_log_likelihood` over the time of the grid."""
    scores = negative_log_likelihood(time, event, survival, grid, censoring, **options)
    return mean_over_time(scores, grid)


def known_weights(
    rows: Rows, grid: np.ndarray, censoring: SurvivalCurve, limit: str = "left"
) -> np.ndarray:
    """The inverse chances [N, K] that outcomes at the grid's times are known, 0 where not known.

    Raises:
      UserError: a time of the grid lies beyond the last training time.
    """
    check_choice("limit", limit, ("left", "right"))
    after = 1 / censoring_probability(censoring, grid, limit="right")
    # Events beyond the grid are not asked for; neither is the censoring there.
    ends = np.minimum(rows.time, grid[-1])
    at_end = 1 / censoring_probability(censoring, ends, limit=limit)
    event_by = (rows.event > 0)[:, None] & (rows.time[:, None] <= grid[None])
    alive = rows.time[:, None] > grid[None]
    weights = np.where(event_by, at_end[:, None], 0.0) + np.where(alive, after[None], 0.0)
    if rows.truncated:
        seen = np.maximum(censoring.at(np.maximum(rows.entry, -1.0)), FLOOR)
        weights = weights * seen[:, None] * (rows.entry[:, None] < grid[None])
    return weights


def _squared(forecast: np.ndarray, outcome: np.ndarray) -> np.ndarray:
    return (forecast - outcome) ** 2


def _score(
    name: str,
    rows: Rows,
    grid: np.ndarray,
    happened: np.ndarray,
    forecast: np.ndarray,
    known: np.ndarray,
    error: Any,
) -> np.ndarray:
    outcome = happened[:, None] & (rows.time[:, None] <= grid[None])
    counted = known > 0
    # A forecast that is not asked for may be NaN.
    errors = np.where(counted, error(np.where(counted, forecast, 0.5), outcome), 0.0)
    total = np.sum(rows.weights[:, None] * known * errors, axis=0)
    entered = rows.entry[:, None] < grid[None]
    whole = np.sum(rows.weights[:, None] * entered, axis=0)
    value = np.where(whole > 0, total / np.where(whole > 0, whole, 1.0), np.nan)
    if np.isnan(value).any():
        why = "a forecast that counts is NaN" if (whole > 0).all() else "no row has entered"
        warn_nan(f"{name} at time {grid[np.isnan(value)][0]:g}", why)
    return value

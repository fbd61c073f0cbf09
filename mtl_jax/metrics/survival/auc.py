"""The AUC at a time: does the risk separate rows with an event by then from those still alive?"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from mtl_jax.errors import UserError
from mtl_jax.metrics.ranking import order_pairs, won_pairs
from mtl_jax.metrics.survival.inputs import (
    check_cause,
    check_choice,
    check_rows,
    warn_nan,
)
from mtl_jax.metrics.survival.nonparametric import (
    FLOOR,
    SurvivalCurve,
    censoring_probability,
    kaplan_meier,
)


class DynamicAUC(NamedTuple):
    """Cumulative/dynamic AUCs.

    Attributes:
      value: [K] at the times asked for; NaN where there are no cases or no controls.
      mean: over times, weighted by the fall of the rows' Kaplan-Meier curve (Lambert and Chevret
        2016); NaN if any value is, or if nobody dies by the last time.
    """

    value: np.ndarray
    mean: float


def dynamic_auc(
    time: Any,
    event: Any,
    risk: Any,
    times: Any,
    censoring: SurvivalCurve,
    *,
    weights: Any = None,
    entry: Any = None,
    cause: int = 1,
    competing: str = "never",
    limit: str = "left",
) -> DynamicAUC:
    """AUC(t) of cases, with an event by t, against controls, alive at t; in O(K N log N).

    Cases i weigh w_i / G(T_i-) (Uno et al. 2007; Hung and Chiang 2010), controls w_j; equal risks
    count half. Of several causes, a row with another cause by t is a control of weight
    w_j G(t) / G(T_j-) with competing="never", or no control with "alive" (both are definitions of
    Blanche et al. 2013). With late entries a row counts at t if entry < t, and all chances are
    conditional, divided by G(entry).

    scikit-survival takes the right limit G(T): `limit="right"` gives its numbers, apart from its
    tie of risks within 1e-8.

    Args:
      time: [N].
      event: [N].
      risk: [N], or [N, K] with a risk for every time.
      times: [K] rising, within the training times.
      censoring: of training rows, by `censoring_curve`.
      weights: [N] or None.
      entry: [N] or None.
      cause: of the cases.
      competing: "never" or "alive".
      limit: of G at events, see `censoring_probability`.
    """
    check_choice("competing", competing, ("never", "alive"))
    rows = check_rows(time, event, weights, entry)
    times = np.asarray(times, np.float64)
    if times.ndim != 1 or not len(times) or not np.all(np.diff(times) > 0):
        raise UserError(f"times {times.shape} must be [K] rising times; sort them")
    risk = np.asarray(risk)
    if risk.shape not in (rows.kept.shape, (*rows.kept.shape, len(times))):
        raise UserError(
            f"risk is {risk.shape}; it must be {rows.kept.shape} or"
            f" {(*rows.kept.shape, len(times))}, one value a row or one a row and time"
        )
    risk = risk[rows.kept].astype(np.float64).reshape(len(rows.time), -1)
    own = rows.event == check_cause(cause)
    others = (rows.event > 0) & ~own
    now = censoring_probability(censoring, times, limit="right")
    ends = np.minimum(rows.time, times[-1])
    inverse = 1 / censoring_probability(censoring, ends, limit=limit)
    seen = np.ones(len(own))
    if rows.truncated:
        late = np.isfinite(rows.entry)
        seen[late] = np.maximum(censoring.at(rows.entry[late]), FLOOR)
    values = np.full(len(times), np.nan)
    for k, t in enumerate(times):
        entered = rows.entry < t
        case = own & (rows.time <= t) & entered
        alive = (rows.time > t) & entered
        weight = rows.weights * seen
        controls = np.where(alive, weight, 0.0)
        if competing == "never":
            past = others & (rows.time <= t) & entered
            controls = np.where(past, weight * inverse * now[k], controls)
        score = risk[:, min(k, risk.shape[1] - 1)]
        if np.isnan(score[case | (controls > 0)]).any():
            continue
        order = order_pairs(score, case, controls > 0)
        mine = (weight * inverse)[order.positives]
        won, pairs = won_pairs(order, mine, controls[order.negatives])
        values[k] = won / pairs if pairs > 0 else np.nan
    if np.isnan(values).any():
        missing = times[np.isnan(values)][0]
        warn_nan(f"AUC at time {missing:g}", "there are no cases, no controls or a risk is NaN")
    return DynamicAUC(values, _mean(values, times, rows.time, rows.event, rows.weights, rows.entry))


def _mean(values: np.ndarray, times: np.ndarray, *rows: np.ndarray) -> float:
    if np.isnan(values).any():
        return float("nan")
    if len(times) == 1:
        return float(values[0])
    time, event, weights, entry = rows
    curve = kaplan_meier(time, event, weights=weights, entry=entry)
    falls = -np.diff(np.concatenate([[1.0], curve.at(times)]))
    if not falls.sum() > 0:
        return warn_nan("mean AUC", f"nobody dies by time {times[-1]:g}")
    return float(np.sum(values * falls) / falls.sum())

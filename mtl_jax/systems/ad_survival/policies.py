"""Policies that stop ads: what each decides, day by day, from what it may know by then.

A policy is a matrix of risks [N, D] and a threshold. Column t - 1 is the risk seen at the start of
day t, computed from days before t alone; a creative is stopped on the first day whose risk exceeds
the threshold. As everywhere in this system a creative that is stopped on day T has run T - 1 whole
days, and T = D + 1 stands for never. Nothing here knows of a model: risks come as arrays, of a
model, of an oracle or of a rule.

    policy      risk                                    threshold
    short       `short_risk`, P(stop by day 10)         a probability, for days 1..10
    long        `long_risk`, P(stop within 7 days)      a probability, from day 11 on
    two-term    `two_term_risk`, both                   that of the short term
    cox         `ranking_risk`, one score, one day      a score
    click rate  `ctr_risk`                              minus a click rate
    oracle      minus the expected daily net value      0

The terms of 10 days and the kinds of policy follow Kitada, Iyatomi and Seki (Applied Sciences
12(7):3594, 2022), who compare the short term with manual operations. How they did so was not found;
the rules and their simulation are this package's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from mtl_jax.errors import UserError


def stop_days(risk: Any, threshold: float) -> np.ndarray:
    """Returns the first day whose risk exceeds the threshold, [N] int64; D + 1 for never.

    Args:
      risk: [N, D], see the module; -inf on days on which the policy does not decide.
      threshold: a day stops a creative if its risk is greater.

    Raises:
      UserError: risks that are not [N, D], or NaN.
    """
    return sweep_days(risk, [threshold])[0]


def sweep_days(risk: Any, thresholds: Any) -> np.ndarray:
    """Returns the stop days of many thresholds, [K, N] int64; see `stop_days`.

    Args:
      risk: [N, D].
      thresholds: [K], in any order.
    """
    highest = np.maximum.accumulate(checked_risk(risk), axis=1)
    # The running maximum never falls: days not above the threshold come before the others.
    found = [1 + (highest <= threshold).sum(1) for threshold in np.asarray(thresholds)]
    return np.stack(found) if found else np.zeros((0, len(highest)), np.int64)


def candidate_thresholds(risk: Any, count: int = 50) -> np.ndarray:
    """Returns up to `count` rising thresholds, of which the last stops nobody.

    They are quantiles of each row's greatest risk, so that steps stop about equally many rows, and
    one below all of these, which stops every row that has a risk.

    Args:
      risk: [N, D].
      count: 2 or more.

    Raises:
      UserError: no finite risk.
    """
    if count < 2:
        raise UserError(f"count is {count}; it must be 2 thresholds or more")
    highest = checked_risk(risk).max(1)
    some = highest[np.isfinite(highest)]
    if not len(some):
        raise UserError("no risk is finite, so that no threshold tells creatives apart; give risks")
    found = np.quantile(some, np.linspace(0, 1, count - 1), method="inverted_cdf")
    return np.unique(np.append(found, np.nextafter(found[0], -np.inf)))


def never(rows: int, days: int) -> np.ndarray:
    """Returns the stop days of a policy that never stops, [N] int64."""
    return np.full(rows, days + 1, np.int64)


def age(rows: int, limit: int) -> np.ndarray:
    """Returns the stop days of a policy that lets every creative run `limit` whole days."""
    if limit < 0:
        raise UserError(f"limit is {limit} days; it must be 0 or more")
    return np.full(rows, limit + 1, np.int64)


def recorded(time: Any, event: Any, days: int) -> np.ndarray:
    """Returns the operator's stop days by the log, [N] int64; D + 1 for who was not stopped.

    On generated sets `truth["stop_day"]` is the same without the censoring.

    Args:
      time: [N] days.
      event: [N], 0 for censored.
      days: D.
    """
    time = np.asarray(time)
    stopped = (np.asarray(event) > 0) & (time <= days)
    return np.where(stopped, time, days + 1).astype(np.int64)


def redraw(hazards: Any, seed: int = 0, after: int = 0) -> np.ndarray:
    """Returns the stop days of another operator who acts by the same chances, [N] int64.

    Two such operators agree no better than chance makes them: the floor of what can be asked of a
    model that is compared with one of them.

    Args:
      hazards: [N, D], P(stop on day t | not before); of `true_hazards`, the sum over causes.
      seed: of the draw.
      after: L, draw given that nothing was stopped on days 1..L.
    """
    hazards = np.array(hazards, np.float64)
    if hazards.ndim != 2 or not ((hazards >= 0) & (hazards <= 1)).all():
        raise UserError(f"hazards {hazards.shape} must be probabilities [N, D], summed over causes")
    hazards[:, :after] = 0
    survival = np.cumprod(1 - hazards, 1)
    drawn = np.random.default_rng(seed).random((len(hazards), 1))
    return 1 + (survival > drawn).sum(1)


def ctr_risk(
    impressions: Any,
    clicks: Any,
    rate: float,
    *,
    smoothing: float = 1000.0,
    look_back: int | None = None,
    least: float = 0.0,
) -> np.ndarray:
    """Returns minus the smoothed click rate before each day, [N, D] float64.

    (clicks + smoothing * rate) / (impressions + smoothing) over days before t: to stop below a
    click rate c, stop at a risk above -c. Day 1 has seen nothing and never stops.

    Args:
      impressions: [N, D].
      clicks: [N, D].
      rate: the usual click rate, of training rows.
      smoothing: impressions at the usual rate that are added to those counted, above 0.
      look_back: how many days count; None for all.
      least: impressions counted before the rule decides at all.
    """
    if smoothing <= 0:
        raise UserError(f"smoothing is {smoothing:g} impressions; it must be above 0")
    if look_back is not None and look_back < 1:
        raise UserError(f"look_back is {look_back} days; it must be 1 or more, or None for all")
    seen = []
    for counts in (np.asarray(impressions, np.float64), np.asarray(clicks, np.float64)):
        total = np.zeros((counts.shape[0], counts.shape[1] + 1))
        np.cumsum(counts, axis=1, out=total[:, 1:])
        past = total[:, :-1].copy()
        if look_back is not None:
            past[:, look_back:] -= total[:, : -1 - look_back]
        seen.append(past)
    shown, clicked = seen
    decides = (shown >= least) & (np.arange(shown.shape[1]) > 0)[None]
    return np.where(decides, -(clicked + smoothing * rate) / (shown + smoothing), -np.inf)


def short_risk(curves: Mapping[int, Any], until: int = 10) -> np.ndarray:
    """Returns P(stopped by day `until` | alive, what is known) on days 1..until, [N, D] float64.

    Args:
      curves: {L: S [N, D]}, survival curves of who knows L days, S[:, t - 1] = P(not stopped on
        days 1..t); L = 0 must be there. Day t goes by the latest of them with L < t, given that
        the creative is alive: a model that is asked every day gives all of L = 0..D - 1, constant
        hazards only L = 0.
      until: last day of the short term.
    """
    return _chances(curves, 1, until, lambda day: until)


def long_risk(curves: Mapping[int, Any], within: int = 7, after: int = 10) -> np.ndarray:
    """Returns P(stopped on days t..t + within - 1 | alive, what is known) from day after + 1 on.

    Args:
      curves: see `short_risk`.
      within: days to look ahead; they end with day D.
      after: last day of the short term, before which this policy does not decide.
    """
    return _chances(curves, after + 1, None, lambda day: day + within - 1)


def two_term_risk(short: Any, long: Any, scale: float = 1.0) -> np.ndarray:
    """Returns the risk [N, D] of a policy of both terms, the greater of short and long / scale.

    With a threshold u >= 0 it stops where the short policy with threshold u or the long one with
    threshold scale * u would, whichever is first.

    Args:
      short: [N, D], of `short_risk`.
      long: [N, D], of `long_risk`.
      scale: how much greater the long term's threshold is; above 0.
    """
    if not scale > 0:
        raise UserError(f"scale is {scale}; it must be above 0")
    return np.maximum(checked_risk(short), checked_risk(long) / scale)


def ranking_risk(score: Any, landmark: int, days: int) -> np.ndarray:
    """Returns risks [N, D] of a policy that decides once, on day L + 1, by one score a creative.

    Args:
      score: [N], the higher the sooner it should stop (a Cox model's linear predictor, ...).
      landmark: L, the whole days that the score has seen.
      days: D.
    """
    if not 0 <= landmark < days:
        raise UserError(f"landmark is {landmark}; it must be in 0..{days - 1}")
    score = np.asarray(score, np.float64)
    risk = np.full((len(score), days), -np.inf)
    risk[:, landmark] = score
    return risk


def oracle(net: Any, elsewhere: Any = 0.0) -> np.ndarray:
    """Returns the stop days of who knows what each day is expected to earn, [N] int64.

    It stops on the first day that is expected to earn less than it costs. That is the best day if
    the net value of an impression never rises again, as in generated sets, whose click rates are
    constant and then fall.

    Args:
      net: [N, D] expected value less cost of each day.
      elsewhere: [N, D] or a number, the net value that the day's impressions would earn elsewhere.
    """
    return stop_days(np.asarray(elsewhere) - np.asarray(net, np.float64), 0.0)


def hindsight(net: Any, end: Any) -> np.ndarray:
    """Returns the stop days that turn out the best, [N] int64: no policy earns more by itself.

    Args:
      net: [N, D] value less cost of each day as it came.
      end: [N] last day that the creative may run; who is best kept to the end never stops.
    """
    net = np.asarray(net, np.float64)
    days = net.shape[1]
    end = np.asarray(end)
    earned = np.zeros((len(net), days + 1))
    np.cumsum(np.where(np.arange(days) < end[:, None], net, 0.0), axis=1, out=earned[:, 1:])
    ran = earned.argmax(1)
    return np.where(ran < end, ran + 1, days + 1).astype(np.int64)


def checked_risk(risk: Any) -> np.ndarray:
    """Returns a risk matrix [N, D] float64; a NaN would never stop anything, so it is refused."""
    risk = np.asarray(risk, np.float64)
    if risk.ndim != 2 or not risk.shape[1]:
        raise UserError(f"the risk is {risk.shape}; it must be creatives by days [N, D]")
    if np.isnan(risk).any():
        row, day = np.argwhere(np.isnan(risk))[0]
        raise UserError(f"the risk of row {row} on day {day + 1} is NaN; use -inf for no decision")
    return risk


def _chances(curves: Mapping[int, Any], first: int, last: int | None, until: Any) -> np.ndarray:
    """P(stopped by day `until(t)` | alive at the start of day t), -inf but on days first..last."""
    if 0 not in curves:
        raise UserError(f"curves of landmarks {sorted(curves)}; day 1 needs those of landmark 0")
    landmarks = np.array(sorted(curves))
    each = {mark: np.asarray(curves[mark], np.float64) for mark in curves}
    shapes = {values.shape for values in each.values()}
    if len(shapes) > 1 or each[0].ndim != 2:
        raise UserError(f"curves are {sorted(shapes)}; all must be of one shape [N, D]")
    rows, days = each[0].shape
    found = np.full((rows, days), -np.inf)
    for day in range(first, min(last or days, days) + 1):
        curve = each[int(landmarks[np.searchsorted(landmarks, day) - 1])]
        alive = curve[:, day - 2] if day > 1 else np.ones(rows)
        to = curve[:, min(until(day), days) - 1]
        # Who cannot be alive by the curve, but is, is at the greatest risk.
        some = alive > 0
        found[:, day - 1] = np.where(some, 1 - to / np.where(some, alive, 1.0), 1.0)
    return found

"""Intervals for the AUC and for the difference of two, by resampling users. Host side.

Rows of one user are not independent, so whole users are drawn, with replacement, as many as there
are: the rows of a user count as often as the user was drawn (the cluster bootstrap). Scores are
sorted once; a replicate is a weighted AUC in O(N). Arguments are as in `metrics.ranking`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from mtl_jax.metrics.ranking import auc, counted_rows, order_pairs, won_pairs

REPLICATES = 1000


class Interval(NamedTuple):
    """An estimate with its percentile interval.

    Attributes:
      value: the estimate from the rows as they are.
      low: lower end; NaN, as all below, if fewer than two replicates are defined.
      high: upper end.
      std: standard deviation of the replicates, the standard error of `value`.
      replicates: how many replicates have both classes; the others tell nothing and are left out.
    """

    value: float
    low: float
    high: float
    std: float
    replicates: int


def auc_interval(
    scores: Any,
    labels: Any,
    groups: Any,
    weights: Any = None,
    *,
    replicates: int = REPLICATES,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """Returns the AUC of one model with its interval over users.

    Args:
      scores: [N], or [S, N] for S runs of the model, whose AUCs are averaged.
      labels: [N].
      groups: [N].
      weights: [N] or None.
      replicates: number of resamples.
      seed: of the resamples.
      level: probability that the interval should cover.
    """
    scores = np.atleast_2d(scores)
    drawn = bootstrap_auc(scores, labels, groups, weights, replicates=replicates, seed=seed)
    return percentile_interval(_mean_auc(scores, labels, weights), drawn.mean(axis=1), level)


def paired_bootstrap(
    first: Any,
    second: Any,
    labels: Any,
    groups: Any,
    weights: Any = None,
    *,
    replicates: int = REPLICATES,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """Returns AUC(first) - AUC(second) on the same rows with its interval over users.

    Both models see the same resamples, so that what is hard for both cancels. The interval speaks
    of other users, not of other runs of the training: for these, give several runs.

    Args:
      first: [N] scores, or [S, N] for S runs, whose AUCs are averaged.
      second: [N] scores, or [S', N].
      labels: [N].
      groups: [N].
      weights: [N] or None.
      replicates: number of resamples.
      seed: of the resamples.
      level: probability that the interval should cover.
    """
    one, other = np.atleast_2d(first), np.atleast_2d(second)
    both = np.concatenate([one, other])
    drawn = bootstrap_auc(both, labels, groups, weights, replicates=replicates, seed=seed)
    difference = drawn[:, : len(one)].mean(axis=1) - drawn[:, len(one) :].mean(axis=1)
    value = _mean_auc(one, labels, weights) - _mean_auc(other, labels, weights)
    return percentile_interval(value, difference, level)


def bootstrap_auc(
    scores: Any,
    labels: Any,
    groups: Any,
    weights: Any = None,
    *,
    replicates: int = REPLICATES,
    seed: int = 0,
) -> np.ndarray:
    """Returns [R, M] the AUCs of M models in R resamples of the users, the same for all models.

    NaN where a resample lacks a class, and for a model with a NaN score.

    Args:
      scores: [M, N].
      labels: [N].
      groups: [N].
      weights: [N] or None.
      replicates: R.
      seed: of the resamples.
    """
    found = [counted_rows(own, labels, weights, groups) for own in np.asarray(scores)]
    out = np.full((replicates, len(found)), np.nan)
    if not found or not len(found[0].scores):
        return out
    rows = found[0]
    users = int(rows.groups.max()) + 1
    orders = [order_pairs(own.scores, rows.labels == 1, rows.labels == 0) for own in found]
    # Users and weights in the order of the scores: the loop then reads them one after the other.
    sides = [(rows.groups[side], rows.weights[side]) for order in orders for side in order[:2]]
    rng = np.random.default_rng(seed)
    for r in range(replicates):
        times = draw_units(rng, users)
        drawn = [times[owner] * weight for owner, weight in sides]
        for m, order in enumerate(orders):
            won, pairs = won_pairs(order, drawn[2 * m], drawn[2 * m + 1])
            out[r, m] = won / pairs if pairs > 0 else np.nan
    out[:, [bool(np.isnan(own.scores).any()) for own in found]] = np.nan
    return out


def _mean_auc(scores: np.ndarray, labels: Any, weights: Any) -> float:
    return float(np.mean([auc(own, labels, weights) for own in scores]))


def draw_units(rng: np.random.Generator, units: int) -> np.ndarray:
    """Draws `units` of so many units with replacement; returns how often each came, [units]."""
    return np.bincount(rng.integers(0, units, units), minlength=units)


def percentile_interval(value: float, drawn: np.ndarray, level: float) -> Interval:
    """Returns an estimate with the percentile interval of its replicates [R], NaN left out."""
    drawn = drawn[~np.isnan(drawn)]
    if len(drawn) < 2:
        return Interval(value, np.nan, np.nan, np.nan, len(drawn))
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return Interval(value, float(low), float(high), float(drawn.std(ddof=1)), len(drawn))

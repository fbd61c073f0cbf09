"""Intervals for concordances and for the difference of two, by resampling rows or groups.

Rows of one group (a campaign, a patient) are not independent: with `groups` whole groups are drawn
with replacement, as many as there are, else rows. A replicate is the concordance with each row
counted as often as it was drawn. Items are sorted once on the host; the counts of many replicates
run on the device, by vmap over weights, in chunks of bounded memory. Counts are exact where weights
are whole numbers and chances to be censored play no part; else float32 (right to about 1e-5).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mtl_jax.errors import UserError
from mtl_jax.metrics.bootstrap import REPLICATES, Interval, draw_units, percentile_interval
from mtl_jax.metrics.survival import pairs
from mtl_jax.metrics.survival.concordance_index import (
    COMPETING,
    TIES,
    tie_value,
)
from mtl_jax.metrics.survival.inputs import (
    Rows,
    check_cause,
    check_choice,
    check_rows,
    check_scores,
    dense_rank,
    warn_nan,
)
from mtl_jax.metrics.survival.nonparametric import SurvivalCurve
from mtl_jax.metrics.survival.passes import (
    Pass,
    harrell_passes,
    total_counts,
    uno_passes,
    uno_weights,
)

CHUNK_BYTES = 2**27
"""What the arrays of a chunk of replicates may take, about."""


def concordance_interval(
    time: Any,
    event: Any,
    risk: Any,
    *,
    groups: Any = None,
    replicates: int = REPLICATES,
    seed: int = 0,
    level: float = 0.95,
    **options: Any,
) -> Interval:
    """Returns the concordance of one model with its percentile interval.

    Args:
      time: [N].
      event: [N].
      risk: [N], or [S, N] for S runs of the model, whose concordances are averaged.
      groups: [N] ids of what is drawn; None draws rows.
      replicates: number of resamples.
      seed: of the resamples.
      level: probability that the interval should cover.
      **options: see `bootstrap_concordance`.
    """
    risk = np.atleast_2d(risk)
    drawn, values = _bootstrap(time, event, risk, groups, replicates, seed, **options)
    return _interval("concordance", values.mean(), drawn.mean(axis=1), level)


def compare_concordance(
    time: Any,
    event: Any,
    first: Any,
    second: Any,
    *,
    groups: Any = None,
    replicates: int = REPLICATES,
    seed: int = 0,
    level: float = 0.95,
    **options: Any,
) -> Interval:
    """Returns C(first) - C(second) on the same rows with its percentile interval.

    Both models see the same resamples, so that what is hard for both cancels. An interval that
    does not hold 0 tells the models apart on other rows (or groups), not on other training runs:
    for these, give several.

    Args:
      time: [N].
      event: [N].
      first: [N] risks, or [S, N] for S runs, whose concordances are averaged.
      second: [N] risks, or [S', N].
      groups: [N] ids of what is drawn; None draws rows.
      replicates: number of resamples.
      seed: of the resamples.
      level: probability that the interval should cover.
      **options: see `bootstrap_concordance`.
    """
    one, other = np.atleast_2d(first), np.atleast_2d(second)
    both = np.concatenate([one, other])
    drawn, values = _bootstrap(time, event, both, groups, replicates, seed, **options)
    sides = slice(None, len(one)), slice(len(one), None)
    difference = drawn[:, sides[0]].mean(axis=1) - drawn[:, sides[1]].mean(axis=1)
    value = values[sides[0]].mean() - values[sides[1]].mean()
    return _interval("difference of concordances", value, difference, level)


def bootstrap_concordance(
    time: Any,
    event: Any,
    risks: Any,
    *,
    groups: Any = None,
    replicates: int = REPLICATES,
    seed: int = 0,
    **options: Any,
) -> np.ndarray:
    """Returns [R, M] the concordances of M models in R resamples, the same for all models.

    NaN where a resample has no comparable pair, and for a model with a NaN risk.

    Args:
      time: [N].
      event: [N].
      risks: [M, N].
      groups: [N] or None.
      replicates: R.
      seed: of the resamples.
      **options: weights, entry, cause, competing and tied_risk as in `concordance`; with
        `censoring` (and tau, limit) as in `uno_concordance` it is Uno's. The censoring curve is
        kept as it is, it is not estimated anew in each resample.
    """
    return _bootstrap(time, event, np.asarray(risks), groups, replicates, seed, **options)[0]


def _bootstrap(
    time: Any,
    event: Any,
    risks: np.ndarray,
    groups: Any,
    replicates: int,
    seed: int,
    *,
    weights: Any = None,
    entry: Any = None,
    cause: int = 1,
    competing: str = "censor",
    tied_risk: str = "half",
    censoring: SurvivalCurve | None = None,
    tau: float | None = None,
    limit: str = "left",
) -> tuple[np.ndarray, np.ndarray]:
    """Returns (values of the resamples [R, M], values of the rows as they are [M])."""
    check_choice("competing", competing, COMPETING)
    check_choice("tied_risk", tied_risk, TIES)
    if risks.ndim != 2:
        raise UserError(f"risks are {risks.shape}; they must be models by rows [M, N]")
    if replicates < 1:
        raise UserError(f"replicates is {replicates}; it must be 1 or more")
    rows = check_rows(time, event, weights, entry)
    owner, units = _owners(groups, rows)
    drawn = np.full((replicates, len(risks)), np.nan)
    values = np.full(len(risks), np.nan)
    for m, own_risk in enumerate(risks):
        risk = check_scores(own_risk, rows)
        if not len(risk) or np.isnan(risk).any():
            continue
        rank = dense_rank(risk)
        if censoring is None:
            own = rows.event == check_cause(cause)
            passes = harrell_passes(rows, rank, own, competing)
        else:
            own, query, point = uno_weights(rows, cause, censoring, tau, limit)
            passes = uno_passes(rows, rank, own, cause, competing, query, point, censoring, limit)
        values[m] = tie_value(total_counts(passes, rows.weights), tied_risk)
        counts = _replicates(passes, rows, owner, units, replicates, seed)
        drawn[:, m] = tie_value(counts, tied_risk)
    return drawn, values


def _owners(groups: Any, rows: Rows) -> tuple[np.ndarray, int]:
    """Returns (the number of the drawn unit of each row [N], how many there are)."""
    if groups is None:
        return np.arange(len(rows.time)), len(rows.time)
    groups = np.asarray(groups)
    if groups.shape != rows.kept.shape:
        raise UserError(f"groups are {groups.shape}, the rows are {rows.kept.shape}; one id a row")
    owner = dense_rank(groups[rows.kept])
    return owner, int(owner.max(initial=-1)) + 1


def _replicates(
    passes: Sequence[Pass], rows: Rows, owner: np.ndarray, units: int, replicates: int, seed: int
) -> pairs.PairCounts:
    """Counts of all resamples, fields [R]."""
    rng = np.random.default_rng(seed)  # from the seed alone: the same resamples for every model
    size = max(len(one.row) for one in passes)
    chunk = int(np.clip(CHUNK_BYTES // (64 * size), 1, replicates))
    found: list[pairs.PairCounts] = []
    for begin in range(0, replicates, chunk):
        wanted = min(chunk, replicates - begin)
        times = np.zeros((chunk, units), np.int64)  # always a whole chunk: one compilation
        for r in range(wanted):
            times[r] = draw_units(rng, units)
        weights = times[:, owner] * rows.weights[None]
        sums = [0, 0, 0]
        for one in passes:
            counts = _count(one, weights)
            sums = [a + one.sign * b for a, b in zip(sums, counts, strict=True)]
        found.append(pairs.PairCounts(*(np.asarray(field)[:wanted] for field in sums)))
    return pairs.PairCounts(*(np.concatenate(field) for field in zip(*found, strict=True)))


def _count(one: Pass, weights: np.ndarray) -> pairs.PairCounts:
    """Counts of a pass for weights [R, N], on the device unless they are too great for it."""
    weights = weights[:, one.row]
    query, point = one.query[None] * weights, one.point[None] * weights
    exact = query.dtype.kind == "i" and point.dtype.kind == "i"
    if exact and (
        query.sum(axis=1).max() > pairs.MAX_QUERIES or point.sum(axis=1).max() > pairs.MAX_POINTS
    ):
        each = [
            pairs.count_pairs(one.rank, one.block, q, p) for q, p in zip(query, point, strict=True)
        ]
        return pairs.PairCounts(*(np.asarray(field) for field in zip(*each, strict=True)))
    kind = np.int32 if exact else np.float32
    levels = max(int(one.rank.max(initial=0)).bit_length(), 1)
    counts = _batched(
        jnp.asarray(one.rank, jnp.int32),
        jnp.asarray(one.block, jnp.int32),
        jnp.asarray(query.astype(kind)),
        jnp.asarray(point.astype(kind)),
        levels,
    )
    return pairs.PairCounts(*(pairs.total(field) for field in counts))


_batched = jax.jit(jax.vmap(pairs.pair_sums, in_axes=(None, None, 0, 0, None)))


def _interval(name: str, value: float, drawn: np.ndarray, level: float) -> Interval:
    if not 0 < level < 1:
        raise UserError(f"level is {level}; it must lie between 0 and 1")
    if np.isnan(value):
        warn_nan(name, "no pair is comparable, or a risk is NaN")
    return percentile_interval(float(value), drawn, level)

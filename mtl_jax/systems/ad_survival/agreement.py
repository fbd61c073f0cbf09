"""Do we stop what operators stop, and in their order?

At the start of day L + 1 the creatives alive (time > L) are ranked by a risk that has seen L days.
As many are flagged as the operators stopped by day h, and the flags are held against those stops.
Equal risks at the edge share the flags that are left, so that no order of rows matters.

A row censored before day h is unknown: nobody saw whether it would have been stopped.

    drop  unknown rows are left out, before any is flagged. That favours no risk, but tells of rows
          seen for long only: it is right if censoring says nothing about the creative.
    ipcw  unknown rows are ranked and flagged as others are, but weigh nothing; known ones weigh the
          inverse chance to be known, G(L) / G(T-) for a stop at T and G(L) / G(h-) for who is alive
          (G as in `metrics.survival.censoring_curve`, of training rows). It is chosen by giving
          that curve.

A row censored on day h itself was seen alive all day, and is known. Intervals are over groups; the
flags are kept as they are in each resample. What is tested is agreement with a person whose stops
are partly chance: `policies.redraw` gives another such person, and so the floor of what to ask for.

After Kitada, Iyatomi and Seki (2022), who claim the discontinuation effect of manual operations in
the short term and the right order of stops in the long term; their measures were not found.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from mtl_jax.errors import UserError
from mtl_jax.metrics.bootstrap import Interval, auc_interval
from mtl_jax.metrics.survival import (
    SurvivalCurve,
    censoring_probability,
    concordance,
    concordance_interval,
)
from mtl_jax.metrics.survival.inputs import check_rows, dense_rank
from mtl_jax.systems.ad_survival.resampling import ratio, resamples


class Agreement(NamedTuple):
    """Flags of one day against the operators' stops.

    Attributes:
      alive: rows alive at the landmark that were ranked.
      unknown: of the rows alive, those censored before the horizon.
      flagged: k, how many of the ranked rows are flagged.
      base_rate: share of the ranked rows (of the subset) that is stopped, by weight.
      precision: share of the flags that is stopped. With "drop", all rows and k the number of
        stops it equals the recall.
      recall: share of the stops that is flagged.
      lift: precision over base rate.
      auc: chance that who is stopped by the horizon has the higher risk.
      lead_days: mean of the operator's stop day less the day of the flag, of flagged rows that are
        stopped: how much earlier the stop could have been.
      lead_quartiles: [3], of the same.
    """

    alive: int
    unknown: int
    flagged: int
    base_rate: Interval
    precision: Interval
    recall: Interval
    lift: Interval
    auc: Interval
    lead_days: Interval
    lead_quartiles: np.ndarray


class Order(NamedTuple):
    """The order of stops among the rows alive at a landmark.

    Attributes:
      rows: how many are alive.
      concordance: Harrell's C on days, with its interval.
      tau_b: Kendall's tau-b over pairs whose order is known. With c concordant and d discordant
        pairs, t tied in the risk alone and s stopped on one day with different risks,
        (c - d) / sqrt((c + d + t) (c + d + s)): without censoring Kendall's. NaN without pairs.
      comparable: pairs with a known order.
    """

    rows: int
    concordance: Interval
    tau_b: float
    comparable: int


class NextStops(NamedTuple):
    """How often the next in line is stopped within the week, by week.

    Attributes:
      day: [W] first day of each week.
      alive: [W] rows ranked on it.
      stopped: [W] share of the ranked rows that is stopped within the week, by weight.
      precision: [W] share of the flagged rows that is; NaN in a week without known rows.
      recall: [W] share of the week's stops that was flagged; NaN without stops.
      pooled_precision: of all weeks together, with its interval.
      pooled_lift: precision over the share stopped, both pooled.
    """

    day: np.ndarray
    alive: np.ndarray
    stopped: np.ndarray
    precision: np.ndarray
    recall: np.ndarray
    pooled_precision: Interval
    pooled_lift: Interval


class _Ranked(NamedTuple):
    """Rows alive at a landmark: row numbers [n], labels, weights and flags, [n] each."""

    row: np.ndarray
    stopped: np.ndarray
    weight: np.ndarray
    flag: np.ndarray
    flagged: int
    unknown: int


def agreement(
    time: Any,
    event: Any,
    risk: Any,
    *,
    landmark: int = 3,
    horizon: int = 10,
    flagged: float | None = None,
    subset: Any = None,
    groups: Any = None,
    censoring: SurvivalCurve | None = None,
    replicates: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> Agreement:
    """Flags the rows of highest risk at a landmark and holds them against the operators' stops.

    Args:
      time: [N] days.
      event: [N], 0 for censored; any cause is a stop.
      risk: [N], as seen after `landmark` days; of rows not alive then it is not read.
      landmark: L.
      horizon: h, last day of the stops looked at.
      flagged: k, a whole number, or a share of the ranked rows below 1; None for as many as were
        stopped (with "ipcw" their weight, rounded).
      subset: [N] bool: flags are given among all rows, and counted in these alone (such as the top
        quarter by sales). To rank within a subset, pass its rows only.
      groups: [N] campaign ids for the intervals; None takes rows as independent.
      censoring: curve for "ipcw", see the module; None drops unknown rows.
      replicates: number of resamples.
      seed: of the resamples.
      level: probability that an interval should cover.

    Raises:
      UserError: nobody is alive at the landmark and known, or a risk is NaN.
    """
    time, event, risk = (np.asarray(values, np.float64) for values in (time, event, risk))
    ranked = _rank(time, event, risk, landmark, horizon, flagged, censoring)
    row, weight, flag = ranked.row, ranked.weight, ranked.flag
    if subset is not None:
        inside = np.asarray(subset, bool)[row]
        row, weight, flag = row[inside], weight[inside], flag[inside]
        ranked = ranked._replace(stopped=ranked.stopped[inside])
    known = weight > 0
    if not known.any():
        raise UserError(f"no row of the subset is alive on day {landmark} and known; take another")
    units = row if groups is None else np.asarray(groups)[row]
    hit, stopped = weight * flag * ranked.stopped, weight * ranked.stopped
    lead = time[row] - (landmark + 1)
    columns = np.stack([weight, stopped, weight * flag, hit, np.where(hit > 0, hit * lead, 0.0)], 1)
    drawn = resamples(units, replicates=replicates, seed=seed)
    options = {"replicates": replicates, "seed": seed, "level": level}
    area = auc_interval(risk[row], ranked.stopped, units, weight, **options)
    shares = drawn.intervals(columns, _SHARES, level)
    return Agreement(
        alive=len(ranked.row),
        unknown=ranked.unknown,
        flagged=ranked.flagged,
        auc=area,
        lead_quartiles=_quartiles(lead, hit),
        **shares,
    )


# Of sums of weights, stops, flags, hits (flagged and stopped) and days that hits come early.
_SHARES = {
    "base_rate": lambda s: ratio(s[..., 1], s[..., 0]),
    "precision": lambda s: ratio(s[..., 3], s[..., 2]),
    "recall": lambda s: ratio(s[..., 3], s[..., 1]),
    "lift": lambda s: ratio(ratio(s[..., 3], s[..., 2]) * s[..., 0], s[..., 1]),
    "lead_days": lambda s: ratio(s[..., 4], s[..., 3]),
}


def order(
    time: Any,
    event: Any,
    risk: Any,
    *,
    landmark: int = 10,
    groups: Any = None,
    replicates: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> Order:
    """Holds the order of risks against the order of stops among rows alive at a landmark.

    Args:
      time: [N] days.
      event: [N]; any cause is a stop.
      risk: [N], as seen after `landmark` days, the higher the sooner; of others it is not read.
      landmark: L; rows with time > L count.
      groups: [N] campaign ids for the interval; None takes rows as independent.
      replicates: number of resamples.
      seed: of the resamples.
      level: probability that the interval should cover.
    """
    time, event, risk = np.asarray(time), np.asarray(event), np.asarray(risk)
    alive = time > landmark
    time, event, risk = time[alive], (event[alive] > 0).astype(np.int64), risk[alive]
    units = None if groups is None else np.asarray(groups)[alive]
    options = {"replicates": replicates, "seed": seed, "level": level}
    interval = concordance_interval(time, event, risk, groups=units, **options)
    pairs = concordance(time, event, risk)
    moved = pairs.concordant + pairs.discordant
    stops = event > 0
    days, ranks = dense_rank(time[stops]), dense_rank(risk[stops])
    both = days * (int(ranks.max(initial=0)) + 1) + ranks
    one_day = _pairs_within(days) - _pairs_within(both)
    scale = np.sqrt(float(moved + pairs.tied_risk) * float(moved + one_day))
    tau = float(ratio(pairs.concordant - pairs.discordant, scale))
    return Order(int(alive.sum()), interval, tau, int(pairs.comparable))


def next_stops(
    time: Any,
    event: Any,
    risk: Any,
    *,
    share: float = 0.1,
    first: int = 11,
    days: int = 7,
    groups: Any = None,
    censoring: SurvivalCurve | None = None,
    replicates: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> NextStops:
    """Flags each week the share of highest risk among rows then alive: are they stopped within it?

    Args:
      time: [N] days.
      event: [N]; any cause is a stop.
      risk: [N, D], the risk seen at the start of each day, see `policies`; the higher the sooner.
      share: of the ranked rows that is flagged, at least one.
      first: first day of the first week; the last week is the last whole one by day D.
      days: of a week.
      groups: [N] campaign ids for the intervals; None takes rows as independent.
      censoring: curve for "ipcw", see the module; None drops rows censored within the week.
      replicates: number of resamples.
      seed: of the resamples.
      level: probability that an interval should cover.

    Raises:
      UserError: a share outside 0..1, or a first week that ends after day D.
    """
    time, event, risk = (np.asarray(values, np.float64) for values in (time, event, risk))
    if risk.ndim != 2 or len(risk) != len(time):
        raise UserError(f"risk is {risk.shape}; it must be rows by days ({len(time)}, D)")
    if not 0 < share < 1:
        raise UserError(f"share is {share}; it must lie between 0 and 1")
    if first < 1 or days < 1 or first + days - 1 > risk.shape[1]:
        raise UserError(
            f"the first week is days {first}..{first + days - 1}; they must lie in"
            f" 1..{risk.shape[1]}"
        )
    starts = np.arange(first, risk.shape[1] - days + 2, days)
    sums = np.zeros((len(time), 4))  # Of all weeks, by row.
    weeks = np.zeros((len(starts), 4))
    alive = np.zeros(len(starts), np.int64)
    for w, day in enumerate(starts):
        if not _known(time, event, day - 1, day + days - 1, censoring is not None).any():
            continue
        found = _rank(time, event, risk[:, day - 1], day - 1, day + days - 1, share, censoring)
        flags, stops = found.weight * found.flag, found.weight * found.stopped
        columns = np.stack([found.weight, stops, flags, flags * found.stopped], 1)
        sums[found.row] += columns
        weeks[w], alive[w] = columns.sum(0), len(found.row)
    drawn = resamples(
        np.arange(len(time)) if groups is None else groups, replicates=replicates, seed=seed
    )
    pooled = drawn.intervals(sums, {key: _SHARES[key] for key in ("precision", "lift")}, level)
    return NextStops(
        starts,
        alive,
        _SHARES["base_rate"](weeks),
        _SHARES["precision"](weeks),
        _SHARES["recall"](weeks),
        pooled["precision"],
        pooled["lift"],
    )


def flag_top(risk: np.ndarray, k: int) -> np.ndarray:
    """Returns flags [n] in 0..1 of the k highest risks; equal risks at the edge share what is left.

    Args:
      risk: [n].
      k: 0..n.
    """
    flags = np.zeros(len(risk))
    if k <= 0:
        return flags
    edge = np.sort(risk)[::-1][k - 1]
    above, at = risk > edge, risk == edge
    flags[above] = 1.0
    flags[at] = (k - above.sum()) / at.sum()
    return flags


def _known(
    time: np.ndarray, event: np.ndarray, landmark: int, horizon: int, keep: bool
) -> np.ndarray:
    """Rows that are ranked: alive at the landmark and, unless `keep`, known at the horizon."""
    known = (event > 0) | (time >= horizon)
    return (time > landmark) & (known | keep)


def _rank(
    time: np.ndarray,
    event: np.ndarray,
    risk: np.ndarray,
    landmark: int,
    horizon: int,
    flagged: float | None,
    censoring: SurvivalCurve | None,
) -> _Ranked:
    """Ranks rows, see the module, and flags them."""
    check_rows(time, event)
    if not 0 <= landmark < horizon:
        raise UserError(f"landmark {landmark} and horizon {horizon}; they must be 0 <= L < h")
    if risk.shape != time.shape:
        raise UserError(f"risk is {risk.shape}, the rows are {time.shape}; give one value a row")
    row = np.flatnonzero(_known(time, event, landmark, horizon, censoring is not None))
    unknown = int(((time > landmark) & (time < horizon) & (event == 0)).sum())
    if not len(row):
        raise UserError(f"no row is alive on day {landmark} and known on day {horizon}")
    if np.isnan(risk[row]).any():
        raise UserError(f"the risk of row {row[np.isnan(risk[row])][0]} is NaN; give a number")
    stopped = (event[row] > 0) & (time[row] <= horizon)
    weight = np.ones(len(row))
    if censoring is not None:
        known = stopped | (time[row] >= horizon)
        until = np.where(stopped, time[row], float(horizon))
        chance = censoring_probability(censoring, until)
        weight = np.where(known, censoring.at(landmark) / chance, 0.0)
    k = (weight * stopped).sum() if flagged is None else flagged
    if flagged is not None and 0 < flagged < 1:
        k = max(flagged * len(row), 1)
    k = round(float(k))
    if not 0 <= k <= len(row) or (flagged is not None and k < 1):
        raise UserError(f"flagged is {flagged}; it must be 1..{len(row)} rows, or a share below 1")
    return _Ranked(row, stopped, weight, flag_top(risk[row], k), k, unknown)


def _quartiles(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The least value with at least 1/4, 1/2, 3/4 of the weight up to it; NaN without weight."""
    some = weights > 0
    if not some.any():
        return np.full(3, np.nan)
    at = np.argsort(values[some], kind="stable")
    up_to = np.cumsum(weights[some][at])
    wanted = np.array([0.25, 0.5, 0.75]) * up_to[-1] * (1 - 1e-12)
    return values[some][at][np.searchsorted(up_to, wanted)]


def _pairs_within(codes: np.ndarray) -> int:
    counts = np.unique(codes, return_counts=True)[1].astype(np.int64)
    return int((counts * (counts - 1) // 2).sum())

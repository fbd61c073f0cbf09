"""Policies side by side: what each saves and loses, at equal saved cost, and are two the same?

Shares are of what the creatives would have cost, sold, ... up to their end, had nobody stopped
them. Cost is freed by stops; it is saved if nothing replaces it (`policy_outcomes`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from mtl_jax.errors import UserError, did_you_mean
from mtl_jax.metrics.bootstrap import Interval
from mtl_jax.metrics.survival.inputs import check_choice
from mtl_jax.systems.ad_survival.policies import (
    candidate_thresholds,
    checked_risk,
    never,
    stop_days,
    sweep_days,
)
from mtl_jax.systems.ad_survival.policy_outcomes import (
    REPLACEMENTS,
    Paths,
    checked_stop,
    outcome,
    top_share,
)
from mtl_jax.systems.ad_survival.resampling import ratio, resamples

Table = dict[str, dict[str, Interval]]


class Frontier(NamedTuple):
    """What K policies, or one at K thresholds, cost and earn.

    Attributes:
      cost_freed: [K] share of the cost that stops free.
      value_lost: [K] share of the sales that is lost, after replacement.
      net: [K] value less cost, a creative.
      stops: [K] stops, a creative.
    """

    cost_freed: np.ndarray
    value_lost: np.ndarray
    net: np.ndarray
    stops: np.ndarray


class Tuned(NamedTuple):
    """A policy chosen on some rows, and what it decides on others.

    Attributes:
      name: of the risk that was chosen.
      threshold: of that risk.
      cost_freed: share of the cost freed on the rows of the choice.
      value_lost: share of the sales lost there.
      net: value less cost, a creative, there.
      stop: [n] int64, stop days of the other rows.
    """

    name: str
    threshold: float
    cost_freed: float
    value_lost: float
    net: float
    stop: np.ndarray


class Equivalence(NamedTuple):
    """Two one-sided tests of whether two policies earn the same, within a margin.

    Attributes:
      difference: mean of ours less theirs, with its interval of level 1 - 2 alpha.
      margin: what was held to be no difference.
      p_lower: of the hypothesis that ours earns less by the margin or more.
      p_upper: of the hypothesis that ours earns more by the margin or more.
      p_value: the greater of the two.
      verdict: "equivalent" (both are rejected), "not inferior" (only the first is), "better" or
        "worse" (the interval lies beyond the margin), "undecided".
    """

    difference: Interval
    margin: float
    p_lower: float
    p_upper: float
    p_value: float
    verdict: str


def compare(
    policies: Mapping[str, Any],
    paths: Paths,
    *,
    oracle: str | None = "oracle",
    replacement: str = "none",
    top: Any = None,
    replicates: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> Table:
    """Returns {policy: {quantity: interval}}, with percentile intervals over campaigns.

    All policies see the same resamples. Quantities:

      impressions_saved, cost_saved, conversions_lost, value_lost: shares of those of never
      stopping, after replacement (which may make them negative).
      cost_freed: share of the cost, before replacement.
      value, cost, net_value: in currency, a creative.
      roas: value over cost. cpa: cost over conversions, in currency.
      alerts_per_day: stops over calendar days from the first start to the last end.
      regret: net value a creative below that of `oracle`. An oracle of what is expected can have a
      negative one by luck, and with replacement by right, since it is best without.
      early_top_stops: of the top creatives, the share stopped before the oracle would.

    Args:
      policies: {name: stop days [N]}.
      paths: of N creatives.
      oracle: the policy that the last two compare with; None leaves them out.
      replacement: see `policy_outcomes`.
      top: [N] bool; by default the quarter that sells the most if nobody stops it.
      replicates: number of resamples.
      seed: of the resamples.
      level: probability that an interval should cover.

    Raises:
      UserError: the oracle is not among the policies.
    """
    if oracle is not None and oracle not in policies:
        raise UserError(f"no policy is named {oracle!r}; {did_you_mean(oracle, policies)}")
    drawn = resamples(paths.group, replicates=replicates, seed=seed)
    rows, days = paths.cost.shape
    base = outcome(never(rows, days), paths)
    top = top_share(paths) if top is None else np.asarray(top, bool)
    calendar = float((paths.start + paths.end).max() - paths.start.min())
    best = None if oracle is None else outcome(policies[oracle], paths, replacement)
    best_stop = np.zeros(rows) if oracle is None else np.asarray(policies[oracle])
    quantities = dict(_QUANTITIES) | (_BESIDE_THE_BEST if oracle is not None else {})
    quantities["alerts_per_day"] = lambda s: s["stops"] / calendar
    table: Table = {}
    for name, stop in policies.items():
        found = outcome(stop, paths, replacement)
        early = top & found.stopped & (np.asarray(stop) < best_stop)
        columns = {"rows": np.ones(rows), "top": top, "stops": found.stopped, "early": early}
        columns |= {"freed": found.freed_cost, "best": best.net if best else np.zeros(rows)}
        columns |= {key: getattr(found, key) for key in _AMOUNTS}
        columns |= {f"all_{key}": getattr(base, key) for key in _AMOUNTS}
        stacked = np.stack([np.asarray(c, np.float64) for c in columns.values()], 1)
        named = {key: _named(of, tuple(columns)) for key, of in quantities.items()}
        table[name] = drawn.intervals(stacked, named, level)
    return table


_AMOUNTS = ("impressions", "conversions", "cost", "value")
_Sums = Mapping[str, np.ndarray]
_QUANTITIES: dict[str, Callable[[_Sums], np.ndarray]] = {
    "impressions_saved": lambda s: 1 - ratio(s["impressions"], s["all_impressions"]),
    "cost_saved": lambda s: 1 - ratio(s["cost"], s["all_cost"]),
    "cost_freed": lambda s: ratio(s["freed"], s["all_cost"]),
    "conversions_lost": lambda s: 1 - ratio(s["conversions"], s["all_conversions"]),
    "value_lost": lambda s: 1 - ratio(s["value"], s["all_value"]),
    "value": lambda s: s["value"] / s["rows"],
    "cost": lambda s: s["cost"] / s["rows"],
    "net_value": lambda s: (s["value"] - s["cost"]) / s["rows"],
    "roas": lambda s: ratio(s["value"], s["cost"]),
    "cpa": lambda s: ratio(s["cost"], s["conversions"]),
}
_BESIDE_THE_BEST: dict[str, Callable[[_Sums], np.ndarray]] = {
    "regret": lambda s: (s["best"] - s["value"] + s["cost"]) / s["rows"],
    "early_top_stops": lambda s: ratio(s["early"], s["top"]),
}


def _named(
    of: Callable[[_Sums], np.ndarray], keys: tuple[str, ...]
) -> Callable[[np.ndarray], np.ndarray]:
    return lambda sums: of({key: sums[..., k] for k, key in enumerate(keys)})


def pareto(stops: Any, paths: Paths, replacement: str = "none") -> Frontier:
    """Returns what K policies cost and earn: the curve of sales lost against cost freed.

    Args:
      stops: [K, N], of `sweep_days` for one risk at K thresholds, or any policies.
      paths: of N creatives.
      replacement: see `policy_outcomes`.
    """
    check_choice("replacement", replacement, REPLACEMENTS)
    row = np.arange(len(paths.end))
    cost, value = (_running(amounts) for amounts in (paths.cost, paths.value))
    all_cost, all_value = (sums[row, paths.end].sum() for sums in (cost, value))
    found = []
    for stop in stops:
        stop = checked_stop(stop, paths)
        ran = np.minimum(stop - 1, paths.end)
        spent, sold = cost[row, ran].sum(), value[row, ran].sum()
        freed = 1 - ratio(spent, all_cost)
        if replacement == "campaign":
            whole = outcome(stop, paths, replacement)
            spent, sold = whole.cost.sum(), whole.value.sum()
        lost = 1 - ratio(sold, all_value)
        found.append((freed, lost, (sold - spent) / len(row), (stop <= paths.end).mean()))
    return Frontier(*np.array(found, np.float64).reshape(len(found), 4).T)


def match(risk: Any, paths: Paths, cost_freed: float) -> float:
    """Returns the threshold at which the risk frees a share of the cost nearest to `cost_freed`.

    The freed share falls with the threshold in steps, one creative at a time. It can be no more
    than what all rows and days with a risk make up; then the threshold is -inf.

    Args:
      risk: [N, D].
      paths: of N creatives.
      cost_freed: share aimed at, in 0..1.
    """
    if not 0 <= cost_freed <= 1:
        raise UserError(f"cost_freed is {cost_freed}; it must be a share in 0..1")
    highest = np.maximum.accumulate(checked_risk(risk), axis=1)
    levels = np.concatenate([[-np.inf], np.unique(highest[np.isfinite(highest)])])
    spent, row = _running(paths.cost), np.arange(len(paths.end))
    total = spent[row, paths.end].sum()

    def freed(k: int) -> float:
        ran = np.minimum((highest <= levels[k]).sum(1), paths.end)
        return float(1 - spent[row, ran].sum() / total) if total else 0.0

    low, high = 0, len(levels) - 1  # The last level stops nobody.
    while low < high:  # The first level that frees no more than is aimed at.
        middle = (low + high) // 2
        if freed(middle) <= cost_freed:
            high = middle
        else:
            low = middle + 1
    if low and abs(freed(low - 1) - cost_freed) < abs(freed(low) - cost_freed):
        low -= 1
    return float(levels[low])


def tune(
    risks: Mapping[str, Any],
    paths: Paths,
    fit: Any,
    apply: Any,
    *,
    cost_freed: float | None = None,
    replacement: str = "none",
    thresholds: int = 60,
) -> Tuned:
    """Chooses a risk and its threshold on some rows (validation) and decides on others (test).

    With `cost_freed` each risk is matched to free this share of the fitting rows' cost, and the one
    that earns the most net value is taken: that is how policies are compared at equal saved cost.
    Without, the pair of greatest net value is taken among `thresholds` quantiles of each risk.

    Args:
      risks: {name: [N, D]}; several for a policy with more than a threshold to choose, such as
        `two_term_risk` at several scales.
      paths: of N creatives.
      fit: rows to choose by; whole campaigns, if the replacement is the campaign.
      apply: rows to decide on.
      cost_freed: share to match, or None.
      replacement: see `policy_outcomes`.
      thresholds: how many to try.
    """
    if not risks:
        raise UserError("there is no risk to choose from; give one")
    own = paths.rows(fit)
    found = []
    for name, risk in risks.items():
        mine = checked_risk(risk)[fit]
        if cost_freed is None:
            levels = candidate_thresholds(mine, thresholds)
        else:
            levels = np.array([match(mine, own, cost_freed)])
        front = pareto(sweep_days(mine, levels), own, replacement)
        k = int(front.net.argmax())
        freed, lost, net = (float(values[k]) for values in front[:3])
        decided = stop_days(checked_risk(risk)[apply], float(levels[k]))
        found.append(Tuned(name, float(levels[k]), freed, lost, net, decided))
    return max(found, key=lambda one: one.net)


def equivalence(
    ours: Any,
    theirs: Any,
    groups: Any,
    margin: float,
    *,
    alpha: float = 0.05,
    replicates: int = 2000,
    seed: int = 0,
) -> Equivalence:
    """Do two policies earn the same within a margin, set before? Two one-sided tests (TOST).

    The tests (Schuirmann 1987) are of the paired mean difference, with the resamples of campaigns
    as its distribution: p is the share of resamples at or beyond the margin, (1 + count) / (1 + R),
    no smaller than 1 / (1 + R). An interval that holds 0 is no evidence of equality: it may just
    be wide.

    Args:
      ours: [N] net value of each creative under our policy (`Outcome.net`), or any other amount.
      theirs: [N] under theirs (the operator's).
      groups: [N] campaign ids.
      margin: difference of the means that is no matter, above 0, in the same unit.
      alpha: level of each test.
      replicates: R.
      seed: of the resamples.
    """
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    if not margin > 0:
        raise UserError(f"margin is {margin}; it must be above 0, what difference is no matter?")
    if not 0 < alpha < 0.5:
        raise UserError(f"alpha is {alpha}; it must lie between 0 and 0.5")
    if ours.shape != theirs.shape or ours.shape != np.shape(groups):
        raise UserError(
            f"ours {ours.shape}, theirs {theirs.shape} and groups {np.shape(groups)} must be [N]"
        )
    drawn = resamples(groups, replicates=replicates, seed=seed)
    columns = np.stack([ours - theirs, np.ones(len(ours))], 1)

    def mean(sums: np.ndarray) -> np.ndarray:
        return sums[..., 0] / sums[..., 1]

    difference = drawn.intervals(columns, {"": mean}, 1 - 2 * alpha)[""]
    each = mean(drawn.sums(columns))
    lower, upper = (
        (1 + (beyond).sum()) / (1 + replicates) for beyond in (each <= -margin, each >= margin)
    )
    if max(lower, upper) <= alpha:
        verdict = "equivalent"
    elif difference.low > margin:
        verdict = "better"
    elif difference.high < -margin:
        verdict = "worse"
    else:
        verdict = "not inferior" if lower <= alpha else "undecided"
    p_values = float(lower), float(upper), float(max(lower, upper))
    return Equivalence(difference, float(margin), *p_values, verdict)


def _running(amounts: np.ndarray) -> np.ndarray:
    """Sums of the first 0..D days, [N, D + 1]."""
    sums = np.zeros((amounts.shape[0], amounts.shape[1] + 1))
    np.cumsum(amounts, axis=1, out=sums[:, 1:])
    return sums

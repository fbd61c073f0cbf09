"""What a network's stops would have earned: policies on the paths of generated creatives.

Thresholds are chosen on validation rows to free as much cost as the operator did, and judged on
test rows, whose paths go on whether or not they were stopped. Our replication of the paper's claim
that stops by the network are worth as much as manual ones, whose measure the paper does not give.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mtl_jax.metrics.survival.intervals import Interval
from mtl_jax.systems.ad_survival import policies
from mtl_jax.systems.ad_survival.forecasting import as_if_kept, curves_of, daily_curves, outputs
from mtl_jax.systems.ad_survival.policy_comparison import (
    Frontier,
    compare,
    equivalence,
    pareto,
    tune,
)
from mtl_jax.systems.ad_survival.policy_outcomes import outcome, paths_of

if TYPE_CHECKING:
    from mtl_jax.engine.state import TrainState
    from mtl_jax.run import Run

DAYS = 120
THRESHOLDS = 60
SCALES = (0.5, 1.0, 2.0)  # of the long term's threshold, to choose from
MARGIN = 0.05  # of the operator's net value, within which two policies count as equal


class Study(NamedTuple):
    """Policies and what they earn on test rows.

    Attributes:
      table: {policy: {quantity: interval}}, see `policy_comparison.compare`.
      fronts: {policy: its curve over thresholds}.
      points: {policy without a threshold: its one point}.
      verdict: of the two-term policy against the operator, see `equivalence`.
      note: what was done on how many rows.
    """

    table: dict[str, dict[str, Interval]]
    fronts: dict[str, Frontier]
    points: dict[str, Frontier]
    verdict: Any
    note: str


def policy_study(run: Run, state: TrainState, replicates: int = 500) -> Study:
    """Plays the policies of a network on a generated set.

    Args:
      run: of a set with paths; protocol "landmark".
      state: the checkpoint.
      replicates: resamples of campaigns for the intervals.
    """
    # Imported late: the builders draw on this package.
    from mtl_jax.systems.ad_survival.builders import prepared
    from mtl_jax.systems.ad_survival.data import seen_days

    config: Any = run.config
    ready = prepared(config.data, config.model.word_vectors)
    rows = np.concatenate([ready.splits["validation"], ready.splits["test"]])
    fit = np.arange(len(ready.splits["validation"]))
    apply = np.arange(len(fit), len(rows))
    cases = as_if_kept(ready.found, rows)
    views = config.data.views
    seen = seen_days(cases, views)
    logits, grid = curves_of(run, state, outputs(run, state, ready, cases, seen))
    curves = {
        int(day): daily_curves(logits[:, m], grid, DAYS)
        for m, day in enumerate(views.days)
        if not day % 1
    }
    paths = paths_of(ready.found, "path", rows=rows)
    expected = paths_of(ready.found, "expected", rows=rows)
    until = int(config.data.short[-1])
    short, long = policies.short_risk(curves, until), policies.long_risk(curves, after=until)
    names = list(ready.found.history_names)
    shown, clicks = (cases.path[..., names.index(name)] for name in ("impressions", "clicks"))
    rate = float(clicks[fit].sum() / shown[fit].sum())
    click_rule = policies.ctr_risk(shown, clicks, rate)
    stopped = np.minimum(ready.found.truth["stop_day"][rows], DAYS + 1).astype(np.int64)
    operator = pareto(stopped[None, fit], paths.rows(fit))
    freed = float(operator.cost_freed[0])

    candidates = {
        "short term": {"short": short},
        "long term": {"long": long},
        "two terms": {f"{s:g}": policies.two_term_risk(short, long, s) for s in SCALES},
        "click rate": {"rule": click_rule},
    }
    decided = {
        "never": policies.never(len(apply), DAYS),
        "operator": stopped[apply],
        "age of 10 days": policies.age(len(apply), 10),
        "oracle": policies.oracle(expected.net)[apply],
    }
    points = {name: pareto(stop[None], paths.rows(apply)) for name, stop in decided.items()}
    fronts = {}
    for name, risks in candidates.items():
        tuned = tune(risks, paths, fit, apply, cost_freed=freed)
        decided[name] = tuned.stop
        risk = risks[tuned.name]
        levels = policies.candidate_thresholds(risk[fit], THRESHOLDS)
        fronts[name] = pareto(policies.sweep_days(risk[apply], levels), paths.rows(apply))
    own = paths.rows(apply)
    table = compare(decided, own, replicates=replicates)
    net = {name: outcome(decided[name], own).net for name in ("two terms", "operator")}
    verdict = equivalence(
        net["two terms"],
        net["operator"],
        own.group,
        MARGIN * abs(float(net["operator"].mean())),
        replicates=replicates,
    )
    note = (
        f"Thresholds free as much cost as the operator on {len(fit)} validation creatives"
        f" ({100 * freed:.0f} %); judged on {len(apply)} test creatives, intervals over campaigns."
        f" Two terms against the operator, margin {100 * MARGIN:.0f} % of the operator's net value:"
        f" {verdict.verdict}. A network learns when operators stop, not what a creative earns."
    )
    return Study(table, fronts, points, verdict, note)

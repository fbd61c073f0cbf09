"""Policies side by side: tables, matching, tuning and tests of equivalence."""

from __future__ import annotations

import numpy as np
import pytest

from mtl_jax.data.survival.creatives import FAITHFUL, generate
from mtl_jax.data.survival.creatives_world import true_hazards
from mtl_jax.errors import UserError
from mtl_jax.systems.ad_survival import policies
from mtl_jax.systems.ad_survival.policy_comparison import (
    compare,
    equivalence,
    match,
    pareto,
    tune,
)
from mtl_jax.systems.ad_survival.policy_outcomes import outcome, paths_of
from mtl_jax.systems.ad_survival.resampling import resamples
from tests.systems.ad_survival.policy_cases import DAYS, random_paths, random_risk, slow_outcome


@pytest.fixture(scope="module")
def world():
    found = generate(FAITHFUL._replace(creatives=300), seed=3)
    return found, paths_of(found)


def test_a_comparison_is_that_of_a_plain_loop():
    paths = random_paths(12)
    stops = {"ours": policies.stop_days(random_risk(12), 0.9), "oracle": policies.never(40, DAYS)}
    top = np.arange(40) % 3 == 0
    got = compare(stops, paths, top=top, replacement="campaign", replicates=30, seed=4)["ours"]
    own = slow_outcome(stops["ours"], paths, "campaign")
    base = slow_outcome(stops["oracle"], paths, "none")
    plain = slow_outcome(stops["ours"], paths, "none")
    rng, names = np.random.default_rng(4), np.unique(paths.group)
    stopped = stops["ours"] <= paths.end
    last = max(paths.start + paths.end) - min(paths.start)
    draws = [np.arange(40)]
    for _ in range(30):
        drawn = rng.integers(0, len(names), len(names))
        draws.append(np.concatenate([np.flatnonzero(paths.group == names[g]) for g in drawn]))
    want: dict[str, list[float]] = {key: [] for key in got}
    for rows in draws:
        shown, sold, cost, value = own[rows].sum(0)
        saved = 1 - own[rows].sum(0) / base[rows].sum(0)
        want["impressions_saved"].append(saved[0])
        want["conversions_lost"].append(saved[1])
        want["cost_saved"].append(saved[2])
        want["value_lost"].append(saved[3])
        want["cost_freed"].append(1 - plain[rows, 2].sum() / base[rows, 2].sum())
        want["value"].append(value / len(rows))
        want["cost"].append(cost / len(rows))
        want["net_value"].append((value - cost) / len(rows))
        want["roas"].append(value / cost)
        want["cpa"].append(cost / sold)
        want["alerts_per_day"].append(stopped[rows].sum() / last)
        best = (base[rows, 3] - base[rows, 2]).sum()
        want["regret"].append((best - value + cost) / len(rows))
        want["early_top_stops"].append((stopped & top)[rows].sum() / top[rows].sum())
        assert shown > 0
    for key, values in want.items():
        assert got[key].value == pytest.approx(values[0], abs=1e-12), key
        low, high = np.quantile(values[1:], [0.025, 0.975])
        assert got[key].low == pytest.approx(low, abs=1e-12), key
        assert got[key].high == pytest.approx(high, abs=1e-12), key
        assert got[key].replicates == 30


def test_whole_campaigns_are_drawn():
    # Copies of a campaign's creatives are no new evidence: the interval must not shrink.
    paths = random_paths(13)
    twice = paths.rows(np.repeat(np.arange(40), 2))
    stop = policies.stop_days(random_risk(13), 0.8)
    once = compare({"a": stop}, paths, oracle=None, replicates=50)["a"]
    both = compare({"a": np.repeat(stop, 2)}, twice, oracle=None, replicates=50)["a"]
    alone = compare({"a": stop}, paths._replace(group=np.arange(40)), oracle=None)["a"]
    assert both["net_value"] == pytest.approx(once["net_value"])
    assert "regret" not in once
    assert alone["net_value"][1:] != once["net_value"][1:]
    drawn = resamples(paths.group, replicates=50)
    assert (drawn.times.sum(1) == len(np.unique(paths.group))).all()


@pytest.mark.parametrize("replacement", ["none", "campaign"])
def test_the_frontier_is_that_of_each_policy(replacement):
    paths = random_paths(14)
    stops = policies.sweep_days(random_risk(14), [0.5, 0.9, 0.97, 2.0])
    front = pareto(stops, paths, replacement)
    for k, stop in enumerate(stops):
        row = compare({"a": stop}, paths, oracle=None, replacement=replacement, replicates=1)["a"]
        assert front.cost_freed[k] == pytest.approx(row["cost_freed"].value)
        assert front.value_lost[k] == pytest.approx(row["value_lost"].value)
        assert front.net[k] == pytest.approx(row["net_value"].value)
        assert front.stops[k] == (stop <= paths.end).mean()
    assert (np.diff(front.cost_freed) < 0).all()


@pytest.mark.parametrize("target", [0.0, 0.2, 0.55, 0.9])
def test_matching_hits_the_target_as_near_as_a_creative(world, target):
    found, paths = world
    curves = {0: np.cumprod(1 - true_hazards(found).sum(-1), 1)}
    risk = policies.two_term_risk(policies.short_risk(curves), policies.long_risk(curves))
    threshold = match(risk, paths, target)
    nearby = np.unique(np.append(risk[np.isfinite(risk)], threshold))
    at = np.searchsorted(nearby, threshold)
    stops = policies.sweep_days(risk, nearby[max(at - 2, 0) : at + 3])
    freed = pareto(stops, paths).cost_freed
    mine = pareto([policies.stop_days(risk, threshold)], paths).cost_freed[0]
    assert abs(mine - target) == pytest.approx(np.abs(freed - target).min(), abs=1e-12)
    assert abs(mine - target) < 0.01


def test_matching_beyond_what_a_policy_can_free_is_the_most_it_can():
    paths = random_paths(15)
    risk = policies.ranking_risk(random_risk(15)[:, 0], 6, DAYS)
    threshold = match(risk, paths, 1.0)
    assert threshold == -np.inf
    np.testing.assert_array_equal(policies.stop_days(risk, threshold), 7)


def test_tuning_chooses_on_some_rows_and_decides_on_others():
    paths = random_paths(16, 200)
    good = -np.cumsum(paths.net[:, ::-1], 1)[:, ::-1]  # Minus what is to come: it knows the path.
    risks = {"noise": random_risk(16, 200), "good": good, "contrary": -good}
    fit, apply = np.arange(120), np.arange(120, 200)
    found = tune(risks, paths, fit, apply, cost_freed=0.4)
    assert found.name == "good"
    assert found.cost_freed == pytest.approx(0.4, abs=0.01)
    assert found.threshold == match(good[fit], paths.rows(fit), 0.4)
    np.testing.assert_array_equal(found.stop, policies.stop_days(good[apply], found.threshold))
    # What the other rows earn has no say.
    other = paths._replace(value=np.where(np.arange(200)[:, None] < 120, paths.value, 0.0))
    np.testing.assert_array_equal(tune(risks, other, fit, apply, cost_freed=0.4).stop, found.stop)
    most = tune(risks, paths, fit, apply)
    assert most.net >= found.net
    assert (
        most.net
        == pareto([policies.stop_days(risks[most.name][fit], most.threshold)], paths.rows(fit)).net[
            0
        ]
    )


def test_two_one_sided_tests():
    rng = np.random.default_rng(17)
    groups = np.repeat(np.arange(60), 5)
    theirs = rng.normal(5, 2, 300)
    same = equivalence(theirs, theirs, groups, 0.1)
    assert same.verdict == "equivalent"
    assert same.difference[:4] == (0, 0, 0, 0)
    noise = 0.3 * rng.normal(size=300)
    for shift, margin, verdict in (
        (0.0, 0.2, "equivalent"),
        (0.5, 0.2, "better"),
        (-0.5, 0.2, "worse"),
        (0.2, 0.2, "not inferior"),
        (-0.2, 0.2, "undecided"),
        (0.0, 0.001, "undecided"),
    ):
        got = equivalence(theirs + noise - noise.mean() + shift, theirs, groups, margin)
        assert got.verdict == verdict
        assert got.difference.value == pytest.approx(shift, abs=1e-9)
        assert got.p_value == max(got.p_lower, got.p_upper)
        # A test at level alpha is an interval of level 1 - 2 alpha within the margin.
        within = -margin < got.difference.low and got.difference.high < margin
        assert within == (verdict == "equivalent")
    # Turned round, so is the answer.
    one = equivalence(theirs + noise, theirs, groups, 0.02)
    other = equivalence(theirs, theirs + noise, groups, 0.02)
    assert (one.p_lower, one.p_upper) == (other.p_upper, other.p_lower)


def test_mistakes_are_named(world):
    found = world[0]
    small, risk = random_paths(18), random_risk(18)
    broken = risk.copy()
    broken[4, 2] = np.nan
    for call, words in (
        (lambda: policies.stop_days(broken, 0.5), "row 4 on day 3 is NaN"),
        (lambda: policies.stop_days(risk[0], 0.5), "creatives by days"),
        (lambda: policies.short_risk({3: risk}), "landmark 0"),
        (lambda: policies.redraw(2 * risk), "probabilities"),
        (lambda: outcome(np.zeros(40), small), "row 0 stops on day 0"),
        (lambda: outcome(np.ones(39), small), "one a row"),
        (lambda: outcome(np.ones(40), small, "group"), "none, campaign"),
        (lambda: compare({"a": np.ones(40)}, small), "no policy is named 'oracle'"),
        (lambda: match(risk, small, 1.5), "share in 0..1"),
        (lambda: equivalence(risk[:, 0], risk[:, 1], small.group, 0.0), "above 0"),
        (lambda: paths_of(found._replace(truth={})), "sell for"),
        (lambda: paths_of(found._replace(path=found.path[:, :0])), "has no path"),
    ):
        with pytest.raises(UserError) as error:
            call()
        assert words in str(error.value)
        assert "\n" not in str(error.value)

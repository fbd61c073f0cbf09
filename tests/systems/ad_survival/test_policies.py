"""Policies: what they may know and what they cost, against plain loops and what must hold."""

from __future__ import annotations

import numpy as np
import pytest

from mtl_jax.data.survival.creatives import FAITHFUL, generate
from mtl_jax.data.survival.creatives_world import true_hazards
from mtl_jax.data.survival.oracles import oracle_landmark
from mtl_jax.systems.ad_survival import policies
from mtl_jax.systems.ad_survival.policy_comparison import compare
from mtl_jax.systems.ad_survival.policy_outcomes import outcome, paths_of, top_share
from tests.systems.ad_survival.policy_cases import (
    DAYS,
    NEVER,
    random_paths,
    random_risk,
    slow_outcome,
)


@pytest.fixture(scope="module")
def world():
    found = generate(FAITHFUL._replace(creatives=600), seed=3)
    return found, paths_of(found), paths_of(found, "expected")


# What policies decide.


def test_stop_days_are_the_first_above_the_threshold():
    risk = random_risk(0)
    risk[3] = -np.inf
    for threshold in (-1.0, 0.0, 0.31, 0.9, 0.99, 1.0):
        want = [next((t + 1 for t, r in enumerate(row) if r > threshold), NEVER) for row in risk]
        np.testing.assert_array_equal(policies.stop_days(risk, threshold), want)
    assert policies.stop_days(risk, 0.31)[3] == NEVER


def test_a_higher_threshold_never_stops_sooner():
    thresholds = np.sort(np.random.default_rng(1).random(30))
    stops = policies.sweep_days(random_risk(1), thresholds)
    assert (np.diff(stops, axis=0) >= 0).all()
    assert (np.diff(stops, axis=0) > 0).any()


def test_candidates_span_from_all_to_nobody():
    risk = random_risk(2)
    risk[:5] = -np.inf
    thresholds = policies.candidate_thresholds(risk, 20)
    stopped = (policies.sweep_days(risk, thresholds) <= DAYS).sum(1)
    assert len(thresholds) <= 20
    assert stopped[0] == 35
    assert stopped[-1] == 0
    assert (np.diff(stopped) < 0).all()


def test_no_policy_looks_ahead():
    # Whatever days t, t + 1, ... bring, what was decided on day t and before stays decided.
    rng = np.random.default_rng(4)
    shown = rng.poisson(400, (60, DAYS))
    clicks = rng.binomial(shown, 0.02)
    for options in ({}, {"look_back": 3}, {"least": 900.0}):
        risk = policies.ctr_risk(shown, clicks, 0.02, **options)
        assert (risk[:, 0] == -np.inf).all()
        for day in range(1, DAYS + 1):
            others = [a.copy() for a in (shown, clicks)]
            others[0][:, day - 1 :] += rng.poisson(300, (60, DAYS - day + 1))
            others[1][:, day - 1 :] = 0
            changed = policies.ctr_risk(*others, 0.02, **options)
            np.testing.assert_array_equal(risk[:, :day], changed[:, :day])
            if 1 < day < DAYS and not options:
                assert (risk[:, day] != changed[:, day]).all()


def test_policies_of_an_oracle_do_not_look_ahead_either(world):
    found = world[0]
    rows = np.arange(25)

    def risks(path):
        seen = found._replace(path=path)
        curves = {mark: oracle_landmark(seen, mark, rows=rows) for mark in (0, 2, 6, 12)}
        short, long = policies.short_risk(curves), policies.long_risk(curves)
        return policies.two_term_risk(short, long, 0.5)

    risk = risks(found.path)
    for day in (1, 2, 3, 6, 9, 12, 13):
        path = found.path.copy()
        path[:, day - 1 :, 1:3] = 0  # No click and no sale from this day on.
        changed = risks(path)
        np.testing.assert_array_equal(risk[:, :day], changed[:, :day])
        # It does look at what has come: the last curve has seen 12 days.
        assert (risk[:, 12:] != changed[:, 12:]).any() == (day < 13)


def test_click_rates_are_smoothed_counts_of_the_past():
    shown = np.array([[100, 50, 0, 10]])
    clicks = np.array([[5, 1, 0, 10]])
    got = policies.ctr_risk(shown, clicks, 0.1, smoothing=10.0)
    want = [-np.inf, -6 / 110, -7 / 160, -7 / 160]
    np.testing.assert_allclose(got[0], want)
    got = policies.ctr_risk(shown, clicks, 0.1, smoothing=10.0, look_back=1, least=20)
    np.testing.assert_allclose(got[0], [-np.inf, -6 / 110, -2 / 60, -np.inf])


def test_chances_of_a_stop_by_the_latest_curve():
    rng = np.random.default_rng(5)
    hazards = {mark: rng.uniform(0.01, 0.3, (8, DAYS)) for mark in (0, 3, 11)}
    for mark, own in hazards.items():
        own[:, :mark] = 0
    curves = {mark: np.cumprod(1 - own, 1) for mark, own in hazards.items()}
    short = policies.short_risk(curves, until=6)
    long = policies.long_risk(curves, within=4, after=6)
    for day in range(1, DAYS + 1):
        own = hazards[max(mark for mark in hazards if mark < day)]
        if day <= 6:
            want = 1 - np.prod(1 - own[:, day - 1 : 6], 1)
            np.testing.assert_allclose(short[:, day - 1], want)
            assert (long[:, day - 1] == -np.inf).all()
        else:
            want = 1 - np.prod(1 - own[:, day - 1 : day + 3], 1)
            np.testing.assert_allclose(long[:, day - 1], want)
            assert (short[:, day - 1] == -np.inf).all()


def test_who_is_alive_against_the_curve_is_at_the_greatest_risk():
    curves = {0: np.array([[0.5, 0.0, 0.0], [1.0, 1.0, 1.0]])}
    np.testing.assert_array_equal(policies.short_risk(curves, 3), [[1, 1, 1], [0, 0, 0]])


@pytest.mark.parametrize("scale", [0.3, 1.0, 4.0])
def test_two_terms_stop_where_either_would(scale):
    short, long = random_risk(6), random_risk(7)
    short[:, 6:] = long[:, :6] = -np.inf
    both = policies.two_term_risk(short, long, scale)
    for threshold in (0.1, 0.55, 0.83):
        either = np.minimum(
            policies.stop_days(short, threshold), policies.stop_days(long / scale, threshold)
        )
        np.testing.assert_array_equal(policies.stop_days(both, threshold), either)


def test_simple_rules():
    np.testing.assert_array_equal(policies.never(2, DAYS), [NEVER, NEVER])
    np.testing.assert_array_equal(policies.age(2, 10), [11, 11])
    stops = policies.recorded([3.0, 3.0, 20.0], [2, 0, 1], DAYS)
    np.testing.assert_array_equal(stops, [3, NEVER, NEVER])
    risk = policies.ranking_risk([0.1, 0.9], 3, DAYS)
    np.testing.assert_array_equal(policies.stop_days(risk, 0.5), [NEVER, 4])


def test_another_operator_acts_by_the_same_chances():
    hazards = np.tile(np.linspace(0.3, 0.05, DAYS), (40_000, 1))
    for after in (0, 3):
        stop = policies.redraw(hazards, seed=1, after=after)
        own = hazards[0].copy()
        own[:after] = 0
        chance = own * np.cumprod(np.append(1, 1 - own))[:-1]
        share = np.bincount(stop, minlength=NEVER + 1)[1:NEVER] / len(stop)
        assert stop.min() > after
        np.testing.assert_allclose(share, chance, atol=4 * np.sqrt(0.25 / len(stop)))
    assert (policies.redraw(hazards, seed=1) != policies.redraw(hazards, seed=2)).any()


# What they cost and earn.


@pytest.mark.parametrize("replacement", ["none", "campaign"])
def test_outcomes_are_those_of_a_plain_loop(replacement):
    paths = random_paths(8)
    stop = policies.stop_days(random_risk(8), 0.9)
    found = outcome(stop, paths, replacement)
    want = slow_outcome(stop, paths, replacement)
    np.testing.assert_allclose(np.stack(found[:4], 1), want, rtol=1e-12)
    own = slow_outcome(stop, paths, "none")
    whole = slow_outcome(np.full(40, NEVER), paths, "none")
    np.testing.assert_allclose(found.freed_cost, whole[:, 2] - own[:, 2], atol=1e-9)
    np.testing.assert_allclose(found.freed_impressions, whole[:, 0] - own[:, 0], atol=1e-9)
    np.testing.assert_array_equal(found.stopped, stop <= paths.end)
    if replacement == "campaign":
        assert (want[:, 3] > own[:, 3]).any()


def test_freed_impressions_of_a_creative_that_is_alone_are_not_bought():
    paths = random_paths(9)._replace(group=np.arange(40))
    stop = policies.stop_days(random_risk(9), 0.8)
    for one, other in zip(outcome(stop, paths, "campaign"), outcome(stop, paths), strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_mean_creative_of_equals_replaces_exactly():
    # All creatives of a campaign are the same and begin together: nothing changes while one runs.
    one = random_paths(10, 1)._replace(end=np.array([DAYS]))
    paths = one.rows(np.zeros(5, int))
    stop = np.array([1, 4, 9, 2, NEVER])
    got = outcome(stop, paths, "campaign")
    np.testing.assert_allclose(got.net, outcome(np.full(5, NEVER), paths).net)


def test_the_paths_of_a_generated_set(world):
    found, paths, expected = world
    assert paths.end.min() >= 1
    assert paths.end.max() == 120
    censored = found.event == 0
    np.testing.assert_array_equal(paths.end[censored], found.time[censored])
    assert (paths.end >= found.history_days).all()
    # Where the path ran until the operator's stop, it sold what the set says.
    got = outcome(policies.recorded(found.time, found.event, 120), paths)
    np.testing.assert_allclose(got.value, found.value, rtol=1e-5)
    np.testing.assert_allclose(got.cost, found.history[..., 3].sum(1), rtol=1e-4)
    for drawn, mean in zip(paths[:2], expected[:2], strict=True):
        error = (drawn - mean).sum() / np.sqrt(mean.sum())  # Poisson.
        assert abs(error) < 4
        assert drawn.shape == mean.shape
    rows = np.array([5, 2, 99])
    some = paths_of(found, "expected", rows=rows)
    for one, whole in zip(some, expected, strict=True):
        np.testing.assert_array_equal(one, whole[rows])


def test_a_log_replays_earlier_stops_as_the_path_does(world):
    found, paths, _ = world
    log = paths_of(found, "history")
    stop = np.minimum(policies.recorded(found.time, found.event, 120), 6)
    np.testing.assert_array_equal(outcome(stop, log).net, outcome(stop, paths).net)
    # Later than the operator it knows nothing.
    later = outcome(policies.never(*log.cost.shape), log)
    np.testing.assert_allclose(later.value, found.value, rtol=1e-5)


def test_never_saves_nothing_and_loses_nothing(world):
    _, paths, expected = world
    rows = {
        "never": policies.never(*paths.cost.shape),
        "at once": np.ones(600, int),
        "oracle": policies.oracle(expected.net),
    }
    for replacement in ("none", "campaign"):
        table = compare(rows, paths, replacement=replacement, replicates=20)
        for key in ("impressions_saved", "cost_saved", "cost_freed", "value_lost"):
            assert table["never"][key][:3] == (0, 0, 0)
        assert table["never"]["alerts_per_day"].value == 0
        assert table["never"]["early_top_stops"].value == 0
        assert table["oracle"]["regret"][:3] == pytest.approx((0, 0, 0), abs=1e-9)
        assert table["at once"]["cost_freed"][:3] == (1, 1, 1)
        assert table["at once"]["value_lost"].value == 1
        assert np.isnan(table["at once"]["roas"].value)


def test_no_policy_earns_more_than_hindsight(world):
    found, paths, expected = world
    hazards = true_hazards(found).sum(-1)
    curves = {0: np.cumprod(1 - hazards, 1)}
    both = policies.two_term_risk(policies.short_risk(curves), policies.long_risk(curves))
    rivals = [
        policies.never(600, 120),
        policies.age(600, 10),
        found.truth["stop_day"],
        policies.oracle(expected.net),
        *policies.sweep_days(both, np.linspace(0, 1, 15)),
    ]
    best = outcome(policies.hindsight(paths.net, paths.end), paths).net
    for rival in rivals:
        assert (outcome(rival, paths).net <= best + 1e-6).all()
    rng = np.random.default_rng(0)
    for _ in range(20):
        assert (outcome(rng.integers(1, 122, 600), paths).net <= best + 1e-6).all()


def test_the_oracle_is_the_best_stop_by_what_is_expected(world):
    _, _, expected = world
    mine = outcome(policies.oracle(expected.net), expected).net
    best = outcome(policies.hindsight(expected.net, expected.end), expected).net
    np.testing.assert_allclose(mine, best, atol=1e-6)
    # What impressions earn elsewhere makes it stop sooner.
    picky = policies.oracle(expected.net, 0.1 * expected.cost)
    assert (picky <= policies.oracle(expected.net)).all()
    assert (picky < policies.oracle(expected.net)).any()


def test_top_creatives_sell_the_most():
    paths = random_paths(11)
    top = top_share(paths)
    value = outcome(np.full(40, NEVER), paths).value
    assert top.sum() == 10
    assert value[top].min() >= value[~top].max()

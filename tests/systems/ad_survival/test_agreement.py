"""Agreement with operators: flags, order and the next in line, against plain counts."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import kendalltau

from mtl_jax.errors import UserError
from mtl_jax.metrics.survival import censoring_curve
from mtl_jax.systems.ad_survival.agreement import agreement, flag_top, next_stops, order


def rows(seed: int, n: int = 300, last: int = 30, censored: float = 0.3):
    """Times with ties, events, a risk that tells something of them, and groups."""
    rng = np.random.default_rng(seed)
    score = rng.normal(size=n)
    stop = np.minimum(rng.geometric(1 / (1 + np.exp(2.2 - score))), last + 1)
    leave = np.where(rng.random(n) < 2 * censored, rng.integers(1, last + 1, n), last)
    time = np.minimum(stop, leave).astype(float)
    risk = (score + 0.5 * rng.normal(size=n)).round(1)
    return time, (stop <= leave).astype(int), risk, rng.integers(0, 40, n)


def test_flags_against_plain_counts():
    time, event, risk, groups = rows(0)
    risk = risk + np.arange(len(risk)) * 1e-6  # Without ties.
    got = agreement(time, event, risk, landmark=3, horizon=10, groups=groups, replicates=50)
    known = [i for i in range(300) if time[i] > 3 and (event[i] or time[i] >= 10)]
    stopped = {i for i in known if event[i] and time[i] <= 10}
    flagged = set(sorted(known, key=lambda i: -risk[i])[: len(stopped)])
    hits = flagged & stopped
    assert got.alive == len(known)
    assert got.unknown == ((time > 3) & (time < 10) & (event == 0)).sum() > 0
    assert got.flagged == len(stopped)
    assert got.base_rate.value == pytest.approx(len(stopped) / len(known))
    assert got.precision.value == got.recall.value == pytest.approx(len(hits) / len(flagged))
    assert got.lift.value == pytest.approx(got.precision.value / got.base_rate.value)
    leads = [time[i] - 4 for i in hits]
    assert got.lead_days.value == pytest.approx(np.mean(leads))
    median = np.quantile(leads, 0.5, method="inverted_cdf")
    assert got.lead_quartiles[1] == median
    others = [i for i in known if i not in stopped]
    pairs = [(risk[i] > risk[j]) for i in stopped for j in others]
    assert got.auc.value == pytest.approx(np.mean(pairs))
    for interval in (got.precision, got.lift, got.auc, got.lead_days):
        assert interval.low < interval.value < interval.high


def test_a_subset_keeps_the_flags_of_all():
    time, event, risk, _ = rows(1)
    risk = risk + np.arange(len(risk)) * 1e-6
    subset = np.arange(300) % 4 == 0
    got = agreement(time, event, risk, subset=subset, flagged=50, replicates=2)
    known = np.flatnonzero((time > 3) & ((event > 0) | (time >= 10)))
    flagged = known[np.argsort(-risk[known])][:50]
    inside = flagged[subset[flagged]]
    assert got.flagged == 50
    assert got.precision.value == pytest.approx((event[inside] & (time[inside] <= 10)).mean())
    share = agreement(time, event, risk, flagged=0.1, replicates=2)
    assert share.flagged == round(0.1 * len(known))


def test_stopped_rows_of_the_past_and_what_comes_after_the_horizon_do_not_matter():
    time, event, risk, groups = rows(2)
    base = agreement(time, event, risk, groups=groups, replicates=10)
    later, past = time > 10, time <= 3
    risk = np.where(past, np.nan, risk)
    moved = np.where(later, 99.0, time)
    again = agreement(moved, np.where(later, 1 - event, event), risk, groups=groups, replicates=10)
    assert base[:3] == again[:3]
    assert base[4:9] == again[4:9]


def test_flags_are_shared_among_equal_risks():
    flags = flag_top(np.array([1.0, 3.0, 2.0, 2.0, 2.0, 0.0]), 3)
    np.testing.assert_allclose(flags, [0, 1, 2 / 3, 2 / 3, 2 / 3, 0])
    for k in range(7):
        assert flag_top(np.array([1.0, 3.0, 2.0, 2.0, 2.0, 0.0]), k).sum() == pytest.approx(k)
    # A risk that tells nothing is as good as chance, in whatever order rows come.
    time, event, _, _ = rows(3)
    got = agreement(time, event, np.zeros(300), replicates=2)
    assert got.lift.value == pytest.approx(1)
    assert got.auc.value == 0.5


def test_weights_undo_the_censoring():
    # Who is censored is known to be, on average over many rows, as if nobody were.
    rng = np.random.default_rng(4)
    n = 60_000
    score = rng.normal(size=n)
    stop = rng.geometric(1 / (1 + np.exp(2 - score))).astype(float)
    leave = rng.integers(1, 25, n).astype(float)
    time, event = np.minimum(stop, leave), (stop <= leave).astype(int)
    curve = censoring_curve(time, event)
    risk = score + rng.normal(size=n)
    truth = agreement(stop, np.ones(n), risk, replicates=2)
    weighted = agreement(time, event, risk, censoring=curve, replicates=2)
    dropped = agreement(time, event, risk, replicates=2)
    for field, error in (("base_rate", 0.01), ("precision", 0.02), ("recall", 0.02), ("auc", 0.01)):
        want = getattr(truth, field).value
        assert getattr(weighted, field).value == pytest.approx(want, abs=error)
    assert dropped.base_rate.value > truth.base_rate.value + 0.05
    assert weighted.alive == (time > 3).sum()
    assert weighted.flagged == pytest.approx(truth.base_rate.value * weighted.alive, rel=0.03)
    week = next_stops(time, event, np.tile(risk[:, None], 24), censoring=curve, replicates=2)
    whole = next_stops(stop, np.ones(n), np.tile(risk[:, None], 24), replicates=2)
    np.testing.assert_allclose(week.precision[:1], whole.precision[:1], atol=0.06)
    np.testing.assert_allclose(week.stopped[:1], whole.stopped[:1], atol=0.03)


def test_without_censoring_weights_change_nothing():
    time, event, risk, groups = rows(5, censored=0.0)
    curve = censoring_curve(np.append(time, 40.0), np.append(event, 0))
    one = agreement(time, event, risk, groups=groups, replicates=10)
    other = agreement(time, event, risk, groups=groups, replicates=10, censoring=curve)
    for field in ("base_rate", "precision", "recall", "lift", "auc", "lead_days"):
        assert getattr(other, field) == pytest.approx(getattr(one, field))


def test_the_order_of_stops_is_kendalls():
    time, event, risk, groups = rows(6, censored=0.0)
    time, event = np.append(time, 50.0), np.ones(301, int)
    risk, groups = np.append(risk, -5.0), np.append(groups, 99)
    got = order(time, event, risk, landmark=4, groups=groups, replicates=5)
    alive = time > 4
    want = kendalltau(-risk[alive], time[alive], variant="b").statistic
    assert got.tau_b == pytest.approx(want, abs=1e-12)
    assert got.rows == alive.sum()


def test_the_order_with_censoring_is_that_of_pairs_known():
    time, event, risk, _ = rows(7, n=120)
    got = order(time, event, risk, landmark=2, replicates=5)
    alive = np.flatnonzero(time > 2)
    c = d = tied_risk = one_day = 0
    for i in alive:
        for j in alive:
            if event[i] and (time[i] < time[j] or (time[i] == time[j] and not event[j])):
                c += risk[i] > risk[j]
                d += risk[i] < risk[j]
                tied_risk += risk[i] == risk[j]
            if i < j and event[i] and event[j] and time[i] == time[j]:
                one_day += risk[i] != risk[j]
    want = (c - d) / np.sqrt(float(c + d + tied_risk) * float(c + d + one_day))
    assert got.tau_b == pytest.approx(want, abs=1e-12)
    assert got.comparable == c + d + tied_risk
    assert got.concordance.value == pytest.approx((c + tied_risk / 2) / got.comparable)


def test_the_next_in_line_week_by_week():
    time, event, score, groups = rows(8)
    rng = np.random.default_rng(9)
    risk = score[:, None] + rng.normal(size=(300, 30))
    options = {"share": 0.2, "first": 4, "days": 5, "replicates": 20}
    got = next_stops(time, event, risk, groups=groups, **options)
    np.testing.assert_array_equal(got.day, [4, 9, 14, 19, 24])
    flags = hits = stops = known = 0
    for w, day in enumerate(got.day):
        end = day + 4
        ranked = [i for i in range(300) if time[i] >= day and (event[i] or time[i] >= end)]
        k = max(round(0.2 * len(ranked)), 1)
        flagged = sorted(ranked, key=lambda i: -risk[i, day - 1])[:k]
        stopped = [i for i in ranked if event[i] and time[i] <= end]
        mine = set(flagged) & set(stopped)
        assert got.alive[w] == len(ranked)
        assert got.precision[w] == pytest.approx(len(mine) / k)
        assert got.recall[w] == pytest.approx(len(mine) / len(stopped))
        assert got.stopped[w] == pytest.approx(len(stopped) / len(ranked))
        flags, hits, stops, known = (
            flags + k,
            hits + len(mine),
            stops + len(stopped),
            known + len(ranked),
        )
    assert got.pooled_precision.value == pytest.approx(hits / flags)
    assert got.pooled_lift.value == pytest.approx((hits / flags) / (stops / known))
    # What is seen on other days than the first of a week has no say.
    other = rng.normal(size=risk.shape)
    other[:, got.day - 1] = risk[:, got.day - 1]
    again = next_stops(time, event, other, groups=groups, **options)
    np.testing.assert_array_equal(again.precision, got.precision)


def test_weeks_that_nobody_lives_to_see_are_nan():
    time, event = np.full(20, 6.0), np.ones(20, int)
    got = next_stops(time, event, np.zeros((20, 20)), first=4, days=4, replicates=2)
    np.testing.assert_array_equal(got.alive, [20, 0, 0, 0])
    assert got.precision[0] == 1
    assert np.isnan(got.precision[1:]).all()


def test_mistakes_are_named():
    time, event, risk, _ = rows(10)
    broken = risk.copy()
    broken[np.flatnonzero(time > 12)[0]] = np.nan
    for call, words in (
        (lambda: agreement(time, event, broken, replicates=2), "is NaN"),
        (lambda: agreement(time, event, risk[:5]), "one value a row"),
        (lambda: agreement(time, event, risk, landmark=10, horizon=10), "0 <= L < h"),
        (lambda: agreement(time, event, risk, landmark=90, horizon=99), "no row is alive"),
        (lambda: agreement(time, event, risk, flagged=0), "flagged is 0"),
        (lambda: agreement(time, event, risk, flagged=301), "flagged is 301"),
        (lambda: agreement(time, event, risk, subset=time < 3), "no row of the subset"),
        (lambda: next_stops(time, event, risk), "rows by days"),
        (lambda: next_stops(time, event, np.zeros((300, 30)), share=1.0), "between 0 and 1"),
        (lambda: next_stops(time, event, np.zeros((300, 30)), first=28), "days 28..34"),
    ):
        with pytest.raises(UserError) as error:
            call()
        assert words in str(error.value)
        assert "\n" not in str(error.value)

"""Observed against expected stops: plain counts, true hazards, wrong ones, and the figures."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import poisson

from mtl_jax.errors import UserError
from mtl_jax.systems.ad_survival import policy_figures as figures
from mtl_jax.systems.ad_survival.agreement import agreement, next_stops
from mtl_jax.systems.ad_survival.calibration import poisson_interval, stops_by_risk, weekly_stops
from mtl_jax.systems.ad_survival.policies import never, oracle, stop_days, sweep_days
from mtl_jax.systems.ad_survival.policy_comparison import compare, pareto
from tests.systems.ad_survival.policy_cases import DAYS, random_paths, random_risk


def drawn(seed: int, n: int = 400, days: int = 20, spread: float = 1.0):
    """Rows that stop by known hazards [n, days], censored at random."""
    rng = np.random.default_rng(seed)
    odds = np.exp(spread * rng.normal(size=(n, 1)) - 2.5 + np.sin(np.arange(days)))
    hazards = odds / (1 + odds)
    stop = 1 + (np.cumprod(1 - hazards, 1) > rng.random((n, 1))).sum(1)
    leave = rng.integers(1, days + 1, n)
    time, event = np.minimum(stop, leave), (stop <= leave).astype(int)
    return time.astype(float), event, hazards


def test_counts_by_week_of_age_and_of_the_calendar():
    time, event, hazards = drawn(0)
    rng = np.random.default_rng(1)
    start, entry = rng.integers(5, 40, 400), rng.integers(0, 6, 400)
    alive = time > entry
    time, event, hazards, start, entry = (x[alive] for x in (time, event, hazards, start, entry))
    for calendar in (None, start):
        got = weekly_stops(time, event, hazards, days=6, start=calendar, entry=entry)
        first = 1 if calendar is None else start.min()
        want: dict[int, list[float]] = {}
        seen: dict[int, set[int]] = {}
        for i in range(len(time)):
            for day in range(int(entry[i]) + 1, int(time[i]) + 1):
                at = day if calendar is None else start[i] + day - 1
                sums = want.setdefault((at - first) // 6, [0, 0.0, 0.0])
                h = hazards[i, day - 1]
                sums[0] += int(event[i] and day == time[i])
                sums[1], sums[2] = sums[1] + h, sums[2] + h * (1 - h)
                seen.setdefault((at - first) // 6, set()).add(i)
        weeks = sorted(want)
        np.testing.assert_array_equal(got.bin, first + 6 * np.arange(max(weeks) + 1))
        sums = np.array([want[w] for w in weeks])
        for field, column in zip(("observed", "expected", "variance"), sums.T, strict=True):
            np.testing.assert_allclose(getattr(got, field)[weeks], column)
        np.testing.assert_array_equal(got.at_risk[weeks], [len(seen[w]) for w in weeks])
        assert got.total == pytest.approx(event.sum() / sums[:, 1].sum())
        assert got.observed.sum() == event.sum()


def test_true_hazards_pass_and_wrong_ones_do_not():
    # Over many worlds the p-values of the truth are uniform, whatever the censoring.
    by_week, by_risk = [], []
    for seed in range(60):
        time, event, hazards = drawn(seed)
        by_week.append(weekly_stops(time, event, hazards, days=5).p_value)
        by_risk.append(stops_by_risk(time, event, hazards, bins=5).p_value)
    for values in (by_week, by_risk):
        assert np.mean(values) == pytest.approx(0.5, abs=4 * np.sqrt(1 / 12 / 60))
        assert np.mean(np.array(values) < 0.05) < 0.16
    time, event, hazards = drawn(1)
    assert weekly_stops(time, event, np.minimum(1.5 * hazards, 1)).p_value < 1e-4
    # A right sum with the wrong order shows by risk alone.
    flat = np.tile(hazards.mean(0), (400, 1))
    assert stops_by_risk(time, event, flat, by=hazards.sum(1)).p_value < 1e-4


def test_intervals_of_counts_are_exact():
    low, high = poisson_interval([0, 1, 7, 300], 0.9)
    for count, a, b in zip((0, 1, 7, 300), low, high, strict=True):
        assert poisson.cdf(count, b) == pytest.approx(0.05)
        assert a == 0 if count == 0 else poisson.sf(count - 1, a) == pytest.approx(0.05)
    time, event, hazards = drawn(2)
    got = weekly_stops(time, event, hazards, level=0.9)
    ends = poisson_interval(got.observed, 0.9)
    np.testing.assert_allclose(got.low, ends[0] / got.expected)
    np.testing.assert_allclose(got.high, ends[1] / got.expected)


def test_groups_are_of_like_risk_and_do_not_look_at_the_outcome():
    time, event, hazards = drawn(3)
    got = stops_by_risk(time, event, hazards, bins=4, until=8, entry=2)
    alive = time > 2
    chance = 1 - np.prod(1 - hazards[:, 2:8], 1)
    order = np.flatnonzero(alive)[np.argsort(chance[alive])]
    edges = np.cumsum(got.at_risk)
    assert got.at_risk.max() - got.at_risk.min() <= 1
    assert edges[-1] == alive.sum()
    for k, mine in enumerate(np.split(order, edges[:-1])):
        assert got.observed[k] == ((time[mine] <= 8) & (event[mine] > 0)).sum()
        expected = sum(hazards[i, 2 : int(min(time[i], 8))].sum() for i in mine)
        assert got.expected[k] == pytest.approx(expected)
    # The same rows with other outcomes are in the same groups.
    other = stops_by_risk(np.where(alive, 3.0, time), event, hazards, bins=4, until=8, entry=2)
    np.testing.assert_array_equal(other.at_risk, got.at_risk)
    one = stops_by_risk(time, event, np.full_like(hazards, 0.1), bins=4)
    assert len(one.bin) == 1  # Nothing tells rows apart.


def test_campaigns_that_stop_together_have_wider_intervals():
    time, event, hazards = drawn(4)
    many = [np.repeat(x, 10, axis=0) for x in (time, event, hazards)]
    own = weekly_stops(*many, days=20, groups=np.repeat(np.arange(400), 10))
    single = weekly_stops(time, event, hazards, days=20, groups=np.arange(400))
    wrong = weekly_stops(*many, days=20)
    np.testing.assert_allclose((own.low, own.high), (single.low, single.high))
    assert (wrong.high - wrong.low < 0.6 * (own.high - own.low)).all()


def test_days_outside_the_risk_set_may_hold_anything():
    time, event, hazards = drawn(5)
    day = np.arange(1, 21)
    risky = (day <= time[:, None]) & (day > 1)
    broken = np.where(risky, hazards, np.nan)
    one = weekly_stops(time, event, hazards, entry=1)
    other = weekly_stops(time, event, broken, entry=1)
    np.testing.assert_array_equal(one.expected, other.expected)
    assert not np.isnan(other.statistic)


def test_mistakes_are_named():
    time, event, hazards = drawn(6)
    for call, words in (
        (lambda: weekly_stops(time, event, hazards[:5]), "rows by days"),
        (lambda: weekly_stops(time, event, 20 * hazards), "a probability"),
        (lambda: weekly_stops(time, event, hazards, days=0), "days is 0"),
        (lambda: stops_by_risk(time, event, hazards, until=21), "until is day 21"),
        (lambda: stops_by_risk(time, event, hazards, bins=0), "bins is 0"),
    ):
        with pytest.raises(UserError) as error:
            call()
        assert words in str(error.value)
        assert "\n" not in str(error.value)


def test_figures_are_written_and_say_what_they_show(tmp_path):
    paths, risk = random_paths(0), random_risk(0)
    table = {"ours": stop_days(risk, 0.9), "oracle": oracle(paths.net), "never": never(40, DAYS)}
    front = pareto(sweep_days(risk, np.linspace(0.5, 1, 6)), paths)
    time, event, hazards = drawn(7)
    found = {"a_model": agreement(time, event, hazards[:, 3], replicates=5)}
    weeks = {"a_model": next_stops(time, event, hazards, first=4, replicates=5)}
    stops = {"a_model": weekly_stops(time, event, hazards)}
    risks = {"other": stops_by_risk(time, event, hazards)}
    sections = [
        figures.frontier_section(
            {"ours": front}, {"never": pareto([table["never"]], paths)}, tmp_path
        ),
        figures.comparison_section(compare(table, paths, replicates=5), tmp_path, "On test rows."),
        figures.agreement_section(found, tmp_path, weeks),
        figures.calibration_section(stops, risks, tmp_path),
    ]
    for section in sections:
        assert section.text.endswith(".")
        assert all(file.read_bytes().startswith(b"\x89PNG") for file in section.figures)
    assert sections[1].text.endswith("On test rows.")
    assert len({file for section in sections for file in section.figures}) == 4
    # Without an oracle and without weeks there is less to draw.
    figures.comparison_section(compare(table, paths, oracle=None, replicates=5), tmp_path)
    figures.agreement_section(found, tmp_path)

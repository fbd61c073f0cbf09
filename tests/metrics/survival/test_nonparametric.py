"""Curves against products over risk sets, copies of rows and other packages' numbers."""

from __future__ import annotations

import numpy as np
import pytest

from mtl_jax.errors import UserError
from mtl_jax.metrics.survival import (
    aalen_johansen,
    censoring_curve,
    censoring_probability,
    kaplan_meier,
    nelson_aalen,
)


def case(seed: int, n: int = 60, causes: int = 1):
    rng = np.random.default_rng(seed)
    time, event = rng.integers(1, 10, n).astype(float), rng.integers(0, causes + 1, n)
    entry = np.where(rng.random(n) < 0.5, np.floor(time * rng.random(n)), -np.inf)
    return time, event, entry, rng.integers(1, 4, n)


def on(curve, values, grid):
    return np.asarray(values)[..., np.searchsorted(curve.time, grid, "right") - 1]


def test_kaplan_meier_is_the_product_over_risk_sets():
    time, event, entry, weights = case(0)
    curve = kaplan_meier(time, event, weights=weights, entry=entry)
    survival, spread = 1.0, 0.0
    for k, t in enumerate(np.unique(time)):
        n = weights[(entry < t) & (time >= t)].sum()
        d = weights[(time == t) & (event > 0)].sum()
        survival *= 1 - d / n
        spread += d / (n * (n - d)) if n > d else 0
        assert curve.at_risk[k] == n
        assert curve.events[k] == d
        assert curve.survival[k] == pytest.approx(survival, abs=1e-12)
        if survival > 0:
            assert curve.variance[k] == pytest.approx(survival**2 * spread, rel=1e-10)
    np.testing.assert_array_equal(
        curve.at([0.5, 1, 1.5, 99], "left"), [1, 1, *curve.survival[[0, -1]]]
    )
    np.testing.assert_array_equal(curve.at([0.5, 1]), [1, curve.survival[0]])


def test_numbers_of_lifelines_and_scikit_survival(single):
    time, event, weights = single["time"], single["event"], single["weights"]
    entry, grid = single["entry"], single["grid"]
    weighted = kaplan_meier(time, event, weights=weights)
    np.testing.assert_allclose(weighted.at(grid), single["lifelines_weighted_km"], atol=1e-12)
    np.testing.assert_allclose(
        on(weighted, weighted.interval(), grid), single["lifelines_weighted_interval"], atol=1e-12
    )
    times, hazard = nelson_aalen(time, event, weights=weights)
    np.testing.assert_allclose(
        hazard[np.searchsorted(times, grid, "right") - 1],
        single["lifelines_weighted_hazard"],
        atol=1e-12,
    )
    late = kaplan_meier(time, event, weights=weights, entry=entry)
    np.testing.assert_allclose(late.at(grid), single["lifelines_late_km"], atol=1e-12)
    late = kaplan_meier(time, event, entry=entry)
    np.testing.assert_allclose(late.at(grid), single["sksurv_late_km"], atol=1e-12)
    np.testing.assert_allclose(
        on(late, late.interval(), grid), single["sksurv_late_interval"], atol=1e-12
    )
    plain = kaplan_meier(time, event)
    np.testing.assert_allclose(
        on(plain, plain.interval(), grid), single["sksurv_interval"], atol=1e-12
    )
    censoring = censoring_curve(single["train_time"], single["train_event"])
    np.testing.assert_allclose(censoring.at(grid), single["sksurv_censoring"], atol=1e-12)


def test_incidence_of_scikit_survival(competing):
    curve = aalen_johansen(competing["time"], competing["event"], cause=2)
    grid = competing["grid"]
    np.testing.assert_allclose(curve.at(grid), competing["sksurv_incidence"], atol=1e-12)
    np.testing.assert_allclose(
        on(curve, curve.interval(), grid), competing["sksurv_incidence_interval"], atol=1e-10
    )


def test_incidences_and_survival_sum_to_one():
    time, event, entry, weights = case(1, causes=3)
    options = {"weights": weights, "entry": entry}
    parts = [aalen_johansen(time, event, cause=k, **options).incidence for k in (1, 2, 3)]
    survival = kaplan_meier(time, event, **options).survival
    np.testing.assert_allclose(sum(parts) + survival, 1, atol=1e-12)


def test_one_cause_is_kaplan_meier_with_its_variance():
    time, event, entry, weights = case(2)
    incidence = aalen_johansen(time, event, weights=weights, entry=entry)
    curve = kaplan_meier(time, event, weights=weights, entry=entry)
    alive = curve.survival > 0
    np.testing.assert_allclose(incidence.incidence, 1 - curve.survival, atol=1e-12)
    np.testing.assert_allclose(incidence.variance[alive], curve.variance[alive], rtol=1e-9)


def test_weights_are_copies():
    time, event, entry, weights = case(3, causes=2)
    copies = np.repeat(np.arange(len(time)), weights)
    rows = time[copies], event[copies]
    for estimate in (kaplan_meier, censoring_curve, aalen_johansen):
        one = estimate(time, event, weights=weights, entry=entry)
        two = estimate(*rows, entry=entry[copies])
        np.testing.assert_allclose(np.stack(one), np.stack(two), rtol=1e-10, atol=1e-14)


def test_survival_times_censoring_is_the_share_still_seen():
    # The identity holds at every time if events come before censoring, without late entries.
    time, event, _, weights = case(4)
    product = (
        kaplan_meier(time, event, weights=weights).survival
        * censoring_curve(time, event, weights=weights).survival
    )
    seen = [weights[time > t].sum() / weights.sum() for t in np.unique(time)]
    np.testing.assert_allclose(product, seen, atol=1e-12)


def test_time_0_counts_without_entries():
    curve = kaplan_meier([0, 0, 1, 2], [1, 0, 1, 0])
    assert curve.survival.tolist() == [0.75, 0.375, 0.375]
    assert curve.at(0.0, "left") == 1


def test_intervals_stay_in_the_unit_and_quantiles_are_crossings():
    time, event, _, _ = case(5)
    curve = kaplan_meier(time, event)
    for transform in ("loglog", "plain"):
        low, high = curve.interval(0.9, transform)
        known = ~np.isnan(low)
        assert np.all((low >= 0) & (low <= curve.survival) & (high <= 1) | ~known)
        assert np.all((high >= curve.survival) | ~known)
    first = curve.time[np.argmax(curve.survival <= 0.5)]
    assert curve.quantile() == first
    assert kaplan_meier([1, 2], [0, 0]).quantile() == np.inf


def test_a_risk_set_that_dies_out_is_announced():
    with pytest.warns(UserWarning, match="dies out at time 2"):
        curve = kaplan_meier([2, 6, 7], [1, 1, 0], entry=[0, 3, 3])
    assert curve.survival.tolist() == [0, 0, 0]


def test_the_floor_and_the_end_of_the_support():
    curve = censoring_curve([1, 2, 3], [1, 0, 0])
    np.testing.assert_allclose(censoring_probability(curve, [1, 2, 2.5, 3]), [1, 1, 0.5, 0.5])
    np.testing.assert_allclose(censoring_probability(curve, [2, 3], limit="right"), [0.5, 1e-3])
    with pytest.raises(UserError, match=r"time 3.5 lies beyond the last training time 3"):
        censoring_probability(curve, [1, 3.5])
    with pytest.raises(UserError, match="one of left, right"):
        censoring_probability(curve, [1], limit="both")


def test_no_rows():
    assert kaplan_meier([], []).at([1.0]).tolist() == [1]
    assert aalen_johansen([], []).at([1.0]).tolist() == [0]

"""Calibration tests have their size and find what is wrong; restricted means are areas."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import kstest

from mtl_jax.errors import UserError
from mtl_jax.metrics.survival import (
    aj_calibration,
    censoring_curve,
    curve_restricted_mean,
    curves_at,
    d_calibration,
    integrate_curves,
    kaplan_meier,
    km_calibration,
    one_calibration,
    restricted_mean,
    restricted_mean_error,
)


def lifetimes(rng, n: int):
    """Returns (time, event, rate of the exponential lifetime)."""
    rate = np.exp(rng.normal(size=n))
    life, gone = rng.exponential(1 / rate), rng.exponential(2.0, n)
    return np.minimum(life, gone), life <= gone, rate


def test_d_calibration_spreads_censored_rows():
    # An event at 0.55; one censored at 0.35: 0.1 + 0.1 + 0.1 + 0.05 of 0.35; one censored at 1.
    got = d_calibration([1, 1, 1], [1, 0, 0], [0.55, 0.35, 1.0])
    expected = np.zeros(10)
    expected[5] = 1
    expected[:4] += np.asarray([0.1, 0.1, 0.1, 0.05]) / 0.35
    expected += 0.1
    np.testing.assert_allclose(got.observed, expected)
    assert got.observed.sum() == pytest.approx(3)
    assert got.statistic == pytest.approx(((expected - 0.3) ** 2 / 0.3).sum())
    edges = d_calibration([1] * 10, [1] * 10, np.arange(10) / 10)
    assert edges.observed.tolist() == [1] * 10
    assert (edges.statistic, edges.p_value) == (0, 1)
    assert d_calibration([1, 1], [0, 1], [0.0, 0.0]).observed[0] == 2


def test_d_calibration_has_its_size_and_finds_wrong_curves():
    # Without censoring its p-values are uniform if the curves are right; with censoring larger.
    rng = np.random.default_rng(0)
    found = []
    for _ in range(150):
        life = rng.exponential(1.0, 400)
        found.append(d_calibration(life, np.ones(400, int), np.exp(-life)).p_value)
    assert kstest(found, "uniform").pvalue > 0.01
    time, event, rate = lifetimes(rng, 3000)
    assert d_calibration(time, event, np.exp(-rate * time)).p_value > 0.05
    assert d_calibration(time, event, np.exp(-1.4 * rate * time)).p_value < 1e-6
    weights = rng.integers(0, 3, 3000)
    copies = np.repeat(np.arange(3000), weights)
    survival = np.exp(-rate * time)
    one = d_calibration(time, event, survival, weights=weights)
    two = d_calibration(time[copies], event[copies], survival[copies])
    assert one.statistic == pytest.approx(two.statistic, rel=1e-9)


def test_one_calibration_has_its_size_and_finds_wrong_chances():
    rng = np.random.default_rng(1)
    found = []
    for _ in range(150):
        chance = rng.beta(2, 3, 500)  # of an event at 1; the others live until 3
        time = np.where(rng.random(500) < chance, 1.0, 3.0)
        found.append(one_calibration(time, np.ones(500, int), chance, 2.0, lost=0).p_value)
    assert kstest(found, "uniform").pvalue > 0.01
    time, event, rate = lifetimes(rng, 3000)
    good = one_calibration(time, event, 1 - np.exp(-0.4 * rate), 0.4)
    assert good.p_value > 0.01
    assert one_calibration(time, event, 1 - np.exp(-0.6 * rate), 0.4).p_value < 1e-6
    assert good.expected.sum() == pytest.approx((1 - np.exp(-0.4 * rate)).sum())
    assert len(good.observed) == 10
    ones = one_calibration(time, event.astype(int), 1 - np.exp(-0.4 * rate), 0.4, cause=1)
    assert ones.statistic == pytest.approx(good.statistic)


def test_one_group_has_no_p_value():
    with pytest.warns(UserWarning, match="1 group"):
        got = one_calibration([1, 2, 3], [1, 1, 0], [0.5, 0.5, 0.5], 2.0)
    assert np.isnan(got.p_value)
    assert got.observed == pytest.approx([2.0])


def test_mean_curves_of_the_estimates_themselves_are_calibrated():
    rng = np.random.default_rng(2)
    time, grid = rng.integers(1, 9, 80).astype(float), np.arange(1.0, 9)
    event, weights = rng.integers(0, 3, 80), rng.random(80)
    curve = kaplan_meier(time, event, weights=weights)
    same = np.tile(curve.at(grid), (80, 1))
    assert km_calibration(time, event, same, grid, weights=weights) == pytest.approx(0, abs=1e-20)
    off = km_calibration(time, event, same * 0.9, grid, weights=weights)
    assert off == pytest.approx(np.trapezoid((0.1 * curve.at(grid)) ** 2, grid) / 7, rel=1e-9)
    single = np.minimum(event, 1)
    assert aj_calibration(time, single, 1 - same * 0.9, grid, weights=weights) == pytest.approx(off)


@pytest.mark.parametrize("interpolation", ["step", "linear", "log_linear"])
def test_restricted_means_are_areas(interpolation):
    rng = np.random.default_rng(3)
    grid = np.asarray([0.5, 1.0, 2.5, 4.0])
    curves = np.sort(rng.random((5, 4)), axis=1)[:, ::-1].copy()
    curves[0, 2:] = 0.0
    curves[1] = 1.0
    fine = np.linspace(0.3, 3.2, 200_001)
    expected = np.trapezoid(curves_at(curves, grid, fine, interpolation), fine, axis=1)
    got = restricted_mean(curves, grid, 3.2, start=0.3, interpolation=interpolation)
    np.testing.assert_allclose(got, expected, atol=2e-5)
    parts = restricted_mean(curves, grid, 0.3, interpolation=interpolation) + got
    whole = restricted_mean(curves, grid, 3.2, interpolation=interpolation)
    np.testing.assert_allclose(parts, whole, rtol=1e-12)
    alive = restricted_mean(
        curves, grid, 3.2, start=1.7, given_alive=True, interpolation=interpolation
    )
    at = curves_at(curves, grid, np.asarray([1.7]), interpolation)[:, 0]
    rest = restricted_mean(curves, grid, 3.2, start=1.7, interpolation=interpolation)
    np.testing.assert_allclose(alive * at, rest, rtol=1e-12)
    assert alive.max() <= 1.5 + 1e-12


def test_constant_hazards_are_integrated_exactly():
    grid = np.asarray([1.0, 2.0, 6.0])
    rate = np.asarray([0.5, 1e-9, 3.0])[:, None]
    got = integrate_curves(np.exp(-rate * grid), grid, 0.0, 6.0, "log_linear")
    np.testing.assert_allclose(got, (-np.expm1(-6 * rate) / rate)[:, 0], rtol=1e-8)


def test_restricted_mean_of_kaplan_meier(single):
    curve = kaplan_meier(single["time"], single["event"])
    mean, _ = curve_restricted_mean(curve, single["tau"])
    assert mean == pytest.approx(single["lifelines_rmst"], abs=1e-12)


def test_its_standard_error_is_that_of_the_mean_without_censoring():
    life = np.random.default_rng(4).integers(1, 12, 300).astype(float)
    curve = kaplan_meier(life, np.ones(300, int))
    mean, std = curve_restricted_mean(curve, 7.0)
    cut = np.minimum(life, 7)
    assert mean == pytest.approx(cut.mean(), rel=1e-12)
    assert std == pytest.approx(cut.std() / np.sqrt(300), rel=1e-9)


def test_errors_of_restricted_means():
    rng = np.random.default_rng(5)
    life, gone = rng.exponential(1.0, 30_000), rng.exponential(2.0, 30_000)
    time, event = np.minimum(life, gone), life <= gone
    predicted = np.full(30_000, 0.7)
    truth = np.abs(np.minimum(life, 1.5) - 0.7).mean()
    weighted = restricted_mean_error(
        time, event, predicted, 1.5, censoring=censoring_curve(time, event)
    )
    assert weighted == pytest.approx(truth, abs=0.01)
    # The means of what is censored scatter less than it would have: near, and below.
    margin = restricted_mean_error(
        time, event, predicted, 1.5, method="margin", training=kaplan_meier(time, event)
    )
    assert truth - 0.08 < margin < truth + 0.01
    rows = [1.0, 2.0, 3.0], [0, 1, 0], [0.5, 3.0, 5.0]
    assert restricted_mean_error(*rows, 2.5, method="hinge") == pytest.approx((0.5 + 1 + 2.5) / 3)
    given = restricted_mean_error(
        [1.0, 2.0], [0, 1], [1.5, 2.0], 2.0, method="margin", training=kaplan_meier([2.0], [1])
    )
    # S(1) = 1: the censored row tells nothing of itself and weighs nothing.
    assert given == 0


def test_degenerate_cases_and_mistakes():
    with pytest.warns(UserWarning, match="no row has a known lifetime"):
        got = restricted_mean_error([1.0], [0], [1.0], 2.0, censoring=censoring_curve([3.0], [1]))
    assert np.isnan(got)
    with pytest.warns(UserWarning, match="there are no rows"):
        assert np.isnan(d_calibration([], [], []).statistic)
    with pytest.warns(UserWarning, match="a survival is NaN"):
        assert np.isnan(d_calibration([1.0], [1], [np.nan]).p_value)
    with pytest.raises(UserError, match="must lie between 0 and 1"):
        d_calibration([1.0], [1], [1.5])
    with pytest.raises(UserError, match="bins is 1"):
        d_calibration([1.0], [1], [0.5], bins=1)
    with pytest.raises(UserError, match="beyond the last time 2 of the curves"):
        restricted_mean(np.ones((1, 2)), [1.0, 2.0], 3.0)
    with pytest.raises(UserError, match="are still alive; lower it"):
        curve_restricted_mean(kaplan_meier([1, 2], [1, 0]), 3.0)
    with pytest.raises(UserError, match="needs censoring="):
        restricted_mean_error([1.0], [1], [1.0], 2.0)

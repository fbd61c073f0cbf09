"""Scores weighted for censoring: other packages' numbers, sums over rows, and unbiasedness."""

from __future__ import annotations

import numpy as np
import pytest

from mtl_jax.errors import UserError
from mtl_jax.metrics.ranking import auc
from mtl_jax.metrics.survival import (
    brier_score,
    censoring_curve,
    dynamic_auc,
    incidence_brier_score,
    integrated_brier_score,
    integrated_incidence_brier_score,
    integrated_negative_log_likelihood,
    mean_over_time,
    negative_log_likelihood,
)

GRID = np.asarray([2.0, 4.0, 7.0])


def case(seed: int, n: int = 50, causes: int = 2):
    rng = np.random.default_rng(seed)
    time, event = rng.integers(1, 10, n).astype(float), rng.integers(0, causes + 1, n)
    entry = np.where(rng.random(n) < 0.5, np.floor(time * rng.random(n)), -np.inf)
    forecast = np.sort(rng.random((n, 3)), axis=1)
    return time, event, forecast, rng.random(n), entry, rng.normal(size=n).round(1)


def test_numbers_of_scikit_survival(single):
    train = censoring_curve(single["train_time"], single["train_event"])
    rows = single["time"], single["event"], single["survival"], single["grid"], train
    np.testing.assert_allclose(
        brier_score(*rows, limit="right"), single["sksurv_brier"], atol=1e-12
    )
    got = integrated_brier_score(*rows, limit="right")
    assert got == pytest.approx(single["sksurv_ibs"], abs=1e-12)
    values, mean = single["sksurv_auc"]
    auc = dynamic_auc(
        single["time"], single["event"], single["risk"], single["grid"], train, limit="right"
    )
    np.testing.assert_allclose(auc.value, values, atol=1e-12)
    assert auc.mean == pytest.approx(mean, abs=1e-12)


def test_competing_causes_of_hazardous(competing):
    died = competing["event"] > 0  # without censoring, see the script
    time, event = competing["time"][died], competing["event"][died]
    got = incidence_brier_score(
        time, event, competing["incidence"][died], competing["grid"], censoring_curve(time, event),
        cause=2,
    )  # fmt: skip
    np.testing.assert_allclose(got, competing["hazardous_uncensored_brier"], atol=1e-12)


@pytest.mark.parametrize("limit", ["left", "right"])
def test_scores_are_sums_over_rows(limit):
    time, event, forecast, weights, entry, _ = case(0)
    curve = censoring_curve(time, event)
    options = {"weights": weights, "entry": entry, "limit": limit}
    brier = incidence_brier_score(time, event, forecast, GRID, curve, **options)
    nll = negative_log_likelihood(time, event, 1 - forecast, GRID, curve, **options)
    for k, t in enumerate(GRID):
        total, logs, whole = 0.0, 0.0, 0.0
        for i in range(len(time)):
            if entry[i] >= t:
                continue
            whole += weights[i]
            if time[i] <= t and event[i] == 0:
                continue
            g = curve.at(time[i], limit) if time[i] <= t else curve.at(t)
            weight = weights[i] * curve.at(max(entry[i], 0)) / g
            total += weight * (forecast[i, k] - (time[i] <= t and event[i] == 1)) ** 2
            logs -= weight * np.log(forecast[i, k] if time[i] <= t else 1 - forecast[i, k])
        assert brier[k] == pytest.approx(total / whole, rel=1e-12)
        assert nll[k] == pytest.approx(logs / whole, rel=1e-12)
    integrals = (
        integrated_incidence_brier_score(time, event, forecast, GRID, curve, **options),
        integrated_negative_log_likelihood(time, event, 1 - forecast, GRID, curve, **options),
    )
    assert integrals == pytest.approx((mean_over_time(brier, GRID), mean_over_time(nll, GRID)))


def test_without_censoring_they_are_those_of_binary_outcomes():
    time, event, forecast, weights, _, risk = case(1)
    event = np.maximum(event, 1)
    curve = censoring_curve(time, event)
    survival = 1 - forecast
    died = time[:, None] <= GRID
    expected = np.average((forecast - died) ** 2, axis=0, weights=weights)
    got = brier_score(time, event, survival, GRID, curve, weights=weights)
    np.testing.assert_allclose(got, expected, rtol=1e-12)
    logs = -np.log(np.where(died, forecast, survival))
    got = negative_log_likelihood(time, event, survival, GRID, curve, weights=weights)
    np.testing.assert_allclose(got, np.average(logs, axis=0, weights=weights), rtol=1e-12)
    found = dynamic_auc(time, np.ones(50, int), risk, GRID, curve, weights=weights)
    np.testing.assert_allclose(found.value, [auc(risk, d, weights) for d in died.T], rtol=1e-12)
    by_time = dynamic_auc(time, np.ones(50, int), forecast, GRID, curve, weights=weights)
    np.testing.assert_allclose(
        by_time.value, [auc(f, d, weights) for f, d in zip(forecast.T, died.T, strict=True)]
    )


def test_censoring_does_not_move_the_expectation():
    # 40,000 exponential lifetimes: the score with a third censored is that of all of them.
    rng = np.random.default_rng(2)
    n = 40_000
    risk = rng.normal(size=n)
    life = rng.exponential(np.exp(-risk))
    gone = rng.exponential(2.0, n)
    time, event = np.minimum(life, gone), life <= gone
    grid = np.asarray([0.3, 0.8])
    survival = np.exp(-grid * np.exp(0.5 * risk)[:, None])
    curve, everybody = censoring_curve(time, event), np.ones(n, int)
    whole = censoring_curve(life, everybody)
    assert 0.25 < 1 - event.mean() < 0.45
    np.testing.assert_allclose(
        brier_score(time, event, survival, grid, curve),
        brier_score(life, everybody, survival, grid, whole),
        atol=0.004,
    )
    np.testing.assert_allclose(
        dynamic_auc(time, event, risk, grid, curve).value,
        dynamic_auc(life, everybody, risk, grid, whole).value,
        atol=0.006,
    )


@pytest.mark.parametrize("competing", ["never", "alive"])
def test_auc_is_the_sum_over_cases_and_controls(competing):
    time, event, _, weights, entry, risk = case(3, 60)
    curve = censoring_curve(time, event)
    got = dynamic_auc(
        time, event, risk, GRID, curve, weights=weights, entry=entry, competing=competing
    )
    seen = np.asarray([curve.at(max(a, 0)) for a in entry])
    left = curve.at(time, "left")
    for k, t in enumerate(GRID):
        mine = (entry < t) * weights * seen
        cases = mine * ((time <= t) & (event == 1)) / left
        controls = mine * (time > t) / curve.at(t)
        if competing == "never":
            controls = controls + mine * ((time <= t) & (event == 2)) / left
        wins = (risk[:, None] > risk) + (risk[:, None] == risk) / 2
        expected = (cases @ wins @ controls) / (cases.sum() * controls.sum())
        assert got.value[k] == pytest.approx(expected, rel=1e-10)
    reverse = dynamic_auc(
        time, event, -risk, GRID, curve, weights=weights, entry=entry, competing=competing
    )
    np.testing.assert_allclose(reverse.value, 1 - got.value, atol=1e-12)
    assert got.value.min() <= got.mean <= got.value.max()


def test_degenerate_cases_are_nan_with_a_warning():
    curve = censoring_curve([1, 2, 9], [0, 1, 0])
    with pytest.warns(UserWarning, match="AUC at time 2 is NaN"):
        got = dynamic_auc([4, 5], [0, 0], [1.0, 2.0], [2.0], curve)
    assert np.isnan(got.value).all()
    assert np.isnan(got.mean)
    with pytest.warns(UserWarning, match="Brier score at time 2 is NaN: no row has entered"):
        assert np.isnan(brier_score([], [], np.zeros((0, 1)), [2.0], curve)).all()
    with pytest.warns(UserWarning, match="a forecast that counts is NaN"):
        assert np.isnan(brier_score([5], [1], [[np.nan]], [2.0], curve)).all()
    # Not asked for: censored before.
    assert brier_score([1, 5], [0, 1], [[np.nan], [1.0]], [2.0], curve).tolist() == [0]


def test_mistakes_get_one_line():
    curve = censoring_curve([1, 2, 3], [0, 1, 0])
    with pytest.raises(UserError, match="time 4 lies beyond the last training time 3"):
        brier_score([1, 5], [1, 0], np.ones((2, 1)), [4.0], curve)
    with pytest.raises(UserError, match="time 4 lies beyond"):
        dynamic_auc([1, 5], [1, 0], [1, 2], [4.0], curve)
    with pytest.raises(UserError, match="one value a row or one a row and time"):
        dynamic_auc([1, 5], [1, 0], np.ones((2, 3)), [2.0], curve)
    with pytest.raises(UserError, match="the grid rising"):
        mean_over_time([1, 2], [2, 1])
    assert mean_over_time([3.0], [1.0]) == 3

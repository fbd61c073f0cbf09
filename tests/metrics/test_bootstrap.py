"""Resamples against those that can be listed, spread against the influence of each user."""

from __future__ import annotations

import math

import numpy as np
import pytest

from mtl_jax.metrics.bootstrap import auc_interval, bootstrap_auc, paired_bootstrap
from mtl_jax.metrics.ranking import auc


def log(seed: int, users: int, repeat: int = 1):
    """A log of 6 rows a user, each `repeat` times; two models, the first one better."""
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(users), 6)
    logits = rng.normal(size=6 * users) - 1 + rng.normal(size=users)[groups]
    labels = (rng.random(6 * users) < 1 / (1 + np.exp(-logits))).astype(float)
    one = (logits + 0.5 * rng.normal(size=6 * users)).round(1)
    other = (logits + 1.5 * rng.normal(size=6 * users)).round(1)
    return tuple(np.repeat(column, repeat) for column in (one, other, labels, groups))


def influence(scores, labels, groups) -> np.ndarray:
    """By how much each user moves the AUC, to first order; from all pairs."""
    at, of = scores[labels == 1], scores[labels == 0]
    wins = (at[:, None] > of[None]) + (at[:, None] == of[None]) / 2
    rows = np.zeros(len(scores))
    rows[labels == 1] = (wins.mean(1) - wins.mean()) / len(at)
    rows[labels == 0] = (wins.mean(0) - wins.mean()) / len(of)
    return np.bincount(groups, rows)


def test_resamples_are_of_whole_users_with_their_rows():
    # Two users of opposite order: only three resamples exist.
    scores = np.asarray([2.0, 1.0, 1.5, 3.0, 3.5])
    labels, groups = np.asarray([1, 0, 1, 0, 0]), np.asarray([8, 8, 4, 4, 4])
    weights = np.asarray([1.0, 0.5, 2.0, 1.0, 1.0])
    outcomes = [
        auc(scores, labels, weights * np.where(groups == 8, times, 2 - times))
        for times in (0, 1, 2)
    ]
    assert len(set(outcomes)) == 3
    drawn = bootstrap_auc([scores], labels, groups, weights, replicates=400)[:, 0]
    nearest = np.abs(drawn[:, None] - np.asarray(outcomes)).argmin(1)
    np.testing.assert_allclose(drawn, np.asarray(outcomes)[nearest], rtol=1e-12)
    share = np.bincount(nearest, minlength=3) / 400
    np.testing.assert_allclose(share, [0.25, 0.5, 0.25], atol=4 * 0.025)


def test_one_user_is_always_the_whole():
    one, other, labels, _ = log(0, 20)
    drawn = bootstrap_auc([one, other], labels, np.zeros(120, int), replicates=3)
    np.testing.assert_allclose(drawn, [[auc(one, labels), auc(other, labels)]] * 3, rtol=1e-12)


@pytest.mark.parametrize("repeat", [1, 4])
def test_spread_is_that_of_the_users_influence(repeat):
    # Copies of the rows of a user are no new evidence: the spread must not shrink.
    one, other, labels, groups = log(1, 250, repeat)
    single = influence(one, labels, groups)
    got = auc_interval(one, labels, groups, replicates=600)
    assert got.value == auc(one, labels)
    assert got.std == pytest.approx(math.sqrt((single**2).sum()), rel=0.12)
    pair = single - influence(other, labels, groups)
    both = paired_bootstrap(one, other, labels, groups, replicates=600)
    assert both.std == pytest.approx(math.sqrt((pair**2).sum()), rel=0.12)
    assert both.value == pytest.approx(auc(one, labels) - auc(other, labels), abs=1e-14)
    assert (both.high - both.low) / both.std == pytest.approx(2 * 1.96, rel=0.12)
    assert both.low < both.value < both.high
    assert both.low > 0  # the first is better, and 250 users show it
    assert both.replicates == 600


def test_a_model_against_itself_differs_by_nothing():
    one, _, labels, groups = log(2, 30)
    got = paired_bootstrap(one, 3 * one + 1, labels, groups, replicates=50)
    assert got == (0, 0, 0, 0, 50)


def test_swapping_the_models_mirrors_the_interval():
    one, other, labels, groups = log(3, 30)
    a = paired_bootstrap(one, other, labels, groups, replicates=80)
    b = paired_bootstrap(other, one, labels, groups, replicates=80)
    assert (a.value, a.low, a.high) == pytest.approx((-b.value, -b.high, -b.low), abs=1e-14)


def test_runs_of_a_model_are_averaged():
    one, other, labels, groups = log(4, 30)
    drawn = bootstrap_auc([one, other, -one], labels, groups, replicates=60)
    got = paired_bootstrap([one, other], -one, labels, groups, replicates=60, level=0.5)
    difference = drawn[:, :2].mean(1) - drawn[:, 2]
    assert got.value == pytest.approx(
        (auc(one, labels) + auc(other, labels)) / 2 - auc(-one, labels)
    )
    assert (got.low, got.high) == pytest.approx(tuple(np.quantile(difference, [0.25, 0.75])))


def test_the_seed_decides_and_rows_of_weight_0_do_not():
    one, other, labels, groups = log(5, 40)
    first = paired_bootstrap(one, other, labels, groups, replicates=30, seed=1)
    assert first == paired_bootstrap(one, other, labels, groups, replicates=30, seed=1)
    assert first != paired_bootstrap(one, other, labels, groups, replicates=30, seed=2)
    more = [np.concatenate([column, [np.nan, 7]]) for column in (one, other, labels)]
    weights = np.r_[np.ones(len(one)), 0, 0]
    padded = paired_bootstrap(*more, np.r_[groups, 99, -5], weights, replicates=30, seed=1)
    assert padded == first


def test_resamples_without_a_class_are_left_out_and_counted():
    scores, labels, groups = np.arange(6.0), np.asarray([0, 0, 0, 0, 0, 1]), np.arange(6)
    got = auc_interval(scores, labels, groups, replicates=300)
    # The one positive is missing from (5/6)^6 = 33 % of the resamples.
    assert got.replicates == pytest.approx(300 * (1 - (5 / 6) ** 6), abs=40)
    assert got[:3] == (1, 1, 1)
    nothing = auc_interval(scores, np.zeros(6), groups, replicates=5)
    assert nothing.replicates == 0
    assert np.isnan(nothing[:4]).all()
    assert np.isnan(auc_interval([], [], [], replicates=5)[:4]).all()


def test_nan_scores_of_one_model_spoil_only_its_own_auc():
    one, other, labels, groups = log(6, 20)
    other[3] = np.nan
    drawn = bootstrap_auc([one, other], labels, groups, replicates=10)
    assert np.isfinite(drawn[:, 0]).all()
    assert np.isnan(drawn[:, 1]).all()
    assert math.isnan(paired_bootstrap(one, other, labels, groups, replicates=10).low)

"""Resamples are concordances of copied rows; their spread; pairs of models; chunks."""

from __future__ import annotations

import math

import numpy as np
import pytest

from mtl_jax.errors import UserError
from mtl_jax.metrics.survival import (
    bootstrap_concordance,
    censoring_curve,
    compare_concordance,
    concordance,
    concordance_interval,
    uno_concordance,
)
from mtl_jax.metrics.survival import intervals as module


def case(seed: int, n: int = 60):
    rng = np.random.default_rng(seed)
    truth = rng.normal(size=n)
    life, gone = rng.exponential(8 * np.exp(-truth)), rng.exponential(12, n)
    time = np.ceil(np.minimum(life, gone))
    one, other = ((truth + s * rng.normal(size=n)).round(1) for s in (0.4, 2.0))
    return time, (life <= gone) * rng.integers(1, 3, n), one, other, rng


def draws(seed: int, units: int, replicates: int) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [np.bincount(rng.integers(0, units, units), minlength=units) for _ in range(replicates)]


@pytest.mark.parametrize("competing", ["censor", "never"])
def test_a_replicate_is_the_concordance_of_the_rows_drawn(competing, monkeypatch):
    monkeypatch.setattr(module, "CHUNK_BYTES", 64 * 2 * 60 * 3)  # chunks of about 3, the last cut
    time, event, one, other, rng = case(0)
    groups, weights = rng.integers(0, 20, 60), rng.integers(1, 4, 60)
    entry = np.where(rng.random(60) < 0.5, np.floor(time * rng.random(60)), -np.inf)
    options = {"entry": entry, "competing": competing}
    got = bootstrap_concordance(
        time, event, [one, other], groups=groups, weights=weights, replicates=7, seed=3, **options
    )
    assert got.shape == (7, 2)
    for r, times in enumerate(draws(3, 20, 7)):
        for m, risk in enumerate((one, other)):
            again = concordance(time, event, risk, weights=weights * times[groups], **options)
            assert got[r, m] == again.value  # counts are exact, and so is their ratio


def test_real_weights_and_uno_are_right_to_float32():
    time, event, one, _, rng = case(1)
    event = np.minimum(event, 1)
    weights, curve = rng.random(60), censoring_curve(time, event)
    got = bootstrap_concordance(
        time, event, [one], weights=weights, replicates=3, censoring=curve, tau=9.0
    )
    for r, times in enumerate(draws(0, 60, 3)):
        again = uno_concordance(time, event, one, curve, tau=9.0, weights=weights * times)
        assert got[r, 0] == pytest.approx(again.value, abs=1e-5)


def test_weights_beyond_the_device_are_counted_on_the_host():
    time, event, one, _, _ = case(2, 12)
    light = bootstrap_concordance(time, event, [one], replicates=3)
    heavy = bootstrap_concordance(time, event, [one], weights=np.full(12, 10_000_000), replicates=3)
    np.testing.assert_allclose(heavy, light, rtol=1e-12)


def test_the_spread_is_that_of_new_samples():
    drawn = [concordance(*case(seed, 250)[:3]).value for seed in range(150)]
    time, event, one, other, _ = case(999, 250)
    got = concordance_interval(time, event, one, replicates=200)
    assert got.value == concordance(time, event, one).value
    assert got.std == pytest.approx(np.std(drawn), rel=0.3)
    assert got.low < got.value < got.high
    assert got.replicates == 200
    pair = compare_concordance(time, event, one, other, replicates=200)
    assert pair.low > 0  # the second model is much noisier
    assert pair.value == got.value - concordance(time, event, other).value
    mirrored = compare_concordance(time, event, other, one, replicates=200)
    assert (mirrored.low, mirrored.high) == pytest.approx((-pair.high, -pair.low), abs=1e-14)
    same = compare_concordance(time, event, one, 3 * one + 1, replicates=20)
    assert same == (0, 0, 0, 0, 20)


def test_copies_of_a_group_are_no_new_evidence():
    time, event, one, _, _ = case(3, 120)
    plain = concordance_interval(time, event, one, replicates=150, seed=1)
    rows = [np.repeat(c, 3) for c in (time, event, one)]
    grouped = concordance_interval(
        *rows, groups=np.repeat(np.arange(120), 3), replicates=150, seed=1
    )
    # Copies of a row make pairs with each other only if it has an event and ties: none here.
    assert grouped.std == pytest.approx(plain.std, rel=1e-9)
    naive = concordance_interval(*rows, replicates=150, seed=1)
    assert naive.std < 0.75 * plain.std


def test_runs_are_averaged_and_undefined_resamples_left_out():
    time, event, one, other, _ = case(4, 40)
    drawn = bootstrap_concordance(time, event, [one, other], replicates=30)
    got = concordance_interval(time, event, [one, other], replicates=30, level=0.5)
    ends = np.quantile(drawn.mean(axis=1), [0.25, 0.75])
    assert (got.low, got.high) == pytest.approx(tuple(ends))
    rare = concordance_interval([1, 2, 3, 4], [1, 0, 0, 0], [4, 3, 2, 1], replicates=200)
    # The one event is missing from (3/4)^4 = 32 % of the resamples; 1 / 256 hold it alone.
    assert rare.replicates == pytest.approx(200 * (1 - 0.75**4 - 1 / 256), abs=30)
    assert rare[:3] == (1, 1, 1)


def test_degenerate_cases_and_mistakes():
    with pytest.warns(UserWarning, match="no pair is comparable"):
        got = concordance_interval([1, 2], [0, 0], [1, 2], replicates=3)
    assert math.isnan(got.value)
    assert got.replicates == 0
    with pytest.raises(UserError, match="groups are"):
        concordance_interval([1, 2], [1, 0], [1, 2], groups=[1])
    with pytest.raises(UserError, match="level is 2"):
        concordance_interval([1, 2], [1, 0], [1, 2], level=2, replicates=2)
    with pytest.raises(UserError, match="replicates is 0"):
        concordance_interval([1, 2], [1, 0], [1, 2], replicates=0)

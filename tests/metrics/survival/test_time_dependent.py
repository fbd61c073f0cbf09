"""C_td against all pairs and pycox's numbers; where curves do not cross it is the concordance."""

from __future__ import annotations

import math

import numpy as np
import pytest

from mtl_jax.errors import UserError
from mtl_jax.metrics.survival import antolini_concordance, concordance, curves_at
from mtl_jax.metrics.survival import time_dependent as module


def case(seed: int, n: int, causes: int = 1):
    rng = np.random.default_rng(seed)
    time, event = rng.integers(1, 13, n).astype(float), rng.integers(0, causes + 1, n)
    grid = np.asarray([2.0, 5.0, 6.0, 9.0])
    curves = np.sort(rng.integers(0, 6, (n, 4)) / 5, axis=1)[:, ::-1]
    entry = np.where(rng.random(n) < 0.5, np.floor(time * rng.random(n)), -np.inf)
    return time, event, curves, grid, rng.integers(0, 4, n), entry


def all_pairs(time, event, values, weights, entry, competing):
    """[concordant, discordant, tied, comparable]; values(t) gives the survival [N] at t."""
    found = [0] * 4
    for i in np.flatnonzero(event == 1):
        s = values(time[i])
        for j in range(len(time)):
            later = time[j] > time[i] or (time[j] == time[i] and event[j] != 1)
            later = later or (competing == "never" and event[j] > 1)
            if later and entry[j] < time[i]:
                which = 0 if s[i] < s[j] else 1 if s[i] > s[j] else 2
                found[which] += weights[i] * weights[j]
                found[3] += weights[i] * weights[j]
    return found


@pytest.mark.parametrize("few", [0, 10**6])  # each column at once, and event by event
@pytest.mark.parametrize("competing", ["censor", "never"])
@pytest.mark.parametrize("interpolation", ["step", "linear", "log_linear"])
def test_it_counts_what_all_pairs_give(few, competing, interpolation, monkeypatch):
    monkeypatch.setattr(module, "FEW", few)
    time, event, curves, grid, weights, entry = case(0, 70, causes=2)
    got = antolini_concordance(
        time, event, curves, grid, weights=weights, entry=entry, competing=competing,
        interpolation=interpolation,
    )  # fmt: skip

    def values(t):
        return curves_at(curves, grid, np.asarray([t]), interpolation)[:, 0]

    expected = all_pairs(time, event, values, weights, entry, competing)
    assert list(got[1:5]) == expected
    assert all(type(value) is int for value in got[1:])
    assert got.value == (expected[0] + expected[2] / 2) / expected[3]
    same = weights[:, None] * weights * ((event == 1)[:, None]) * (time[:, None] == time)
    censored = event == 0 if competing == "never" else event != 1
    assert got.tied_time == (same * censored).sum()


def test_numbers_of_pycox(single):
    rows = single["time"], single["event"], single["survival"], single["grid"]
    for ties, name in (("zero", "pycox_antolini"), ("pycox_adjusted", "pycox_adjusted")):
        got = antolini_concordance(*rows, ties=ties)
        assert got.value == pytest.approx(single[name], abs=1e-12)


def test_the_adjusted_rule_weighs_copies():
    time, event, curves, grid, weights, _ = case(1, 40)
    copies = np.repeat(np.arange(40), weights)
    one = antolini_concordance(time, event, curves, grid, weights=weights, ties="pycox_adjusted")
    # A row and its copy are two events at one time, which its square counts too: take them out.
    plain = antolini_concordance(
        time[copies], event[copies], curves[copies], grid, ties="pycox_adjusted"
    )
    assert one[1:] == plain[1:]
    extra = (weights * (weights - 1))[event == 1].sum()
    below = plain.comparable + plain.tied_time + self_pairs(time, event, weights) + extra
    above = one.value * (below - extra) + extra
    assert plain.value == pytest.approx(above / below, abs=1e-12)


def self_pairs(time, event, weights) -> int:
    """Ordered pairs of different rows with events at one time, by weight."""
    same = (
        weights[:, None] * weights * (time[:, None] == time) * (event == 1) * (event == 1)[:, None]
    )
    return same.sum() - np.diagonal(same).sum()


def test_proportional_hazards_give_the_plain_concordance():
    rng = np.random.default_rng(2)
    time, event = rng.integers(1, 20, 90).astype(float), rng.random(90) < 0.6
    risk = rng.normal(size=90).round(1)
    grid = np.arange(1.0, 20)
    curves = np.exp(-0.02 * grid[None] * np.exp(risk[:, None]))
    assert antolini_concordance(time, event, curves, grid) == concordance(time, event, risk)


def test_before_the_grid_all_are_tied():
    got = antolini_concordance([1, 2, 3], [1, 1, 1], np.asarray([[0.1], [0.2], [0.3]]), [2.0])
    assert (got.tied_risk, got.concordant) == (2, 1)


def test_degenerate_cases_and_mistakes():
    with pytest.warns(UserWarning, match="no pair is comparable"):
        assert math.isnan(antolini_concordance([1, 2], [0, 0], np.ones((2, 1)), [1.0]).value)
    with pytest.warns(UserWarning, match="hold NaN"):
        got = antolini_concordance([1, 2], [1, 0], np.asarray([[np.nan], [1.0]]), [1.0])
    assert math.isnan(got.value)
    with pytest.raises(UserError, match="rows by times"):
        antolini_concordance([1, 2], [1, 0], np.ones((2, 3)), [1.0, 2.0])
    with pytest.raises(UserError, match="rising times"):
        antolini_concordance([1, 2], [1, 0], np.ones((2, 2)), [2.0, 1.0])
    with pytest.raises(UserError, match=r"survival holds 2.5 at \[0, 0\]"):
        antolini_concordance([1, 2], [1, 0], np.full((2, 1), 2.5), [1.0])

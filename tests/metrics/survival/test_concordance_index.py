"""Concordance against all pairs and against other packages' numbers; its contract and its NaN."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtl_jax.errors import UserError
from mtl_jax.metrics.survival import (
    censoring_curve,
    concordance,
    concordance_sums,
    concordance_value,
    pairs,
    uno_concordance,
)

# Few times and risks make many ties; time, event, risk, weight, share of the time before entry.
ROWS = st.lists(
    st.tuples(
        st.integers(1, 5),
        st.integers(0, 2),
        st.sampled_from([-np.inf, -1.0, -0.0, 0.0, 0.5, 2.0]),
        st.integers(0, 3),
        st.integers(-3, 4),
    ),
    min_size=1,
    max_size=16,
)
pytestmark = pytest.mark.filterwarnings("ignore:.*is NaN:UserWarning")


def columns(rows):
    time, event, risk, weights, entry = (np.asarray(c) for c in zip(*rows, strict=True))
    return time.astype(float), event, risk, weights, np.minimum(entry, time - 1).astype(float)


def all_pairs(time, event, risk, weights, entry, competing="censor", query=None, point=None):
    """[concordant, discordant, tied, comparable] one by one."""
    found = [0.0] * 4
    query = np.ones(len(time)) if query is None else query
    point = (lambda i, j: 1.0) if point is None else point
    for i in range(len(time)):
        for j in range(len(time)):
            later = time[j] > time[i] or (time[j] == time[i] and event[j] != 1)
            if competing == "never":
                later = later or event[j] > 1
            if event[i] != 1 or i == j or not later or not entry[j] < time[i]:
                continue
            weight = weights[i] * weights[j] * query[i] * point(i, j)
            which = 0 if risk[i] > risk[j] else 1 if risk[i] < risk[j] else 2
            found[which] += weight
            found[3] += weight
    return found


@given(ROWS, st.sampled_from(["censor", "never"]))
def test_it_counts_what_all_pairs_give(rows, competing):
    time, event, risk, weights, entry = columns(rows)
    got = concordance(time, event, risk, weights=weights, entry=entry, competing=competing)
    expected = all_pairs(time, event, risk, weights, entry, competing)
    assert list(got[1:5]) == expected
    assert all(type(value) is int for value in got[1:])
    if expected[3]:
        assert got.value == (expected[0] + expected[2] / 2) / expected[3]
    else:
        assert math.isnan(got.value)


@given(ROWS)
def test_the_compiled_form_counts_the_same(rows):
    time, event, risk, weights, entry = columns(rows)
    host = concordance(time, event, risk, weights=weights, entry=entry)
    pad = 16 - len(time)  # rows of weight 0: one shape, one compilation
    padded = [
        np.pad(column, (0, pad), constant_values=1) for column in (time, event == 1, risk, entry)
    ]
    sums = compiled(*padded, np.pad(weights, (0, pad)).astype(np.int32))
    concordant, tied, comparable = (int(pairs.total(field)) for field in sums)
    assert (concordant, tied, comparable) == (host.concordant, host.tied_risk, host.comparable)
    np.testing.assert_allclose(concordance_value(sums), host.value, rtol=1e-6)


@jax.jit
def compiled(time, own, risk, entry, weights):
    return concordance_sums(time, own, risk, weights, entry)


def test_the_compiled_form_runs_under_vmap_and_without_options():
    rng = np.random.default_rng(0)
    time, event = rng.integers(1, 9, 50).astype(np.float32), rng.random(50) < 0.5
    risks = rng.normal(size=(3, 50)).round(1).astype(np.float32)
    value = jax.jit(jax.vmap(lambda r: concordance_value(concordance_sums(time, event, r))))
    got = value(risks)
    expected = [concordance(time, event, risk).value for risk in risks]
    np.testing.assert_allclose(got, expected, rtol=1e-6)


def test_the_compiled_value_is_nan_without_pairs():
    none = jnp.zeros(16)
    sums = compiled(none, none, none, none - 1, jnp.ones(16, jnp.int32))
    assert np.isnan(concordance_value(sums))


def test_numbers_of_other_packages(single):
    time, event, risk = single["time"], single["event"], single["risk"]
    got = concordance(time, event, risk)
    value, *counts = single["sksurv_concordance"]
    assert got.value == pytest.approx(value, abs=1e-12)
    assert [got.concordant, got.discordant, got.tied_risk, got.tied_time] == counts
    assert got.value == pytest.approx(single["lifelines_concordance"], abs=1e-12)
    weighted = concordance(time, event, risk, weights=single["weights"])
    assert weighted.value == pytest.approx(single["lifelines_repeated"], abs=1e-12)


def test_uno_of_scikit_survival(single):
    curve = censoring_curve(single["train_time"], single["train_event"])
    rows = single["time"], single["event"], single["risk"], curve
    got = uno_concordance(*rows, tau=single["tau"], limit="right")
    assert got.value == pytest.approx(single["sksurv_uno"][0], abs=1e-12)


def test_wolbers_of_hazardous(competing):
    got = concordance(competing["time"], competing["event"], competing["risk"], competing="never")
    assert got.value == pytest.approx(competing["hazardous_concordance"], abs=1e-12)


@pytest.mark.parametrize("competing", ["censor", "never"])
@pytest.mark.parametrize("limit", ["left", "right"])
@pytest.mark.parametrize("tau", [None, 6.0])
def test_uno_is_the_sum_over_pairs(competing, limit, tau):
    rng = np.random.default_rng(3)
    time, event = rng.integers(1, 9, 60).astype(float), rng.integers(0, 3, 60)
    risk, weights = rng.normal(size=60).round(1), rng.random(60)
    entry = np.where(rng.random(60) < 0.5, time * rng.random(60), -np.inf)
    train_event = event > 0 if competing == "never" else event == 1
    curve = censoring_curve(time, train_event)
    got = uno_concordance(
        time, event, risk, curve, tau=tau, weights=weights, entry=entry, competing=competing,
        limit=limit,
    )  # fmt: skip
    G, at_entry = curve.at(time, limit), curve.at(np.maximum(entry, 0))
    G = np.maximum(G, 1e-3)

    def partner(i, j):
        if competing == "never" and event[j] > 1 and time[j] <= time[i]:
            return at_entry[j] * G[i] / G[j]
        return at_entry[j]

    cut = np.where((event == 1) & (time >= (tau or np.inf)), 0, 1)
    query = cut * at_entry / G**2
    expected = all_pairs(time, event, risk, weights, entry, competing, query, partner)
    np.testing.assert_allclose(got[1:5], expected, rtol=1e-10)


def test_without_censoring_uno_is_harrell():
    rng = np.random.default_rng(4)
    time, risk = rng.integers(1, 30, 80), rng.normal(size=80).round(1)
    curve = censoring_curve(time, np.ones(80))
    got = uno_concordance(time, np.ones(80, int), risk, curve)
    assert got.value == pytest.approx(concordance(time, np.ones(80, int), risk).value, abs=1e-14)


@given(ROWS)
def test_turning_the_risk_round_mirrors_the_value(rows):
    time, event, risk, weights, entry = columns(rows)
    one = concordance(time, event, risk, weights=weights, entry=entry)
    other = concordance(time, event, -risk, weights=weights, entry=entry)
    same = concordance(time, event, np.arctan(risk), weights=weights, entry=entry)
    assert same == pytest.approx(one, nan_ok=True)
    assert other.value == pytest.approx(1 - one.value, abs=1e-12, nan_ok=True)


def test_order_of_rows_does_not_matter_and_weights_are_copies():
    rng = np.random.default_rng(5)
    time, event = rng.integers(1, 20, 70), rng.integers(0, 3, 70)
    risk, weights = rng.normal(size=70).round(1), rng.integers(0, 4, 70)
    entry = np.where(rng.random(70) < 0.5, time * 0.4, -1.0)
    one = concordance(time, event, risk, weights=weights, entry=entry, cause=2)
    shuffled = rng.permutation(70)
    columns = [c[shuffled] for c in (time, event, risk)]
    again = concordance(*columns, weights=weights[shuffled], entry=entry[shuffled], cause=2)
    assert again == one
    copies = np.repeat(np.arange(70), weights)
    plain = concordance(time[copies], event[copies], risk[copies], entry=entry[copies], cause=2)
    assert plain.value == pytest.approx(one.value, abs=1e-14)
    as_floats = concordance(time, event, risk, weights=weights * 0.5, entry=entry, cause=2)
    np.testing.assert_allclose(as_floats[1:], np.asarray(one[1:]) / 4)


def test_what_ties_count():
    # One concordant, one discordant, two tied pairs.
    time, event, risk = [1, 2, 2, 2, 2], [1, 0, 0, 0, 0], [1, 0, 2, 1, 1]
    values = [concordance(time, event, risk, tied_risk=t).value for t in ("half", "zero", "drop")]
    assert values == [0.5, 0.25, 0.5]
    assert concordance([1, 1, 1], [1, 1, 0], [3, 1, 2])[1:] == (1, 1, 0, 2, 2)


@pytest.mark.parametrize(
    ("time", "event", "risk"),
    [
        ([1.0, 2.0, 3.0], [0, 0, 0], [1, 2, 3]),  # no event
        ([2.0, 2.0, 2.0], [1, 1, 1], [1, 2, 3]),  # all at one time
        ([2.0], [1], [0.0]),
        ([], [], []),
        ([1.0, 2.0], [1, 1], [np.nan, 1.0]),
    ],
)
def test_what_is_not_defined_is_nan_with_one_warning(time, event, risk):
    with pytest.warns(UserWarning, match="concordance is NaN: ") as seen:
        got = concordance(time, np.asarray(event, int), risk)
    assert math.isnan(got.value)
    assert len(seen) == 1
    if time:
        curve = censoring_curve([5.0], [0])
        with pytest.warns(UserWarning, match="Uno's concordance is NaN"):
            assert math.isnan(uno_concordance(time, event, risk, curve).value)


def test_all_tied_in_risk_is_one_half_or_nan_if_ties_are_dropped():
    rows = [1, 2, 3], [1, 1, 1], [4.0, 4.0, 4.0]
    assert concordance(*rows).value == 0.5
    with pytest.warns(UserWarning, match='tied_risk is "drop"'):
        assert math.isnan(concordance(*rows, tied_risk="drop").value)


def test_rows_of_weight_0_may_hold_anything():
    got = concordance([1, 2, -9], [1, 0, -1], [2, 1, np.nan], weights=[1, 1, 0])
    assert got.value == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"time": [1, -2, 3]}, r"time holds -2.0 at \[1\]"),
        ({"time": [1, np.nan, 3]}, "time holds nan"),
        ({"event": [1, 0.5, 0]}, "event holds 0.5"),
        ({"event": [1, 0]}, "must all be"),
        ({"weights": [1, -1, 1]}, "weights holds -1"),
        ({"weights": [1, np.nan, 1]}, "weights holds nan"),
        ({"entry": [0, 2, 0]}, r"entry holds 2.0 at \[1\]"),
        ({"risk": [1, 2]}, "risk is"),
        ({"cause": 0}, "cause is 0"),
        ({"competing": "ignore"}, "one of censor, never"),
        ({"tied_risk": "none"}, "one of half, zero, drop"),
    ],
)
def test_mistakes_get_one_line(change, message):
    rows = {"time": [1, 2, 3], "event": [1, 1, 0], "risk": [3, 2, 1]}
    with pytest.raises(UserError, match=message) as caught:
        concordance(**(rows | change))
    assert "\n" not in str(caught.value)


def test_uno_beyond_the_training_times_is_an_error():
    curve = censoring_curve([1, 2, 3], [1, 0, 1])
    with pytest.raises(UserError, match="beyond the last training time 3"):
        uno_concordance([1, 2, 5], [1, 1, 1], [3, 2, 1], curve)
    with pytest.raises(UserError, match="time 4 lies beyond"):
        uno_concordance([1, 2, 5], [1, 1, 1], [3, 2, 1], curve, tau=4)
    assert uno_concordance([1, 2, 5], [1, 1, 1], [3, 2, 1], curve, tau=3).value == 1

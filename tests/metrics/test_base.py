"""Sums stay exact where float32 would lose them, and merging is addition."""

from __future__ import annotations

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st

from mtl_jax.metrics.base import Mean, accumulate, compute, mean, merge, unstack

ROWS = st.lists(st.tuples(st.floats(-1e3, 1e3), st.booleans()), min_size=1, max_size=8)


ROWS = st.lists(st.tuples(st.floats(-1e3, 1e3), st.booleans()), min_size=1, max_size=8)


@hypothesis.given(ROWS, st.data())
def test_mean_of_masked_batches_is_the_mean_of_the_whole(rows, data):
    values = np.asarray([row[0] for row in rows], np.float32)
    mask = np.asarray([row[1] for row in rows], bool)
    cut = data.draw(st.integers(0, len(rows)))
    total = None
    for part in (slice(0, cut), slice(cut, None)):
        total = accumulate(total, mean(jnp.asarray(values[part]), jnp.asarray(mask[part])))
    got = compute({"x": total})["x"]
    if mask.any():
        assert got == pytest.approx(values[mask].astype(np.float64).mean(), rel=1e-5, abs=1e-3)
    else:
        assert np.isnan(got)


def test_merge_commutes_and_counts():
    a = mean(jnp.arange(3.0))
    b = mean(jnp.arange(5.0), jnp.asarray([1, 0, 1, 0, 1]))
    assert merge(a, b) == merge(b, a)
    assert merge(a, b).weight == 6
    assert compute(merge(a, b, b)) == {"": pytest.approx((3 + 6 + 6) / 9)}


def test_counts_beyond_2_to_the_24_stay_exact_on_the_device():
    state = mean(jnp.ones(5, bool), jnp.full(5, 2**24 + 1, jnp.int32))
    assert state.weight.dtype == jnp.int32
    assert int(state.weight) == int(state.total) == 5 * (2**24 + 1)


def test_totals_beyond_int32_and_float32_stay_exact_on_the_host():
    part = Mean(total=jnp.float32(2**24), weight=jnp.int32(2**31 - 1))
    one = Mean(total=jnp.float32(1), weight=jnp.int32(1))
    total = accumulate(accumulate(None, part), one)
    assert total.total == 2**24 + 1  # float32 would still say 2^24
    assert total.weight == 2**31
    assert total.total.dtype == np.float64


def test_sum_of_a_million_floats_keeps_seven_digits():
    state = mean(jnp.full(10**6, 0.9, jnp.float32))
    assert compute(state)[""] == pytest.approx(float(np.float32(0.9)), rel=1e-6)


def test_float_weights_and_trailing_axes():
    values = jnp.arange(12.0).reshape(3, 2, 2)
    weights = jnp.asarray([0.5, 0.0, 2.0])
    expected = np.average(np.asarray(values).mean((1, 2)), weights=np.asarray(weights))
    assert compute(mean(values, weights))[""] == pytest.approx(expected)


def test_half_precision_values_are_summed_in_float32():
    state = mean(jnp.ones(4096, jnp.bfloat16))
    assert state.total.dtype == jnp.float32
    assert state.total == 4096


def test_values_of_weight_zero_may_be_nan():
    state = mean(jnp.asarray([1.0, jnp.nan, jnp.inf]), jnp.asarray([True, False, False]))
    assert compute(state) == {"": 1.0}


def test_weights_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"\(2,\).*leading axes.*\(3,\)"):
        mean(jnp.ones(3), jnp.ones(2))


def test_compute_names_nested_states():
    states = {"val": {"left": Mean(jnp.float32(1), jnp.int32(2))}, "loss": mean(jnp.ones(3))}
    assert compute(states) == {"val/left": 0.5, "loss": 1.0}


def test_unstack_splits_the_task_axis():
    values = jnp.asarray([[1.0, 2.0], [3.0, 5.0]])  # [T, B]
    stacked = jax.vmap(mean)(values)
    assert compute(unstack(stacked, ["a", "b"])) == {"a": 1.5, "b": 4.0}

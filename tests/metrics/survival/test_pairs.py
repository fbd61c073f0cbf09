"""Counts against all pairs, the device against the host, and exactness beyond float32 and int32."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtl_jax.metrics.survival import pairs

ITEMS = st.lists(
    st.tuples(st.integers(0, 5), st.integers(0, 4), st.integers(0, 3), st.integers(0, 3)),
    min_size=1,
    max_size=24,
)


def arrays(items, size: int = 0):
    """Items in a valid order, filled up to `size` with items of weight 0."""
    items = sorted(items, key=lambda item: (item[1], -item[0]))
    items += [(0, 9, 0, 0)] * (size - len(items))
    return tuple(np.asarray(column) for column in zip(*items, strict=True))


def all_pairs(rank, block, query, point) -> list:
    """One by one."""
    before = block[None] < block[:, None]
    weight = query[:, None] * point[None] * before
    below, equal = rank[None] < rank[:, None], rank[None] == rank[:, None]
    return [(weight * below).sum(), (weight * equal).sum(), weight.sum()]


device = jax.jit(pairs.pair_sums)


@given(ITEMS)
def test_the_host_counts_what_all_pairs_give(items):
    columns = arrays(items)
    found = pairs.count_pairs(*columns)
    assert list(found) == all_pairs(*columns)
    assert all(type(value) is int for value in found)


@given(ITEMS, st.integers(0, 10**6))
def test_real_weights(items, seed):
    rank, block, query, point = arrays(items)
    rng = np.random.default_rng(seed)
    query, point = query * rng.random(len(rank)), point * rng.random(len(rank))
    found = pairs.count_pairs(rank, block, query, point)
    np.testing.assert_allclose(found, all_pairs(rank, block, query, point), rtol=1e-12)


@given(ITEMS)
def test_the_device_counts_the_same(items):
    columns = arrays(items, size=24)
    ints = [jnp.asarray(column, jnp.int32) for column in columns]
    exact = [pairs.total(field) for field in device(*ints)]
    assert exact == all_pairs(*columns)
    floats = device(*ints[:2], *(column.astype(jnp.float32) for column in ints[2:]))
    np.testing.assert_allclose(floats, exact, rtol=1e-6)


def test_no_items_and_only_one():
    none = np.zeros(0, np.int64)
    assert pairs.count_pairs(none, none, none, none) == (0, 0, 0)
    assert [pairs.total(f) for f in device(*(jnp.asarray(none, jnp.int32),) * 4)] == [0, 0, 0]
    one = np.ones(1, np.int64)
    assert pairs.count_pairs(one, one, one, one) == (0, 0, 0)


def test_counts_beyond_float32_and_int32_are_exact():
    # 70,000 rows make 2.4e9 pairs, beyond int32, of which float32 knows every 256th.
    rng = np.random.default_rng(0)
    size = 70_000
    rank = rng.integers(0, 1000, size)
    block, ones = np.arange(size), np.ones(size, np.int64)
    host = pairs.count_pairs(rank, block, ones, ones)
    assert host.comparable == size * (size - 1) // 2
    ties = np.bincount(rank)
    assert host.tied == (ties * (ties - 1) // 2).sum()
    back = pairs.count_pairs(rank[::-1], block, ones, ones)
    assert host.concordant + back.concordant + host.tied == host.comparable
    ints = [jnp.asarray(a, jnp.int32) for a in (rank, block, ones, ones)]
    sums = pairs.pair_sums(*ints, levels=10)
    assert [int(pairs.total(field)) for field in sums] == list(host)
    np.testing.assert_allclose([pairs.as_float(field) for field in sums], host, rtol=1e-6)


def test_weights_at_the_limits_of_the_device():
    # One query of the greatest weight over points of the greatest sum: 2^55 pairs.
    rank = jnp.asarray([0, 1, 2], jnp.int32)
    query = jnp.asarray([0, 0, pairs.MAX_QUERIES], jnp.int32)
    point = jnp.asarray([2**30, 2**30 - 1, 0], jnp.int32)
    sums = pairs.pair_sums(rank, rank, query, point)
    assert int(pairs.total(sums.concordant)) == pairs.MAX_QUERIES * pairs.MAX_POINTS


def test_host_weights_too_great_for_int64_turn_into_floats():
    big = np.asarray([0, 2**40]), np.asarray([2**40, 0])
    found = pairs.count_pairs(np.arange(2), np.arange(2), *big)
    assert found.concordant == pytest.approx(2.0**80)


def test_a_difference_of_counts_borrows():
    rng = np.random.default_rng(1)
    rank, block = rng.integers(0, 50, 600), np.arange(600)
    query, point = rng.integers(0, 900, (2, 600))
    part = query // 3
    wide = [jnp.asarray(a, jnp.int32) for a in (rank, block, query, point, part)]
    less = pairs.subtract_sums(
        pairs.pair_sums(*wide[:4]), pairs.pair_sums(*wide[:2], wide[4], wide[3])
    )
    expected = pairs.count_pairs(rank, block, query - part, point)
    assert [int(pairs.total(field)) for field in less] == list(expected)


def test_vmap_over_weights_is_each_of_them():
    rng = np.random.default_rng(2)
    rank, block = rng.integers(0, 9, 40), np.sort(rng.integers(0, 12, 40))
    order = np.lexsort((-rank, block))
    rank, block = rank[order], block[order]
    weights = rng.integers(0, 4, (5, 40))
    batched = jax.vmap(lambda w: pairs.pair_sums(jnp.asarray(rank), jnp.asarray(block), w, w))
    sums = batched(jnp.asarray(weights, jnp.int32))
    for k, w in enumerate(weights):
        expected = pairs.count_pairs(rank, block, w, w)
        assert [int(pairs.total(field)[k]) for field in sums] == list(expected)

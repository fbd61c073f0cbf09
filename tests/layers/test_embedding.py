"""Lookups: padding, ids outside the table, and rows that stand in for the table."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from mtl_jax.layers.embedding import init_table, lookup

TABLE = jnp.asarray(np.random.default_rng(0).normal(size=(5, 3)), jnp.float32)  # row 0 is not zero


def _lookup(ids: jax.Array, table: jax.Array = TABLE) -> jax.Array:
    return lookup({"tables": {"item": table}}, {}, "item", "candidate", ids)


def test_ids_find_their_rows_and_padding_is_zero() -> None:
    found = _lookup(jnp.array([[4, 0], [1, 4]], jnp.int32))
    assert found.shape == (2, 2, 3)
    np.testing.assert_array_equal(found[0, 0], TABLE[4])
    np.testing.assert_array_equal(found[1], TABLE[jnp.array([1, 4])])
    np.testing.assert_array_equal(found[0, 1], 0)


def test_ids_outside_the_table_are_padding() -> None:
    np.testing.assert_array_equal(_lookup(jnp.array([5, 1000, -1, -5], jnp.int32)), 0)


def test_no_gradient_reaches_padding() -> None:
    ids = jnp.array([0, 2, 2, 7, -1], jnp.int32)
    grads = jax.grad(lambda table: _lookup(ids, table).sum())(TABLE)
    want = np.zeros((5, 3))
    want[2] = 2
    np.testing.assert_array_equal(grads, want)


def test_slots_take_the_place_of_ids() -> None:
    """Of two uses each has slots of its own; other tables are looked up by id."""
    rows = jnp.arange(6.0).reshape(2, 3)
    params = {"tables": {"item": rows, "user": TABLE}}
    slots = {"a": jnp.array([1, 0, 2]), "b": jnp.array([[0]])}
    batch = {"slots": {"item": slots}}
    ids = jnp.array([40, 30, 0], jnp.int32)
    found = lookup(params, batch, "item", "a", ids)
    np.testing.assert_array_equal(found, [[3, 4, 5], [0, 1, 2], [0, 0, 0]])
    np.testing.assert_array_equal(lookup(params, batch, "item", "b", ids[:1, None]), rows[:1, None])
    np.testing.assert_array_equal(lookup(params, batch, "user", "a", ids[:1] - 38), TABLE[2:3])


def test_a_new_table_is_normal_with_a_padding_row_of_zeros() -> None:
    table = init_table(jax.random.key(0), 4000, 8, 0.05)
    np.testing.assert_array_equal(table[0], 0)
    assert table.dtype == jnp.float32
    assert abs(float(table[1:].std()) - 0.05) < 0.001
    assert abs(float(table[1:].mean())) < 0.002

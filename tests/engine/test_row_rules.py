"""Row optimisers against their dense counterparts and against numpy in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mtl_jax.engine.row_rules import (
    RowRule,
    lazy_adam,
    make_row_rule,
    row_adagrad,
    sgd,
    with_l2,
)
from mtl_jax.errors import UserError

ROWS, DIM, STEPS = 6, 3, 5
RNG = np.random.default_rng(0)
TABLE = RNG.normal(size=(ROWS, DIM)).astype(np.float32)
GRADS = RNG.normal(size=(STEPS, ROWS, DIM)).astype(np.float32)


def _moved(rule: RowRule, grads: np.ndarray = GRADS, table: np.ndarray = TABLE) -> tuple:
    rows, state = jnp.asarray(table), rule.init(jnp.asarray(table))
    for step, grad in enumerate(grads):
        rows, state = rule.update(rows, jnp.asarray(grad), state, jnp.asarray(step))
    return rows, state


def _dense(tx: optax.GradientTransformation) -> Any:
    params, state = jnp.asarray(TABLE), tx.init(jnp.asarray(TABLE))
    for grad in GRADS:
        updates, state = tx.update(jnp.asarray(grad), state, params)
        params = optax.apply_updates(params, updates)
    return params


DECAY = optax.exponential_decay(0.2, 1, 0.5)


@pytest.mark.parametrize("lr", [0.1, DECAY])
@pytest.mark.parametrize(("rule", "dense"), [(sgd, optax.sgd), (lazy_adam, optax.adam)])
def test_rows_touched_in_every_step_move_as_by_the_dense_optimiser(
    rule: Callable, dense: Callable, lr: object
) -> None:
    np.testing.assert_allclose(_moved(rule(lr))[0], _dense(dense(lr)), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("eps", "initial"), [(1e-8, 0.0), (0.1, 0.5)])
def test_row_adagrad_against_numpy(eps: float, initial: float) -> None:
    rows, total = TABLE.astype(np.float64), np.full(ROWS, initial)
    for grad in GRADS.astype(np.float64):
        total += (grad**2).mean(1)
        rows -= 0.3 * grad / (np.sqrt(total) + eps)[:, None]
    found, state = _moved(row_adagrad(0.3, eps, initial))
    np.testing.assert_allclose(found, rows, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(state["sum"], total, rtol=1e-6)


def test_a_row_of_zero_gradients_stays_even_without_eps() -> None:
    rows, _ = _moved(row_adagrad(0.3, 0.0, 0.0), np.zeros_like(GRADS))
    np.testing.assert_array_equal(rows, TABLE)


def test_lazy_adam_counts_row_by_row() -> None:
    """A row that is met for the first time late takes a first step then: lr in each direction."""
    rule = lazy_adam(0.1, eps=0.0)
    state = rule.init(jnp.asarray(TABLE))
    state["count"] = state["count"].at[0].set(0)
    rows, _ = rule.update(jnp.asarray(TABLE), jnp.asarray(GRADS[0]), state, jnp.asarray(900))
    np.testing.assert_allclose(TABLE - rows, 0.1 * np.sign(GRADS[0]), rtol=1e-4)


@pytest.mark.parametrize("name", ["sgd", "row_adagrad", "lazy_adam"])
def test_rows_in_half_precision_are_moved_in_single(name: str) -> None:
    half = TABLE.astype(jnp.bfloat16)
    rule = make_row_rule(name, 0.1)
    rows, state = _moved(rule, GRADS[:1], half)
    wide, _ = _moved(rule, GRADS[:1], half.astype(np.float32))
    assert rows.dtype == jnp.bfloat16
    assert all(leaf.dtype in (jnp.float32, jnp.int32) for leaf in state.values())
    np.testing.assert_array_equal(rows, wide.astype(jnp.bfloat16))


def test_l2_is_added_to_the_gradient() -> None:
    decayed, _ = _moved(with_l2(sgd(0.1), 0.5), GRADS[:1])
    np.testing.assert_allclose(decayed, TABLE - 0.1 * (GRADS[0] + 0.5 * TABLE), rtol=1e-5)
    rule = sgd(0.1)
    assert with_l2(rule, 0.0) is rule


def test_wrong_names_and_values_say_what_is_right() -> None:
    with pytest.raises(UserError, match="did you mean 'row_adagrad'"):
        make_row_rule("adagrad", 0.1)
    for name in ("eps", "initial", "l2"):
        with pytest.raises(UserError, match=f"{name} of the table optimiser is -1"):
            make_row_rule("sgd", 0.1, **{name: -1.0})

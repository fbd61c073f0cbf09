"""Optimisers of embedding tables that see the touched rows only.

A dense optimiser passes over all V rows every step. These get the K rows that a batch touches,
their gradients and their part of the state, so that a step costs the same for any V. Where every
row is touched in every step SGD and lazy Adam are the dense ones; else lazy Adam leaves rows alone
that dense Adam would go on moving by their momentum.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp

from mtl_jax.errors import UserError, did_you_mean

Array = jax.Array
Tree = Any
Schedule = Callable[[Any], Any]
RowRuleName = Literal["row_adagrad", "lazy_adam", "sgd"]


class RowRule(NamedTuple):
    """An optimiser of rows.

    Attributes:
      init: `init(table [V, D]) -> state`, a dict of arrays [V, ...].
      update: `update(rows [K, D], grads [K, D], state [K, ...], step) -> (rows, state)`; `step` is
        the number of updates done.
    """

    init: Callable[[Array], dict[str, Array]]
    update: Callable[[Array, Array, dict[str, Array], Array], tuple[Array, dict[str, Array]]]


def _wide(x: Array) -> Array:
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def _rate(lr: Schedule | float, step: Array, like: Array) -> Array:
    return jnp.asarray(lr(step) if callable(lr) else lr, like.dtype)


def sgd(lr: Schedule | float) -> RowRule:
    """Plain gradient descent; without state it equals the dense one."""

    def update(rows: Array, grads: Array, state: dict, step: Array) -> tuple[Array, dict]:
        return (_wide(rows) - _rate(lr, step, _wide(rows)) * grads).astype(rows.dtype), state

    return RowRule(lambda table: {}, update)


def row_adagrad(lr: Schedule | float, eps: float = 1e-8, initial: float = 0.0) -> RowRule:
    """Adagrad with one accumulator a row, to which the mean square of its gradient is added.

    Args:
      lr: learning rate, or a function of the step.
      eps: added to the root of the accumulator.
      initial: what accumulators start at.
    """

    def init(table: Array) -> dict[str, Array]:
        return {"sum": jnp.full(table.shape[:1], initial, _wide(table[:0]).dtype)}

    def update(rows: Array, grads: Array, state: dict, step: Array) -> tuple[Array, dict]:
        wide, grads = _wide(rows), _wide(grads)
        total = state["sum"] + jnp.mean(jnp.square(grads), 1)
        scale = _rate(lr, step, wide) / (jnp.sqrt(total) + eps)
        # A row whose gradients were all zero has 0 / 0 where eps is 0: it stays where it is.
        scale = jnp.where(total > 0, scale, 0)
        return (wide - scale[:, None] * grads).astype(rows.dtype), {"sum": total}

    return RowRule(init, update)


def lazy_adam(
    lr: Schedule | float, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8
) -> RowRule:
    """Adam whose moments and step count belong to the row, and move only when it is touched."""

    def init(table: Array) -> dict[str, Array]:
        zeros = jnp.zeros(table.shape, _wide(table[:0]).dtype)
        count = jnp.zeros(table.shape[:1], jnp.int32)
        return {"mean": zeros, "square": jnp.zeros_like(zeros), "count": count}

    def update(rows: Array, grads: Array, state: dict, step: Array) -> tuple[Array, dict]:
        wide, grads = _wide(rows), _wide(grads)
        mean = b1 * state["mean"] + (1 - b1) * grads
        square = b2 * state["square"] + (1 - b2) * jnp.square(grads)
        count = state["count"] + 1
        unbias = [1 - jnp.asarray(b, wide.dtype) ** count[:, None] for b in (b1, b2)]
        move = (mean / unbias[0]) / (jnp.sqrt(square / unbias[1]) + eps)
        after = wide - _rate(lr, step, wide) * move
        return after.astype(rows.dtype), {"mean": mean, "square": square, "count": count}

    return RowRule(init, update)


def with_l2(rule: RowRule, l2: float) -> RowRule:
    """Adds `l2` times the row to its gradient: L2 regularisation of the touched rows alone."""
    if not l2:
        return rule

    def update(rows: Array, grads: Array, state: dict, step: Array) -> tuple[Array, dict]:
        return rule.update(rows, _wide(grads) + l2 * _wide(rows), state, step)

    return RowRule(rule.init, update)


def make_row_rule(
    name: str,
    lr: Schedule | float,
    *,
    eps: float = 1e-8,
    initial: float = 0.0,
    b1: float = 0.9,
    b2: float = 0.999,
    l2: float = 0.0,
) -> RowRule:
    """Returns a rule by name: row_adagrad (`eps`, `initial`), lazy_adam (`b1`, `b2`, `eps`) or sgd.

    Raises:
      UserError: an unknown name, or a negative `initial`, `eps` or `l2`.
    """
    for what, value in (("eps", eps), ("initial", initial), ("l2", l2)):
        if not value >= 0:
            raise UserError(f"{what} of the table optimiser is {value}; it must be 0 or more")
    rules: dict[str, Callable[[], RowRule]] = {
        "row_adagrad": lambda: row_adagrad(lr, eps, initial),
        "lazy_adam": lambda: lazy_adam(lr, b1, b2, eps),
        "sgd": lambda: sgd(lr),
    }
    if name not in rules:
        raise UserError(
            f"unknown table optimiser {name!r}; {did_you_mean(name, get_args(RowRuleName))}"
        )
    return with_l2(rules[name](), l2)

"""Aggregation of task gradients of which each device holds a part.

Devices that share a batch have to sum T gradients of P numbers. Where all of them get the whole
sum, each sends about 2 T P numbers. Here a device gets P / D columns of it only; the Gram matrix is
the sum of those of the parts, every device solves for the same weights, combines its columns, and
what is gathered is the one direction of P numbers: about (T + 1) P in all. The summed stack lies on
no device whole, and its Gram matrix and its combination are shared out as well.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from mtl_jax.methods import ownership
from mtl_jax.methods.base import (
    Aggregator,
    Array,
    Info,
    LossWeighting,
    Method,
    Problem,
    Tree,
    Update,
)
from mtl_jax.methods.flat_regions import as_method
from mtl_jax.methods.gram import combine, gram


def scattered(base: Aggregator | LossWeighting) -> Method:
    """Makes a `Method` of an aggregator: that of `as_method`, with less to send.

    Equal to it to rounding on any number of devices: the Gram matrix is summed in another order.
    Task gradients are copied once, so that they lie one behind the other.

    Args:
      base: an aggregator whose weights follow from the Gram matrix, prenormalised or not.

    Raises:
      ValueError: a method that looks at whole gradients, or that has one gradient only.
    """
    if isinstance(base, LossWeighting):
        raise ValueError("weighs losses and has one gradient, not one a task")
    weigh = base.gram_weights
    if weigh is None:
        raise ValueError("looks at whole gradients, not only at their Gram matrix")
    plain = as_method(base)

    def update(problem: Problem, params: Tree, state: Tree, key: Array) -> Update:
        if not jax.tree.leaves(ownership.select(params, problem.owners, ownership.is_shared)):
            return plain.update(problem, params, state, key)
        shards, losses, active, aux = problem.task_shards(params)
        raw = shards.total(gram(shards.rows))
        raw = jnp.where(active[:, None] & active[None, :], raw, 0)
        # The key of `as_method`.
        weights, state = weigh(raw, state, losses, active, jax.random.split(key, 3)[0])
        direction = shards.whole(combine(shards.rows, weights))
        merged = ownership.merge(direction, shards.heads)
        return Update(merged, state, losses, active, aux, Info(weights=weights, gram=raw))

    return Method(plain.init, update)

"""PCGrad: projecting conflicting gradients off each other (Yu et al.)."""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp
from jax import lax

from mtl_jax.methods.base import Aggregator, Array, Traits, Tree
from mtl_jax.methods.linalg import highest_precision
from mtl_jax.methods.weighting import gram_aggregator


def random_orders(key: Array, num_tasks: int) -> Array:
    """Returns [T, T] int: row i is the order in which task i meets the others.

    The priority of j in row i depends on (key, i, j) only, so that leaving out a task leaves the
    order of the remaining ones as it was.
    """
    indices = jnp.arange(num_tasks)

    def row(i: Array) -> Array:
        own = jax.random.fold_in(key, i)
        return jax.vmap(lambda j: jax.random.uniform(jax.random.fold_in(own, j)))(indices)

    return jnp.argsort(jax.vmap(row)(indices), axis=1)


def task_orders(key: Array, num_tasks: int) -> Array:
    """`random_orders`; for up to two tasks, each of which meets at most one other, no draw."""
    if num_tasks > 2:
        return random_orders(key, num_tasks)
    return jnp.broadcast_to(jnp.arange(num_tasks), (num_tasks, num_tasks))


@highest_precision
def pcgrad_weights(gram: Array, orders: Array) -> Array:
    """Returns the weights [T] of the sum of the projected gradients.

    Args:
      gram: [T, T]; tasks whose row is 0 are neither projected nor projected on.
      orders: [T, T] int, the order in which row i's gradient meets the others (itself skipped).
    """
    num_tasks = gram.shape[0]
    rows = jnp.arange(num_tasks)
    diag = jnp.diag(gram)

    def meet(step: Array, coefficients: Array) -> Array:
        """Row i: v_i = sum_k c_ik g_k loses min(0, v_i.g_j) / G_jj g_j."""
        other = orders[:, step]
        inner = (coefficients * gram[other]).sum(1)
        length = diag[other]
        conflict = (inner < 0) & (length > 0) & (other != rows)
        share = jnp.where(conflict, inner / jnp.where(length > 0, length, 1), 0)
        return coefficients.at[rows, other].add(-share)

    start = jnp.eye(num_tasks, dtype=gram.dtype)
    return lax.fori_loop(0, num_tasks, meet, start, unroll=num_tasks <= 4).sum(0)


def pcgrad(reduction: Literal["sum", "mean"] = "sum") -> Aggregator:
    """Gradient surgery: every gradient loses its component against each one it conflicts with.

    Source: Yu et al., "Gradient Surgery for Multi-Task Learning", arXiv 2001.06782, algorithm 1.
    Differs from it: computed on coefficients in Gram space (T x T numbers instead of T copies of
    the gradients); the order comes from a PRNG key, drawn anew for each task and step.

    Args:
      reduction: "sum" of the projected gradients, or their "mean" over the active tasks.
    """
    if reduction not in ("sum", "mean"):
        raise ValueError(f"reduction must be 'sum' or 'mean', found {reduction!r}")

    def weights_fn(
        gram: Array, state: Tree, *, losses: Array, active: Array, key: Array
    ) -> tuple[Array, Tree]:
        del losses
        weights = pcgrad_weights(gram, task_orders(key, gram.shape[0]))
        return (weights / active.sum() if reduction == "mean" else weights), state

    return gram_aggregator(
        weights_fn,
        traits=Traits(
            on_equal=lambda num_tasks, norm: float(num_tasks) if reduction == "sum" else 1.0,
            symmetric=False,
        ),
    )

"""GradVac: cosines between gradients raised to what they usually are (Wang et al.)."""

from __future__ import annotations

from typing import Literal

import jax.numpy as jnp
from jax import lax

from mtl_jax.methods.base import Aggregator, Array, Traits, Tree
from mtl_jax.methods.linalg import highest_precision, unit_diagonal
from mtl_jax.methods.pcgrad import task_orders
from mtl_jax.methods.weighting import gram_aggregator

_LONGEST = 100.0
"""How many times its own length a vaccinated gradient may have."""


@highest_precision
def grad_vac_weights(
    gram: Array, targets: Array, orders: Array, beta: float = 0.5, active: Array | None = None
) -> tuple[Array, Array]:
    """Returns the weights [T] of the sum of the vaccinated gradients, and the next targets [T, T].

    Args:
      gram: [T, T], of any scale.
      targets: [T, T] moving averages of the cosines, phi_ij of row i with gradient j.
      orders: [T, T] int, the order in which row i's gradient meets the others (itself skipped).
      beta: share of the newest cosine in the moving average.
      active: [T] bool; None for all.
    """
    size, eps = gram.shape[0], jnp.finfo(gram.dtype).eps
    active = jnp.ones(size, bool) if active is None else active
    rows = jnp.arange(size)
    # In units of each gradient's length, so that the loop sees cosines only.
    cosines, inverse_norms = unit_diagonal(gram, active)
    live = inverse_norms > 0

    def meet(step: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        """Row i: v_i gains the multiple of u_j that brings its cosine with u_j up to phi_ij."""
        c, phi = carry
        other = orders[:, step]
        inner = (c * cosines[other]).sum(1)
        square = (c * (c @ cosines)).sum(1)
        rounding = 4 * eps * size * (jnp.abs(c) * (jnp.abs(c) @ jnp.abs(cosines))).sum(1)
        # A row that is 0 up to rounding (a projected opposite) has no cosine.
        met = live & live[other] & (other != rows) & (square > rounding)
        length = jnp.sqrt(jnp.where(met, square, 1))
        cosine = jnp.where(met, jnp.clip(inner / length, -1, 1), 0)
        target = phi[rows, other]
        sine = jnp.sqrt(1 - cosine * cosine)
        target_sine = jnp.sqrt(jnp.maximum(1 - target * target, eps))
        gain = length * (target * sine / target_sine - cosine)
        gain = jnp.where(met & (cosine < target), gain, 0)
        c = c.at[rows, other].add(gain)
        # A target near 1 stretches without bound, and once for every task: keep the direction.
        stretched = jnp.sqrt(jnp.maximum(length * length + 2 * gain * inner + gain * gain, 0))
        too_long = met & (stretched > _LONGEST)
        c = c * jnp.where(too_long, _LONGEST / jnp.where(too_long, stretched, 1), 1)[:, None]
        average = (1 - beta) * target + beta * cosine
        return c, phi.at[rows, other].set(jnp.where(met, average, target))

    start = jnp.eye(size, dtype=gram.dtype)
    c, phi = lax.fori_loop(0, size, meet, (start, targets.astype(gram.dtype)))
    norms = jnp.where(live, 1 / jnp.where(live, inverse_norms, 1), 0)
    gains = (norms[:, None] * (c - start)).sum(0) * inverse_norms
    return active + gains, phi


def grad_vac(beta: float = 0.5, reduction: Literal["sum", "mean"] = "sum") -> Aggregator:
    """Gradient vaccine: gradient i gains so much of gradient j that their cosine is phi_ij.

    phi_ij is a moving average of the cosine, which starts at 0; nothing happens to a pair whose
    cosine is above it. With phi = 0 (the first step, or beta = 0) this is PCGrad.

    Source: Wang et al., "Gradient Vaccine: Investigating and Improving Multi-task Optimization in
    Massively Multilingual Models", arXiv 2010.05874, algorithm 1, with the whole model as the one
    group of parameters. Computed on coefficients in Gram space. Differs from LibMTL's code, which
    moves phi_ij only where the cosine is below it (so that it can never rise). A gradient grows
    at most 100-fold in length, where the paper has no bound for phi_ij near 1.

    Args:
      beta: share of the newest cosine in the moving average, in [0, 1] (0.5 in LibMTL).
      reduction: "sum" of the vaccinated gradients, or their "mean" over the active tasks.

    Raises:
      ValueError: an option out of range.
    """
    if not 0 <= beta <= 1:
        raise ValueError(f"beta must be in [0, 1], found {beta}")
    if reduction not in ("sum", "mean"):
        raise ValueError(f"reduction must be 'sum' or 'mean', found {reduction!r}")

    def init(shared: Tree, num_tasks: int) -> Array:
        del shared
        return jnp.zeros((num_tasks, num_tasks), jnp.float32)

    def weights_fn(
        gram: Array, state: Tree, *, losses: Array, active: Array, key: Array
    ) -> tuple[Array, Tree]:
        del losses
        orders = task_orders(key, gram.shape[0])
        weights, targets = grad_vac_weights(gram, state, orders, beta, active)
        weights = weights / active.sum() if reduction == "mean" else weights
        return weights, targets.astype(jnp.float32)

    return gram_aggregator(
        weights_fn,
        init=init,
        traits=Traits(
            on_equal=lambda num_tasks, norm: float(num_tasks) if reduction == "sum" else 1.0,
            symmetric=False,
        ),
    )

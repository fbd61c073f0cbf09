"""IMTL: losses of one scale (IMTL-L), then a direction with equal projections (Liu et al.)."""

from __future__ import annotations

import jax.numpy as jnp

from mtl_jax.methods import trained
from mtl_jax.methods.base import Aggregator, Array, LossWeighting, Tree
from mtl_jax.methods.imtl_g import imtl_g_weights
from mtl_jax.methods.trained import TrainedState, adam, descend
from mtl_jax.methods.weighting import gram_aggregator


def _slope(scales: Array, losses: Array) -> Array:
    """The gradient [T] of sum_i exp(s_i) L_i - s_i; 0 at s_i = -log L_i."""
    return jnp.exp(scales) * losses.astype(jnp.float32) - 1


def imtl_l(lr: float = 0.025) -> LossWeighting:
    """Impartial multi-task learning, the loss part: minimises sum_i exp(s_i) L_i - s_i over s too.

    Source: Liu et al., "Towards Impartial Multi-task Learning", ICLR 2021, section 3.2. s starts
    at 0 and has an Adam optimiser of its own (the authors train it with the network); its
    gradient, exp(s_i) L_i - 1, is written out. The weights exp(s_i) of a step use s from before it.
    They settle at 1 / L_i.

    Args:
      lr: Adam's learning rate for s.

    Raises:
      ValueError: a learning rate that is not positive.
    """
    optimiser = adam(lr)

    def start(num_tasks: int) -> TrainedState:
        return trained.start(optimiser, num_tasks, 0.0)

    def weights(
        losses: Array, state: TrainedState, *, active: Array, key: Array
    ) -> tuple[Array, TrainedState]:
        del key
        w = jnp.where(active, jnp.exp(state.values), 0).astype(losses.dtype)
        return w, descend(optimiser, state, _slope(state.values, losses), active)

    return LossWeighting(start, weights)


def imtl(lr: float = 0.025) -> Aggregator:
    """Impartial multi-task learning: IMTL-G on the gradients of IMTL-L's scaled losses.

    d = sum_i a_i exp(s_i) g_i: equal projections on all gradients, the a_i of sum 1.

    Source: Liu et al., "Towards Impartial Multi-task Learning", ICLR 2021, algorithm 1; see
    `imtl_g` and `imtl_l`. Each s_i descends on its own exp(s_i) L_i - s_i. In the paper the heads
    take the gradients of the scaled losses; here, as with every aggregator, those of the losses.

    Args:
      lr: Adam's learning rate for s.

    Raises:
      ValueError: a learning rate that is not positive.
    """
    optimiser = adam(lr)

    def init(shared: Tree, num_tasks: int) -> TrainedState:
        del shared
        return trained.start(optimiser, num_tasks, 0.0)

    def weights_fn(
        gram: Array, state: TrainedState, *, losses: Array, active: Array, key: Array
    ) -> tuple[Array, TrainedState]:
        del key
        s = state.values.astype(gram.dtype)
        # IMTL-G does not see a common factor: the largest scale is taken out of the products.
        relative = jnp.exp(jnp.where(active, s - jnp.where(active, s, -jnp.inf).max(), 0))
        scaled = gram * relative[:, None] * relative[None, :]
        weights = jnp.exp(s) * imtl_g_weights(scaled, active)
        return weights, descend(optimiser, state, _slope(state.values, losses), active)

    return gram_aggregator(weights_fn, init=init)

"""DualProj: the mean gradient projected onto the directions that harm no task (GEM)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import jax.numpy as jnp

from mtl_jax.methods.base import Aggregator, Array, Traits, Tree
from mtl_jax.methods.linalg import highest_precision
from mtl_jax.methods.nonneg_qp import nonneg_qp
from mtl_jax.methods.weighting import gram_aggregator


@highest_precision
def dual_proj_weights(gram: Array, preference: Array, active: Array | None = None) -> Array:
    """Returns v [T] >= p that minimises v.G v, for a Gram matrix [T, T] of any scale.

    J^T v is the projection of J^T p onto the cone {x: J x >= 0}; v = p + z with z >= 0.

    Args:
      gram: [T, T].
      preference: [T] p >= 0; 0 for inactive tasks.
      active: [T] bool; None for all.
    """
    return preference + nonneg_qp(gram, jnp.matmul(gram, preference), active=active)


def dual_proj(reduction: Literal["mean", "sum"] = "mean") -> Aggregator:
    """Dual projection: the mean (or sum) of the gradients projected onto {x: J x >= 0}.

    No task loss rises along -d, to first order; without conflict d is the mean. One projection,
    of the mean, where UPGrad projects every gradient.

    Source: Lopez-Paz and Ranzato, "Gradient Episodic Memory for Continual Learning", arXiv
    1706.08840, equations 8-11. There the newest task's gradient is projected and the older tasks
    are constraints; here all tasks are both, as in TorchJD's aggregator of this name. Without the
    margin that the authors add to the dual variables, and with relative thresholds only.

    Args:
      reduction: "mean": p = 1 / number of active tasks; "sum": p = 1.

    Raises:
      ValueError: another `reduction`.
    """
    return projecting(dual_proj_weights, reduction)


def projecting(
    weights: Callable[[Array, Array, Array], Array], reduction: Literal["mean", "sum"]
) -> Aggregator:
    """Makes an aggregator of `weights(gram, preference, active)`, such as `dual_proj_weights`.

    Args:
      weights: takes [T, T], [T] and [T] to weights [T].
      reduction: of the preference, see `dual_proj`.

    Raises:
      ValueError: another `reduction`.
    """
    if reduction not in ("sum", "mean"):
        raise ValueError(f"reduction must be 'sum' or 'mean', found {reduction!r}")

    def weights_fn(
        gram: Array, state: Tree, *, losses: Array, active: Array, key: Array
    ) -> tuple[Array, Tree]:
        del losses, key
        preference = active.astype(gram.dtype)
        if reduction == "mean":
            preference = preference / active.sum()
        return weights(gram, preference, active), state

    return gram_aggregator(
        weights_fn,
        traits=Traits(
            on_equal=lambda num_tasks, norm: float(num_tasks) if reduction == "sum" else 1.0
        ),
    )

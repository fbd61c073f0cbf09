"""UPGrad: every gradient projected onto the directions that harm no task (Quinton and Rey)."""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp

from mtl_jax.methods.base import Aggregator, Array
from mtl_jax.methods.dual_proj import dual_proj_weights, projecting
from mtl_jax.methods.linalg import highest_precision


@highest_precision
def upgrad_weights(gram: Array, preference: Array, active: Array | None = None) -> Array:
    """Returns UPGrad's weights [T] for a Gram matrix [T, T] of any scale.

    Row i is v = p_i e_i + z with z >= 0 minimising v.G v: J^T v is the projection of p_i g_i onto
    the cone {x: J x >= 0} (the dual of that problem).

    Args:
      gram: [T, T].
      preference: [T] p >= 0; 0 for inactive tasks.
      active: [T] bool; None for all.
    """

    def row(base: Array) -> Array:
        return dual_proj_weights(gram, base, active)

    return jax.vmap(row)(jnp.diag(preference)).sum(0)


def upgrad(reduction: Literal["mean", "sum"] = "mean") -> Aggregator:
    """Unconflicting projection of gradients: sum over i of p_i g_i projected onto {x: J x >= 0}.

    No task loss rises along -d, to first order, and gradients without conflict give their mean.

    Source: Quinton and Rey, "Jacobian Descent for Multi-Objective Optimization", arXiv 2406.16232,
    the aggregator UPGrad. Differs from the authors' library: solved on the device, without their
    absolute thresholds (a Gram matrix of trace below 1e-4 makes theirs the mean) and without adding
    1e-4 to the diagonal.

    Args:
      reduction: "mean": p = 1 / number of active tasks; "sum": p = 1.

    Raises:
      ValueError: another `reduction`.
    """
    return projecting(upgrad_weights, reduction)

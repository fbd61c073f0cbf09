"""Heads that give chances of bins instead of hazards: PMF and MTLR, as hazards underneath.

Any distribution over K bins and "none of them" is one of hazards. So these heads differ from
`hazards` in their parameters only: `pmf_hazards` and `mtlr_hazards` turn their outputs into hazard
logits, in log space, and the likelihood with its rules for censoring, truncation and intervals and
all curves come from there.

Another head needs no code at all: one head for short and long terms together is `hazards` on
`intervals.OVERALL`.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from mtl_jax.survival.credit import Credit
from mtl_jax.survival.curves import log_pmf_hazards
from mtl_jax.survival.hazards import hazard_loss
from mtl_jax.survival.intervals import Grid
from mtl_jax.survival.logspace import as_float

Array = jax.Array


def pmf_hazards(logits: Any) -> Array:
    """Hazard logits of a softmax over K bins and no event, whose logit is 0; [..., K] both.

    (The PMF model of Kvamme and Borgan 2021; DeepHit's output layer with one cause.)
    """
    return log_pmf_hazards(_with_none(as_float(logits)))


def mtlr_hazards(logits: Any) -> Array:
    """Hazard logits of multi-task logistic regression; [..., K] both.

    Yu et al. (NIPS 2011): the score of an event in bin k is sum_{i >= k} logits_i, that
    of no event in the grid 0, and the chances are their softmax. A network's last layer gives the
    logits; for the linear model they are linear in the features.
    """
    scores = jax.lax.cumsum(as_float(logits), axis=jnp.ndim(logits) - 1, reverse=True)
    return log_pmf_hazards(_with_none(scores))


def pmf_loss(
    logits: Any,
    time: Any,
    event: Any,
    grid: Grid,
    *,
    censoring: Credit = "midpoint",
    entry: Any = None,
    upper: Any = None,
) -> Array:
    """Negative log-likelihood of the PMF head, per row; arguments as in `hazards.hazard_loss`.

    With "index" credit this is pycox's PMF loss.
    """
    hazards = pmf_hazards(logits)
    return hazard_loss(hazards, time, event, grid, censoring=censoring, entry=entry, upper=upper)


def mtlr_loss(
    logits: Any,
    time: Any,
    event: Any,
    grid: Grid,
    *,
    censoring: Credit = "midpoint",
    entry: Any = None,
    upper: Any = None,
) -> Array:
    """Negative log-likelihood of the MTLR head, per row; arguments as in `hazards.hazard_loss`.

    Censored rows have the log of the chance of what is left, as Yu et al. have, from the first bin
    that the rule leaves. Their penalty on differences between the parameters of neighbouring bins
    is `mtlr_smoothness`.
    """
    hazards = mtlr_hazards(logits)
    return hazard_loss(hazards, time, event, grid, censoring=censoring, entry=entry, upper=upper)


def mtlr_smoothness(kernel: Any) -> Array:
    """Sum of squared differences between neighbouring bins (Yu et al. 2011), scalar.

    Args:
      kernel: [..., K], the last layer's parameters.
    """
    return jnp.sum(jnp.square(jnp.diff(as_float(kernel), axis=-1)))


def _with_none(logits: Array) -> Array:
    """Appends the logit 0 of "no event in the grid"."""
    return jnp.concatenate([logits, jnp.zeros_like(logits[..., :1])], axis=-1)

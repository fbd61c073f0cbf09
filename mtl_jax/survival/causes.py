"""Competing risks in discrete time: per bin a softmax over C causes and survival.

Logits are [..., K, C]; in bin k, P(cause c | alive) = exp(x_kc) / (1 + sum_c exp(x_kc)). With one
cause this is `hazards`. Two facts make the rest: the hazard of any cause has the logit
logsumexp_c x_kc (`all_causes`), and given an event in bin k its cause is a softmax over c. Inside a
bin the rates are constant, so causes keep their proportions (DeepHit and discrete cause-specific
hazards as in Tutz and Schmid 2016, chapter 8; interpolation is this library's choice).
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from mtl_jax.survival import curves
from mtl_jax.survival.credit import Credit, HazardTargets, hazard_targets
from mtl_jax.survival.hazards import checked_logits
from mtl_jax.survival.intervals import Grid
from mtl_jax.survival.logspace import (
    as_float,
    bin_hazard,
    log_bin_hazard,
    log_event,
    log_sum,
    sums_before,
)

Array = jax.Array


def all_causes(logits: Any) -> Array:
    """Logits [..., K] of the hazard of an event of any cause, for `hazards` and `curves`."""
    return log_sum(as_float(logits))


def cause_loss(
    logits: Any,
    time: Any,
    event: Any,
    grid: Grid,
    *,
    censoring: Credit = "midpoint",
    entry: Any = None,
    upper: Any = None,
) -> Array:
    """Negative log-likelihood of lifetimes with causes, per row.

    Args:
      logits: [..., K, C].
      time: [...], see `credit.hazard_targets`, also for `censoring`, `entry` and `upper`.
      event: [...] whole numbers: 0 censored, c = 1 .. C the cause. Others are not checked.
      grid: K bins.
      censoring: midpoint, full, fraction or index.
      entry: [...] or None.
      upper: [...] or None.

    Returns:
      [...] of the logits' dtype, at least float32.
    """
    logits = checked_logits(logits, time, grid, causes=True)
    targets = hazard_targets(time, event, grid, censoring=censoring, entry=entry, upper=upper)
    return cause_targets_loss(logits, event, targets)


def cause_targets_loss(logits: Any, event: Any, targets: HazardTargets) -> Array:
    """`cause_loss` from targets that were made before.

    Args:
      logits: [..., K, C].
      event: [...] causes from 1.
      targets: [..., K] each.
    """
    logits = as_float(logits)
    window, exposure = (part.astype(logits.dtype) for part in targets)
    total = log_sum(logits)
    hazard = bin_hazard(total)
    lived = jnp.sum(exposure * hazard, axis=-1)
    ended = jnp.any(window > 0, axis=-1)
    cause = jnp.maximum(jnp.asarray(event).astype(jnp.int32) - 1, 0)[..., None, None]
    picked = jnp.take_along_axis(jax.nn.log_softmax(logits, axis=-1), cause, axis=-1)[..., 0]
    # Chance of the event in each bin of the window, given alive where the window begins.
    some = window > 0
    inside = log_event(log_bin_hazard(total) + jnp.log(jnp.where(some, window, 1)))
    by_bin = picked + inside - sums_before(window * hazard)
    # Rows without an event take all bins, finite, and drop the sum afterwards.
    counted = jnp.where(ended[..., None], some, True).astype(logits.dtype)
    return lived - jnp.where(ended, log_sum(by_bin, counted), 0)


def cumulative_incidence(logits: Any) -> Array:
    """F_c(e_k), the chance of an event of cause c before each edge; [..., K + 1, C], the first 0.

    At each edge the F_c and `curves.survival(all_causes(logits))` sum to 1.
    """
    logits = as_float(logits)
    total = log_sum(logits)
    before = -sums_before(bin_hazard(total))
    # log p_kc = x_kc - log(1 + sum exp x) = x_kc - H_k.
    mass = jnp.exp(before[..., None] + logits - bin_hazard(total)[..., None])
    return jnp.concatenate([jnp.zeros_like(mass[..., :1, :]), jnp.cumsum(mass, axis=-2)], axis=-2)


def cumulative_incidence_at(logits: Any, grid: Grid, t: Any, *, given: Any = None) -> Array:
    """F_c(t | alive at given) for times inside bins.

    Args:
      logits: [..., K, C].
      grid: K bins.
      t: a time, [T] or [..., T], as in `curves`.
      given: a time, [...] or None.

    Returns:
      [..., C] for one time, else [..., T, C].
    """
    logits = as_float(logits)
    total = curves.checked_hazards(log_sum(logits), grid)
    start = curves.row_times(given, grid.start, total)
    times = curves.shared_times(t, total)
    added = grid.share(start[..., None], times) * bin_hazard(total)[..., None, :]
    mass = jnp.exp(-sums_before(added)) * -jnp.expm1(-added)  # [..., T, K]
    causes = jax.nn.softmax(logits, axis=-1)
    found = jnp.sum(mass[..., None] * causes[..., None, :, :], axis=-2)
    return found[..., 0, :] if jnp.ndim(t) == 0 else found

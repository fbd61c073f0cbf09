"""DeepHit (Lee et al., AAAI 2018): chances of bins and causes, and a penalty on wrong orders.

One softmax over all K bins times C causes and "no event in the grid" (which the paper does not
have; its logit is 0, as in pycox, so that censoring at the horizon keeps some mass). The likelihood
is that of `causes` after a change of parameters, with all its rules. The ranking term takes
cumulative incidences, so it can be added to any head of this library.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from mtl_jax.errors import UserError
from mtl_jax.survival.causes import cause_loss, cumulative_incidence
from mtl_jax.survival.credit import Credit
from mtl_jax.survival.curves import survival
from mtl_jax.survival.intervals import Grid
from mtl_jax.survival.logspace import as_float, log_sum, log_sums_from

Array = jax.Array


def deephit_hazards(logits: Any) -> Array:
    """Hazard logits of each cause from DeepHit's joint softmax; [..., K, C] both.

    x_kc minus the log of all mass after bin k: what `causes` takes. For one cause see
    `pmf.pmf_hazards`.
    """
    logits = as_float(logits)
    by_bin = log_sum(logits)
    by_bin = jnp.concatenate([by_bin, jnp.zeros_like(by_bin[..., :1])], axis=-1)
    return logits - log_sums_from(by_bin)[..., 1:, None]


def deephit_loss(
    logits: Any,
    time: Any,
    event: Any,
    grid: Grid,
    *,
    rank_weight: float = 1.0,
    sigma: float = 0.1,
    censoring: Credit = "midpoint",
    weights: Any = None,
    entry: Any = None,
    upper: Any = None,
) -> Array:
    """Likelihood plus `rank_weight` times `ranking_loss`, per row.

    (pycox has alpha L1 + (1 - alpha) L2: divided by alpha, this with rank_weight =
    (1 - alpha) / alpha. The calibration term of the authors' code, off there, is left out.)

    Args:
      logits: [B, K, C]; C = 1 for one cause.
      time: [B], see `credit.hazard_targets`.
      event: [B] 0 censored, c = 1 .. C the cause.
      grid: K bins.
      rank_weight: of the ranking term; 0 leaves it out.
      sigma: see `ranking_loss`.
      censoring: midpoint, full, fraction or index.
      weights: [B] or None, see `ranking_loss`; the likelihood is weighed by the caller.
      entry: [B] or None.
      upper: [B] or None; the ranking term takes `time` for when such an event was.
    """
    hazards = deephit_hazards(logits)
    options: dict[str, Any] = {"censoring": censoring, "entry": entry, "upper": upper}
    likelihood = cause_loss(hazards, time, event, grid, **options)
    if not rank_weight:
        return likelihood
    incidence = cumulative_incidence(hazards)
    ranking = ranking_loss(incidence, time, event, grid, sigma=sigma, weights=weights, entry=entry)
    return likelihood + rank_weight * ranking


def ranking_loss(
    incidence: Any,
    time: Any,
    event: Any,
    grid: Grid,
    *,
    sigma: float = 0.1,
    weights: Any = None,
    entry: Any = None,
) -> Array:
    """DeepHit's ranking term, per row.

    For row i with an event of cause c in bin k, the mean over all rows j of
    exp(-(F_c(e_{k+1} | i) - F_c(e_{k+1} | j)) / sigma) where j lived longer than i, 0 where not. (A
    row that was censored at the very time of i lived longer. Times are compared, not bins; pycox
    compares bins.) This compares all pairs: memory is B x B.

    Args:
      incidence: [B, K + 1, C] of `causes.cumulative_incidence`, or [B, K + 1] of
        `single_incidence` for one cause.
      time: [B].
      event: [B] 0 censored, else the cause from 1; only whether it is 0 counts for one cause.
      grid: K bins; events outside have no term.
      sigma: how far apart incidences count as apart.
      weights: [B] of the rows j; rows of weight 0 are in no pair. None: ones.
      entry: [B] or None: j must be under observation at the time of i.

    Raises:
      UserError: sigma that is not above 0, or shapes that do not fit.
    """
    incidence, time, event = as_float(incidence), as_float(time), jnp.asarray(event)
    if not sigma > 0:
        raise UserError(f"sigma {sigma:g}; it must be above 0")
    if incidence.ndim == 2:
        incidence, event = incidence[..., None], event != 0
    if incidence.ndim != 3 or incidence.shape[:2] != (*time.shape, grid.bins + 1):
        raise UserError(
            f"incidences have shape {incidence.shape}; they must be [B, {grid.bins + 1}, C] "
            f"(causes.cumulative_incidence) for times {time.shape}"
        )
    weights = jnp.ones_like(time) if weights is None else jnp.asarray(weights)
    weights = weights.astype(incidence.dtype)
    occurred, bins = event != 0, grid.bin_of(time)
    inside = occurred & (bins >= 0) & (bins < grid.bins) & (weights > 0)
    edge = jnp.clip(bins + 1, 0, grid.bins)
    cause = jnp.maximum(event.astype(jnp.int32) - 1, 0)
    there = incidence[:, edge, cause].T  # [i, j]: of row j, for the cause and bin of row i
    own = jnp.diagonal(there)
    longer = time[:, None] < time[None, :]
    longer |= (time[:, None] == time[None, :]) & ~occurred[None, :]
    if entry is not None:
        longer &= as_float(entry)[None, :] < time[:, None]
    pairs = jnp.where(inside[:, None] & longer, weights[None, :], 0)
    # Where there is no pair the exponent may be anything, so it is set to 0 first.
    apart = jnp.where(pairs > 0, own[:, None] - there, 0)
    total = jnp.sum(pairs * jnp.exp(-apart / sigma), axis=-1)
    return total / jnp.maximum(jnp.sum(weights), jnp.finfo(weights.dtype).tiny)


def single_incidence(hazards: Any) -> Array:
    """1 - S at the edges, for `ranking_loss` with one cause; [..., K] gives [..., K + 1]."""
    return 1 - survival(hazards)

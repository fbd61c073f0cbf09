"""Discrete-time hazards: one sigmoid a bin, h_k = P(event in bin k | alive at its start).

The likelihood of Gensheimer and Narasimhan (2019), also called logistic hazard or nnet-survival;
Kitada et al. (JSAI 2020, equations 3-4) print its survival half. Extended here by left truncation,
by events that are known to lie between two times, and by four rules for the bin of a censoring;
all of it is in `survival.credit`.

Losses are negative log-likelihoods per row, [...], to be weighed and summed by the caller.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from mtl_jax.errors import UserError
from mtl_jax.survival.credit import Credit, HazardTargets, hazard_targets
from mtl_jax.survival.intervals import Grid
from mtl_jax.survival.logspace import as_float, bin_hazard, log_bin_hazard, log_event, log_sum

Array = jax.Array


def hazard_loss(
    logits: Any,
    time: Any,
    event: Any,
    grid: Grid,
    *,
    censoring: Credit = "midpoint",
    entry: Any = None,
    upper: Any = None,
) -> Array:
    """Negative log-likelihood of lifetimes under hazards sigmoid(logits).

    Args:
      logits: [..., K].
      time: [...], see `credit.hazard_targets` for this and all below.
      event: [...].
      grid: K bins.
      censoring: midpoint, full, fraction or index.
      entry: [...] or None.
      upper: [...] or None.

    Returns:
      [...] of the logits' dtype, at least float32; 0 for rows that say nothing.

    Raises:
      UserError: an unknown rule, or shapes that do not fit.
    """
    logits = checked_logits(logits, time, grid)
    targets = hazard_targets(time, event, grid, censoring=censoring, entry=entry, upper=upper)
    return targets_loss(logits, targets)


def targets_loss(logits: Any, targets: HazardTargets) -> Array:
    """`hazard_loss` from targets that were made before.

    Args:
      logits: [..., K].
      targets: [..., K] each.
    """
    logits = as_float(logits)
    event, exposure = (part.astype(logits.dtype) for part in targets)
    lived = jnp.sum(exposure * bin_hazard(logits), axis=-1)
    ended = jnp.any(event > 0, axis=-1)
    # Rows without an event take the sum over all bins, finite, and drop it afterwards.
    counted = jnp.where(ended[..., None], event, 1)
    died = log_event(log_sum(log_bin_hazard(logits), counted))
    return lived - jnp.where(ended, died, 0)


def piecewise_exponential_loss(
    logits: Any, time: Any, event: Any, grid: Grid, *, entry: Any = None, upper: Any = None
) -> Array:
    """Negative log-likelihood in continuous time, the hazard rate constant inside each bin.

    The rate in bin k is softplus(logits_k) / width_k, so that a bin's survival is 1 - sigmoid, as
    in `hazard_loss`, and every curve of `survival.curves` holds for it. (PC-Hazard of Kvamme and
    Borgan 2021; pycox leaves out the logarithm of the width, a constant for a given grid.)
    An exact time of an event contributes its density, per unit of time, so values can be compared
    between grids; events from the last edge on are survivors.

    Args and errors are those of `hazard_loss` with the rule "fraction".
    """
    logits = checked_logits(logits, time, grid)
    grouped = hazard_targets(time, event, grid, censoring="fraction", entry=entry, upper=upper)
    time = as_float(time)
    began = jnp.full_like(time, -jnp.inf) if entry is None else as_float(entry)
    exact = (jnp.asarray(event) != 0) & jnp.any(grouped.event > 0, axis=-1)
    if upper is not None:
        exact &= as_float(upper) <= time
    own = jax.nn.one_hot(grid.bin_of(time), grid.bins, dtype=logits.dtype)
    widths = jnp.asarray(grid.widths, logits.dtype).reshape((1,) * time.ndim + (-1,))
    log_rate = jnp.sum(own * (log_bin_hazard(logits) - jnp.log(widths)), axis=-1)
    exposure = grid.share(began, time).astype(logits.dtype)
    density = jnp.sum(exposure * bin_hazard(logits), axis=-1) - log_rate
    return jnp.where(exact, density, targets_loss(logits, grouped))


def checked_logits(logits: Any, time: Any, grid: Grid, causes: bool = False) -> Array:
    """Returns the logits as floats; a `UserError` if they are not [..., K] for times [...].

    Args:
      logits: [..., K], or [..., K, C] with `causes`.
      time: [...].
      grid: K bins.
      causes: whether the logits have a last axis of causes.
    """
    logits = as_float(logits)
    wanted = (*jnp.shape(time), grid.bins)
    found = logits.shape[:-1] if causes else logits.shape
    if found != wanted:
        tail = " and an axis of causes" if causes else ""
        raise UserError(
            f"logits have shape {logits.shape}; for times {jnp.shape(time)} on {grid.bins} bins "
            f"they must be {wanted}{tail}"
        )
    return logits

"""Cox's proportional hazards: partial likelihood, baseline hazard, survival curves.

The hazard of a row is h_0(t) exp(eta); eta is linear in the features for Cox (1972), the output of
a network for DeepSurv (Katzman et al. 2018): the loss is the same. Ties as Breslow (1974) or Efron
(1977), left truncation, weights and strata in O(N log N).

The loss couples rows: it is that of the risk sets that it is given. Over several devices gather
`eta` and the data first; a batch of rows makes an estimate from smaller risk sets.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp

from mtl_jax.errors import UserError, did_you_mean
from mtl_jax.survival.intervals import Grid
from mtl_jax.survival.logspace import LOG_ZERO, as_float, hazard_logit, log_sum, log_sums_from
from mtl_jax.survival.risk_sets import RiskSets, log_risk, log_run, risk_sets

Array = jax.Array
Ties = Literal["breslow", "efron"]
TIES: tuple[Ties, ...] = get_args(Ties)


def cox_loss(
    eta: Any,
    time: Any,
    event: Any,
    *,
    ties: Ties = "efron",
    weights: Any = None,
    entry: Any = None,
    strata: Any = None,
) -> Array:
    """Terms of the negative log partial likelihood, one a row.

    The negative log partial likelihood is sum_i weights_i loss_i. For an event at t with risk sum
    R = sum of w_j exp(eta_j) over rows with entry_j < t <= time_j in its stratum,

      breslow   loss_i = log R - eta_i;
      efron     loss_i = mean over l = 0 .. d - 1 of log(R - l / d D) - eta_i, with D the part of R
                of the d events at t (with weights as in R's `survival` package).

    Args:
      eta: [N] log risk.
      time: [N] of the event or censoring.
      event: [N] 0 for censored.
      ties: breslow or efron.
      weights: [N] not negative; rows of weight 0 are in no risk set and have loss 0. None: ones.
      entry: [N] or None; a row whose entry is its own time is at risk then.
      strata: [N] whole numbers: risk sets are within one. None: one stratum.

    Returns:
      [N] of the dtype of `eta`, at least float32; 0 for censored rows.

    Raises:
      UserError: an unknown rule for ties, or arrays that are not all [N].
    """
    fit = _fit(eta, time, event, ties, weights, entry, strata)
    eta = as_float(eta)[fit.sets.order]
    return fit.sets.back(jnp.where(fit.died, fit.mean_over_ties(fit.log_at_risk) - eta, 0))


class Baseline(NamedTuple):
    """A step function: the cumulative hazard of a row with eta = 0.

    Attributes:
      time: [N] ascending.
      log_jump: [N] log of what each adds to the cumulative hazard, `LOG_ZERO` for nothing.
      log_hazard: [N] log of the cumulative hazard just after each.
    """

    time: Array
    log_jump: Array
    log_hazard: Array


def cox_baseline(
    eta: Any,
    time: Any,
    event: Any,
    *,
    ties: Ties = "efron",
    weights: Any = None,
    entry: Any = None,
) -> Baseline:
    """Breslow's estimator of the cumulative baseline hazard, from training rows.

    It adds sum_i w_i / R at each time of events; with Efron's ties, the mean of 1 / (R - l / d D)
    in place of 1 / R. With eta = 0 this is the Nelson-Aalen estimator (Fleming and Harrington's,
    for efron). With strata: once for each, the weights of all others 0.

    Arguments and errors are those of `cox_loss`.
    """
    fit = _fit(eta, time, event, ties, weights, entry, None)
    # log of w_i times the mean of 1 / R; the mean is taken of logs' exponentials relative to R.
    inverse = fit.mean_over_ties(jnp.exp(fit.log_full - fit.log_at_risk))
    log_jump = fit.log_weights - fit.log_full + jnp.log(jnp.where(fit.died, inverse, 1))
    log_jump = jnp.where(fit.died, log_jump, LOG_ZERO)
    times = as_float(time)[fit.sets.order]
    return Baseline(times, log_jump, log_sums_from(log_jump[::-1])[::-1])


def cox_survival(baseline: Baseline, eta: Any, t: Any) -> Array:
    """S(t) = exp(-H_0(t) exp(eta)), a step function.

    Args:
      baseline: from `cox_baseline`.
      eta: [...].
      t: [T] times that all rows share, or one time.

    Returns:
      [..., T], or [...] for one time.
    """
    eta = as_float(eta)
    t = jnp.asarray(t).astype(baseline.time.dtype)
    place = jnp.searchsorted(baseline.time, t.reshape(-1), side="right")
    before = jnp.concatenate(
        [jnp.full(1, LOG_ZERO, baseline.log_hazard.dtype), baseline.log_hazard]
    )
    log_hazard = before[place].astype(eta.dtype).reshape((1,) * eta.ndim + (-1,))
    found = jnp.exp(-jnp.exp(log_hazard + eta[..., None]))
    return found[..., 0] if t.ndim == 0 else found


def cox_hazards(baseline: Baseline, eta: Any, grid: Grid) -> Array:
    """Hazard logits of the Cox model on a grid, for `curves` and `scores`.

    Bin k holds what the baseline adds in [e_k, e_{k+1}). What it adds before the first edge is
    left out: the curves begin at 1 there.

    Args:
      baseline: from `cox_baseline`.
      eta: [...].
      grid: K bins.

    Returns:
      [..., K]; about -80 and less in bins without an event.
    """
    eta = as_float(eta)
    own = grid.bin_of(baseline.time)[None, :] == jnp.arange(grid.bins)[:, None]
    by_bin = jnp.broadcast_to(baseline.log_jump[None, :], own.shape)
    log_added = log_sum(by_bin, own.astype(by_bin.dtype))
    # A floor: hazards this small are 0 in every curve, and logits of -1e30 would be NaN somewhere.
    log_added = jnp.maximum(log_added, -80).astype(eta.dtype)
    return hazard_logit(log_added.reshape((1,) * eta.ndim + (-1,)) + eta[..., None])


class _Fit(NamedTuple):
    """What loss and baseline need of the risk sets; all [N] by position.

    Attributes:
      sets: the order.
      died: events of rows that count.
      tied: how many of them share a row's stratum and time, 1 or more.
      log_weights: log of the weights, `LOG_ZERO` for 0.
      log_full: log R.
      log_at_risk: log(R - l / d D), the row being the l-th of its ties; log R for breslow.
    """

    sets: RiskSets
    died: Array
    tied: Array
    log_weights: Array
    log_full: Array
    log_at_risk: Array

    def mean_over_ties(self, values: Array) -> Array:
        """Mean of values over the events of the same stratum and time; [N], by position."""
        counted = jnp.where(self.died, values, 0)
        total = jax.ops.segment_sum(counted, self.sets.first, values.shape[0])
        return total[self.sets.first] / self.tied.astype(values.dtype)


def _fit(
    eta: Any, time: Any, event: Any, ties: Ties, weights: Any, entry: Any, strata: Any
) -> _Fit:
    if ties not in TIES:
        raise UserError(f"ties {ties!r} is unknown; {did_you_mean(ties, TIES)}")
    eta, time, event = as_float(eta), as_float(time), jnp.asarray(event) != 0
    weights = jnp.ones_like(eta) if weights is None else jnp.asarray(weights).astype(eta.dtype)
    entry = None if entry is None else as_float(entry)
    strata = None if strata is None else jnp.asarray(strata)
    arrays = {"eta": eta, "time": time, "event": event, "weights": weights}
    arrays |= {"entry": entry, "strata": strata}
    for name, array in arrays.items():
        if array is not None and (array.ndim != 1 or array.shape != eta.shape):
            raise UserError(f"{name} has shape {array.shape}; all must be [N], as eta {eta.shape}")
    sets = risk_sets(time, entry, strata)
    eta, weights = eta[sets.order], weights[sets.order]
    counts = weights > 0
    died = event[sets.order] & counts
    log_weights = jnp.where(counts, jnp.log(jnp.where(counts, weights, 1)), LOG_ZERO)
    values = jnp.where(counts, log_weights + eta, LOG_ZERO)
    full = log_risk(sets, values)
    deaths = jnp.cumsum(died, dtype=jnp.int32)
    before = (deaths - died)[sets.first]  # events before a row's run
    tied = jnp.maximum(deaths[sets.end - 1] - before, 1)
    if ties == "breslow":
        return _Fit(sets, died, tied, log_weights, full, full)
    share = (deaths - died - before).astype(eta.dtype) / tied.astype(eta.dtype)  # l / d
    share = jnp.where(died, share, 0)
    dying = log_run(sets, jnp.where(died, values, LOG_ZERO))
    # R - l / d D is R / d at least; the bound is only met when rounding makes D exceed R.
    left = 1 - share * jnp.exp(jnp.where(died, dying - full, 0))
    least = 0.5 / tied.astype(eta.dtype)
    return _Fit(sets, died, tied, log_weights, full, full + jnp.log(jnp.maximum(left, least)))

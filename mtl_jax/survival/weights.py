"""Weights of training rows from clicks and impressions (Kitada et al., JSAI 2020, equation 2).

The paper's loss of an ad is (r + 1) L with its click-through rate r = clicks / impressions; the 1
keeps ads with few clicks. Its comparison, L_imp, weighs by normalised impressions. Real rates are
about 1%, so the paper's weights are all about 1.01 and can hardly matter; the transforms bring r
to a scale on which they do.

  raw      r, as in the paper
  minmax   r from the lowest (0) to the highest (1) of the training rows
  rank     share of training rows with a lower rate, ties half; 0 to 1
  log      log(1 + r / mean) / log(1 + highest / mean), 0 to 1
  eb       (clicks + a) / (impressions + a + b), with the beta distribution of the training rows'
           rates by moments: rates of few impressions move to the mean (empirical Bayes)

Fit on training rows, with counts from before the landmark only: what is counted later is part of
the outcome. Weights are for the training loss; never an input, never in an evaluation. Rows
without impressions have r = 0 (eb: the mean).
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np

from mtl_jax.errors import UserError, did_you_mean
from mtl_jax.survival.logspace import as_float

Array = jax.Array
Transform = Literal["raw", "minmax", "rank", "log", "eb"]
TRANSFORMS: tuple[Transform, ...] = get_args(Transform)


class CtrWeights(NamedTuple):
    """Fitted click-through weights: call `apply_ctr` with it.

    Attributes:
      transform: its name.
      low: lowest rate of the training rows.
      high: highest rate.
      mean: all clicks over all impressions.
      prior: (a, b) of the beta distribution.
      sorted_rates: [N] rates of the training rows, ascending, for "rank"; else [0].
      scale: weights are divided by it: 1, or their mean over the training rows.
    """

    transform: Transform
    low: float
    high: float
    mean: float
    prior: tuple[float, float]
    sorted_rates: np.ndarray
    scale: float


def fit_ctr(
    clicks: Any, impressions: Any, transform: Transform = "raw", *, mean_one: bool = False
) -> CtrWeights:
    """Fits click-through weights to training rows. Host side, float64.

    Args:
      clicks: [N], 0 to impressions.
      impressions: [N].
      transform: raw, minmax, rank, log or eb.
      mean_one: divide weights by their mean over these rows, which keeps the size of the loss.

    Raises:
      UserError: an unknown transform, no row, or counts that cannot be.
    """
    if transform not in TRANSFORMS:
        raise UserError(
            f"transform {transform!r} is unknown; {did_you_mean(transform, TRANSFORMS)}"
        )
    clicks, shown = np.asarray(clicks, np.float64), np.asarray(impressions, np.float64)
    if clicks.ndim != 1 or clicks.shape != shown.shape or not len(clicks):
        raise UserError(f"clicks {clicks.shape} and impressions {shown.shape} must be [N], N >= 1")
    bad = np.flatnonzero(~((clicks >= 0) & (clicks <= shown) & np.isfinite(shown)))
    if len(bad):
        row = bad[0]
        raise UserError(
            f"row {row} has {clicks[row]:g} clicks of {shown[row]:g} impressions; clicks must be "
            "from 0 to the impressions"
        )
    rates = np.divide(clicks, shown, out=np.zeros_like(clicks), where=shown > 0)
    state = CtrWeights(
        transform=transform,
        low=float(rates.min()),
        high=float(rates.max()),
        mean=float(clicks.sum() / max(shown.sum(), 1.0)),
        prior=_beta_prior(clicks, shown),
        sorted_rates=np.sort(rates) if transform == "rank" else np.zeros(0),
        scale=1.0,
    )
    if not mean_one:
        return state
    weights = np.asarray(apply_ctr(state, clicks, shown), np.float64)
    return state._replace(scale=float(weights.mean()))


def apply_ctr(state: CtrWeights, clicks: Any, impressions: Any) -> Array:
    """Returns the weights (transformed rate + 1) / scale, float32 or wider; jit-able.

    Rates outside those of the training rows are cut to their range (minmax, log).

    Args:
      state: from `fit_ctr`, a closure under jit.
      clicks: [...].
      impressions: [...].
    """
    clicks, shown = as_float(clicks), as_float(impressions)
    some = shown > 0
    rates = jnp.where(some, clicks / jnp.where(some, shown, 1), 0)
    if state.transform == "minmax":
        spread = state.high - state.low
        rates = jnp.clip((rates - state.low) / spread, 0, 1) if spread > 0 else 0 * rates
    elif state.transform == "rank":
        # Rates of training rows must find themselves: both sides in the same dtype.
        known = jnp.asarray(state.sorted_rates, rates.dtype)
        below, upto = (jnp.searchsorted(known, rates, side=side) for side in ("left", "right"))
        rates = (below + upto).astype(rates.dtype) / (2 * known.size)
    elif state.transform == "log":
        mean = max(state.mean, np.finfo(np.float32).tiny)
        top = np.log1p(state.high / mean)
        rates = jnp.clip(jnp.log1p(rates / mean) / top, 0, 1) if top > 0 else 0 * rates
    elif state.transform == "eb":
        a, b = state.prior
        rates = (clicks + a) / (shown + (a + b))
    return (rates + 1) / state.scale


class ImpressionWeights(NamedTuple):
    """Fitted impression weights (the paper's L_imp): call `apply_impressions` with it.

    Attributes:
      normaliser: impressions are divided by it.
      scale: and the weights by this: 1, or their mean over the training rows.
    """

    normaliser: float
    scale: float


def fit_impressions(
    impressions: Any, normaliser: float | None = None, *, mean_one: bool = False
) -> ImpressionWeights:
    """Fits impression weights to training rows. Host side.

    How the paper normalises is not said. By default the most shown row has weight 1; as
    impressions have a heavy tail most weights are then small, which `mean_one` makes up for.

    Args:
      impressions: [N], not negative.
      normaliser: impressions of weight 1 (30,000 in the authors' KDD'19 code); None: the highest.
      mean_one: divide weights by their mean over these rows.

    Raises:
      UserError: no row, negative impressions, none at all, or a normaliser that is not above 0.
    """
    shown = np.asarray(impressions, np.float64)
    if shown.ndim != 1 or not len(shown) or not np.all((shown >= 0) & np.isfinite(shown)):
        raise UserError("impressions must be [N], N >= 1, finite and not negative")
    if shown.max() == 0:
        raise UserError("no row has impressions; train without impression weights")
    normaliser = float(shown.max()) if normaliser is None else normaliser
    if not normaliser > 0:
        raise UserError(f"normaliser {normaliser:g}; it must be above 0")
    return ImpressionWeights(normaliser, float(shown.mean() / normaliser) if mean_one else 1.0)


def apply_impressions(state: ImpressionWeights, impressions: Any) -> Array:
    """Returns the weights impressions / normaliser / scale; [...]."""
    return as_float(impressions) / (state.normaliser * state.scale)


def _beta_prior(clicks: np.ndarray, shown: np.ndarray) -> tuple[float, float]:
    """(a, b) of a beta distribution of the rates, by moments over rows with impressions.

    Rows weigh by their impressions. The variance of the observed rates less what binomial noise
    alone would make is the variance of the true rates; if nothing is left, or nearly so, all rates
    are taken to be the mean, with a prior worth as much as all rows together.
    """
    some = shown > 0
    clicks, shown = clicks[some], shown[some]
    total = shown.sum()
    if not len(shown) or not 0 < clicks.sum() < total:
        rate = clicks.sum() / total if total else 0.0
        return float(rate * max(total, 1.0)), float((1 - rate) * max(total, 1.0))
    mean = clicks.sum() / total
    noise = mean * (1 - mean)
    observed = float(np.sum(shown * (clicks / shown - mean) ** 2))
    # E[observed] = (rows - 1) (noise - var) + var (total - sum shown^2 / total), solved for var.
    rows = len(shown)
    reach = total - np.sum(shown**2) / total - (rows - 1)
    variance = (observed - (rows - 1) * noise) / reach if reach > 0 else 0.0
    strength = noise / variance - 1 if variance > 0 else np.inf
    strength = min(max(strength, 1e-3), total)
    return float(mean * strength), float((1 - mean) * strength)

"""Histories: daily amounts until a landmark, read at several landmarks in one pass.

`history_features` turns amounts (impressions, clicks, ...) into features of each day and of all
days up to it; `encode_history` runs an LSTM (as Kitada et al., JSAI 2020, figure 1) or a causal
convolution over them. What either says at day d depends on days 1..d alone, so that one pass gives
the encoding at every landmark.

Ours are the features. Log ratios of sums, such as the click rate so far, are close to sufficient
for a creative's quality and are given, not left for the network to find; each is smoothed by a
prior that is fitted to training rows, so that a rate of few counts is near the mean.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np

from mtl_jax.layers.dropout import dropout
from mtl_jax.layers.nets import dense, init_dense
from mtl_jax.layers.precision import like
from mtl_jax.survival.weights import fit_ctr
from mtl_jax.systems.ad_survival.sequence import init_lstm, lstm

Array = jax.Array
Tree = Any
Kind = Literal["lstm", "conv"]
KINDS: tuple[Kind, ...] = get_args(Kind)

CLIP = 5.0  # Standardised values beyond it say nothing but that they are far out.
DILATIONS = (1, 2, 4)
TAPS = 3  # Days that one convolution sees: with the dilations above, 15 days in all.
# (numerator, denominator, whether it is a proportion of the denominator's counts).
_RATIOS = (
    ("clicks", "impressions", True),
    ("conversions", "clicks", True),
    ("cost", "impressions", False),
    ("cost", "conversions", False),
)
_LEAST_SD = 1e-5  # Of a logarithm: what varies less is the rounding of float32 amounts.
_LEAST = 0.5  # Counts that a prior is worth at least, so that no logarithm is of nearly nothing.


class HistoryScale(NamedTuple):
    """What history features need to know of training rows; K features, R ratios.

    Attributes:
      names: of the F amounts.
      priors: R pairs (a, b): a ratio of x to y is log((x + a) / (y + b)).
      mean: K means over recorded days.
      sd: K standard deviations, 1 for constant features.
    """

    names: tuple[str, ...]
    priors: tuple[tuple[float, float], ...]
    mean: tuple[float, ...]
    sd: tuple[float, ...]


class HistorySetting(NamedTuple):
    """What a history encoder is made of.

    Attributes:
      inputs: K, features a day.
      hidden: width of the LSTM or the convolutions.
      out: size of the encoding.
      kind: lstm, or conv: residual causal convolutions that see 15 days.
      rate: dropout before the output layer.
    """

    inputs: int
    hidden: int = 32
    out: int = 32
    kind: Kind = "lstm"
    rate: float = 0.2


def ratios(names: tuple[str, ...]) -> tuple[tuple[int, int, bool], ...]:
    """Returns places in `names` of (numerator, denominator), and whether it is a proportion.

    Known are clicks / impressions, conversions / clicks, cost / impressions and
    cost / conversions, in small or capital letters.
    """
    place = {name.lower(): at for at, name in enumerate(names)}
    return tuple((place[x], place[y], of) for x, y, of in _RATIOS if x in place and y in place)


def feature_names(names: tuple[str, ...]) -> tuple[str, ...]:
    """Returns the names of the K features: K / 2 of the day, then the same of all days so far."""
    daily = [*names, *(f"{names[x]} / {names[y]}" for x, y, _ in ratios(names))]
    return (*(f"log {name}" for name in daily), *(f"log total {name}" for name in daily))


def fit_history(amounts: np.ndarray, days: np.ndarray, names: tuple[str, ...]) -> HistoryScale:
    """Fits priors, means and standard deviations to histories of training rows. Host side.

    The prior of a proportion is the beta distribution of the rows' rates by moments
    (`survival.weights`); that of a cost is one count at the mean cost.

    Args:
      amounts: [N, D, F] daily amounts.
      days: [N] days on record; later ones are not looked at.
      names: of the F amounts.
    """
    recorded = np.arange(amounts.shape[1]) < days[:, None]
    amounts = np.where(recorded[..., None], amounts, 0).astype(np.float64)
    totals = np.maximum(amounts, 0).sum(1)
    priors = tuple(_prior(totals[:, x], totals[:, y], of) for x, y, of in ratios(names))
    count = len(feature_names(names))
    scale = HistoryScale(names, priors, (0.0,) * count, (1.0,) * count)
    raw = _raw_features(np, amounts, scale)[recorded]
    if not len(raw):
        return scale
    mean, sd = raw.mean(0), raw.std(0)
    sd = np.where(sd > _LEAST_SD, sd, 1.0)
    return scale._replace(mean=tuple(mean.tolist()), sd=tuple(sd.tolist()))


def _prior(numerator: np.ndarray, denominator: np.ndarray, proportion: bool) -> tuple[float, float]:
    top, bottom = float(numerator.sum()), float(denominator.sum())
    if not top or not bottom:
        return 1.0, 1.0
    if not proportion:
        return top / bottom, 1.0
    # Logs credit a click to the day it came in, and so may count more clicks than impressions.
    a, b = fit_ctr(np.minimum(numerator, denominator), denominator, "eb").prior
    a, b = (a, b) if a > 0 else (_LEAST, bottom)
    grow = max(1.0, _LEAST / a)
    return a * grow, (a + b) * grow


def history_features(xp: Any, amounts: Any, scale: HistoryScale) -> Any:
    """Returns standardised features of each day, cut to +-5; day d's use days 1..d alone.

    Daily amounts and their sums so far enter as log(1 + x) (sign(x) log(1 + |x|) where amounts may
    be negative); ratios as the log of the smoothed ratio of the day, and of the sums so far.

    Args:
      xp: numpy or jax.numpy.
      amounts: [B, D, F] daily amounts.
      scale: of `fit_history`.

    Returns:
      [B, D, K], in the order of `feature_names`, in the dtype of `amounts`.

    Raises:
      ValueError: amounts that are not [B, D, F].
    """
    if amounts.ndim != 3 or amounts.shape[-1] != len(scale.names):
        raise ValueError(f"amounts must be [B, D, {len(scale.names)}]. Found {amounts.shape}.")
    raw = _raw_features(xp, amounts, scale)
    mean, sd = (xp.asarray(each, raw.dtype)[None, None] for each in (scale.mean, scale.sd))
    return xp.clip((raw - mean) / sd, -CLIP, CLIP)


def _raw_features(xp: Any, amounts: Any, scale: HistoryScale) -> Any:
    parts = []
    for each in (amounts, xp.cumsum(amounts, axis=1)):
        parts.append(xp.sign(each) * xp.log1p(xp.abs(each)))
        counts = xp.maximum(each, 0)
        for (x, y, _), (a, b) in zip(ratios(scale.names), scale.priors, strict=True):
            ratio = xp.log(counts[..., x] + a) - xp.log(counts[..., y] + b)
            parts.append(ratio[..., None])
    return xp.concatenate(parts, axis=-1)


def init_history(key: Array, setting: HistorySetting) -> Tree:
    """Returns the parameters of a history encoder.

    Raises:
      ValueError: an unknown kind.
    """
    if setting.kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}. Found {setting.kind!r}.")
    a, b, c = jax.random.split(key, 3)
    hidden = setting.hidden
    params = {
        "out": init_dense(a, hidden + setting.inputs, setting.out),
        "nothing": jnp.zeros(setting.out),
    }
    if setting.kind == "lstm":
        return {**params, "lstm": init_lstm(b, setting.inputs, hidden)}
    layers = [init_dense(k, TAPS * hidden, hidden) for k in jax.random.split(c, len(DILATIONS))]
    return {**params, "enter": init_dense(b, setting.inputs, hidden), "layers": layers}


def encode_history(
    params: Tree,
    features: Array,
    days: Array,
    setting: HistorySetting,
    keys: Array | None = None,
    site: int = 0,
) -> Array:
    """Encodes histories as they are seen at M landmarks each, in one pass over the days.

    The output layer reads the state after the last visible day and that day's features, so that
    sums so far have a way past the recurrence. Days after a landmark never change its encoding.

    Args:
      params: of `init_history`.
      features: [B, D, K], see `history_features`; D need be no more than the latest landmark.
      days: [B, M] int, how many days are visible, cut to 0..D. At 0 the encoding is a trained
        vector that stands for "nothing yet", the same for all rows.
      setting: see `HistorySetting`.
      keys: one an example for dropout; None for evaluation.
      site: number of the one dropout mask, so that no two encoders draw the same.

    Returns:
      [B, M, out].

    Raises:
      ValueError: features that are not [B, D, K], or days that are not [B, M].
    """
    if features.ndim != 3 or features.shape[-1] != setting.inputs:
        raise ValueError(f"features must be [B, D, {setting.inputs}]. Found {features.shape}.")
    if days.ndim != 2 or len(days) != len(features):
        raise ValueError(f"days must be [{len(features)}, M]. Found {days.shape}.")
    length = features.shape[1]
    nothing = jnp.broadcast_to(params["nothing"], (*days.shape, setting.out))
    if not length or not days.shape[1]:
        return nothing
    days, features = jnp.clip(days, 0, length), like(features, params)
    if setting.kind == "lstm":
        seen = jnp.arange(length)[None] < days.max(1, keepdims=True)
        states = lstm(params["lstm"], features, seen.astype(features.dtype))
    else:
        states = _convolve(params, features)
    last = jnp.maximum(days - 1, 0)[..., None]
    both = [jnp.take_along_axis(each, last, axis=1) for each in (states, features)]
    found = jnp.concatenate(both, axis=-1)
    found = dense(params["out"], dropout(found, keys, setting.rate, site))
    return jnp.where(days[..., None] > 0, found, nothing)


def _convolve(params: Tree, x: Array) -> Array:
    """Residual causal convolutions: [B, D, K] to [B, D, hidden]."""
    x = dense(params["enter"], x)
    for layer, step in zip(params["layers"], DILATIONS, strict=True):
        past = jnp.pad(x, ((0, 0), ((TAPS - 1) * step, 0), (0, 0)))
        taps = [past[:, tap * step : tap * step + x.shape[1]] for tap in range(TAPS)]
        x = x + jax.nn.gelu(dense(layer, jnp.concatenate(taps, axis=-1)))
    return x


def at_days(features: Array, days: Array) -> Array:
    """Returns the features of the last visible day: what is known at a landmark without a network.

    Of the second half of `feature_names` these are the statistics of the paper: log sums, log
    rates.

    Args:
      features: [B, D, K].
      days: [B, M] int, how many days are visible, cut to 0..D.

    Returns:
      [B, M, K]; zeros, which is the mean, where no day is visible.
    """
    length = features.shape[1]
    if not length:
        return jnp.zeros((*days.shape, features.shape[-1]), features.dtype)
    days = jnp.clip(days, 0, length)[..., None]
    found = jnp.take_along_axis(features, jnp.maximum(days - 1, 0), axis=1)
    return jnp.where(days > 0, found, 0)

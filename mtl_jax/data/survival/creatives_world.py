"""What is true in the world of `creatives`: settings, latent numbers and daily hazards.

`mtl_jax.data.survival.creatives` says what the world is and draws from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from mtl_jax.data.lifetimes import LifetimeSet
from mtl_jax.data.survival.creatives_delivery import operator_signal
from mtl_jax.errors import UserError

DAYS = 120
CAUSES = ("cut-out", "wear-out", "background")
BACKGROUND = 0.002  # Daily chance of a stop that has nothing to do with the creative.
MATCH_CHANCE = 0.35  # of the event behind the latent x.
QUALITY: Mapping[str, float] = {
    "a_t": 0.55,
    "a_i": 0.55,
    "c": 0.45,
    "x": 0.40,
    "b": 0.35,
    "e": 0.60,
}
FATIGUE: Mapping[str, float] = {"f_t": 0.55, "f_i": 0.55, "f_c": 0.40, "f_n": 0.50}
FATIGUE_OF_QUALITY = -0.25
LATENTS = (*QUALITY, *FATIGUE)
_DAY = np.arange(1, DAYS + 1)
CUT_DECAY = np.exp(-(_DAY - 1) / 4.0)
WEAR_ODDS = np.where(_DAY >= 8, np.maximum(_DAY - 6.0, 1.0) ** 1.1, 0.0)


class Settings(NamedTuple):
    """What world to make.

    Attributes:
      creatives: N; there are N // 15 campaigns.
      cut_base: a0, log odds of a cut-out on day 1 at quality 0.
      cut_slope: a1, by how much quality lowers them.
      wear_base: b0, log odds of a wear-out on day 8 at fatigue 0, less 1.1 log 2.
      wear_slope: b1, by how much fatigue raises them.
      feedback: whether the operator looks at clicks, where he otherwise knows the quality.
      window: days during which creatives begin and after which nothing is seen.
      image_size: 32 or 64 pixels.
    """

    creatives: int = 20_000
    cut_base: float = -1.55
    cut_slope: float = 2.0
    wear_base: float = -7.2
    wear_slope: float = 2.0
    feedback: bool = False
    window: int = 240
    image_size: int = 32


def check_settings(settings: Settings, seed: int = 0) -> None:
    """Raises a `UserError` that names the first setting out of its range."""
    bases = (settings.cut_base, settings.wear_base)
    slopes = (settings.cut_slope, settings.wear_slope)
    for holds, found, rule in (
        (settings.creatives >= 150, f"creatives = {settings.creatives}", "at least 150"),
        (
            bool((np.abs(bases) <= 20).all()),
            f"cut_base, wear_base = {bases[0]}, {bases[1]}",
            "in -20..20",
        ),
        (
            all(0 <= slope <= 20 for slope in slopes),
            f"cut_slope, wear_slope = {slopes[0]}, {slopes[1]}",
            "in 0..20",
        ),
        (settings.window >= 20, f"window = {settings.window}", "at least 20 days"),
        (settings.image_size in (32, 64), f"image_size = {settings.image_size}", "32 or 64"),
        (0 <= seed < 2**63, f"seed = {seed}", "in 0..2**63 - 1"),
    ):
        if not holds:
            raise UserError(f"creatives: {found}; it must be {rule}")


def quality_of(latents: Mapping[str, np.ndarray]) -> np.ndarray:
    """Returns q [N] float64, the weighted sum of `QUALITY`."""
    return sum(
        (weight * latents[name].astype(np.float64) for name, weight in QUALITY.items()),
        np.zeros(1),
    )


def fatigue_of(latents: Mapping[str, np.ndarray], quality: np.ndarray) -> np.ndarray:
    """Returns f [N] float64, the weighted sum of `FATIGUE` and of the quality."""
    return sum(
        (weight * latents[name].astype(np.float64) for name, weight in FATIGUE.items()),
        FATIGUE_OF_QUALITY * quality,
    )


def cut_out(signal: np.ndarray, base: np.ndarray | float, slope: np.ndarray | float) -> np.ndarray:
    """Returns the chance of a cut-out before it decays with age, by what the operator goes by."""
    return 1 / (1 + np.exp(slope * signal - base))


def wear_out_odds(
    fatigue: np.ndarray, base: np.ndarray | float, slope: np.ndarray | float
) -> np.ndarray:
    """Returns the odds of a wear-out, to be multiplied by `WEAR_ODDS` of the day."""
    return np.exp(base + slope * fatigue)


def cause_hazards(cut: np.ndarray, odds: np.ndarray) -> np.ndarray:
    """Returns P(stopped on day t for cause k | alive on day t - 1), [N, DAYS, 3] float64.

    Causes act independently; who stops is stopped for one cause, in proportion to their chances.

    Args:
      cut: [N, 1] or [N, DAYS], of `cut_out`.
      odds: [N], of `wear_out_odds`.
    """
    wear = odds[:, None] * WEAR_ODDS
    each = np.stack(
        np.broadcast_arrays(cut * CUT_DECAY, wear / (1 + wear), np.full(DAYS, BACKGROUND)), -1
    )
    any_cause = 1 - (1 - each).prod(-1)
    return each * (any_cause / each.sum(-1))[..., None]


def true_hazards(found: LifetimeSet, rows: np.ndarray | None = None) -> np.ndarray:
    """Returns the hazards that the generated rows were drawn with, by day and cause.

    In feedback mode they are those of the clicks that came, which no prediction can know.

    Args:
      found: a set of `creatives.generate`.
      rows: which rows; all by default.

    Returns:
      [n, DAYS, 3] float64, P(stopped on day t for cause k | alive on day t - 1).
    """
    require_truth(found)
    chosen = slice(None) if rows is None else rows
    truth = {name: values[chosen].astype(np.float64) for name, values in found.truth.items()}
    cut_base, cut_slope, wear_base, wear_slope = truth["hazard"].T
    signal = truth["q"][:, None]
    if is_feedback(found):
        path = found.path[chosen].astype(np.float64)
        signal = operator_signal(path[..., 0], path[..., 1], truth["ctr_mean"], truth["ctr_sd"])
    cut = cut_out(signal, cut_base[:, None], cut_slope[:, None])
    return cause_hazards(cut, wear_out_odds(truth["f"], wear_base, wear_slope))


def is_feedback(found: LifetimeSet) -> bool:
    """Returns whether the operator of a generated set looked at clicks."""
    return "ctr_mean" in found.truth


def require_truth(found: LifetimeSet) -> None:
    """Raises a `UserError` unless `found` is a set of `creatives.generate`."""
    if missing := [name for name in (*LATENTS, "q", "f", "hazard") if name not in found.truth]:
        raise UserError(
            f"{found.name} has no {missing[0]} in its truth; only sets of `creatives` have oracles"
        )

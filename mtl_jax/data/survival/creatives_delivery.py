"""What a creative of `creatives` delivers each day, and what an operator sees of it."""

from __future__ import annotations

import numpy as np

from mtl_jax.data.recommendation.draws import Draws
from mtl_jax.data.survival.sampling import poisson

AMOUNTS = ("impressions", "clicks", "conversions", "cost")
CLICK_RATE = 0.015
CLICK_SLOPE = 0.35  # Of the log click rate in quality.
CONVERSION_RATE = 0.03
CONVERSION_NOISE = 0.2  # Standard deviation of a creative's own log conversion rate.
SMOOTHING = 1000.0  # Impressions at the usual rate that the operator adds to those he counts.
LOOK_BACK = 3  # Days that he counts.
WEEKDAY = np.array([1.04, 1.02, 1.0, 1.0, 0.98, 0.94, 1.02])


def expected_impressions(rate: np.ndarray, start: np.ndarray, days: int) -> np.ndarray:
    """Returns [N, days] float64: the plan, times the weekday, times a ramp of a few days.

    Args:
      rate: [N], impressions a day once delivery runs.
      start: [N], calendar day of day 1.
      days: how many.
    """
    day = np.arange(days)
    calendar = (start[:, None].astype(np.int64) + day) % len(WEEKDAY)
    return rate[:, None] * WEEKDAY[calendar] * (1 - 0.3 * np.exp(-day / 1.5))


def click_rates(quality: np.ndarray, fatigue: np.ndarray, days: int) -> np.ndarray:
    """Returns P(click | impression) [..., days]: 0.015 exp(0.35 q), falling from day 8 on."""
    age = np.maximum(np.arange(1, days + 1) - 7.0, 0.0)
    fall = 0.02 * np.logaddexp(fatigue, 0.0)
    return CLICK_RATE * np.exp(CLICK_SLOPE * quality[..., None] - fall[..., None] * age)


def conversion_rate(quality: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """Returns P(conversion | click): 0.03 exp(0.3 q + 0.2 noise), at most 0.95."""
    return np.minimum(CONVERSION_RATE * np.exp(0.3 * quality + CONVERSION_NOISE * noise), 0.95)


def draw_path(
    draws: Draws, expected: np.ndarray, clicks: np.ndarray, conversions: np.ndarray, bid: np.ndarray
) -> np.ndarray:
    """Returns `AMOUNTS` of every day, [N, days, 4] float32.

    Impressions are Poisson, clicks binomial of them, conversions binomial of those. That is the
    same as three independent Poisson numbers, of converting clicks, other clicks and the rest.

    Args:
      draws: where randomness comes from.
      expected: [N, days] impressions.
      clicks: [N, days] P(click | impression).
      conversions: [N] P(conversion | click).
      bid: [N] float32, cost of a thousand impressions.
    """
    expected_clicks = expected * clicks
    converted = poisson(draws, expected_clicks * conversions[:, None])
    clicked = converted + poisson(draws, expected_clicks * (1 - conversions[:, None]))
    shown = clicked + poisson(draws, expected * (1 - clicks))
    cost = shown * (bid.astype(np.float64)[:, None] / 1000)
    return np.stack([shown, clicked, converted, cost], -1).astype(np.float32)


def operator_signal(
    impressions: np.ndarray, clicks: np.ndarray, mean: np.ndarray, sd: np.ndarray
) -> np.ndarray:
    """Returns the score that an operator who looks at data goes by on each day.

    It is the log click rate of the last `LOOK_BACK` whole days, smoothed by `SMOOTHING` impressions
    at the rate usual in the genre, as a z-score in the genre. On day 1 nothing is seen: it is 0.

    Args:
      impressions: [..., days].
      clicks: [..., days].
      mean: [...], of the log click rate in the genre.
      sd: [...], of it.

    Returns:
      [..., days] float64.
    """
    seen, usual = [], np.exp(mean)[..., None]
    for counts in (impressions, clicks):
        total = np.zeros((*counts.shape[:-1], counts.shape[-1] + 1))
        np.cumsum(counts, axis=-1, out=total[..., 1:])
        past = total[..., :-1].copy()
        past[..., LOOK_BACK:] -= total[..., : -1 - LOOK_BACK]
        seen.append(past)
    rate = (seen[1] + SMOOTHING * usual) / (seen[0] + SMOOTHING)
    return (np.log(rate) - mean[..., None]) / sd[..., None]

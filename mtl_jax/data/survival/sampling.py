"""Normal and Poisson numbers made of `Draws`, so that no version of numpy changes them."""

from __future__ import annotations

import math

import numpy as np

from mtl_jax.data.recommendation.draws import Draws

_BY_SEARCH = 10.0  # Below this mean a search from 0 is short; above it rejection holds.
_LOG_FACTORIALS = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, 32)))])


def normal(draws: Draws, *shape: int) -> np.ndarray:
    """Returns standard normal numbers, float64 of `shape` (Box and Muller, 1958)."""
    count = math.prod(shape)
    radius, angle = draws.uniform(2, (count + 1) // 2)
    radius, angle = np.sqrt(-2 * np.log1p(-radius)), 2 * np.pi * angle
    return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])[:count].reshape(shape)


def poisson(draws: Draws, mean: np.ndarray) -> np.ndarray:
    """Returns Poisson numbers, int64 of the shape of `mean` (at least 0, float64).

    Small means go up the distribution function; others are Hoermann's transformed rejection
    (PTRS, "The transformed rejection method for generating Poisson random variables", 1993).
    """
    flat = np.asarray(mean, np.float64).ravel()
    found = np.empty(flat.shape, np.int64)
    small = flat < _BY_SEARCH
    found[small] = _by_search(draws, flat[small])
    found[~small] = _by_rejection(draws, flat[~small])
    return found.reshape(np.shape(mean))


def log_factorial(count: np.ndarray) -> np.ndarray:
    """Returns log(count!) for whole numbers from 0 on; relative error below 1e-13."""
    x = np.maximum(count, 1.0)
    series = 1 / (12 * x) - 1 / (360 * x**3) + 1 / (1260 * x**5)
    stirling = (x + 0.5) * np.log(x) - x + 0.5 * np.log(2 * np.pi) + series
    exact = _LOG_FACTORIALS[np.clip(count, 0, len(_LOG_FACTORIALS) - 1).astype(int)]
    return np.where(count < len(_LOG_FACTORIALS), exact, stirling)


def _by_search(draws: Draws, mean: np.ndarray) -> np.ndarray:
    left = draws.uniform(len(mean))
    found = np.zeros(len(mean), np.int64)
    chance = np.exp(-mean)
    waiting = np.arange(len(mean))
    number = 0
    # At 200 a mean below 10 has no chance left that float64 can tell from 0.
    while len(waiting) and number < 200:
        left[waiting] -= chance[waiting]
        waiting = waiting[left[waiting] >= 0]
        number += 1
        found[waiting] = number
        chance[waiting] *= mean[waiting] / number
    return found


def _by_rejection(draws: Draws, mean: np.ndarray) -> np.ndarray:
    found = np.empty(len(mean), np.int64)
    waiting = np.arange(len(mean))
    while len(waiting):
        own = mean[waiting]
        spread = 0.931 + 2.53 * np.sqrt(own)
        tail = -0.059 + 0.02483 * spread
        across, height = draws.uniform(2, len(own))
        across -= 0.5
        edge = np.maximum(0.5 - np.abs(across), 2.0**-60)
        number = np.floor((2 * tail / edge + spread) * across + own + 0.43)
        quick = (edge >= 0.07) & (height <= 0.9277 - 3.6224 / (spread - 2))
        possible = (number >= 0) & ~((edge < 0.013) & (height > edge))
        least = np.maximum(height, 2.0**-60) * (1.1239 + 1.1328 / (spread - 3.4))
        bound = np.log(least / (tail / edge**2 + spread))
        counted = np.maximum(number, 0.0)
        under = bound <= counted * np.log(own) - own - log_factorial(counted)
        taken = quick | (possible & under)
        found[waiting[taken]] = number[taken].astype(np.int64)
        waiting = waiting[~taken]
    return found

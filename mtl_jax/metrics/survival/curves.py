"""Curves on a grid: their values between its times, and integrals over time."""

from __future__ import annotations

from typing import Any

import numpy as np

from mtl_jax.errors import UserError
from mtl_jax.metrics.survival.inputs import check_choice

INTERPOLATIONS = ("step", "linear", "log_linear")


def column_at(values: np.ndarray, k: int) -> np.ndarray:
    """Column k of values [N, K]; 1 for k = -1, the time before the grid."""
    return np.ones(len(values)) if k < 0 else values[:, k]


def curves_at(
    values: np.ndarray, grid: np.ndarray, times: np.ndarray, interpolation: str = "step"
) -> np.ndarray:
    """Values [N, M] at `times` [M] of survival curves [N, K] on a grid [K].

    The curves are 1 at time 0, and keep their last value beyond the grid.

    Args:
      values: [N, K].
      grid: [K] rising.
      times: [M], 0 or more.
      interpolation: "step": the value at the last grid time at or before t; "linear"; or
        "log_linear", a constant hazard between grid times (down to 0: linear there).
    """
    check_choice("interpolation", interpolation, INTERPOLATIONS)
    if grid[0] > 0:
        grid = np.concatenate([[0.0], grid])
        values = np.concatenate([np.ones((len(values), 1)), values], axis=1)
    left = np.clip(np.searchsorted(grid, times, "right") - 1, 0, len(grid) - 1)
    if interpolation == "step":
        return values[:, left]
    right = np.minimum(left + 1, len(grid) - 1)
    width = np.where(right > left, grid[right] - grid[left], 1.0)
    share = np.clip((times - grid[left]) / width, 0, 1)[None]
    low, high = values[:, left], values[:, right]
    straight = low + share * (high - low)
    if interpolation == "linear":
        return straight
    positive = (low > 0) & (high > 0)
    safe_low, safe_high = np.where(positive, low, 1.0), np.where(positive, high, 1.0)
    return np.where(positive, safe_low * (safe_high / safe_low) ** share, straight)


def integrate_curves(
    values: np.ndarray,
    grid: np.ndarray,
    start: float,
    stop: float,
    interpolation: str = "step",
) -> np.ndarray:
    """Integrals [N] of survival curves [N, K] from `start` to `stop`, exact for the interpolation.

    Raises:
      UserError: not 0 <= start < stop, or `stop` lies beyond the grid, where nothing is known.
    """
    check_choice("interpolation", interpolation, INTERPOLATIONS)
    if not 0 <= start < stop:
        raise UserError(f"the time from {start:g} to {stop:g} is none; give 0 <= start < tau")
    if stop > grid[-1]:
        raise UserError(
            f"tau {stop:g} lies beyond the last time {grid[-1]:g} of the curves; lower it or"
            " predict for longer"
        )
    inner = grid[(grid > start) & (grid < stop)]
    knots = np.concatenate([[start], inner, [stop]])
    at = curves_at(values, grid, knots, interpolation)
    low, high, width = at[:, :-1], at[:, 1:], np.diff(knots)[None]
    if interpolation == "step":
        return np.sum(low * width, axis=1)
    mean = (low + high) / 2
    if interpolation == "log_linear":
        # The mean of an exponential, which for nearly equal ends is that of the line.
        curved = (low > 0) & (high > 0) & (np.abs(low - high) > 1e-4 * low)
        safe_low, safe_high = np.where(curved, low, 2.0), np.where(curved, high, 1.0)
        mean = np.where(curved, (safe_low - safe_high) / np.log(safe_low / safe_high), mean)
    return np.sum(mean * width, axis=1)


def mean_over_time(values: Any, grid: Any) -> float:
    """The mean over time of values [K] on a grid [K], by the trapezoidal rule; of one value, it.

    Raises:
      UserError: shapes that differ, or a grid that does not rise.
    """
    values, grid = np.asarray(values, np.float64), np.asarray(grid, np.float64)
    if values.shape != grid.shape or values.ndim != 1 or not np.all(np.diff(grid) > 0):
        raise UserError(
            f"values {values.shape} and grid {grid.shape} must both be [K], the grid rising"
        )
    if len(grid) == 1:
        return float(values[0])
    areas = (values[1:] + values[:-1]) / 2 * np.diff(grid)
    return float(areas.sum() / (grid[-1] - grid[0]))

"""Curves of discrete hazards: survival, restricted mean, median, all also given alive at a time.

Hazards are logits [..., K] on a grid of K bins. Inside a bin the hazard rate is constant, so that
log S(t) is linear between the edges; this is exact for "fraction" credit and the interpolation of
choice for the other rules. Up to the first edge S = 1. Beyond the last nothing is known: integrals
end there and S(t) stays at S(e_K).

Every model of this library gives such logits (`pmf.pmf_hazards`, `pmf.mtlr_hazards`,
`cox.cox_hazards`, `causes.all_causes`, `two_term.stitch`), so these functions serve all of them.

Common arguments:

  logits: [..., K].
  grid: K bins.
  t: a time, for a result [...]; or times [T] that all rows share, or [..., T], for a result
    [..., T]. One own time a row: `t[:, None]`.
  given: a time, or [...] times, at which the row is known to be alive: the result is conditional
    on that, and 1 (survival) or 0 (hazard) before it. None: nothing is known.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mtl_jax.errors import UserError
from mtl_jax.survival.intervals import Grid
from mtl_jax.survival.logspace import (
    as_float,
    bin_hazard,
    log_sum,
    log_sums_from,
    mean_survival,
    sums_before,
)

Array = jax.Array

# Quadrature of `log_rmst` inside a bin: 32 points give 1e-10 for bins whose ends differ by a
# factor of up to 50; a bin is cut where exp(-40) of those alive at its start are left.
_POINTS, _WEIGHTS = np.polynomial.legendre.leggauss(32)
_LONGEST = 40.0


def cumulative_hazard(logits: Any) -> Array:
    """-log S at the K + 1 edges; [..., K + 1], the first 0."""
    hazard = bin_hazard(as_float(logits))
    return jnp.concatenate([jnp.zeros_like(hazard[..., :1]), jnp.cumsum(hazard, -1)], axis=-1)


def survival(logits: Any) -> Array:
    """S(e_k) = prod_{i < k} (1 - h_i) at the K + 1 edges; [..., K + 1], the first 1."""
    return jnp.exp(-cumulative_hazard(logits))


def log_pmf(logits: Any) -> Array:
    """Log chances of the event in each bin and of none in the grid; [..., K + 1]."""
    logits = as_float(logits)
    alive = -cumulative_hazard(logits)
    return jnp.concatenate([alive[..., :-1] + jax.nn.log_sigmoid(logits), alive[..., -1:]], -1)


def cumulative_hazard_at(logits: Any, grid: Grid, t: Any, *, given: Any = None) -> Array:
    """-log S(t | given); see the module."""
    logits = checked_hazards(logits, grid)
    start = row_times(given, grid.start, logits)
    share = grid.share(start[..., None], shared_times(t, logits))
    total = jnp.sum(share * bin_hazard(logits)[..., None, :], axis=-1)
    return total[..., 0] if jnp.ndim(t) == 0 else total


def hazard_until(logits: Any, grid: Grid, hi: Any = None, *, given: Any = None) -> Array:
    """-log S(hi | given) at one time a row; [...].

    Args:
      logits: [..., K].
      grid: K bins.
      hi: a time or [...]; None: the last edge.
      given: a time, [...] or None.
    """
    logits = checked_hazards(logits, grid)
    _check_window(grid, None, hi)
    start, high = row_times(given, grid.start, logits), row_times(hi, grid.end, logits)
    return jnp.sum(grid.share(start, high) * bin_hazard(logits), axis=-1)


def survival_at(logits: Any, grid: Grid, t: Any, *, given: Any = None) -> Array:
    """S(t | given) = min(1, S(t) / S(given)); see the module."""
    return jnp.exp(-cumulative_hazard_at(logits, grid, t, given=given))


def rmst(logits: Any, grid: Grid, lo: Any = None, hi: Any = None, *, given: Any = None) -> Array:
    """Restricted mean survival time: the integral of S(t | given) from `lo` to `hi`; [...].

    With `given` = `lo` this is the expected time still to be lived before `hi`.

    Args:
      logits: [..., K].
      grid: K bins.
      lo: a time or [...]; None: the first edge.
      hi: a time or [...], cut at the last edge; None: the last edge.
      given: a time, [...] or None.

    Raises:
      UserError: `hi` is a number beyond the grid or below `lo`.
    """
    logits = checked_hazards(logits, grid)
    _check_window(grid, lo, hi)
    low, high = row_times(lo, grid.start, logits), row_times(hi, grid.end, logits)
    high = jnp.minimum(high, grid.end)
    start = jnp.maximum(row_times(given, grid.start, logits), grid.start)
    surely = jnp.maximum(jnp.minimum(start, high) - low, 0)
    low = jnp.maximum(low, start)
    hazard = bin_hazard(logits)
    before = jnp.sum(grid.share(start, low) * hazard, axis=-1, keepdims=True)
    added = grid.share(low, high) * hazard
    alive = jnp.exp(-before - sums_before(added))
    return surely + jnp.sum(alive * grid.overlap(low, high) * mean_survival(added), axis=-1)


def expected_remaining(logits: Any, grid: Grid, given: Any, hi: Any = None) -> Array:
    """Expected time still to be lived before `hi`, for rows alive at `given`; [...].

    For an ad: its expected days left. See `rmst`.
    """
    return rmst(logits, grid, given, hi, given=given)


def log_rmst(
    logits: Any, grid: Grid, hi: Any = None, *, given: Any = None, shift: float | None = None
) -> Array:
    """Expected logarithm of the restricted time, E[log(min(T, hi) + shift) | given]; [...].

    Concordance depends on which number a curve is turned into; this one weighs early times more
    than `rmst` does. It is log(a + shift) + the integral of S(t | a) / (t + shift) from a, the
    later of `given` and the first edge, to `hi`; by quadrature inside bins, to about 1e-10.

    Args:
      logits: [..., K].
      grid: K bins.
      hi: a time or [...], cut at the last edge; None: the last edge.
      given: a time, [...] or None.
      shift: added to times. None: 0 on grids that begin above 0, else 1, so that times from 0 are
        read as numbers of days.

    Raises:
      UserError: `hi` beyond the grid, or a shift that makes log 0 of the first edge.
    """
    logits = checked_hazards(logits, grid)
    _check_window(grid, None, hi)
    shift = (0.0 if grid.start > 0 else 1.0) if shift is None else shift
    if grid.start + shift <= 0:
        raise UserError(f"shift {shift:g}: times from {grid.start:g} on must stay above 0 with it")
    high = jnp.minimum(row_times(hi, grid.end, logits), grid.end)
    start = jnp.maximum(row_times(given, grid.start, logits), grid.start)
    length, added = grid.overlap(start, high), grid.share(start, high) * bin_hazard(logits)
    alive = jnp.exp(-sums_before(added))
    begin = jnp.maximum(start[..., None], _along(grid.edges[:-1], logits)) + shift
    short = _LONGEST / jnp.maximum(added, _LONGEST)  # 1 unless H is above 40
    points = jnp.asarray((_POINTS + 1) / 2, logits.dtype).reshape((1,) * logits.ndim + (-1,))
    weights = jnp.asarray(_WEIGHTS / 2, logits.dtype).reshape(points.shape)
    part = short[..., None] * points
    inside = jnp.exp(-added[..., None] * part) / (begin[..., None] + length[..., None] * part)
    integral = alive * length * short * jnp.sum(weights * inside, axis=-1)
    # Rows given alive beyond `hi` keep log(hi + shift).
    return jnp.log(jnp.minimum(start, high) + shift) + jnp.sum(integral, axis=-1)


def median(logits: Any, grid: Grid, *, given: Any = None, level: float = 0.5) -> Array:
    """The time at which S(t | given) has fallen to `level`; infinity beyond the last edge; [...].

    Args:
      logits: [..., K].
      grid: K bins.
      given: a time, [...] or None.
      level: 0 < level < 1; 0.5 is the median, 0.9 the time by which a tenth has ended.

    Raises:
      UserError: a level outside (0, 1).
    """
    found, reached = _fall_to(logits, grid, given, level)
    return jnp.where(reached, found, jnp.inf)


def restricted_median(
    logits: Any, grid: Grid, *, given: Any = None, level: float = 0.5, hi: Any = None
) -> Array:
    """`median`, but no more than `hi` (None: the last edge), so finite; [...]."""
    _check_window(grid, None, hi)
    found, _ = _fall_to(logits, grid, given, level)
    return jnp.minimum(found, jnp.asarray(grid.end if hi is None else hi, found.dtype))


def mean_curve(logits: Any, axis: int = 0) -> Array:
    """Hazard logits of the average of several models' curves (an ensemble).

    Survival and the chances of bins are averaged, not hazards or logits.

    Args:
      logits: [M, ..., K], M models on `axis`.
      axis: the models', not the last.

    Returns:
      [..., K].
    """
    several = jnp.moveaxis(log_pmf(logits), axis, 0)
    return log_pmf_hazards(log_sum(several, axis=0))


def log_pmf_hazards(log_mass: Any) -> Array:
    """Hazard logits of log chances of bins; the chances need not sum to 1.

    logit h_k = log p_k - log sum_{i > k} p_i, by sums in log space from the end.

    Args:
      log_mass: [..., K + 1], the last for no event in the grid.

    Returns:
      [..., K].
    """
    log_mass = as_float(log_mass)
    return log_mass[..., :-1] - log_sums_from(log_mass)[..., 1:]


def _fall_to(logits: Any, grid: Grid, given: Any, level: float) -> tuple[Array, Array]:
    """Returns (time of the fall to `level`, or the last edge; whether it happens); [...] each."""
    if not 0 < level < 1:
        raise UserError(f"level {level:g}; it must be above 0 and below 1")
    logits = checked_hazards(logits, grid)
    start = jnp.maximum(row_times(given, grid.start, logits), grid.start)
    length, share = grid.overlap(start, grid.end), grid.share(start, grid.end)
    added = share * bin_hazard(logits)
    wanted = -np.log(level)
    missing = wanted - sums_before(added)
    # The part of each bin that is lived through before the fall: 1, then one between, then 0.
    inside = (missing > 0) & (missing < added)
    part = jnp.where(inside, missing, 1) / jnp.where(inside, added, 1)
    time = start + jnp.sum(length * jnp.where(missing > 0, part, 0), axis=-1)
    return time, jnp.sum(added, axis=-1) >= wanted


def checked_hazards(logits: Any, grid: Grid) -> Array:
    """Returns the logits as floats; a `UserError` if they are not [..., K]."""
    logits = as_float(logits)
    if logits.ndim < 1 or logits.shape[-1] != grid.bins:
        raise UserError(f"logits have shape {logits.shape}; the grid has {grid.bins} bins")
    return logits


def row_times(time: Any, default: float, logits: Array) -> Array:
    """A time, or one of each row, or None for the default: as floats of shape [...]."""
    time = jnp.asarray(default if time is None else time).astype(logits.dtype)
    if time.ndim and time.shape != logits.shape[:-1]:
        raise UserError(f"times of rows have shape {time.shape}; the rows {logits.shape[:-1]}")
    return jnp.broadcast_to(time, logits.shape[:-1])


def shared_times(t: Any, logits: Array) -> Array:
    """A time or [T] times of all rows, or [..., T], as floats with the rows' axes in front."""
    times = jnp.asarray(t).astype(logits.dtype)
    return times.reshape((1,) * (logits.ndim - 1) + (-1,)) if times.ndim <= 1 else times


def _along(values: tuple[float, ...], logits: Array) -> Array:
    return jnp.asarray(values, logits.dtype).reshape((1,) * (logits.ndim - 1) + (-1,))


def _check_window(grid: Grid, lo: Any, hi: Any) -> None:
    """Refuses numbers that cannot be meant; what is traced or an array is cut at the edges."""
    if isinstance(hi, int | float):
        if hi > grid.end:
            raise UserError(f"hi = {hi:g} is beyond the grid's last edge {grid.end:g}")
        if isinstance(lo, int | float) and lo > hi:
            raise UserError(f"lo = {lo:g} is above hi = {hi:g}")

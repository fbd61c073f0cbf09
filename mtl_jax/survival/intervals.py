"""Grids of intervals of time: the bins over which discrete-time models put their hazards.

A grid with edges e_0 < e_1 < ... < e_K has K bins [e_k, e_{k+1}). Nothing is known of hazards
outside: survival is 1 up to e_0 (rows that ended before e_0 are not in the likelihood), and a row
that lived to e_K or longer has survived every bin, however it ended.

Days and times. The ad papers (Kitada et al., JSAI 2020 and Applied Sciences 12:3594) number days
from 1: day d is the time from d - 1 to d days after the start. `SHORT`, `LONG` and `OVERALL` are
their intervals as printed, for day numbers. For times that count from 0 ("days lived", real
numbers, as in `data.lifetimes`) take

  SHORT.shift(-1)      the same days exactly: edges (0, 2, 4, 6, 9), since day d is [d - 1, d);
  SHORT.from_zero()    the printed edges read as ages, (0, 3, 5, 7, 10): the horizons 10 and 120
                       stay what they are, and the first bin holds everything before age 3.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mtl_jax.errors import UserError
from mtl_jax.survival.logspace import as_float

Array = jax.Array


@dataclasses.dataclass(frozen=True)
class Grid:
    """Bins [e_0, e_1), ..., [e_{K-1}, e_K). Hashable: a static argument or a closure under jit.

    Attributes:
      edges: K + 1 times, e_0 >= 0, increasing also as float32.

    Raises:
      UserError: edges that are too few, not finite, negative or not increasing.
    """

    edges: tuple[float, ...]

    def __post_init__(self) -> None:
        edges = tuple(float(edge) for edge in self.edges)
        object.__setattr__(self, "edges", edges)
        shown = ", ".join(f"{edge:g}" for edge in edges[:12]) + (", ..." if edges[12:] else "")
        if len(edges) < 2:
            raise UserError(f"grid edges ({shown}): a grid needs 2 edges or more")
        if not all(math.isfinite(edge) and edge >= 0 for edge in edges):
            raise UserError(f"grid edges ({shown}): they must be finite and not negative")
        if not np.all(np.diff(np.asarray(edges, np.float32)) > 0):
            raise UserError(f"grid edges ({shown}): they must increase, in float32 too")

    @property
    def bins(self) -> int:
        """Number K of bins."""
        return len(self.edges) - 1

    @property
    def start(self) -> float:
        """First edge."""
        return self.edges[0]

    @property
    def end(self) -> float:
        """Last edge, the horizon."""
        return self.edges[-1]

    @property
    def widths(self) -> tuple[float, ...]:
        """Widths of the K bins."""
        return tuple(b - a for a, b in zip(self.edges[:-1], self.edges[1:], strict=True))

    @property
    def midpoints(self) -> tuple[float, ...]:
        """Midpoints of the K bins."""
        return tuple((a + b) / 2 for a, b in zip(self.edges[:-1], self.edges[1:], strict=True))

    def shift(self, by: float) -> Grid:
        """The grid moved by a time: edges e_k + by."""
        return Grid(tuple(edge + by for edge in self.edges))

    def from_zero(self) -> Grid:
        """The grid with its first edge at 0: the first bin takes what is before it."""
        return Grid((0.0, *self.edges[1:]))

    def bin_of(self, time: Any) -> Array:
        """Number of the bin that holds each time: -1 before e_0, K from e_K on.

        Args:
          time: any shape.

        Returns:
          int32 of that shape.
        """
        return count_upto(self.edges, time) - 1

    def overlap(self, lo: Any, hi: Any) -> Array:
        """Length of each bin that lies between two times.

        Args:
          lo: [...], may be infinite.
          hi: [...]; where it is not above `lo` the overlap is 0.

        Returns:
          [..., K], float32 or wider.
        """
        lo, hi = jnp.broadcast_arrays(as_float(lo), as_float(hi))
        edges = jnp.asarray(self.edges, jnp.promote_types(lo.dtype, hi.dtype))
        edges = edges.reshape((1,) * lo.ndim + edges.shape)
        first = jnp.maximum(lo[..., None], edges[..., :-1])
        last = jnp.minimum(hi[..., None], edges[..., 1:])
        return jnp.maximum(last - first, 0)

    def share(self, lo: Any, hi: Any) -> Array:
        """Share, 0 to 1, of each bin that lies between two times; see `overlap`; [..., K]."""
        length = self.overlap(lo, hi)
        edges = jnp.asarray(self.edges, length.dtype)
        width = jnp.diff(edges).reshape((1,) * (length.ndim - 1) + (-1,))
        # Not length * (1 / width): a whole bin must be 1 exactly.
        return length / width


def count_upto(points: tuple[float, ...], time: Any, strict: bool = False) -> Array:
    """How many of the `points` are <= (with `strict`: <) each time; int32 of the time's shape."""
    time = as_float(time)[..., None]
    held = jnp.asarray(points, time.dtype).reshape((1,) * (time.ndim - 1) + (-1,))
    return jnp.sum(held < time if strict else held <= time, axis=-1, dtype=jnp.int32)


# JSAI 2020; the 2022 paper prints the same edges with bins open on the other side.
SHORT = Grid((1, 3, 5, 7, 10))
LONG = Grid((1, 10, 30, 60, 90, 120))
# One head for both terms: the union. The papers do not print it.
OVERALL = Grid((1, 3, 5, 7, 10, 30, 60, 90, 120))


def uniform_grid(end: float, bins: int, start: float = 0.0) -> Grid:
    """Returns the grid of `bins` bins of equal width from `start` to `end`."""
    if bins < 1:
        raise UserError(f"grid of {bins} bins; it needs 1 or more")
    return Grid(tuple(np.linspace(start, end, bins + 1).tolist()))


def quantile_grid(
    time: Any, event: Any, bins: int, *, start: float = 0.0, end: float | None = None
) -> Grid:
    """Returns a grid whose bins have about the same share of events, from training rows.

    Shares are drops of the Kaplan-Meier curve, so that censoring does not pull the edges to early
    times (Kvamme and Borgan 2021). Edges are times of events, each bin holds at least
    one. Host side, numpy.

    Args:
      time: [N].
      event: [N], 0 for censored.
      bins: number of bins.
      start: first edge; at or below every time of an event.
      end: last edge; events from there on do not count. None: just above the last event's time.

    Raises:
      UserError: times that are not finite, or fewer distinct times of events than bins.
    """
    time, event = np.asarray(time, np.float64), np.asarray(event) != 0
    if time.ndim != 1 or time.shape != event.shape:
        raise UserError(f"quantile_grid: time {time.shape} and event {event.shape} must be [N]")
    if not np.isfinite(time).all():
        raise UserError("quantile_grid: time holds NaN or infinity; leave those rows out")
    inside = event if end is None else event & (time < end)
    places, deaths = np.unique(time[inside], return_counts=True)
    if bins < 1 or len(places) < bins:
        raise UserError(
            f"quantile_grid: {bins} bins from {len(places)} distinct times of events; "
            "each bin needs one, ask for fewer bins (1 or more)"
        )
    if places[0] < start:
        raise UserError(f"quantile_grid: an event at {places[0]:g} is before start = {start:g}")
    at_risk = len(time) - np.searchsorted(np.sort(time), places)
    alive = np.cumprod(1 - deaths / at_risk)
    before = np.concatenate([[1.0], alive[:-1]])
    wanted = 1 - (1 - alive[-1]) * np.arange(1, bins) / bins  # survival at the inner edges
    cuts = np.searchsorted(-before, -wanted)
    # Heavy ties may give a cut twice: move up, then down, so that no bin is without an event.
    steps = np.arange(bins - 1)
    cuts = np.maximum.accumulate(np.maximum(cuts, 1) - steps) + steps
    cuts = np.minimum(cuts, len(places) - (bins - 1) + steps)
    if end is None:
        end = float(np.nextafter(np.float32(places[-1]), np.float32(np.inf)))
    return Grid((start, *places[cuts].tolist(), end))

"""What a lifetime says about each bin of a grid: the targets of every discrete-time likelihood.

With H_k the cumulative hazard of bin k, the likelihood of a row is

  log L = log(1 - exp(-sum_k event_k H_k)) - sum_k exposure_k H_k,

the first term for rows with an event only. An event in bin j has event_j = 1, and its term is
log h_j; an event known to lie between two times has the bins between them, and its term is
log(S(l) - S(r)) in pieces. Exposure are the bins lived through without it. Both depend on data
alone, so they can be made once, and a loss is two products.

A time inside a bin does not say whether the row lived through "the bin". Four rules, `CREDITS`,
for the exposure of a row censored at c, or under observation only from entry a on (left
truncation):

  rule        censored at c: bin k counts if    entered at a: bin k counts if
  midpoint    its midpoint is <= c              its midpoint is > a
  full        its end is <= c                   its start is >= a
  index       its start is <= c                 its end is > a
  fraction    by the share that is before c     by the share that is after a

* midpoint: the rule of nnet-survival (Gensheimer and Narasimhan 2019), which [JSAI 2020] uses.
* full: only bins lived through from end to end under observation.
* index: the bins of entry and of censoring count as whole. This is the loss of pycox's
  `LogisticHazard` in terms of bin numbers. (pycox's own label transform rounds times of censored
  rows down to the edge before, which comes to "full".)
* fraction: constant hazard inside a bin, no approximation beyond that.

Under midpoint and fraction, a row split at any time s before its event's bin into one censored at s
and one that enters at s has the same likelihood as the whole row. When s is an edge, or a is, all
rules but "index" for c agree.

The bin of an event. The event counts whole (1) under the first three rules, wherever in the bin a
row entered. Under "fraction" it counts by what was still to come of the bin at entry, so that its
term is log(1 - (1 - h)^share): the chance of an event in that part of the bin.

Events between (l, r] (`upper`). Under "fraction" both ends are interpolated, exactly. Under the
others the term holds whole bins: those after the bins credited for l, through the bin that holds r
(an r on an edge belongs to the bin before it), and at least that bin. So an interval inside one bin
is an event in that bin. An interval that reaches beyond the last edge is a survivor to l.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp

from mtl_jax.errors import UserError, did_you_mean
from mtl_jax.survival.intervals import Grid, count_upto
from mtl_jax.survival.logspace import as_float

Array = jax.Array
Credit = Literal["midpoint", "full", "fraction", "index"]
CREDITS: tuple[Credit, ...] = get_args(Credit)


class HazardTargets(NamedTuple):
    """What rows say about bins; see the module.

    Attributes:
      event: [..., K] shares of bins in which the event lies; all 0 without event in the grid.
      exposure: [..., K] shares of bins lived through without it.
    """

    event: Array
    exposure: Array

    @property
    def informative(self) -> Array:
        """[...] bool: rows that say anything; the others have loss 0 and should weigh 0."""
        return jnp.any((self.event > 0) | (self.exposure > 0), axis=-1)


def hazard_targets(
    time: Any,
    event: Any,
    grid: Grid,
    *,
    censoring: Credit = "midpoint",
    entry: Any = None,
    upper: Any = None,
) -> HazardTargets:
    """Returns the targets of lifetimes on a grid; the rules are the module's.

    Rows that ended before their entry, or before the first edge, say nothing: all 0.

    Args:
      time: [...] of the event, or last seen without it; any unit that the grid has.
      event: [...] 0 for censored, anything else for an event (of whatever cause).
      grid: K bins.
      censoring: the rule of credit, one of `CREDITS`.
      entry: [...], under observation from here on; None: from the beginning.
      upper: [...]; where it is above the `time` of an event, that lies in (time, upper]. Infinity
        makes a survivor. None: every event is at `time`.

    Raises:
      UserError: an unknown rule, or shapes that differ.
    """
    if censoring not in CREDITS:
        raise UserError(f"censoring {censoring!r} is unknown; {did_you_mean(censoring, CREDITS)}")
    rows = _Rows.of(time, event, grid, entry, upper)
    return _by_share(rows, grid) if censoring == "fraction" else _by_bin(rows, grid, censoring)


class _Rows(NamedTuple):
    """Lifetimes [...] read against a grid.

    Attributes:
      time: float.
      entry: float, -inf without.
      upper: float, the time without.
      interval: whether the event lies between `time` and `upper`.
      ended: whether the event lies in the grid, under observation.
      seen: whether the row was ever under observation.
      first: bin of `time`.
      last: bin of the event, or the last one that it may lie in.
    """

    time: Array
    entry: Array
    upper: Array
    interval: Array
    ended: Array
    seen: Array
    first: Array
    last: Array

    @classmethod
    def of(cls, time: Any, event: Any, grid: Grid, entry: Any, upper: Any) -> _Rows:
        time, occurred = as_float(time), jnp.asarray(event) != 0
        entry = jnp.full_like(time, -jnp.inf) if entry is None else as_float(entry)
        upper = time if upper is None else as_float(upper)
        for name, array in (("event", occurred), ("entry", entry), ("upper", upper)):
            if array.shape != time.shape:
                raise UserError(
                    f"{name} has shape {array.shape}; it must be the time's {time.shape}"
                )
        interval = occurred & (upper > time)
        first = grid.bin_of(time)
        last = jnp.where(interval, count_upto(grid.edges, upper, strict=True) - 1, first)
        seen = jnp.where(interval, upper > entry, time >= entry)
        ended = occurred & seen & (last >= 0) & (last < grid.bins)
        return cls(time, entry, upper, interval, ended, seen, first, last)


def _by_share(rows: _Rows, grid: Grid) -> HazardTargets:
    edges = jnp.asarray(grid.edges, rows.time.dtype)
    own = jnp.clip(rows.first, 0, grid.bins - 1)
    whole = rows.ended & ~rows.interval  # An exact time is read as "somewhere in its bin".
    low = jnp.where(whole, edges[own], rows.time)
    high = jnp.where(whole, edges[own + 1], rows.upper)
    event = grid.share(jnp.maximum(low, rows.entry), high)
    event = jnp.where(rows.ended[..., None], event, 0)
    return HazardTargets(event, grid.share(rows.entry, low))


def _by_bin(rows: _Rows, grid: Grid, censoring: Credit) -> HazardTargets:
    starts, ends = grid.edges[:-1], grid.edges[1:]
    if censoring == "midpoint":
        lived = count_upto(grid.midpoints, rows.time)
        missed = count_upto(grid.midpoints, rows.entry)
    elif censoring == "full":
        lived = count_upto(ends, rows.time)
        missed = count_upto(starts, rows.entry, strict=True)
    else:
        lived = count_upto(starts, rows.time)
        missed = count_upto(ends, rows.entry)
    reached = jnp.minimum(jnp.where(rows.interval, lived, rows.first), rows.last)
    lived = jnp.where(rows.ended, reached, lived)[..., None]
    missed, last = missed[..., None], rows.last[..., None]
    k = jnp.arange(grid.bins).reshape((1,) * rows.time.ndim + (-1,))
    exposure = (k >= missed) & (k < lived) & rows.seen[..., None]
    begin = jnp.maximum(lived, jnp.minimum(missed, last))
    event = (k >= begin) & (k <= last) & rows.ended[..., None]
    return HazardTargets(event.astype(rows.time.dtype), exposure.astype(rows.time.dtype))

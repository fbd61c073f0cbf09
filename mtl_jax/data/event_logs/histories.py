"""What a row may see of the past: streams of strictly earlier events and numbers about them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from mtl_jax.data.event_logs.codes import bucket
from mtl_jax.data.event_logs.options import Plan
from mtl_jax.data.event_logs.rows import Pairs, Rows, Timeline
from mtl_jax.data.event_logs.shards import Events
from mtl_jax.data.event_logs.times import UNITS, Clock
from mtl_jax.data.event_logs.vocabularies import Popularity
from mtl_jax.data.impressions import Column

COUNT_BUCKETS = 16  # Of 2**15 events and more.
GAP_BUCKETS = 32
HOURS, WEEKDAYS = 24, 7


class Stream(NamedTuple):
    """The visible events of some behaviours, by user, time and item; one entry an item and time.

    Attributes:
      keys: [E] of user and time, in a `Timeline`.
      item: [E] codes.
      time: [E] int64.
      counts: [E] int64.
    """

    keys: np.ndarray
    item: np.ndarray
    time: np.ndarray
    counts: np.ndarray


def make_stream(events: Events, timeline: Timeline, visible: np.ndarray, mask: int) -> Stream:
    """Returns the stream of the behaviours in `mask`."""
    own = np.flatnonzero(visible & ((events.flags & np.uint32(mask)) > 0))
    keys = timeline.of(events.user[own], own)
    item = events.item[own]
    new = np.ones(len(own), bool)
    new[1:] = (keys[1:] != keys[:-1]) | (item[1:] != item[:-1])
    first = np.flatnonzero(new)
    counts = events.counts[own]
    if len(first):
        counts = np.add.reduceat(counts, first)
    return Stream(keys[first], item[first], events.time[own][first], counts)


def stream_positions(
    stream: Stream, timeline: Timeline, rows: Rows, now: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Returns where each row's strictly earlier events begin and end in a stream, [N] int64.

    Args:
      stream: of the shard.
      timeline: of the shard.
      rows: the N rows.
      now: [N] keys of their users and times.
    """
    starts = np.searchsorted(stream.keys, np.arange(rows.user.max(initial=0) + 1) * timeline.width)
    return starts[rows.user], np.searchsorted(stream.keys, now, side="left")


def feature_columns(features: tuple[str, ...], streams: tuple[str, ...], unit: str) -> list[Column]:
    """Returns the context columns that `features` ask for, in the order of `feature_ids`."""
    found = []
    if "pair" in features:
        found += [Column(f"pair_{name}", COUNT_BUCKETS + 3, "context") for name in streams]
    if "gap" in features:
        found.append(Column("pair_gap", GAP_BUCKETS + 3, "context"))
    if "user" in features:
        found += [Column(f"user_{name}", COUNT_BUCKETS + 3, "user") for name in streams]
    if "item" in features:
        found.append(Column("item_popularity", GAP_BUCKETS + 3, "item"))
    if "calendar" in features:
        found.append(Column("weekday", WEEKDAYS + 2, "context"))
        if unit != "day":
            found.append(Column("hour", HOURS + 2, "context"))
    return found


def feature_ids(
    features: tuple[str, ...],
    plan: Plan,
    events: Events,
    pairs: Pairs,
    timeline: Timeline,
    visible: np.ndarray,
    rows: Rows,
    streams: list[tuple[Stream, np.ndarray, np.ndarray]],
    popularity: Popularity,
) -> list[np.ndarray]:
    """Returns the ids [N] of each of `feature_columns`.

    Args:
      features: those asked for.
      plan: of the log.
      events: of a shard.
      pairs: of the events.
      timeline: of the events.
      visible: [E] which events any row may see.
      rows: the N rows.
      streams: each with the rows' starts and ends.
      popularity: of items, from the training window.
    """
    found: list[np.ndarray] = []
    pair = pairs.pair[rows.source]
    now = timeline.at(pair, rows.time)
    seen = pairs.order[visible[pairs.order]]
    if "pair" in features:
        for mask in plan.streams.values():
            own = seen[(events.flags[seen] & np.uint32(mask)) > 0]
            keys = timeline.of(pairs.pair[own], own)
            total = np.concatenate([[0], np.cumsum(events.counts[own])])
            first = np.searchsorted(pairs.pair[own], pair)
            found.append(_ids(total[np.searchsorted(keys, now)] - total[first], COUNT_BUCKETS))
    if "gap" in features:
        found.append(_ids(_gaps(plan.clock, events, pairs, timeline, seen, rows, now), GAP_BUCKETS))
    if "user" in features:
        for stream, starts, ends in streams:
            total = np.concatenate([[0], np.cumsum(stream.counts)])
            found.append(_ids(total[ends] - total[starts], COUNT_BUCKETS))
    day = plan.clock.day_of(rows.time)
    if "item" in features:
        found.append(_ids(popularity.before(rows.item, day), GAP_BUCKETS))
    if "calendar" in features:
        # Day 0 of 1970 was a Thursday, day 3 from Monday; in a log of bare day numbers any day.
        found.append((2 + (day + 3) % WEEKDAYS).astype(np.int32))
        if plan.clock.unit != "day":
            hour = (rows.time + plan.clock.offset) % plan.clock.per_day * HOURS
            found.append((2 + hour // plan.clock.per_day).astype(np.int32))
    return found


def _gaps(
    clock: Clock,
    events: Events,
    pairs: Pairs,
    timeline: Timeline,
    seen: np.ndarray,
    rows: Rows,
    now: np.ndarray,
) -> np.ndarray:
    """Days or seconds since the pair's last visible event, at least 1; 0 where there is none."""
    if not len(seen):
        return np.zeros(len(rows.time), np.int64)
    pair = pairs.pair[rows.source]
    keys = timeline.of(pairs.pair[seen], seen)
    before = np.searchsorted(keys, now) - 1
    last = seen[before.clip(0)]
    real = (before >= 0) & (pairs.pair[last] == pair)
    ticks = 1 if clock.unit == "day" else clock.per_day // UNITS["s"]
    return np.where(real, np.maximum((rows.time - events.time[last]) // ticks, 1), 0)


def _ids(numbers: np.ndarray, buckets: int) -> np.ndarray:
    return (2 + np.minimum(bucket(numbers), buckets)).astype(np.int32)

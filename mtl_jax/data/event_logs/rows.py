"""Rows, splits and labels of the users of one shard."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np

from mtl_jax.data.event_logs.options import EventLogOptions, Plan
from mtl_jax.data.event_logs.shards import Events
from mtl_jax.data.impressions import SPLITS

FOREVER = np.iinfo(np.int64).max
NO_SPLIT = -1


class Rows(NamedTuple):
    """Impressions, by user, time and item.

    Attributes:
      user: [N] positions in the shard's users.
      item: [N] codes.
      time: [N] int64.
      flags: [N] uint32, bits of all events of that user, item and time.
      source: [N] the event whose columns and whose pair the row has.
    """

    user: np.ndarray
    item: np.ndarray
    time: np.ndarray
    flags: np.ndarray
    source: np.ndarray


class Windows(NamedTuple):
    """What belongs to training, and how far labels may look.

    Attributes:
      split: [N] place in SPLITS, or NO_SPLIT.
      limit: [N] the last time that may decide a label of the row.
      train_end: [U] the end of each user's training window: events before it are known to it.
    """

    split: np.ndarray
    limit: np.ndarray
    train_end: np.ndarray


class Timeline:
    """Times of a shard as ranks, so that (number, time) is one number that can be searched.

    Attributes:
      width: more than any rank.
    """

    def __init__(self, times: np.ndarray) -> None:
        self._distinct, self._ranks = np.unique(times, return_inverse=True)
        self.width = len(self._distinct) + 1

    def of(self, numbers: np.ndarray, events: np.ndarray) -> np.ndarray:
        """Returns the keys `at` the times of `events`, positions in the shard."""
        return numbers * self.width + self._ranks[events]

    def at(self, numbers: np.ndarray, times: np.ndarray) -> np.ndarray:
        """Returns keys that sort by number, then time; equal times are equal."""
        return numbers * self.width + np.searchsorted(self._distinct, times)

    def after(self, numbers: np.ndarray, times: np.ndarray) -> np.ndarray:
        """Returns keys above those of `times` and at most those of any later time."""
        return numbers * self.width + np.searchsorted(self._distinct, times, side="right")


class Pairs(NamedTuple):
    """Events by pair of user and item.

    Attributes:
      pair: [E] number of each event's pair.
      order: [E] events by pair, then time.
    """

    pair: np.ndarray
    order: np.ndarray


def find_pairs(events: Events) -> Pairs:
    """Returns the pairs of a shard's events."""
    order = np.lexsort((events.time, events.item, events.user))
    new = np.zeros(len(order), np.int64)
    for key in (events.user, events.item):
        new[1:] |= key[order][1:] != key[order][:-1]
    pair = np.zeros(len(order), np.int64)
    pair[order] = np.cumsum(new)
    return Pairs(pair, order)


def make_rows(options: EventLogOptions, plan: Plan, events: Events, pairs: Pairs) -> Rows:
    """Returns the rows of a shard, in no split yet."""
    if options.rows == "cuts":
        return _cut_rows(options, plan, events, pairs)
    new = np.ones(len(events.user), bool)
    new[1:] = False
    for key in (events.user, events.time, events.item):
        new[1:] |= key[1:] != key[:-1]
    source = np.flatnonzero(new)
    flags = np.bitwise_or.reduceat(events.flags, source) if len(source) else events.flags
    if plan.row_mask:
        chosen = (flags & np.uint32(plan.row_mask)) > 0
        source, flags = source[chosen], flags[chosen]
    return Rows(events.user[source], events.item[source], events.time[source], flags, source)


def _cut_rows(options: EventLogOptions, plan: Plan, events: Events, pairs: Pairs) -> Rows:
    made = [np.zeros((3, 0), np.int64)]
    fits = np.ones(len(events.user), bool)
    if plan.row_mask:
        fits = (events.flags & np.uint32(plan.row_mask)) > 0
    for time in itertools.chain.from_iterable(plan.splits[split] for split in SPLITS):
        later = (events.time >= time) & (events.time < time + options.active)
        active = np.zeros(len(events.users), bool)
        active[events.user[later]] = True
        past = fits & (events.time >= time - options.lookback) & (events.time < time)
        touched = pairs.order[(past & active[events.user])[pairs.order]]
        last = np.ones(len(touched), bool)
        last[:-1] = pairs.pair[touched][1:] != pairs.pair[touched][:-1]
        source = touched[last]
        made.append(np.stack([events.user[source], np.full(len(source), time), source]))
    user, time, source = np.concatenate(made, axis=1)
    order = np.lexsort((events.item[source], time, user))
    user, time, source = user[order], time[order], source[order]
    return Rows(user, events.item[source], time, np.zeros(len(user), np.uint32), source)


def make_windows(options: EventLogOptions, plan: Plan, rows: Rows, users: int, end: int) -> Windows:
    """Returns the split of each row and the windows of its labels.

    Args:
      options: of the log.
      plan: of the log.
      rows: of a shard.
      users: of the shard.
      end: the last time that the log covers.
    """
    if options.split == "user":
        return chronological(rows.user, rows.time, users, options.fractions, end)
    split = np.full(len(rows.time), NO_SPLIT)
    limit = np.full(len(rows.time), end, np.int64)
    for number, name in enumerate(SPLITS):
        bounds = plan.splits[name]
        if options.rows == "cuts":
            own = np.isin(rows.time, bounds)
        else:
            own = (rows.time >= bounds[0]) & (rows.time <= bounds[1])
        split[own] = number
        if number + 1 < len(SPLITS):
            limit[own] = min(end, plan.splits[SPLITS[number + 1]][0] - 1)
    train_end = np.full(users, plan.splits["validation"][0], np.int64)
    return Windows(split, limit, train_end)


def chronological(
    user: np.ndarray, time: np.ndarray, users: int, fractions: tuple[float, float], end: int
) -> Windows:
    """Splits each user's rows in order of time; rows of one time stay together, in the later split.

    Args:
      user: [N] ascending numbers below `users`.
      time: [N], ascending for each user.
      users: how many there may be.
      fractions: of train and validation.
      end: the last time that the log covers.
    """
    starts = np.searchsorted(user, np.arange(users))
    counts = np.bincount(user, minlength=users)
    bounds = []
    for fraction in (fractions[0], sum(fractions)):
        # A hair is added: 0.7 + 0.2 of ten rows are nine, whatever binary fractions say.
        place = starts + np.minimum(np.floor(fraction * counts + 1e-9).astype(np.int64), counts - 1)
        bounds.append(np.where(counts > 0, np.append(time, FOREVER)[place.clip(0)], FOREVER))
    first, second = bounds
    split = (time >= first[user]).astype(np.int64) + (time >= second[user])
    limits = np.stack([first[user] - 1, second[user] - 1, np.full(len(time), end, np.int64)])
    limit = np.minimum(limits[split, np.arange(len(time))], end)
    return Windows(split, limit, first)


def make_labels(
    plan: Plan, events: Events, pairs: Pairs, timeline: Timeline, rows: Rows, limit: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Returns labels [N, T] float32, and the mask: 0 where the window goes beyond `limit`."""
    pair = pairs.pair[rows.source]
    labels = np.zeros((len(pair), len(plan.tasks)), np.float32)
    mask = np.ones_like(labels)
    for t, task in enumerate(plan.tasks):
        if task.kind == "row":
            labels[:, t] = (rows.flags & np.uint32(task.mask)) > 0
            continue
        if task.kind == "time":
            low = timeline.after(pair, rows.time + task.first)
            high = timeline.after(pair, rows.time + task.last)
        else:
            day = plan.clock.day_of(rows.time)
            low = timeline.at(pair, plan.clock.start_of(day + task.first))
            if task.first == 0 and plan.clock.unit != "day":
                low = timeline.after(pair, rows.time)
            high = timeline.at(pair, plan.clock.start_of(day + task.last + 1))
        own = pairs.order[(events.flags[pairs.order] & np.uint32(task.mask)) > 0]
        keys = timeline.of(pairs.pair[own], own)
        total = np.concatenate([[0], np.cumsum(events.counts[own])])
        found = total[np.searchsorted(keys, high)] - total[np.searchsorted(keys, low)]
        known = task.ends(rows.time, plan.clock) <= limit
        labels[:, t] = known & (found >= task.least)
        mask[:, t] = known
    return labels, mask

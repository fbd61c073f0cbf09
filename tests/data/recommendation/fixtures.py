"""What the tests of recommendation data share: random impressions, random logs, a slow builder."""

from __future__ import annotations

import csv
import dataclasses
import tempfile
from collections import Counter, defaultdict
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mtl_jax.data.event_logs.build import build_parts
from mtl_jax.data.event_logs.options import EventLogOptions, make_plan
from mtl_jax.data.event_logs.shards import hash_codes
from mtl_jax.data.impressions import SPLITS, Attribute, Column, History, ImpressionSet

BEHAVIOURS = ("click", "buy", "fav", "cart")


class Event(NamedTuple):
    """A line of a log."""

    user: int
    item: int
    behaviour: str
    time: int
    category: int = 7


def random_log(
    seed: int, events: int = 150, users: int = 6, items: int = 8, span: int = 40
) -> list[Event]:
    """Returns events in no order, with ties and exact repeats; times are 0 .. span - 1."""
    rng = np.random.default_rng(seed)
    found = [
        Event(
            int(rng.integers(100, 100 + users)),
            int(item),
            str(rng.choice(BEHAVIOURS, p=[0.6, 0.15, 0.15, 0.1])),
            int(rng.integers(span)),
            int(item) % 3,
        )
        for item in rng.integers(20, 20 + items, events)
    ]
    found += [found[k] for k in rng.integers(0, events, events // 5)]
    return [found[k] for k in rng.permutation(len(found))]


def write_log(path: Path, events: list[Event], delimiter: str = ",") -> Path:
    """Writes a CSV file with a header and codes 0 .. 3 for the behaviours."""
    with open(path, "w", newline="") as file:
        writer = csv.writer(file, delimiter=delimiter)
        writer.writerow(["user_id", "item_id", "type", "time", "category"])
        for e in events:
            writer.writerow([e.user, e.item, BEHAVIOURS.index(e.behaviour), e.time, e.category])
    return path


def log_options(path: Path | str, **changes) -> EventLogOptions:
    """Returns options for a log of `write_log` by the day, split by time."""
    options = EventLogOptions(
        path=str(path),
        behaviour="type",
        time="time",
        behaviours=tuple((str(code), name) for code, name in enumerate(BEHAVIOURS)),
        time_unit="day",
        tasks=("buy:0d", "saved:fav+cart:1d", "deep:click>=2:0d", "revisit:1-3d"),
        streams=("click", "buy", "fav+cart"),
        train=("5", "19"),
        validation=("20", "26"),
        test=("27", "35"),
    )
    return dataclasses.replace(options, **changes)


def build(options: EventLogOptions) -> ImpressionSet:
    """Returns the set without the disk format, the parts put together; rows of all splits."""
    plan = make_plan(options)
    with tempfile.TemporaryDirectory() as folder:
        parts = list(build_parts(options, plan, Path(folder), "log")[0])
    first, offsets, row = parts[0], np.zeros(len(parts[0].histories), np.int64), 0
    arrays: dict[str, list[np.ndarray]] = defaultdict(list)
    splits: dict[str, list[np.ndarray]] = {split: [] for split in SPLITS}
    for part in parts:
        for key in ("fields", "dense", "labels", "label_mask", "group", "time", "truth"):
            arrays[key].append(getattr(part, key))
        for key in ("starts", "ends"):
            arrays[key].append(getattr(part, key) + offsets)
        for split in SPLITS:
            splits[split].append(part.splits[split] + row)
        offsets = offsets + [len(history.ids) for history in part.histories]
        row += len(part.time)
    histories = tuple(
        history._replace(
            **{
                key: np.concatenate([getattr(part.histories[s], key) for part in parts])
                for key in ("ids", "times", "counts")
            }
        )
        for s, history in enumerate(first.histories)
    )
    return first._replace(
        histories=histories,
        splits={split: np.concatenate(rows) for split, rows in splits.items()},
        **{key: np.concatenate(value) for key, value in arrays.items()},
    )


class Row(NamedTuple):
    """What a row must be, by the definitions of the options, found without any index or sort."""

    user: int
    item: int
    time: int
    split: str
    labels: list[float]
    mask: list[float]
    histories: list[list[tuple[int, int, int]]]
    pair_counts: list[int]
    gap: int
    user_counts: list[int]
    popularity: int


def slow_rows(events: list[Event], options: EventLogOptions) -> list[Row]:
    """Makes the rows of a log event by event; times are in days or seconds with UTC days."""
    day = 1 if options.time_unit == "day" else 86_400
    end = int(options.keep[1]) if options.keep else max(e.time for e in events)
    kinds = options.row_behaviours or BEHAVIOURS
    keys = sorted({(e.user, e.time, e.item) for e in events if e.behaviour in kinds})
    where = {user: slow_splits(keys, user, options, end) for user in {e.user for e in events}}
    rows = []
    for user, time, item in sorted(keys, key=lambda key: (_hash(key[0]), key[1], key[2])):
        split, limit = where[user][0](time)
        if split is None:
            continue
        pair = [e for e in events if (e.user, e.item) == (user, item)]
        labels, mask = [], []
        for text in options.tasks:
            name, *what, window = text.split(":")
            what = what[0] if what else "any" if name == "revisit" else name
            names, _, least = what.partition(">=")
            wanted = BEHAVIOURS if names == "any" else names.split("+")
            first, last = window[:-1].rpartition("-")[::2]
            first, last = int(first or 0), int(last)
            if window.endswith("d"):
                mine = [e for e in pair if first <= e.time // day - time // day <= last]
                if day > 1:
                    mine = [e for e in mine if e.time > time]
                reach = (time // day + last + 1) * day - 1
            else:
                unit = {"h": 3600, "m": 60, "s": 1}[window[-1]]
                mine = [e for e in pair if first * unit < e.time - time <= last * unit]
                reach = time + last * unit
            known = reach <= limit
            hits = sum(e.behaviour in wanted for e in mine)
            labels.append(float(known and hits >= int(least or 1)))
            mask.append(float(known))
        before = [e for e in events if e.user == user and e.time < time]
        if options.policy == "frozen":
            before = [e for e in before if e.time < where[user][1]]
        streams = [set(stream.split("+")) for stream in options.streams or BEHAVIOURS]
        own = [[e for e in before if e.behaviour in stream] for stream in streams]
        mine = [e for e in before if e.item == item]
        window_events = [
            e for e in events if e.time < where[e.user][1] and e.time // day < time // day
        ]
        rows.append(
            Row(
                user,
                item,
                time,
                split,
                labels,
                mask,
                [
                    [
                        (t, i, n)
                        for (t, i), n in sorted(Counter((e.time, e.item) for e in s).items())
                    ]
                    for s in own
                ],
                [sum(e.item == item for e in s) for s in own],
                time - max(e.time for e in mine) if mine else 0,
                [len(s) for s in own],
                sum(e.item == item for e in window_events),
            )
        )
    return rows


def slow_splits(keys: list[tuple[int, int, int]], user: int, options: EventLogOptions, end: int):
    """Returns (time -> (split or None, last time of labels), end of the training window)."""
    if options.split == "user":
        times = [time for u, time, _ in keys if u == user]
        if not times:
            return (lambda time: (None, 0)), float("inf")
        parts = (round(options.fractions[0] * 1000), round(sum(options.fractions) * 1000))
        first, second = (times[min(p * len(times) // 1000, len(times) - 1)] for p in parts)
        bounds = [(None, first - 1), (first, second - 1), (second, None)]
        limits = [first - 1, second - 1, end]
    else:
        bounds = [tuple(int(t) for t in getattr(options, split)) for split in SPLITS]
        limits = [min(end, bounds[1][0] - 1), min(end, bounds[2][0] - 1), end]
        first = bounds[1][0]

    def find(time):
        for split, (low, high), limit in zip(SPLITS, bounds, limits, strict=True):
            if (low is None or time >= low) and (high is None or time <= high):
                return split, limit
        return None, 0

    return find, first


def slow_vocabulary(events: list[Event], options: EventLogOptions, key: str) -> list[int]:
    """Returns the values of ids 2, 3, ...: those of the training window that are frequent."""
    kinds = options.row_behaviours or BEHAVIOURS
    keys = sorted({(e.user, e.time, e.item) for e in events if e.behaviour in kinds})
    end = {e.user: slow_splits(keys, e.user, options, 0)[1] for e in events}
    counts = Counter(getattr(e, key) for e in events if e.time < end[e.user])
    return sorted(value for value, n in counts.items() if n >= options.min_count)


def _hash(user: int) -> int:
    return int(hash_codes(np.array([user]))[0])


def random_part(seed: int, rows: int = 30, truth: bool = False) -> ImpressionSet:
    """Returns a valid set of 6 users, 2 tasks and 2 histories, a third of its rows a split."""
    rng = np.random.default_rng(seed)
    columns = (Column("user", 8, "user"), Column("item", 7, "item"), Column("hour", 26, "context"))
    group = np.sort(rng.integers(0, 6, rows)).astype(np.int32)
    time = rng.integers(50, 90, rows)
    histories, starts, ends = [], [], []
    for name in ("watch", "like"):
        users = np.sort(rng.integers(0, 6, 40))
        times = rng.integers(0, 100, 40)
        times = times[np.lexsort((times, users))]
        histories.append(
            History(
                name,
                "item",
                rng.integers(1, 7, 40).astype(np.int32),
                times,
                rng.integers(1, 4, 40).astype(np.int32),
            )
        )
        starts.append(np.searchsorted(users, group))
        stops = np.searchsorted(users, group, side="right")
        before = [
            a + np.searchsorted(times[a:b], t, side="left")
            for a, b, t in zip(starts[-1], stops, time, strict=True)
        ]
        ends.append(np.array(before))
    order = rng.permutation(rows).astype(np.int32)
    third = rows // 3
    return ImpressionSet(
        name="toy_impressions",
        task_names=("click", "buy"),
        columns=columns,
        item="item",
        attributes=(Attribute("genre", 5, np.random.default_rng(9).integers(0, 5, (7, 2))),),
        dense_names=("age",),
        histories=tuple(histories),
        fields=np.stack([rng.integers(0, c.size, rows) for c in columns], 1).astype(np.int32),
        dense=rng.normal(size=(rows, 1)).astype(np.float32),
        starts=np.stack(starts, 1).astype(np.int64),
        ends=np.stack(ends, 1).astype(np.int64),
        labels=rng.integers(0, 2, (rows, 2)).astype(np.float32),
        label_mask=rng.integers(1, 3, (rows, 2)).astype(np.float32),
        group=group,
        time=time,
        splits={
            "train": order[: rows - 2 * third],
            "validation": order[rows - 2 * third : rows - third],
            "test": order[rows - third :],
        },
        truth=rng.random((rows, 2 if truth else 0)).astype(np.float32),
    )

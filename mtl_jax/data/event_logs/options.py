"""What to make of a log: the options, and what follows from them."""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Sequence
from typing import NamedTuple

from mtl_jax.data.event_logs.tasks import (
    Task,
    behaviour_mask,
    check_behaviour_name,
    parse_tasks,
)
from mtl_jax.data.event_logs.times import UNITS, Clock, bound, make_clock, source_unit
from mtl_jax.data.impressions import SPLITS
from mtl_jax.errors import UserError, did_you_mean

FEATURES = ("pair", "gap", "user", "item", "calendar")
FORMATS = ("csv", "jsonl", "parquet")
_FLAG = re.compile(r"([^=]+)(?:=([^=]+))?")
_SHORTEST = {"day": 0, "s": 1, "ms": 2}


@dataclasses.dataclass(frozen=True)
class EventLogOptions:
    """A log of (user, item, behaviour, time) and the impressions to make of it.

    Attributes:
      path: a file, or several as a pattern with `*`; .gz, .bz2 and .xz are unpacked on the way.
      preset: what the prepared folder's name begins with.
      format: "csv", "jsonl" or "parquet"; "" goes by the file's name.
      delimiter: of a CSV file.
      header: names of the columns where a CSV file has no line of them.
      user, item, time, behaviour: columns.
      events: for JSON lines that hold a user with a list of events: the name of that list.
      behaviours: (code in the file, behaviour), one pair a code; codes may share a behaviour.
      flags: instead of a behaviour column: ("column", behaviour) for a column of 0 and 1, or
        ("column=value", behaviour). An event may then have several behaviours, or none.
      time_unit: "day", "s", "ms" (numbers), "mmdd", or a format of strptime in local time.
      resolution: of the set: "" as the file's, or coarser.
      utc_offset: hours that local time, in which days are counted, is ahead of UTC.
      keep: first and last time; events outside are dropped, and the log is taken to be complete up
        to the last. Times as numbers in its unit, dates or ISO times. () for all, up to the last
        event.
      item_columns: what is known of an item at all times, from the log or from `items_path`;
        becomes attributes. "column*" holds several values, joined by `,`.
      event_columns: what is known of an event before its outcome; becomes columns of rows. May
        repeat names of `item_columns`, for candidates that training has not seen.
      user_columns: likewise of users, from the log or from `users_path`.
      bucketed: those of these columns that hold numbers, to be put into log2 buckets.
      outcomes: columns that a row may never show, besides those of the behaviours.
      items_path, users_path: CSV files with the item's or user's column and further ones.
      rows: "events", a row for each user, item and time with an event of `row_behaviours`; or
        "cuts" (logs by the day), a row for each pair of the last `lookback` days up to a cut day,
        of users with any event in the `active` days after it; its time is the day after the cut.
      row_behaviours: those that make a row; () for every event.
      lookback, active: of "cuts", days.
      tasks: see `tasks`.
      streams: histories, each a behaviour or several joined by `+`; () for each behaviour.
      features: context columns from strictly earlier events, in log2 buckets: "pair" (this pair's
        earlier events in each stream), "gap" (time since its last event), "user" (the user's
        earlier events in each stream), "item" (the item's events in the training window, on
        earlier days); and "calendar" (weekday, and hour in logs finer than a day).
      split: "time" or "user": `fractions` of each user's rows in order of time, ties together.
      train, validation, test: first and last time of each; the cut days for "cuts".
      fractions: of train and validation.
      policy: which strictly earlier events a row sees: "rolling", all, or "frozen", those of the
        training window, which is everything before validation begins.
      min_count: events in the training window that an id needs to be in a vocabulary.
      max_users: takes so many users, by hash; 0 for all.
      shards: number of temporary files; 0 for one each half million events. Changes no result.
    """

    path: str = ""
    preset: str = "custom"
    format: str = ""
    delimiter: str = ","
    header: tuple[str, ...] = ()
    user: str = "user_id"
    item: str = "item_id"
    time: str = "timestamp"
    behaviour: str = "behaviour"
    events: str = ""
    behaviours: tuple[tuple[str, str], ...] = ()
    flags: tuple[tuple[str, str], ...] = ()
    time_unit: str = "s"
    resolution: str = ""
    utc_offset: float = 0
    keep: tuple[str, ...] = ()
    item_columns: tuple[str, ...] = ()
    event_columns: tuple[str, ...] = ()
    user_columns: tuple[str, ...] = ()
    bucketed: tuple[str, ...] = ()
    outcomes: tuple[str, ...] = ()
    items_path: str = ""
    users_path: str = ""
    rows: str = "events"
    row_behaviours: tuple[str, ...] = ()
    lookback: int = 30
    active: int = 15
    tasks: tuple[str, ...] = ()
    streams: tuple[str, ...] = ()
    features: tuple[str, ...] = ("pair", "gap", "user", "item")
    split: str = "time"
    train: tuple[str, ...] = ()
    validation: tuple[str, ...] = ()
    test: tuple[str, ...] = ()
    fractions: tuple[float, float] = (0.8, 0.1)
    policy: str = "rolling"
    min_count: int = 1
    max_users: int = 0
    shards: int = 0


class Flag(NamedTuple):
    """An event has behaviour `bit` where `column` holds `value`."""

    column: str
    value: str
    bit: int


class Plan(NamedTuple):
    """What follows from options.

    Attributes:
      clock: of the set.
      behaviours: {name: bit}.
      codes: {code in the file: bit}.
      flags: instead of codes.
      tasks: parsed.
      streams: {name: bits}.
      row_mask: bits of which an event needs one to make a row; 0 for none.
      keep: first and last time of events, or None.
      splits: {split: (first, last)}, or the times of rows for "cuts"; empty for the split "user".
      item_columns: {name: whether it holds several values}.
    """

    clock: Clock
    behaviours: dict[str, int]
    codes: dict[str, int]
    flags: tuple[Flag, ...]
    tasks: tuple[Task, ...]
    streams: dict[str, int]
    row_mask: int
    keep: tuple[int, int] | None
    splits: dict[str, tuple[int, ...]]
    item_columns: dict[str, bool]


def make_plan(options: EventLogOptions) -> Plan:
    """Returns what `options` mean.

    Raises:
      UserError: the first option that is wrong, by name.
    """
    for name, value, known in (
        ("rows", options.rows, ("events", "cuts")),
        ("split", options.split, ("time", "user")),
        ("policy", options.policy, ("rolling", "frozen")),
        ("resolution", options.resolution, ("", *UNITS)),
        ("format", options.format, ("", *FORMATS)),
    ):
        if value not in known:
            raise UserError(f"{name} = {value!r}; {did_you_mean(value, known)}")
    for feature in options.features:
        if feature not in FEATURES:
            raise UserError(f"features: {feature!r} is none; {did_you_mean(feature, FEATURES)}")
    for name, least in (("min_count", 1), ("max_users", 0), ("shards", 0), ("lookback", 1)):
        if getattr(options, name) < least:
            raise UserError(f"{name} = {getattr(options, name)}; it must be at least {least}")
    _check_repeats(options)
    clock = _clock(options)
    behaviours, codes, flags = _behaviours(options)
    own = {name.removesuffix("*"): name.endswith("*") for name in options.item_columns}
    outcomes = {flag.column for flag in flags} | {options.behaviour, *options.outcomes}
    for name in (*own, *options.event_columns, *options.user_columns):
        if name in outcomes:
            raise UserError(f"column {name} holds outcomes; a row may not see it")
    for name in options.user_columns:
        if name in own or name in options.event_columns or name in ("user", "item"):
            raise UserError(f"user_columns: {name!r} also is a column of items, events or the set")
    if options.item_columns != tuple(own) and not options.items_path:
        raise UserError("item_columns: several values an item (column*) need items_path")
    streams = options.streams or tuple(behaviours)
    return Plan(
        clock=clock,
        behaviours=behaviours,
        codes=codes,
        flags=flags,
        tasks=tuple(parse_tasks(options.tasks, behaviours, clock)),
        streams={name: behaviour_mask(name, behaviours, "streams") for name in streams},
        row_mask=behaviour_mask("+".join(options.row_behaviours), behaviours, "row_behaviours")
        if options.row_behaviours
        else 0,
        keep=_keep(options, clock),
        splits=_splits(options, clock),
        item_columns=own,
    )


def _check_repeats(options: EventLogOptions) -> None:
    lists: dict[str, Sequence[str]] = {
        "header": options.header,
        "behaviours": [code for code, _ in options.behaviours],
        "flags": [column for column, _ in options.flags],
        "item_columns": [name.removesuffix("*") for name in options.item_columns],
        "event_columns": options.event_columns,
        "user_columns": options.user_columns,
        "streams": options.streams,
        "features": options.features,
        "tasks": options.tasks,
    }
    for name, values in lists.items():
        for number, value in enumerate(values):
            if value in values[:number]:
                raise UserError(f"{name}: {value!r} is given twice; give it once")
    keys = [options.user, options.item, options.time, options.behaviour]
    for number, column in enumerate(keys):
        if column in keys[:number]:
            raise UserError(
                f"column {column!r} is given as two of user, item, time and behaviour; each needs "
                "a column of its own"
            )


def _clock(options: EventLogOptions) -> Clock:
    if "%" not in options.time_unit and options.time_unit not in (*UNITS, "mmdd"):
        known = did_you_mean(options.time_unit, (*UNITS, "mmdd"))
        raise UserError(
            f"time_unit = {options.time_unit!r}; {known}, or a format such as '%Y-%m-%d %H:%M:%S'"
        )
    own = source_unit(options.time_unit)
    unit = options.resolution or own
    if _SHORTEST[unit] > _SHORTEST[own]:
        raise UserError(f"resolution = {unit!r}, but the file's times are in units of {own!r}")
    return make_clock(unit, options.utc_offset)


def _behaviours(
    options: EventLogOptions,
) -> tuple[dict[str, int], dict[str, int], tuple[Flag, ...]]:
    pairs = options.flags or options.behaviours
    if not pairs or (options.flags and options.behaviours):
        raise UserError(
            "give either behaviours = ((code, name), ...) for a behaviour column, or flags = "
            "((column, name), ...)"
        )
    names = list(dict.fromkeys(check_behaviour_name(name) for _, name in pairs))
    if len(names) > 31:
        raise UserError(f"{len(names)} behaviours; at most 31 can be told apart")
    bits = {name: 1 << number for number, name in enumerate(names)}
    if not options.flags:
        return bits, {code: bits[name] for code, name in pairs}, ()
    flags = []
    for text, name in pairs:
        matched = _FLAG.fullmatch(text)
        if matched is None:
            raise UserError(f"flags: {text!r}; write column or column=value")
        flags.append(Flag(matched[1], matched[2] or "1", bits[name]))
    return bits, {}, tuple(flags)


def _keep(options: EventLogOptions, clock: Clock) -> tuple[int, int] | None:
    if not options.keep:
        return None
    return _interval("keep", options.keep, clock)


def _interval(name: str, texts: Sequence[str], clock: Clock) -> tuple[int, int]:
    if len(texts) != 2:
        raise UserError(f"{name} = {tuple(texts)}; give its first and its last time")
    first = bound(texts[0], clock, end=False, what=name)
    last = bound(texts[1], clock, end=True, what=name)
    if first > last:
        raise UserError(f"{name} = {tuple(texts)} ends before it begins")
    return first, last


def _splits(options: EventLogOptions, clock: Clock) -> dict[str, tuple[int, ...]]:
    if options.split == "user":
        if options.rows == "cuts":
            raise UserError('rows = "cuts" needs split = "time": cut days are global')
        train, validation = options.fractions
        if min(train, validation) <= 0 or train + validation >= 1:
            raise UserError(
                f"fractions = {options.fractions}; both above 0, and something left for test"
            )
        return {}
    if options.rows == "cuts" and clock.unit != "day":
        raise UserError(f'rows = "cuts" needs resolution = "day", not {clock.unit!r}')
    read = _cuts if options.rows == "cuts" else _interval
    found: dict[str, tuple[int, ...]] = {
        split: read(split, getattr(options, split), clock) for split in SPLITS
    }
    for before, after in itertools.pairwise(SPLITS):
        if found[before][-1] >= found[after][0]:
            raise UserError(
                f"{after} = {getattr(options, after)} begins before {before} = "
                f"{getattr(options, before)} ends; splits may not overlap"
            )
    return found


def _cuts(name: str, texts: Sequence[str], clock: Clock) -> tuple[int, ...]:
    # A cut sees its own day: its rows stand at the beginning of the next.
    found = [bound(text, clock, end=False, what=name) + 1 for text in texts]
    if not found or found != sorted(set(found)):
        raise UserError(f"{name} = {tuple(texts)}; give cut days, in ascending order")
    return tuple(found)

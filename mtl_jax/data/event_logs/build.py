"""Makes the parts of an impression set from a log: sort, gather statistics, then a part a shard."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mtl_jax.data.event_logs.codes import Coder
from mtl_jax.data.event_logs.histories import (
    feature_columns,
    feature_ids,
    make_stream,
    stream_positions,
)
from mtl_jax.data.event_logs.options import EventLogOptions, Plan
from mtl_jax.data.event_logs.rows import (
    NO_SPLIT,
    Pairs,
    Rows,
    Timeline,
    Windows,
    find_pairs,
    make_labels,
    make_rows,
    make_windows,
)
from mtl_jax.data.event_logs.shards import Events, Log, hash_codes, read_shard, sort_log
from mtl_jax.data.event_logs.tables import FirstValues, Table, count_values, read_table
from mtl_jax.data.event_logs.vocabularies import Counter, Popularity, Vocabulary
from mtl_jax.data.fetch import say
from mtl_jax.data.impressions import SPLITS, Attribute, Column, History, ImpressionSet
from mtl_jax.errors import UserError


class Source(NamedTuple):
    """Where a column of the rows comes from.

    Attributes:
      column: as the set has it.
      vocabulary: of its values.
      where: "user", "item", "log", "users" or "items".
      key: name in the log or table.
    """

    column: Column
    vocabulary: Vocabulary
    where: str
    key: str


class Statistics(NamedTuple):
    """What all parts share.

    Attributes:
      sources: of the columns, the user first.
      item: vocabulary of items.
      attributes: of items.
      tables: "users" and "items", where there are.
      popularity: of items in the training window.
      end: the last time that the log covers.
      vocabularies: raw values of every vocabulary, by column or attribute.
    """

    sources: tuple[Source, ...]
    item: Vocabulary
    attributes: tuple[Attribute, ...]
    tables: dict[str, Table]
    popularity: Popularity
    end: int
    vocabularies: dict[str, np.ndarray]


class Shard(NamedTuple):
    """A shard in memory with its rows."""

    events: Events
    pairs: Pairs
    rows: Rows
    windows: Windows


def gather(options: EventLogOptions, plan: Plan, log: Log) -> Statistics:
    """Makes vocabularies and statistics of the training window: all events before its end."""
    users, items = Counter(), Counter()
    values = {name: Counter() for name in log.columns}
    first, popularity = FirstValues(len(log.columns)), Popularity()
    end = plan.keep[1] if plan.keep else log.last
    for shard in _shards(options, plan, log, end):
        events = shard.events
        own = np.flatnonzero(events.time < shard.windows.train_end[events.user])
        counts, codes = events.counts[own], events.users[events.user[own]]
        users.add(codes, counts)
        items.add(events.item[own], counts)
        for place, counter in enumerate(values.values()):
            counter.add(events.columns[own, place], counts)
        if log.columns:
            order = hash_codes(codes).view(np.int64)
            first.add(events.item[own], events.time[own], order, events.columns[own])
        if "item" in options.features:
            popularity.add(events.item[own], plan.clock.day_of(events.time[own]), counts)
    tables = _tables(options, plan, log, first)
    item = items.vocabulary(options.min_count)
    known = {name: counter.vocabulary(options.min_count) for name, counter in values.items()}
    totals = {"users": users.total(), "items": items.total()}
    for kind, table in tables.items():
        for name in table.values:
            if name not in known:
                counter = count_values(table, name, *totals[kind])
                known[name] = counter.vocabulary(options.min_count)
    sources = _sources(options, plan, log, users.vocabulary(options.min_count), item, known)
    attributes = tuple(
        _attribute(name, known[name], tables["items"], item) for name in plan.item_columns
    )
    coders: dict[str, Coder] = {**log.coders}
    for table in tables.values():
        coders |= {name: coder for name, coder in table.coders.items() if name not in coders}
    raw = {source.column.name: (source.key, source.vocabulary) for source in sources}
    raw |= {attribute.name: (attribute.name, known[attribute.name]) for attribute in attributes}
    vocabularies = {
        name: vocabulary.codes if key in options.bucketed else coders[key].values(vocabulary.codes)
        for name, (key, vocabulary) in raw.items()
    }
    return Statistics(sources, item, attributes, tables, popularity, end, vocabularies)


def make_parts(
    options: EventLogOptions, plan: Plan, log: Log, shared: Statistics, name: str
) -> Iterator[ImpressionSet]:
    """Yields the rows and streams of each shard that has rows in a split.

    Raises:
      UserError: a split that is empty.
    """
    counts, groups = np.zeros(len(SPLITS), np.int64), 0
    for done, shard in enumerate(_shards(options, plan, log, shared.end), 1):
        kept = np.flatnonzero(shard.windows.split != NO_SPLIT)
        if len(kept):
            part, users = _part(options, plan, log, shared, shard, kept, groups, name)
            groups += users
            counts += [len(part.splits[split]) for split in SPLITS]
            yield part
        if done % 50 == 0:
            say(f"event_log: {done} of {len(log.files)} shards, {counts.sum():,} rows")
    for split, count in zip(SPLITS, counts, strict=True):
        if not count:
            how = f"{split} = {getattr(options, split)}" if plan.splits else "each user's rows"
            raise UserError(
                f"{options.path}: no row falls into the split {split} ({how}); the log's times "
                f"are {log.first}..{log.last} ({plan.clock.unit})"
            )


def build_parts(
    options: EventLogOptions, plan: Plan, folder: Path, name: str
) -> tuple[Iterator[ImpressionSet], Statistics, str]:
    """Returns (parts, statistics, line about the source) of a log.

    Args:
      options: what to make of which log.
      plan: of the options.
      folder: for temporary files as large as the log.
      name: of the set.
    """
    say(f"event_log: reading {options.path}")
    log = sort_log(options, plan, folder)
    dropped = f", {log.dropped:,} dropped as out of range" if log.dropped else ""
    line = f"{options.path}: {log.events:,} events{dropped}"
    say(f"event_log: {log.events:,} events in {len(log.files)} shards{dropped}")
    shared = gather(options, plan, log)
    return make_parts(options, plan, log, shared, name), shared, line


def _shards(options: EventLogOptions, plan: Plan, log: Log, end: int) -> Iterator[Shard]:
    left = options.max_users or None
    for number in range(len(log.files)):
        events = read_shard(log, number)
        if left is not None:
            events = _first_users(events, left)
            left -= len(events.users)
        if not len(events.users):
            continue
        pairs = find_pairs(events)
        rows = make_rows(options, plan, events, pairs)
        yield Shard(events, pairs, rows, make_windows(options, plan, rows, len(events.users), end))


def _first_users(events: Events, count: int) -> Events:
    stop = int(np.searchsorted(events.user, count))
    rest = {name: getattr(events, name)[:stop] for name in events._fields if name != "users"}
    return Events(users=events.users[:count], **rest)


def _tables(options: EventLogOptions, plan: Plan, log: Log, first: FirstValues) -> dict[str, Table]:
    tables = {}
    if options.items_path:
        tables["items"] = read_table(
            options.items_path,
            options.item,
            log.coders["item"],
            plan.item_columns,
            options.bucketed,
        )
    elif plan.item_columns:
        places = {name: log.columns.index(name) for name in plan.item_columns}
        tables["items"] = first.table(places, log.coders)
    if options.users_path:
        tables["users"] = read_table(
            options.users_path,
            options.user,
            log.coders["user"],
            dict.fromkeys(options.user_columns, False),
            options.bucketed,
        )
    return tables


def _sources(
    options: EventLogOptions,
    plan: Plan,
    log: Log,
    users: Vocabulary,
    items: Vocabulary,
    known: dict[str, Vocabulary],
) -> tuple[Source, ...]:
    found = [Source(Column("user", users.size, "user"), users, "user", "user")]
    for name in options.user_columns:
        where = "users" if options.users_path else "log"
        found.append(Source(Column(name, known[name].size, "user"), known[name], where, name))
    found.append(Source(Column("item", items.size, "item"), items, "item", "item"))
    for name in options.event_columns:
        own = name in plan.item_columns
        column = Column(
            f"{name}_shown" if own else name, known[name].size, "item" if own else "context"
        )
        where = "log" if name in log.columns else "items"
        found.append(Source(column, known[name], where, name))
    return tuple(found)


def _attribute(name: str, vocabulary: Vocabulary, table: Table, items: Vocabulary) -> Attribute:
    own = vocabulary.ids(table.of(name, items.codes).ravel()).reshape(len(items.codes), -1)
    used = max(1, int((own > 0).sum(1).max(initial=0)))
    ids = np.zeros((items.size, used), np.int32)
    ids[1, 0] = 1  # An item that training has not seen has a value it has not seen.
    ids[2:] = own[:, :used]
    return Attribute(name, vocabulary.size, ids)


def _part(
    options: EventLogOptions,
    plan: Plan,
    log: Log,
    shared: Statistics,
    shard: Shard,
    kept: np.ndarray,
    groups: int,
    name: str,
) -> tuple[ImpressionSet, int]:
    """The part of a shard with its `kept` rows, and the number of their users."""
    events, pairs = shard.events, shard.pairs
    rows = Rows(*(array[kept] for array in shard.rows))
    timeline = Timeline(events.time)
    labels, mask = make_labels(plan, events, pairs, timeline, rows, shard.windows.limit[kept])
    distinct, group = np.unique(rows.user, return_inverse=True)
    needed = np.zeros(len(events.users), bool)
    needed[distinct] = True
    visible = needed[events.user]
    if options.policy == "frozen":
        visible &= events.time < shard.windows.train_end[events.user]
    streams, histories, now = [], [], timeline.at(rows.user, rows.time)
    for stream_name, bits in plan.streams.items():
        stream = make_stream(events, timeline, visible, bits)
        streams.append((stream, *stream_positions(stream, timeline, rows, now)))
        ids, counts = shared.item.ids(stream.item), stream.counts.astype(np.int32)
        histories.append(History(stream_name, "item", ids, stream.time, counts))
    columns = [source.column for source in shared.sources]
    fields = [_source_ids(log, shared, source, events, rows) for source in shared.sources]
    columns += feature_columns(options.features, tuple(plan.streams), plan.clock.unit)
    fields += feature_ids(
        options.features,
        plan,
        events,
        pairs,
        timeline,
        visible,
        rows,
        streams,
        shared.popularity,
    )
    split = shard.windows.split[kept]
    empty = np.zeros((len(kept), 0), np.float32)
    part = ImpressionSet(
        name=name,
        task_names=tuple(task.name for task in plan.tasks),
        columns=tuple(columns),
        item="item",
        attributes=shared.attributes,
        dense_names=(),
        histories=tuple(histories),
        fields=np.stack(fields, axis=1),
        dense=empty,
        starts=np.stack([starts for _, starts, _ in streams], axis=1),
        ends=np.stack([ends for _, _, ends in streams], axis=1),
        labels=labels,
        label_mask=mask,
        group=(groups + group).astype(np.int32),
        time=rows.time,
        splits={
            name: np.flatnonzero(split == number).astype(np.int32)
            for number, name in enumerate(SPLITS)
        },
        truth=empty,
    )
    return part, len(distinct)


def _source_ids(
    log: Log, shared: Statistics, source: Source, events: Events, rows: Rows
) -> np.ndarray:
    if source.where == "user":
        codes = events.users[rows.user]
    elif source.where == "item":
        codes = rows.item
    elif source.where == "log":
        codes = events.columns[rows.source, log.columns.index(source.key)]
    elif source.where == "users":
        codes = shared.tables["users"].of(source.key, events.users[rows.user])[:, 0]
    else:
        codes = shared.tables["items"].of(source.key, rows.item)[:, 0]
    return source.vocabulary.ids(codes)

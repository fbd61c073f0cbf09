"""External sort: a log of any size into files of whole users, each small enough for memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from mtl_jax.data.event_logs.codes import MISSING, Coder, NotNumbers, bucket_codes
from mtl_jax.data.event_logs.options import EventLogOptions, Plan
from mtl_jax.data.event_logs.reading import Block, find_files, read_blocks
from mtl_jax.data.event_logs.times import read_times
from mtl_jax.data.fetch import say
from mtl_jax.errors import UserError, did_you_mean

EVENTS_A_SHARD = 500_000
_BYTES_AN_EVENT, _PACKED = 25, 6  # Rough: only the number of shards depends on them.
_REPORT = 5_000_000


class Log(NamedTuple):
    """A log in shards.

    Attributes:
      files: one a shard, of records of `dtype`; shard after shard in ascending order of the hash
        of the user, so that how many there are changes no result.
      dtype: user, item, time, flags and a code for each of `columns`.
      columns: names.
      coders: of "user", "item" and each of `columns`.
      events: how many.
      first: the first time.
      last: the last time.
      dropped: events outside of `keep`.
    """

    files: tuple[Path, ...]
    dtype: np.dtype
    columns: tuple[str, ...]
    coders: dict[str, Coder]
    events: int
    first: int
    last: int
    dropped: int


class Events(NamedTuple):
    """The events of some users in memory, by user (in order of hash), time and item.

    Exact repeats are one event that counts several times; its columns are the first one's.

    Attributes:
      users: [U] codes.
      user: [E] positions in `users`.
      item: [E] codes.
      time: [E] int64.
      flags: [E] uint32 bits of behaviours.
      counts: [E] int64.
      columns: [E, C] codes.
    """

    users: np.ndarray
    user: np.ndarray
    item: np.ndarray
    time: np.ndarray
    flags: np.ndarray
    counts: np.ndarray
    columns: np.ndarray


def log_columns(options: EventLogOptions) -> tuple[str, ...]:
    """Returns the further columns that have to be read from the log itself."""
    own = [name.removesuffix("*") for name in options.item_columns]
    wanted = [] if options.items_path else list(own)
    wanted += [c for c in options.event_columns if not (options.items_path and c in own)]
    wanted += [] if options.users_path else options.user_columns
    return tuple(dict.fromkeys(wanted))


def sort_log(options: EventLogOptions, plan: Plan, folder: Path) -> Log:
    """Reads the whole log once and puts its events into shards in `folder`.

    Raises:
      UserError: what cannot be read, by file, row and column.
    """
    paths = find_files(options.path)
    shards = options.shards or _guess_shards(paths)
    columns = log_columns(options)
    coders = {name: Coder() for name in ("user", "item", *columns)}
    while True:
        try:
            return _sort(options, plan, folder, paths, shards, columns, coders)
        except NotNumbers:
            say("event_log: a column of numbers goes on as text; reading anew")


def read_shard(log: Log, number: int) -> Events:
    """Returns the events of one shard."""
    records = np.fromfile(log.files[number], log.dtype)
    hashes = hash_codes(records["user"])
    order = np.lexsort((records["flags"], records["item"], records["time"], hashes))
    records, hashes = records[order], hashes[order]
    new = np.ones(len(records), bool)
    same_user = hashes[1:] == hashes[:-1]
    new[1:] = ~same_user
    for key in ("time", "item", "flags"):
        new[1:] |= records[key][1:] != records[key][:-1]
    first = np.flatnonzero(new)
    records, hashes = records[first], hashes[first]
    starts = np.flatnonzero(np.concatenate([[True], hashes[1:] != hashes[:-1]])[: len(hashes)])
    user = np.zeros(len(records), np.int64)
    user[starts[1:]] = 1
    names = log.dtype.names or ()
    own = [records[name] for name in names[4:]]
    return Events(
        users=records["user"][starts],
        user=np.cumsum(user),
        item=records["item"].copy(),
        time=records["time"].copy(),
        flags=records["flags"].copy(),
        counts=np.diff(np.append(first, len(order))),
        columns=np.stack(own, axis=1) if own else np.zeros((len(records), 0), np.int64),
    )


def hash_codes(codes: np.ndarray) -> np.ndarray:
    """Returns 64 well-mixed bits of each code, no two codes the same (the splitmix64 mixer)."""
    x = codes.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _guess_shards(paths: Sequence[Path]) -> int:
    size = 0
    for path in paths:
        packed = path.suffix in (".gz", ".bz2", ".xz", ".parquet")
        size += path.stat().st_size * (_PACKED if packed else 1)
    return int(np.clip(-(-size // (_BYTES_AN_EVENT * EVENTS_A_SHARD)), 1, 512))


def _sort(
    options: EventLogOptions,
    plan: Plan,
    folder: Path,
    paths: Sequence[Path],
    shards: int,
    columns: tuple[str, ...],
    coders: Mapping[str, Coder],
) -> Log:
    dtype = np.dtype(
        [("user", np.int64), ("item", np.int64), ("time", np.int64), ("flags", np.uint32)]
        + [(f"column {name}", np.int64) for name in columns]
    )
    files = tuple(folder / f"shard-{number:03d}.bin" for number in range(shards))
    for file in files:
        file.write_bytes(b"")
    events, read, reported, ends = 0, 0, 0, []
    for block in _blocks(options, plan, paths, columns):
        records = _records(options, plan, block, columns, coders, dtype)
        read += len(next(iter(block.columns.values())))
        if read // _REPORT > reported:
            reported = read // _REPORT
            say(f"event_log: {read:,} events read")
        if len(records):
            ends += [int(records["time"].min()), int(records["time"].max())]
            events += len(records)
            _append(records, files)
    if not events:
        kept = f" between {' and '.join(options.keep)}" if options.keep else ""
        raise UserError(f"{options.path} holds no event{kept}")
    return Log(files, dtype, columns, dict(coders), events, min(ends), max(ends), read - events)


def _blocks(
    options: EventLogOptions, plan: Plan, paths: Sequence[Path], columns: tuple[str, ...]
) -> Iterator[Block]:
    own = [flag.column for flag in plan.flags] or [options.behaviour]
    wanted = [options.user, options.item, options.time, *own, *columns]
    for path in paths:
        yield from read_blocks(
            path, wanted, options.format, options.delimiter, options.header, options.events
        )


def _records(
    options: EventLogOptions,
    plan: Plan,
    block: Block,
    columns: tuple[str, ...],
    coders: Mapping[str, Coder],
    dtype: np.dtype,
) -> np.ndarray:
    """The events of a block that are inside `keep`, coded."""
    values = block.columns
    time = read_times(
        values[options.time],
        options.time_unit,
        options.utc_offset,
        plan.clock.unit,
        lambda row: f"{block.where(row)}, column {options.time!r}",
    )
    inside = np.ones(len(time), bool)
    if plan.keep:
        inside = (time >= plan.keep[0]) & (time <= plan.keep[1])
    elif len(time) and time.min() < 0:
        bad = int(np.flatnonzero(time < 0)[0])
        raise UserError(
            f"{block.where(bad)}, column {options.time!r}: time {time[bad]} is negative; give "
            "keep = (first, last) to drop what is out of range"
        )
    found = np.zeros(len(time), dtype)
    found["time"] = time
    found["flags"] = _flags(options, plan, block)
    for key, name in (("user", options.user), ("item", options.item)):
        found[key] = coders[key].codes(values[name])
        empty = inside & (found[key] == MISSING)
        if empty.any():
            row = int(np.flatnonzero(empty)[0])
            raise UserError(f"{block.where(row)}, column {name!r}: no {key} is given")
    for name in columns:
        if name in options.bucketed:
            codes = bucket_codes(values[name], f"{block.file}: column {name!r}")
        else:
            codes = coders[name].codes(values[name])
        found[f"column {name}"] = codes
    return found[inside]


def _flags(options: EventLogOptions, plan: Plan, block: Block) -> np.ndarray:
    """uint32 bits of the behaviours of each event."""
    if not plan.flags:
        return _mapped(block, options.behaviour, plan.codes)
    found = np.zeros(0, np.uint32)
    allowed: dict[str, dict[str, int]] = {}
    for flag in plan.flags:
        own = allowed.setdefault(flag.column, {"0": 0, "1": 0})
        own[flag.value] = own.get(flag.value, 0) | flag.bit
    for column, codes in allowed.items():
        bits = _mapped(block, column, codes)
        found = bits if not len(found) else found | bits
    return found


def _mapped(block: Block, column: str, codes: Mapping[str, int]) -> np.ndarray:
    coded = block.columns[column].cast(pa.string()).dictionary_encode()
    texts = coded.dictionary.to_pylist()
    bits = np.array([codes.get(text, -1) for text in texts] + [-1], np.int64)
    found = bits[coded.indices.fill_null(len(texts)).to_numpy(zero_copy_only=False)]
    if (found < 0).any():
        row = int(np.flatnonzero(found < 0)[0])
        value = block.columns[column][row].as_py()
        raise UserError(
            f"{block.where(row)}, column {column!r}: behaviour {value!r} is not among the options'"
            f" codes; {did_you_mean(str(value), codes)}"
        )
    return found.astype(np.uint32)


def _append(records: np.ndarray, files: Sequence[Path]) -> None:
    shard = (hash_codes(records["user"]) >> np.uint64(32)) * np.uint64(len(files)) >> np.uint64(32)
    order = np.argsort(shard, kind="stable")
    ends = np.searchsorted(shard[order], np.arange(len(files) + 1))
    records = records[order]
    for number, file in enumerate(files):
        if ends[number] < ends[number + 1]:
            with open(file, "ab") as open_file:
                records[ends[number] : ends[number + 1]].tofile(open_file)

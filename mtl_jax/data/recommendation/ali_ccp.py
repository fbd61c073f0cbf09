"""Ali-CCP as impressions, from the publisher's four files, built with bounded memory.

Tasks: `click` and `conversion`, both with mask 1 on every row: a conversion is of the impression,
0 where there was no click. Whether to learn it from clicks only is the system's choice. Rows that
were bought without a click are dropped, as is usual.

Histories are what the publisher gives of a user's past: bags of categories, shops, brands and
intentions without times or order, hence with `times` [0]. A bag holds ids of the candidate's column
of that kind, whose vocabulary is of both. Of a bag the `bag` entries of greatest value are kept; of
any other field that is there more than once, the first.

Splits: the publisher's test; of the training users (by their common features) a tenth, chosen by a
hash, validates. `group` numbers the users (field 101); `time` is 0, the source has none.

The features that many rows share are joined by their key. Rows are first sorted into shards of
users on disk, so that only the vocabularies and a shard are in memory.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mtl_jax.data.impressions import PAD, UNSEEN, Column, History, ImpressionSet
from mtl_jax.data.recommendation.ali_ccp_lines import (
    BAGS,
    CONTEXT_FIELDS,
    ITEM_FIELDS,
    SIDES,
    USER_FIELDS,
    Features,
    read_common,
    read_samples,
)
from mtl_jax.data.recommendation.vocabulary import FIRST
from mtl_jax.errors import UserError

TASKS = ("click", "conversion")
MANUAL = "sample_skeleton_{train,test}.csv and common_features_{train,test}.csv"
# (least count of an id in training) of each config, the default first.
CONFIGS = {"default": 10, "all_ids": 1}
OWN_FIELDS = {**ITEM_FIELDS, **CONTEXT_FIELDS}
_COLUMNS = (*USER_FIELDS, *OWN_FIELDS)
_HELD_OUT = 10  # One of so many training users validates.
_PENDING = 1 << 18  # Numbers that wait in memory for each file.

Books = Mapping[str, Mapping[str, int]]


def ali_ccp_parts(
    folder: Path,
    min_count: int = CONFIGS["default"],
    bag: int = 50,
    shards: int = 64,
    scratch: Path | None = None,
) -> tuple[Iterator[ImpressionSet], dict[str, np.ndarray]]:
    """Returns the set in parts, and the raw values of each vocabulary, of ids 2, 3, ...

    Args:
      folder: with the four files.
      min_count: ids seen less often in training are UNSEEN.
      bag: entries kept of each bag.
      shards: parts for each of train and test.
      scratch: where the shards go; None for a temporary folder.

    Raises:
      UserError: a missing file, a wrong line, a key without common features. Those of the rows
        come while the parts are read.
    """
    for side in SIDES:
        for name in (f"sample_skeleton_{side}.csv", f"common_features_{side}.csv"):
            if not (folder / name).is_file():
                raise UserError(f"{folder / name}: no such file; Ali-CCP is {MANUAL}")
    values = count_vocabularies(folder, min_count)
    return _parts(folder, values, bag, shards, scratch), values


def count_vocabularies(folder: Path, min_count: int) -> dict[str, np.ndarray]:
    """Returns the ids of each column in training rows, str, sorted by number."""
    counts: dict[str, Counter[str]] = {column: Counter() for column in _COLUMNS}
    validating = set()
    for key, features in read_common(folder, "train"):
        if _held_out(_hash(key)):
            validating.add(_hash(key))
            continue
        for column, field in USER_FIELDS.items():
            counts[column].update(name for name, _ in features.get(field, ())[:1])
        for column, field in BAGS.items():
            counts[column].update(name for name, _ in features.get(field, ()))
    for sample in read_samples(folder, "train"):
        if _hash(sample.key) in validating:
            continue
        for column, field in OWN_FIELDS.items():
            counts[column].update(name for name, _ in sample.features.get(field, ())[:1])
    return {
        column: np.array(
            sorted((n for n, c in counter.items() if c >= min_count), key=lambda n: (len(n), n)),
            dtype=str,
        )
        for column, counter in counts.items()
    }


def _parts(
    folder: Path, values: dict[str, np.ndarray], bag: int, shards: int, scratch: Path | None
) -> Iterator[ImpressionSet]:
    books = {
        column: {name: place + FIRST for place, name in enumerate(names.tolist())}
        for column, names in values.items()
    }
    groups: dict[str, int] = {}
    for side in SIDES:
        with tempfile.TemporaryDirectory(dir=scratch, prefix=f"ali_ccp_{side}_") as name:
            writer = _Shards(Path(name), shards)
            for key, features in read_common(folder, side):
                user = features.get(USER_FIELDS["user"], [("", 0.0)])[0][0]
                _put_common(writer, key, features, books, bag, groups.setdefault(user, len(groups)))
            for sample in read_samples(folder, side):
                key = _hash(sample.key)
                ids = [_id(sample.features, column, books) for column in OWN_FIELDS]
                writer.put(key, "row_key", [key])
                writer.put(key, "row", [sample.click, sample.conversion, *ids])
            writer.flush()
            for shard in range(shards):
                if part := _part(writer, shard, side, books):
                    yield part


def _put_common(
    writer: _Shards, key: str, features: Features, books: Books, bag: int, group: int
) -> None:
    number = _hash(key)
    lengths = []
    for column, field in BAGS.items():
        entries = sorted(features.get(field, ()), key=lambda entry: -entry[1])[:bag]
        ids = [books[column].get(name, UNSEEN) for name, _ in entries]
        writer.put(number, f"bag_{column}", ids)
        lengths.append(len(ids))
    writer.put(number, "common_key", [number])
    columns = [_id(features, column, books) for column in USER_FIELDS]
    writer.put(number, "common", [group, *lengths, *columns])


def _id(features: Features, column: str, books: Books) -> int:
    field = USER_FIELDS.get(column) or OWN_FIELDS[column]
    entries = features.get(field)
    return books[column].get(entries[0][0], UNSEEN) if entries else PAD


def _part(writer: _Shards, shard: int, side: str, books: Books) -> ImpressionSet | None:
    """The rows of a shard, user after user, or None."""
    row_keys, common_keys = writer.get(shard, "row_key"), writer.get(shard, "common_key")
    if not len(row_keys):
        return None
    rows = writer.get(shard, "row").reshape(len(row_keys), 2 + len(OWN_FIELDS))
    common = writer.get(shard, "common").reshape(-1, 1 + len(BAGS) + len(USER_FIELDS))
    order = np.argsort(common_keys, kind="stable")
    place = np.searchsorted(common_keys, row_keys, sorter=order)
    known = place < len(order)
    known[known] = common_keys[order[place[known]]] == row_keys[known]
    if not known.all():
        raise UserError(
            f"Ali-CCP {side}: {int((~known).sum())} rows of sample_skeleton_{side}.csv have a key "
            f"that common_features_{side}.csv lacks; give both files of one download"
        )
    user = order[place]
    by_user = np.argsort(user, kind="stable")
    user, rows, row_keys = user[by_user], rows[by_user], row_keys[by_user]
    lengths = common[:, 1 : 1 + len(BAGS)].astype(np.int64)
    ends = np.cumsum(lengths, axis=0)
    held = _held_out(row_keys) if side == "train" else np.zeros(len(rows), bool)
    splits = {
        "train": ~held if side == "train" else held,
        "validation": held,
        "test": np.full(len(rows), side == "test"),
    }
    kinds = {**dict.fromkeys(USER_FIELDS, "user"), **dict.fromkeys(ITEM_FIELDS, "item")}
    return ImpressionSet(
        name="ali_ccp",
        task_names=TASKS,
        columns=tuple(
            Column(column, len(books[column]) + FIRST, kinds.get(column, "context"))
            for column in _COLUMNS
        ),
        item="item",
        attributes=(),
        dense_names=(),
        histories=tuple(
            History(
                name=f"{column}_bag",
                vocabulary=column,
                ids=(ids := writer.get(shard, f"bag_{column}")),
                times=np.zeros(0, np.int64),
                counts=np.ones(len(ids), np.int32),
            )
            for column in BAGS
        ),
        fields=np.concatenate([common[user, 1 + len(BAGS) :], rows[:, 2:]], 1),
        dense=np.zeros((len(rows), 0), np.float32),
        starts=(ends - lengths)[user],
        ends=ends[user],
        labels=rows[:, :2].astype(np.float32),
        label_mask=np.ones((len(rows), 2), np.float32),
        group=common[user, 0],
        time=np.zeros(len(rows), np.int64),
        splits={split: np.flatnonzero(own).astype(np.int32) for split, own in splits.items()},
        truth=np.zeros((len(rows), 0), np.float32),
    )


def _hash(key: str) -> int:
    """63 bits of the key, the same in every process."""
    digest = hashlib.blake2b(key.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def _held_out(key: Any) -> Any:
    """Whether the training user of a hashed key, or an array of them, validates."""
    return key % _HELD_OUT == 0


class _Shards:
    """Streams of numbers in files, one of each name in each shard of users."""

    def __init__(self, folder: Path, shards: int) -> None:
        self._folder, self._shards = folder, shards
        self._waiting: dict[tuple[int, str], list[int]] = {}

    def put(self, key: int, name: str, numbers: list[int]) -> None:
        # Not the last digit, which says who validates.
        slot = (key // _HELD_OUT % self._shards, name)
        waiting = self._waiting.setdefault(slot, [])
        waiting += numbers
        if len(waiting) > _PENDING:
            self._write(slot)

    def flush(self) -> None:
        for slot in list(self._waiting):
            self._write(slot)

    def get(self, shard: int, name: str) -> np.ndarray:
        path = self._path((shard, name))
        return np.fromfile(path, _dtype(name)) if path.exists() else np.zeros(0, _dtype(name))

    def _write(self, slot: tuple[int, str]) -> None:
        with open(self._path(slot), "ab") as file:
            file.write(np.array(self._waiting.pop(slot), _dtype(slot[1])).tobytes())

    def _path(self, slot: tuple[int, str]) -> Path:
        return self._folder / f"{slot[1]}.{slot[0]}.bin"


def _dtype(name: str) -> Any:
    return np.int64 if name.endswith("_key") else np.int32

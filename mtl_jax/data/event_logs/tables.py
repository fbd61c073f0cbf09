"""What is known of items and users besides the log: values by key."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from mtl_jax.data.event_logs.codes import MISSING, Coder, bucket_codes
from mtl_jax.data.event_logs.reading import Block, find_files, read_blocks
from mtl_jax.data.event_logs.times import compute
from mtl_jax.data.event_logs.vocabularies import Counter

MOST_VALUES = 8  # Of a column with several values an item.
_PENDING = 1_000_000  # Parts are merged when they hold so much, or as much as what is merged.


class Table(NamedTuple):
    """Values of keys.

    Attributes:
      keys: [n] codes, ascending.
      values: {column: [n, k] codes, MISSING where there are fewer}.
      coders: {column: what numbered its values}.
    """

    keys: np.ndarray
    values: dict[str, np.ndarray]
    coders: dict[str, Coder]

    def of(self, column: str, codes: np.ndarray) -> np.ndarray:
        """Returns the values [len(codes), k] of some keys, MISSING for keys not in the table."""
        own = self.values[column]
        if not len(self.keys):
            return np.full((len(codes), own.shape[1]), MISSING)
        place = np.minimum(np.searchsorted(self.keys, codes), len(self.keys) - 1)
        return np.where((self.keys[place] == codes)[:, None], own[place], MISSING)


class FirstValues:
    """Remembers for each item the columns of its first event."""

    def __init__(self, width: int) -> None:
        self._parts = [np.zeros((3 + width, 0), np.int64)]
        self._pending, self._merged = 0, 0

    def add(
        self, item: np.ndarray, time: np.ndarray, order: np.ndarray, values: np.ndarray
    ) -> None:
        """Adds events: of items [n] at times [n] with `values` [n, C]; `order` breaks ties."""
        self._parts.append(_firsts(np.concatenate([np.stack([item, time, order]), values.T])))
        self._pending += self._parts[-1].shape[1]
        if self._pending > max(_PENDING, self._merged):
            self._parts = [_firsts(np.concatenate(self._parts, axis=1))]
            self._pending, self._merged = 0, self._parts[0].shape[1]

    def table(self, columns: Mapping[str, int], coders: Mapping[str, Coder]) -> Table:
        """Returns them as a table; `columns` are {name: place among the values}."""
        kept = _firsts(np.concatenate(self._parts, axis=1))
        values = {name: kept[3 + place][:, None] for name, place in columns.items()}
        return Table(kept[0], values, {name: coders[name] for name in columns})


def read_table(
    path: str,
    key: str,
    coder: Coder,
    columns: Mapping[str, bool],
    bucketed: Sequence[str],
) -> Table:
    """Reads a CSV file with one line a key; of a repeated key the first line counts.

    Args:
      path: of the file.
      key: name of its column.
      coder: of the keys in the log; keys that the log does not have are left out.
      columns: {name: whether it holds several values, joined by commas}.
      bucketed: those columns that hold numbers, to be put into log2 buckets.
    """
    coders = {name: Coder() for name in columns}
    keys: list[np.ndarray] = []
    values: dict[str, list[np.ndarray]] = {name: [] for name in columns}
    # Every value is read as text: a file that is read once needs no restart for late text.
    for own in coders.values():
        own.texts = {}
    for file in find_files(path):
        for block in read_blocks(file, [key, *columns]):
            keys.append(coder.known(block.columns[key]))
            for name, several in columns.items():
                values[name].append(_values(block, name, several, name in bucketed, coders[name]))
    codes = np.concatenate(keys)
    distinct, first = np.unique(codes, return_index=True)
    first = first[distinct != MISSING]
    found = {name: np.concatenate(own)[first] for name, own in values.items()}
    return Table(codes[first], found, coders)


def count_values(table: Table, column: str, keys: np.ndarray, counts: np.ndarray) -> Counter:
    """Returns how often each value of `column` was met, given how often each of `keys` was."""
    counter = Counter()
    own = table.of(column, keys)
    counter.add(own.ravel(), np.repeat(counts, own.shape[1]))
    return counter


def _firsts(table: np.ndarray) -> np.ndarray:
    """Of the columns of [3 + C, n] (item, time, order, values) the first of each item."""
    table = table[:, np.lexsort((table[2], table[1], table[0]))]
    first = np.ones(table.shape[1], bool)
    first[1:] = table[0, 1:] != table[0, :-1]
    return table[:, first]


def _values(block: Block, name: str, several: bool, bucketed: bool, coder: Coder) -> np.ndarray:
    own = block.columns[name]
    if bucketed:
        return bucket_codes(own, f"{block.file}: column {name!r}")[:, None]
    if not several:
        return coder.codes(own)[:, None]
    parts = compute.split_pattern(own.fill_null(""), ",")
    found = np.full((len(own), MOST_VALUES), MISSING)
    rows = compute.list_parent_indices(parts).to_numpy()
    place = np.arange(len(rows)) - np.searchsorted(rows, rows)
    texts = compute.utf8_trim_whitespace(parts.flatten())
    codes = coder.codes(compute.if_else(compute.equal(texts, ""), None, texts))
    inside = (place < MOST_VALUES) & (codes != MISSING)
    found[rows[inside], place[inside]] = codes[inside]
    return found

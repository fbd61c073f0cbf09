"""Vocabularies and statistics of the training window, gathered shard by shard."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from mtl_jax.data.event_logs.codes import MISSING
from mtl_jax.data.impressions import PAD, UNSEEN

_PENDING = 2_000_000  # Parts are merged when they hold so much, or as much as what is merged.


class Vocabulary(NamedTuple):
    """The codes [V] int64, ascending, of ids 2 .. V + 1."""

    codes: np.ndarray

    @property
    def size(self) -> int:
        """Ids are 0 .. size - 1."""
        return len(self.codes) + 2

    def ids(self, codes: np.ndarray) -> np.ndarray:
        """Returns int32 ids: PAD for MISSING, UNSEEN for codes that are not in it."""
        if not len(self.codes):
            return np.where(codes == MISSING, PAD, UNSEEN).astype(np.int32)
        place = np.minimum(np.searchsorted(self.codes, codes), len(self.codes) - 1)
        found = np.where(self.codes[place] == codes, place + 2, UNSEEN)
        return np.where(codes == MISSING, PAD, found).astype(np.int32)


class Counter:
    """Counts codes in memory that grows with the distinct ones only."""

    def __init__(self) -> None:
        self._parts: list[tuple[np.ndarray, np.ndarray]] = []
        self._pending, self._merged = 0, 0

    def add(self, codes: np.ndarray, counts: np.ndarray) -> None:
        """Adds `counts` [n] of `codes` [n], MISSING left out."""
        real = codes != MISSING
        self._parts.append(_summed(codes[real], counts[real]))
        self._pending += len(self._parts[-1][0])
        if self._pending > max(_PENDING, self._merged):
            self._parts = [self.total()]
            self._pending, self._merged = 0, len(self._parts[0][0])

    def total(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns the distinct codes, ascending, and the count of each."""
        if not self._parts:
            return np.zeros(0, np.int64), np.zeros(0, np.int64)
        codes, counts = zip(*self._parts, strict=True)
        return _summed(np.concatenate(codes), np.concatenate(counts))

    def vocabulary(self, min_count: int) -> Vocabulary:
        """Returns the codes that were counted at least `min_count` times."""
        codes, counts = self.total()
        return Vocabulary(codes[counts >= min_count])


class Popularity:
    """How many events each item has had, day by day."""

    def __init__(self) -> None:
        self._parts: list[np.ndarray] = []
        self._pending, self._merged = 0, 0
        self._index: tuple[np.ndarray, ...] | None = None

    def add(self, items: np.ndarray, days: np.ndarray, counts: np.ndarray) -> None:
        """Adds `counts` events of `items` on `days`, all [n] int64."""
        self._parts.append(_daily(np.stack([items, days, counts])))
        self._pending += self._parts[-1].shape[1]
        self._index = None
        if self._pending > max(_PENDING, self._merged):
            self._parts = [_daily(np.concatenate(self._parts, axis=1))]
            self._pending, self._merged = 0, self._parts[0].shape[1]

    def before(self, items: np.ndarray, days: np.ndarray) -> np.ndarray:
        """Returns how many events `items` [n] had on days before `days` [n]."""
        if self._index is None:
            self._index = self._make_index()
        distinct_items, distinct_days, keys, total = self._index
        if not len(keys):
            return np.zeros(len(items), np.int64)
        width = len(distinct_days) + 1
        place = np.searchsorted(distinct_items, items)
        known = distinct_items[np.minimum(place, len(distinct_items) - 1)] == items
        start = np.searchsorted(keys, place * width)
        end = np.searchsorted(keys, place * width + np.searchsorted(distinct_days, days))
        return np.where(known, total[end] - total[start], 0)

    def _make_index(self) -> tuple[np.ndarray, ...]:
        """Distinct items and days, a key for each (item, day), and the events before each key."""
        whole = np.concatenate([np.zeros((3, 0), np.int64), *self._parts], axis=1)
        item, day, count = _daily(whole)
        distinct_items, distinct_days = np.unique(item), np.unique(day)
        keys = np.searchsorted(distinct_items, item) * (len(distinct_days) + 1)
        keys += np.searchsorted(distinct_days, day)
        return distinct_items, distinct_days, keys, np.concatenate([[0], np.cumsum(count)])


def _summed(codes: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    distinct, place = np.unique(codes, return_inverse=True)
    total = np.bincount(place, weights=counts, minlength=len(distinct))
    return distinct, total.astype(np.int64)


def _daily(table: np.ndarray) -> np.ndarray:
    """Sums the counts of equal (item, day) columns of [3, n]; sorted by item, then day."""
    table = table[:, np.lexsort((table[1], table[0]))]
    new = np.ones(table.shape[1], bool)
    new[1:] = (table[0, 1:] != table[0, :-1]) | (table[1, 1:] != table[1, :-1])
    first = np.flatnonzero(new)
    if not len(first):
        return table
    return np.stack([table[0, first], table[1, first], np.add.reduceat(table[2], first)])

"""Vocabularies: raw values that were seen in training, and their ids."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from mtl_jax.data.impressions import PAD, UNSEEN

FIRST = 2  # The first id that stands for a raw value.


class Vocabulary(NamedTuple):
    """Raw values in sorted order; value i has id i + 2.

    Attributes:
      name: of the column or attribute.
      values: [V] distinct, sorted, of any type that numpy sorts.
    """

    name: str
    values: np.ndarray

    @property
    def size(self) -> int:
        """Ids are 0 .. size - 1."""
        return len(self.values) + FIRST

    def ids(self, raw: Any, present: Any = True) -> np.ndarray:
        """Returns int32 ids of `raw`, any shape: UNSEEN for other values, PAD where not present."""
        raw, present = np.asarray(raw), np.asarray(present, bool)
        if not len(self.values):
            found = np.full(raw.shape, UNSEEN)
        else:
            place = np.minimum(np.searchsorted(self.values, raw), len(self.values) - 1)
            found = np.where(self.values[place] == raw, place + FIRST, UNSEEN)
        return np.where(present, found, PAD).astype(np.int32)


def fit(name: str, raw: Any, present: Any = True, min_count: int = 1) -> Vocabulary:
    """Returns the vocabulary of the training rows' values.

    Args:
      name: of the column.
      raw: [n] values of training rows.
      present: [n] bool, false where there is no value.
      min_count: values seen less often count as unseen.
    """
    raw = np.asarray(raw)
    kept = raw[np.broadcast_to(np.asarray(present, bool), raw.shape)]
    values, counts = np.unique(kept, return_counts=True)
    return Vocabulary(name, values[counts >= min_count])


def padded_lists(lists: list[list[str]], width: int) -> np.ndarray:
    """Returns the first `width` words of each list as [n, width] str, "" where there is none."""
    found = np.full((len(lists), width), "", dtype=object)
    for row, words in enumerate(lists):
        found[row, : min(width, len(words))] = words[:width]
    return found.astype(str)

"""Harrell's concordance by its definition, over all pairs."""

from __future__ import annotations

import numpy as np


def concordance(time: np.ndarray, event: np.ndarray, score: np.ndarray) -> float:
    """Share of comparable pairs in which who stops first has the lower score; ties count half.

    A pair is comparable if one has an event, and the other is seen later, or is censored on the
    same day.
    """
    good = pairs = 0.0
    for rows in np.array_split(np.flatnonzero(event), 1 + event.sum() // 200):
        later = time[rows, None] < time
        later |= (time[rows, None] == time) & ~event
        own = score[rows, None]
        good += np.count_nonzero(later & (own < score))
        good += np.count_nonzero(later & (own == score)) / 2
        pairs += np.count_nonzero(later)
    return good / pairs

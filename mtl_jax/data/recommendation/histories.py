"""Which events of a stream a row may read: those of its user that are strictly earlier."""

from __future__ import annotations

import numpy as np

from mtl_jax.data.impressions import History


def earlier_events(
    event_user: np.ndarray, event_time: np.ndarray, row_user: np.ndarray, row_time: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the positions at which each row's history starts and ends, [N] int64 each.

    Events of the row's own time are left out: their order against the row is unknown.

    Args:
      event_user: [E] int, sorted.
      event_time: [E] int, sorted within each user.
      row_user: [N] int.
      row_time: [N] int.
    """
    starts = np.searchsorted(event_user, row_user, side="left").astype(np.int64)
    if not len(event_time) or not len(row_time):
        return starts, starts.copy()
    # Ranks of the times, so that user and time fit into one sortable integer.
    times = np.unique(event_time)
    width = len(times) + 1
    keys = event_user.astype(np.int64) * width + np.searchsorted(times, event_time)
    wanted = row_user.astype(np.int64) * width + np.searchsorted(times, row_time, side="left")
    return starts, np.searchsorted(keys, wanted, side="left").astype(np.int64)


def stream(name: str, vocabulary: str, ids: np.ndarray, times: np.ndarray) -> History:
    """Returns the history of single events in this order."""
    return History(
        name,
        vocabulary,
        ids.astype(np.int32),
        times.astype(np.int64),
        np.ones(len(ids), np.int32),
    )

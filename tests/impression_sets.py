"""Small impression sets for tests of the recommendation system."""

from __future__ import annotations

import numpy as np

from mtl_jax.data.impressions import (
    Attribute,
    Column,
    History,
    ImpressionSet,
    check_impressions,
)


def tiny_set(
    rows: int = 96, tasks: int = 3, behaviours: int = 2, items: int = 12, seed: int = 0
) -> ImpressionSet:
    """A set of random rows whose first task depends on the item, the others on the user too."""
    rng = np.random.default_rng(seed)
    users = 8
    fields = np.stack(
        [rng.integers(2, users + 2, rows), rng.integers(2, items, rows), rng.integers(1, 5, rows)],
        axis=1,
    ).astype(np.int32)
    time = np.sort(rng.integers(100, 1000, rows)).astype(np.int64)
    histories, starts, ends = [], [], []
    for s in range(behaviours):
        events = 40
        times = np.sort(rng.integers(0, 900, (users, events)), axis=1)
        ids = rng.integers(1, items, users * events).astype(np.int32)
        counts = rng.integers(1, 4, users * events).astype(np.int32)
        histories.append(
            History(f"behaviour_{s}", "item_id", ids, times.ravel().astype(np.int64), counts)
        )
        start = (fields[:, 0] - 2) * events
        earlier = (times[fields[:, 0] - 2] < time[:, None]).sum(1)
        starts.append(start)
        ends.append(start + earlier)
    effect = rng.normal(size=(tasks, items))
    taste = rng.normal(size=(tasks, users))
    logits = effect[:, fields[:, 1]] + taste[:, fields[:, 0] - 2] * np.arange(tasks)[:, None]
    labels = (rng.random((tasks, rows)) < 1 / (1 + np.exp(-logits))).T.astype(np.float32)
    order = np.arange(rows, dtype=np.int32)
    genres = rng.integers(0, 6, (items, 3)).astype(np.int32)
    genres[0] = 0
    return check_impressions(
        ImpressionSet(
            name="tiny",
            task_names=tuple(f"task_{t}" for t in range(tasks)),
            columns=(
                Column("user_id", users + 2, "user"),
                Column("item_id", items, "item"),
                Column("hour", 5, "context"),
            ),
            item="item_id",
            attributes=(Attribute("genre", 6, genres),),
            dense_names=("price",),
            histories=tuple(histories),
            fields=fields,
            dense=rng.normal(size=(rows, 1)).astype(np.float32),
            starts=np.stack(starts, 1).astype(np.int64),
            ends=np.stack(ends, 1).astype(np.int64),
            labels=labels,
            label_mask=(rng.random((rows, tasks)) < 0.9).astype(np.float32),
            group=(fields[:, 0] - 2).astype(np.int32),
            time=time,
            splits={
                "train": order[: rows * 2 // 3],
                "validation": order[rows * 2 // 3 : rows * 5 // 6],
                "test": order[rows * 5 // 6 :],
            },
            truth=np.zeros((rows, 0), np.float32),
        ),
        "tiny",
    )

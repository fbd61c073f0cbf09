"""Impressions as batches: rows and event streams on the devices, batches of row numbers.

Histories are cut out of the streams when a batch is put together, so their length is a choice of
the run. Where the set does not fit on the device the same function runs on the host.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mtl_jax.data.impressions import ImpressionSet
from mtl_jax.errors import UserError
from mtl_jax.systems.base import Data
from mtl_jax.systems.row_data import row_data

Tree = Any


def columns_of(found: ImpressionSet) -> dict[str, np.ndarray]:
    """Returns the arrays that `gather` reads.

    The streams are laid one after the other. Times, of which ages alone are used, count from the
    first one, in a unit so coarse that int32 holds them: 31 days of milliseconds become seconds.

    Raises:
      UserError: more events than int32 counts.
    """
    sizes = [len(history.ids) for history in found.histories]
    offsets = np.concatenate([[0], np.cumsum(sizes)])[:-1].astype(np.int64)
    timed = [history.times for history in found.histories if len(history.times)]
    # By the events alone, so that the rows of `predict`, which come later, get the same unit.
    bounds = [(int(times.min()), int(times.max())) for times in timed if len(times)]
    span = max((high for _, high in bounds), default=0) - min((low for low, _ in bounds), default=0)
    unit, most = 1, np.iinfo(np.int32).max
    while span // unit > most // 2:
        unit *= 1000
    first = min([int(found.time.min())] + [low for low, _ in bounds]) // unit
    if sum(sizes) > most:
        raise UserError(
            f"{found.name}: there are {sum(sizes)} events, which must be below 2**31 here; use a"
            " part of the log"
        )

    def since(times: np.ndarray) -> np.ndarray:
        return np.minimum(times // unit - first, most).astype(np.int32)

    def joined(arrays: list[np.ndarray]) -> np.ndarray:
        return np.concatenate([*arrays, np.zeros(1, np.int32)]).astype(np.int32)

    times = [
        since(history.times) if len(history.times) else np.zeros(size, np.int32)
        for history, size in zip(found.histories, sizes, strict=True)
    ]
    widths = [attribute.ids.shape[1] for attribute in found.attributes]
    items = np.zeros(
        (len(found.attributes[0].ids) if widths else 1, len(widths), max(widths, default=1)),
        np.int32,
    )
    for a, attribute in enumerate(found.attributes):
        items[:, a, : widths[a]] = attribute.ids
    return {
        "fields": found.fields.astype(np.int32),
        "dense": found.dense.astype(np.float32),
        "labels": found.labels.astype(np.float32),
        "label_mask": found.label_mask.astype(np.float32),
        "time": since(found.time),
        "starts": (found.starts + offsets).astype(np.int32),
        "ends": (found.ends + offsets).astype(np.int32),
        "event_ids": joined([history.ids for history in found.histories]),
        "event_times": joined(times),
        "event_counts": joined([history.counts for history in found.histories]),
        "items": items,
    }


def gather(
    xp: Any,
    columns: Tree,
    rows: Any,
    length: int,
    item: int | None,
    event_attributes: bool,
    history_sizes: bool = False,
) -> Tree:
    """Returns the batch of some rows, see `inputs`.

    Args:
      xp: numpy, or jax.numpy.
      columns: of `columns_of`.
      rows: [B] row numbers.
      length: L.
      item: number of the item's column; None for none.
      event_attributes: whether events are to bring the attributes of their items along.
      history_sizes: whether the numbers are to end with log(1 + events in all) of each history, of
        which `history` shows the last L; differences of logs are rates.
    """
    batch = {name: columns[name][rows] for name in ("fields", "dense", "labels", "label_mask")}
    starts, ends, time = columns["starts"][rows], columns["ends"][rows], columns["time"][rows]
    if history_sizes:
        sizes = xp.log1p((ends - starts).astype(xp.float32))
        batch["dense"] = xp.concatenate([batch["dense"], sizes], 1)
    place = ends[:, :, None] + xp.arange(-length, 0, dtype=xp.int32)[None, None]
    real = place >= starts[:, :, None]
    place = xp.where(real, place, 0)
    batch["history"] = xp.where(real, columns["event_ids"][place], 0)
    batch["age"] = xp.where(real, time[:, None, None] - columns["event_times"][place], 0)
    batch["count"] = xp.where(real, columns["event_counts"][place], 0)
    if item is not None:
        batch["attributes"] = columns["items"][batch["fields"][:, item]]
        if event_attributes:
            batch["event_attributes"] = columns["items"][batch["history"]]
    return batch


def impression_data(
    found: ImpressionSet,
    *,
    length: int,
    batch_size: int,
    eval_batch_size: int,
    seed: int,
    shard: int,
    shards: int,
    event_attributes: bool = False,
    history_sizes: bool = False,
    resident: bool = True,
) -> Data:
    """Returns the data of an impression set.

    Args:
      found: the set.
      length: L, events a history.
      batch_size: global batch size of training.
      eval_batch_size: of evaluation.
      seed: of the order.
      shard: this process.
      shards: number of processes.
      event_attributes: see `gather`.
      history_sizes: see `gather`.
      resident: keep everything on the devices; else batches are put together on the host.
    """
    names = [column.name for column in found.columns]
    item = names.index(found.item) if found.attributes else None

    def batch_of(xp: Any, columns: Tree, rows: Any, training: bool) -> Tree:
        del training
        return gather(xp, columns, rows, length, item, event_attributes, history_sizes)

    return row_data(
        columns_of(found),
        found.splits,
        batch_of,
        batch_size=batch_size,
        eval_batch_size=eval_batch_size,
        seed=seed,
        shard=shard,
        shards=shards,
        resident=resident,
    )

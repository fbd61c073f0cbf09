"""Impressions with behaviour histories in memory: what every recommendation set is made of.

A row is one impression: an item shown to (or met by) a user at a time, with the ids of its
columns and T labels. Histories are kept once, as streams of events, not once a row: row i has
read events `starts[i, s] .. ends[i, s]` of stream s, all of them strictly earlier than the row.
The last L of them are looked up when a batch is put together, so that L is a choice of training
and a set takes no more memory than its log.

Ids: 0 is "nothing there" and 1 is "not seen in training" in every vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from mtl_jax.errors import UserError

SPLITS = ("train", "validation", "test")
PAD, UNSEEN = 0, 1


class Column(NamedTuple):
    """A categorical input.

    Attributes:
      name: of the column; also the name of its vocabulary and of its embedding table.
      size: ids are 0 .. size - 1, PAD and UNSEEN included.
      kind: "user", "item" or "context".
    """

    name: str
    size: int
    kind: str


class Attribute(NamedTuple):
    """What an item has besides its id: known for every item, the same whenever it is shown.

    Attributes:
      name: of the attribute, its vocabulary and its embedding table.
      size: ids are 0 .. size - 1, PAD and UNSEEN included.
      ids: [items, k] int32, row i for item id i; an item with fewer than k values is padded.
    """

    name: str
    size: int
    ids: np.ndarray


class History(NamedTuple):
    """The events of one behaviour type, user after user, each user's oldest first.

    Attributes:
      name: of the behaviour type.
      vocabulary: name of the column whose ids these are (mostly the item's).
      ids: [E] int32.
      times: [E] int64, in the unit of the rows' times; [0] where the source has none, and then the
        order means nothing.
      counts: [E] int32, how many equal events of one time an entry stands for.
    """

    name: str
    vocabulary: str
    ids: np.ndarray
    times: np.ndarray
    counts: np.ndarray


class ImpressionSet(NamedTuple):
    """A set of N impressions with T labels and S histories.

    Attributes:
      name: for messages.
      task_names: one name a label.
      columns: one for each of the F columns of `fields`.
      item: name of the column that holds the candidate item; "" where there is none.
      attributes: of the items.
      dense_names: one for each column of `dense`.
      histories: S streams.
      fields: [N, F] int32.
      dense: [N, D] float32, without NaN, of about unit scale.
      starts, ends: [N, S] int64 positions in the streams.
      labels: [N, T] float32, 0 or 1.
      label_mask: [N, T] float32: 0 where a label is missing, else the weight of that example.
      group: [N] int32, the user, for metrics within users.
      time: [N] int64.
      splits: row numbers int32 of "train", "validation" and "test".
      truth: [N, T] float32, the true probability of each label, where the set was generated;
        [N, 0] else.
    """

    name: str
    task_names: tuple[str, ...]
    columns: tuple[Column, ...]
    item: str
    attributes: tuple[Attribute, ...]
    dense_names: tuple[str, ...]
    histories: tuple[History, ...]
    fields: np.ndarray
    dense: np.ndarray
    starts: np.ndarray
    ends: np.ndarray
    labels: np.ndarray
    label_mask: np.ndarray
    group: np.ndarray
    time: np.ndarray
    splits: Mapping[str, np.ndarray]
    truth: np.ndarray

    def histories_of(self, rows: np.ndarray, length: int) -> np.ndarray:
        """Returns [len(rows), S, length] int32 ids, most recent last, padded in front."""
        found = np.zeros((len(rows), len(self.histories), length), np.int32)
        for s, history in enumerate(self.histories):
            place = self.ends[rows, s, None] + np.arange(-length, 0)
            real = place >= self.starts[rows, s, None]
            if len(history.ids):
                found[:, s] = np.where(real, history.ids[np.where(real, place, 0)], PAD)
        return found


def check_impressions(found: ImpressionSet, where: str) -> ImpressionSet:
    """Returns `found`; raises a `UserError` that names the first array that breaks a rule."""

    def require(holds: bool, rule: str) -> None:
        if not holds:
            raise UserError(f"{where}: {rule}")

    rows, tasks, streams = len(found.fields), len(found.task_names), len(found.histories)
    require(tasks > 0, "no task")
    require(len(set(found.task_names)) == tasks, f"task names repeat: {found.task_names}")
    names = [column.name for column in found.columns]
    names += [attribute.name for attribute in found.attributes]
    require(len(set(names)) == len(names), f"names of columns and attributes repeat: {names}")
    require(not found.item or found.item in names, f"no column is called {found.item!r}")
    for name, array, shape in (
        ("fields", found.fields, (rows, len(found.columns))),
        ("dense", found.dense, (rows, len(found.dense_names))),
        ("starts", found.starts, (rows, streams)),
        ("ends", found.ends, (rows, streams)),
        ("labels", found.labels, (rows, tasks)),
        ("label_mask", found.label_mask, (rows, tasks)),
        ("group", found.group, (rows,)),
        ("time", found.time, (rows,)),
    ):
        require(array.shape == shape, f"{name} is {list(array.shape)}; it must be {list(shape)}")
    require(found.truth.shape in ((rows, tasks), (rows, 0)), f"truth is {found.truth.shape}")
    for f, column in enumerate(found.columns):
        _check_ids(found.fields[:, f], column.size, f"{where}: column {column.name}")
    require(bool(np.isfinite(found.dense).all()), "dense holds NaN or infinity")
    sizes = {column.name: column.size for column in found.columns}
    for attribute in found.attributes:
        what = f"{where}: attribute {attribute.name}"
        _check_ids(attribute.ids, attribute.size, what)
        require(
            attribute.ids.ndim == 2 and len(attribute.ids) == sizes.get(found.item),
            f"attribute {attribute.name} is {list(attribute.ids.shape)}; it needs a row an item",
        )
    for s, history in enumerate(found.histories):
        what = f"history {history.name}"
        require(history.vocabulary in sizes, f"{what}: no column is called {history.vocabulary!r}")
        _check_ids(history.ids, sizes[history.vocabulary], f"{where}: {what}")
        events = len(history.ids)
        require(history.counts.shape == (events,), f"{what}: counts need one number an event")
        require(history.times.shape in ((events,), (0,)), f"{what}: times need one an event")
        start, end = found.starts[:, s], found.ends[:, s]
        inside = (start >= 0) & (start <= end) & (end <= events)
        require(bool(inside.all()), f"{what}: starts and ends must be positions in 0..{events}")
        if len(history.times):
            some = end > start
            late = history.times[end[some] - 1] >= found.time[some]
            require(not late.any(), f"{what}: an event at or after the time of its row")
    used = found.label_mask > 0
    require(bool((found.label_mask >= 0).all()), "label_mask holds a negative or NaN weight")
    binary = np.isin(found.labels[used], (0.0, 1.0))
    require(bool(binary.all()), "labels must be 0 or 1")
    for split in SPLITS:
        require(split in found.splits, f"no split {split}")
        own = found.splits[split]
        require(len(own) > 0, f"the split {split} is empty")
        require(bool((own >= 0).all() and (own < rows).all()), f"split {split}: no such rows")
    return found


def _check_ids(ids: np.ndarray, size: int, what: str) -> None:
    if not np.issubdtype(ids.dtype, np.integer):
        raise UserError(f"{what} holds {ids.dtype}; ids are whole numbers")
    if ids.size and not (ids.min() >= 0 and ids.max() < size):
        bad = ids.min() if ids.min() < 0 else ids.max()
        raise UserError(f"{what} holds id {bad}; it must be in 0..{size - 1}")

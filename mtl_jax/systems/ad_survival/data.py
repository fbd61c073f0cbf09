"""Lifetimes as batches: all rows on the devices, batches of row numbers.

Where the set does not fit on the device the same gather runs on the host.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np

from mtl_jax.data.lifetimes import SPLITS, LifetimeSet
from mtl_jax.data.loader import batch_indices, eval_batches
from mtl_jax.data.loader import steps_per_epoch as full_batches
from mtl_jax.errors import UserError, did_you_mean
from mtl_jax.survival import apply_ctr, apply_impressions, fit_ctr, fit_impressions
from mtl_jax.systems.ad_survival.config import WeightConfig
from mtl_jax.systems.ad_survival.terms import Targets, Views
from mtl_jax.systems.base import Data

Array = jax.Array
Tree = Any


def split_of(found: LifetimeSet, how: str) -> Mapping[str, np.ndarray]:
    """Returns {split: row numbers} of one of the set's ways to split, "" for the first.

    Raises:
      UserError: a way that the set does not have.
    """
    if how and how not in found.splits:
        raise UserError(f"config.data.split is {how!r}; {did_you_mean(how, found.splits)}")
    return found.splits[how or next(iter(found.splits))]


def seen_days(found: LifetimeSet, views: Views) -> np.ndarray:
    """Whole days of history that each row has at each view, [N, M] int32."""
    days = np.floor(np.asarray(views.days))[None]
    return np.minimum(found.history_days[:, None], days).astype(np.int32)


def loss_weights(
    found: LifetimeSet, views: Views, train: np.ndarray, weights: WeightConfig
) -> np.ndarray:
    """Returns the weights of rows in the training loss, [N, M] float32.

    They follow from what was shown and clicked up to each view, never later, and what is fitted is
    fitted to training rows (JSAI 2020, equation 2: (CTR + 1) times the loss). Before the first day
    on record the weight is 1.

    Raises:
      UserError: a set without the daily amounts that are needed.
    """
    out = np.tile(found.weight[:, None].astype(np.float32), (1, len(views.days)))
    if weights.kind == "none":
        return out
    for name in ("impressions", "clicks") if weights.kind == "ctr" else ("impressions",):
        if name not in found.history_names:
            raise UserError(
                f"config.weights.kind is {weights.kind}, but {found.name} has no daily {name};"
                " choose none"
            )
    days = seen_days(found, views)
    if not days.any():
        raise UserError(
            f"config.weights.kind is {weights.kind}, which needs days of history: add later"
            " landmarks to config.data.landmarks"
        )
    total = np.concatenate(
        [np.zeros_like(found.history[:, :1]), np.cumsum(found.history, 1, dtype=np.float64)], 1
    )
    rows = np.arange(len(out))
    for m in range(out.shape[1]):
        amounts = total[rows, days[:, m]]
        shown = amounts[:, found.history_names.index("impressions")]
        some = shown > 0
        known = train[some[train]]
        if not len(known):
            continue
        if weights.kind == "ctr":
            clicks = amounts[:, found.history_names.index("clicks")]
            fitted = fit_ctr(
                clicks[known], shown[known], weights.transform, mean_one=weights.mean_one
            )
            own = np.asarray(apply_ctr(fitted, clicks, shown))
        else:
            normal = fit_impressions(shown[known], mean_one=weights.mean_one)
            own = np.asarray(apply_impressions(normal, shown))
        out[:, m] *= np.where(some, own, 1)
    return out


def columns_of(
    found: LifetimeSet,
    inputs: Mapping[str, np.ndarray],
    targets: Targets,
    views: Views,
    weights: np.ndarray,
) -> dict[str, np.ndarray]:
    """Returns the arrays that batches are gathered from, all with a row for each lifetime."""
    return {
        **inputs,
        "event": targets.event,
        "exposure": targets.exposure,
        "counts": targets.counts,
        "entry": targets.entry,
        "time": found.time.astype(np.float32),
        "occurred": found.event.astype(np.int32),
        "upper": found.upper.astype(np.float32),
        "days": seen_days(found, views),
        "row_weight": found.weight.astype(np.float32),
        "loss_weight": weights.astype(np.float32),
    }


def gather(columns: Tree, rows: Any, train: bool) -> Tree:
    """Returns the batch of some rows; its `weight` [B, M] is that of training, or the rows' own."""
    batch = {name: leaf[rows] for name, leaf in columns.items()}
    own, loss = batch.pop("row_weight"), batch.pop("loss_weight")
    batch["weight"] = loss if train else own[:, None] + 0 * loss
    return batch


def lifetime_data(
    columns: Mapping[str, np.ndarray],
    splits: Mapping[str, np.ndarray],
    *,
    batch_size: int,
    eval_batch_size: int,
    seed: int,
    shard: int,
    shards: int,
    resident: bool = True,
) -> Data:
    """Returns the data of a lifetime set.

    Args:
      columns: of `columns_of`.
      splits: row numbers of each split.
      batch_size: global batch size of training.
      eval_batch_size: of evaluation, at most.
      seed: of the order.
      shard: this process.
      shards: number of processes.
      resident: keep everything on the devices; else batches are put together on the host.
    """
    train = splits["train"]
    per_epoch = full_batches(len(train), batch_size)
    others = tuple(split for split in SPLITS if split != "train" and len(splits[split]))
    # One size for all splits: a compiled step takes no other. A multiple of the training batch,
    # which divides over the devices.
    longest = max((len(splits[split]) for split in others), default=1)
    count = max(min(eval_batch_size // batch_size, -(-longest // batch_size)), 1)
    eval_size = count * batch_size

    def host_batch(rows: np.ndarray, training: bool) -> Tree:
        return {} if resident else gather(columns, rows, training)

    def train_batch(step: int) -> Tree:
        rows = train[batch_indices(seed, step, len(train), batch_size, shard, shards)]
        return {"row": rows.astype(np.int32), **host_batch(rows, True)}

    def batches(split: str) -> Iterator[Tree]:
        own = splits[split]
        for index, mask in eval_batches(len(own), eval_size, shard, shards):
            rows = own[index].astype(np.int32)
            yield {"row": rows, "mask": mask, **host_batch(rows, False)}

    def assemble(placed: Tree, host: Tree, keys: Array | None) -> Tree:
        batch = {name: leaf for name, leaf in host.items() if name not in ("row", "mask")}
        if resident:
            batch = gather(placed, host["row"], keys is not None)
        if keys is not None:
            batch["keys"] = keys
        if "mask" in host:
            batch["mask"], batch["row"] = host["mask"], host["row"]
        return batch

    return Data(
        dict(columns) if resident else {}, train_batch, batches, assemble, per_epoch, others
    )

"""Lifetimes as columns that batches are gathered from, and the weights of rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from mtl_jax.data.lifetimes import LifetimeSet
from mtl_jax.errors import UserError, did_you_mean
from mtl_jax.survival import apply_ctr, apply_impressions, fit_ctr, fit_impressions
from mtl_jax.systems.ad_survival.config import WeightConfig
from mtl_jax.systems.ad_survival.terms import Targets, Views

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


def gather(xp: Any, columns: Tree, rows: Any, training: bool) -> Tree:
    """Returns the batch of some rows; its `weight` [B, M] is that of training, or the rows' own.

    Args:
      xp: numpy, or jax.numpy.
      columns: of `columns_of`.
      rows: [B] row numbers.
      training: see above.
    """
    batch = {name: leaf[rows] for name, leaf in columns.items()}
    own, loss = batch.pop("row_weight"), batch.pop("loss_weight")
    batch["weight"] = loss if training else xp.broadcast_to(own[:, None], loss.shape)
    return batch

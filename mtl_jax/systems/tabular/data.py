"""A plain table as a network sees it: scaled, without gaps, on the devices."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from mtl_jax.data.tabular_sets import TabularSet

Tree = Any


class Prepared(NamedTuple):
    """Arrays and constants of a set; the constants follow from its training rows alone.

    Attributes:
      columns: what batches are gathered from, [N, ...] float32: `x`, `target` and `label_mask`;
        for regression also `offset`, the prediction of an output of 0, and `deviation`, the
        target's distance from its training mean, both in the target's unit.
      scale: [T] float32, what one unit of an output is in the target's unit; ones for labels.
    """

    columns: dict[str, np.ndarray]
    scale: np.ndarray


def prepare(found: TabularSet, *, carry: bool, clip: float = 0.0) -> Prepared:
    """Returns a set scaled by its training rows.

    Inputs have mean 0 and variance 1; a missing one is 0, its mean, and every input of which a
    training value is missing has a further column that is 1 where it is. Targets of regression
    have mean 0 and variance 1 as well; a missing one is 0 and has mask 0.

    Args:
      found: the set.
      carry: where the set knows the present value of its targets, the network predicts the change
        from it.
      clip: inputs further from their mean than so many standard deviations are brought there, as
        rows of another period may be far outside of what the training rows show; 0 for none.
    """
    train = found.splits["train"]
    raw = found.inputs.astype(np.float64)
    mean, std = _moments(raw[train])
    gaps = np.isnan(raw)
    filled = np.where(gaps, mean[None], raw)
    scaled = (filled - mean[None]) / std[None]
    if clip:
        scaled = np.clip(scaled, -clip, clip)
    x = np.concatenate([scaled, gaps[:, gaps[train].any(0)].astype(np.float64)], 1)
    labels = found.labels.astype(np.float64)
    mask = ~np.isnan(labels)
    columns = {"x": x, "label_mask": mask, "target": np.where(mask, labels, 0)}
    scale = np.ones(labels.shape[1])
    if found.kind == "regression":
        base = filled[:, list(found.present)] if carry and found.present else np.zeros_like(labels)
        centre, scale = _moments((labels - base)[train])
        offset = base + centre[None]
        overall, _ = _moments(labels[train])
        columns["target"] = np.where(mask, (labels - offset) / scale[None], 0)
        columns["deviation"] = np.where(mask, labels - overall[None], 0)
        columns["offset"] = offset
    return Prepared(
        {name: column.astype(np.float32) for name, column in columns.items()},
        scale.astype(np.float32),
    )


def _moments(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each column, missing values left out; 0 and 1 for none."""
    there = ~np.isnan(values)
    count = np.maximum(there.sum(0), 1)
    mean = np.where(there, values, 0).sum(0) / count
    variance = np.square(np.where(there, values - mean[None], 0)).sum(0) / count
    return mean, np.where(variance > 0, np.sqrt(variance), 1)


def gather(xp: Any, columns: Tree, rows: Any, training: bool) -> Tree:
    """Returns the batch of some rows; see `systems.row_data`."""
    del xp, training
    return {name: column[rows] for name, column in columns.items()}

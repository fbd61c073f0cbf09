"""The data of an operator set: everything on the devices, batches of sample numbers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np

from mtl_jax.data.loader import batch_indices, eval_batches
from mtl_jax.data.loader import steps_per_epoch as full_batches
from mtl_jax.data.operators import OperatorSet
from mtl_jax.errors import UserError
from mtl_jax.systems.base import Data

Array = jax.Array
Tree = Any

# A stream of its own for each task of a stratified batch: task t draws from seed + (t + 1) 2^32.
_TASK = 2**32


def points_of_step(seed: int, step: Array, points: int, count: int) -> Array:
    """Returns `count` of `points` query points, without repeats, drawn for one step."""
    key = jax.random.fold_in(jax.random.key(seed ^ 0x5EED), step)
    return jax.random.choice(key, points, (count,), replace=False)


def kept_points(found: OperatorSet) -> np.ndarray:
    """Returns the numbers of the query points that some geometry holds."""
    return np.flatnonzero(found.masks.any(0))


def pack(found: OperatorSet) -> tuple[OperatorSet, np.ndarray]:
    """Returns the set without the points that no geometry holds, and the numbers of those kept.

    Evaluating a trunk there would be wasted: 40 % of the heated plate's grid. The grid is lost.
    """
    kept = kept_points(found)
    if len(kept) == found.masks.shape[1]:
        return found, kept
    packed = found._replace(
        coords=found.coords[..., kept, :],
        grid=(),
        masks=found.masks[:, kept],
        solutions=found.solutions[:, kept],
    )
    return packed, kept


def unpack(values: np.ndarray, found: OperatorSet) -> np.ndarray:
    """Returns values [S, kept] of a packed set on all points [S, N] of `found`, NaN elsewhere."""
    whole = np.full((len(values), found.masks.shape[1]), np.nan, np.float32)
    whole[:, kept_points(found)] = values
    return whole


def boundary(masks: np.ndarray, grid: tuple[int, ...], skip: Sequence[int] = ()) -> np.ndarray:
    """Returns which points [G, N] lie inside and have a neighbour outside, or none on the grid.

    Neighbours are those along the axes. Without a grid there is no boundary: all False.

    Args:
      masks: [G, N] bool.
      grid: its shape, () for none.
      skip: axes of the grid without a boundary: the first and the last time are none.
    """
    if not grid:
        return np.zeros_like(masks)
    inside = masks.reshape(-1, *grid)
    inner = inside.copy()
    for axis in range(1, inside.ndim):
        if axis - 1 in skip:
            continue
        pad = [(1, 1) if a == axis else (0, 0) for a in range(inside.ndim)]
        padded = np.pad(inside, pad)
        size = inside.shape[axis]
        for shift in (0, 2):
            inner &= np.take(padded, np.arange(shift, shift + size), axis)
    return (inside & ~inner).reshape(masks.shape)


def time_axes(found: OperatorSet) -> tuple[int, ...]:
    """Returns the axis of the grid along which the coordinate named t runs; () for none."""
    if "t" not in found.coord_names or not found.grid or found.pointwise:
        return ()
    t = found.coords[:, found.coord_names.index("t")].reshape(found.grid)
    return (int(np.argmax([np.ptp(t, axis=axis).max() for axis in range(t.ndim)])),)


def operator_data(
    found: OperatorSet,
    *,
    batch_size: int,
    seed: int,
    stratified: bool = True,
    points_per_step: int = 0,
    image_masks: np.ndarray | None = None,
    edges: np.ndarray | None = None,
    shard: int = 0,
    shards: int = 1,
    devices: int = 1,
    microbatches: int = 1,
) -> Data:
    """Returns the data of an operator set.

    Args:
      found: the set.
      batch_size: over all shards; in a stratified batch a multiple of tasks times devices times
        micro-batches, each of which then has as many samples of each task.
      seed: of the order, and of the query points of each step.
      stratified: every batch has as many samples of each task, in turns; else samples of all
        tasks as they come.
      points_per_step: n > 0 for n query points a step, drawn anew.
      image_masks: [G, ...] masks in the layout of the fields; None where those have another.
      edges: [G, N] boundary points; None for none.
      shard: this process.
      shards: number of processes.
      devices: over all processes.
      microbatches: of each device's part of a batch.

    Raises:
      UserError: a batch that does not divide, or that is larger than a task.
    """
    num_tasks, train = len(found.task_names), found.splits["train"]
    points = found.masks.shape[1]
    if points_per_step > points:
        raise UserError(
            f"config.data.points_per_step is {points_per_step}, but there are {points} query"
            f" points; choose at most {points}, or 0 for all"
        )
    members = [train[found.task[train] == t] for t in range(num_tasks)]
    step_size = num_tasks * devices * microbatches
    if stratified and batch_size % step_size:
        near = max(batch_size // step_size, 1) * step_size
        raise UserError(
            f"config.train.batch_size is {batch_size}; a stratified batch of {num_tasks} tasks on"
            f" {devices} devices x {microbatches} micro-batches needs a multiple of {step_size}:"
            f" choose {near}, or config.data.batches=mixed"
        )
    each = batch_size // num_tasks
    if stratified:
        for name, own in zip(found.task_names, members, strict=True):
            if len(own) < each:
                raise UserError(
                    f"a stratified batch of {batch_size} takes {each} samples of task {name}, which"
                    f" has {len(own)} for training; choose a batch of at most"
                    f" {num_tasks * min(map(len, members))}, or config.data.batches=mixed"
                )
    inside = found.masks[found.geometry]
    values = np.where(inside, found.solutions, 0)
    square = np.einsum("sn,sn->s", values, values, dtype=np.float64)
    resident: dict[str, Any] = {
        "size": np.sqrt(square / inside.sum(1)).astype(np.float32),
        "params": found.params,
        "field": found.field,
        "solution": found.solutions,
        "task": found.task.astype(np.int32),
        "geometry": found.geometry.astype(np.int32),
        "masks": found.masks,
        "edges": np.zeros_like(found.masks) if edges is None else edges,
    }
    if found.pointwise:
        resident["coords"] = found.coords
    if image_masks is not None:
        resident["image_masks"] = image_masks

    def train_batch(step: int) -> Tree:
        if stratified:
            chosen = [
                own[batch_indices(seed + (t + 1) * _TASK, step, len(own), each)]
                for t, own in enumerate(members)
            ]
            part = batch_size // shards
            index = np.stack(chosen, 1).reshape(-1)[shard * part : (shard + 1) * part]
        else:
            index = train[batch_indices(seed, step, len(train), batch_size, shard, shards)]
        index = index.astype(np.int32)
        return {"index": index, "step": np.full(len(index), step, np.int32)}

    def batches(split: str) -> Iterator[Tree]:
        own = found.splits[split]
        for index, mask in eval_batches(len(own), batch_size, shard, shards):
            yield {"index": own[index].astype(np.int32), "mask": mask}

    def assemble(resident: Tree, host: Tree, keys: Array | None) -> Tree:
        del keys  # nothing is augmented
        index = host["index"]
        names = ("params", "field", "solution", "size", "task", "coords")
        batch = {name: resident[name][index] for name in names if name in resident}
        geometry = resident["geometry"][index]
        batch["inside"] = resident["masks"][geometry]
        if "image_masks" in resident:
            batch["image_mask"] = resident["image_masks"][geometry]
        if "mask" in host:
            return {**batch, "edge": resident["edges"][geometry], "mask": host["mask"]}
        batch["step"] = host["step"]
        if points_per_step:
            chosen = points_of_step(seed, host["step"][0], points, points_per_step)
            for name in ("solution", "inside", "coords"):
                if name in batch:
                    batch[name] = batch[name][:, chosen]
        return batch

    return Data(
        resident,
        train_batch,
        batches,
        assemble,
        full_batches(len(train), batch_size),
        ("validation", "test"),
    )

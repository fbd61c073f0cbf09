"""What a set for operator learning holds in memory: input functions, query points, solutions.

A sample is one solved problem. It belongs to a task (a family of source terms, a geometry) and to
a geometry (which of the query points lie inside). All samples share one list of query points
("cartesian": the usual case, a factor of 100 cheaper), or each has points of its own ("pointwise").
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from mtl_jax.errors import UserError

SPLITS = ("train", "validation", "test")


class OperatorSet(NamedTuple):
    """S samples of T tasks on G geometries, N query points each, in d coordinates.

    Attributes:
      task_names: T names.
      params: [S, P] float32 numbers that describe a sample (coefficients, design); P may be 0.
      field: [S, ...] float32 input function on its own grid; [S, 0] for none.
      coords: [N, d] float32 shared query points, or [S, N, d] for points of each sample's own.
      coord_names: d names, in the order of the columns of `coords`.
      grid: shape whose row-major (C order) flattening gives the N points; () for scattered ones.
      masks: [G, N] bool, True inside the geometry.
      solutions: [S, N] float32, 0 outside the mask.
      task: [S] int32, which task.
      geometry: [S] int32, which row of `masks`.
      splits: sample numbers, int32, of "train", "validation" and "test".
      background: value in whose neighbourhood solutions lie (the air around a heated body); errors
        are then given relative to solution - background too. 0 for none.
    """

    task_names: tuple[str, ...]
    params: np.ndarray
    field: np.ndarray
    coords: np.ndarray
    coord_names: tuple[str, ...]
    grid: tuple[int, ...]
    masks: np.ndarray
    solutions: np.ndarray
    task: np.ndarray
    geometry: np.ndarray
    splits: dict[str, np.ndarray]
    background: float = 0.0

    @property
    def pointwise(self) -> bool:
        """Whether each sample has query points of its own."""
        return self.coords.ndim == 3


def check_operators(found: OperatorSet, source: str) -> OperatorSet:
    """Returns the set as it is, once it is sound.

    Args:
      found: the set.
      source: where it comes from, for the error.

    Raises:
      UserError: shapes that do not fit, values that are not finite, an empty mask or split, a
        solution outside its mask; the first one found, in one line.
    """
    samples, points = found.solutions.shape[0], found.masks.shape[1]
    shapes = {
        "params": (found.params.shape[:1], (samples,)),
        "field": (found.field.shape[:1], (samples,)),
        "solutions": (found.solutions.shape, (samples, points)),
        "coords": (
            found.coords.shape[:-1],
            (samples, points) if found.pointwise else (points,),
        ),
        "task": (found.task.shape, (samples,)),
        "geometry": (found.geometry.shape, (samples,)),
        "coord_names": ((len(found.coord_names),), found.coords.shape[-1:]),
    }
    for name, (shape, want) in shapes.items():
        if shape != want:
            raise UserError(
                f"{source}: {name} is {list(shape)} where {list(want)} is needed"
                f" ({samples} samples, {points} points)"
            )
    if found.grid and int(np.prod(found.grid)) != points:
        raise UserError(f"{source}: a grid of {list(found.grid)} does not have {points} points")
    for name in ("params", "field", "coords", "solutions"):
        bad = np.argwhere(~np.isfinite(getattr(found, name)))
        if len(bad):
            raise UserError(
                f"{source}: {name} is not finite at {bad[0].tolist()} ({len(bad)} such values);"
                " remove those samples, or mark the points as outside in the mask"
            )
    for name, count in (("task", len(found.task_names)), ("geometry", len(found.masks))):
        values = getattr(found, name)
        if values.min() < 0 or values.max() >= count:
            raise UserError(
                f"{source}: {name} holds {values.min()} .. {values.max()}; it must be in"
                f" 0 .. {count - 1}"
            )
    empty = np.flatnonzero(~found.masks.any(1))
    if len(empty):
        raise UserError(f"{source}: the mask of geometry {empty[0]} is empty; no point is inside")
    outside = np.where(found.masks[found.geometry], 0, found.solutions)
    if outside.any():
        raise UserError(
            f"{source}: solutions are not 0 outside the mask, first in sample"
            f" {np.argwhere(outside)[0][0]}; is the mask flattened in another order (rows against"
            " columns)?"
        )
    for split in SPLITS:
        if not len(found.splits.get(split, ())):
            raise UserError(f"{source}: the {split} split is empty")
    return found

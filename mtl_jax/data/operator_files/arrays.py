"""The user's own solved problems: one .npz or HDF5 file of plain arrays.

S samples, N query points in d coordinates, P numbers, G geometries, T tasks:

    params      [S, P]        numbers that describe a sample          (this or field, or both)
    field       [S, ...]      input function on a grid of its own
    coords      [N, d] for points that all samples share, or [S, N, d] for each sample's own
    solutions   [S, N], or [S, *grid] with N points in row-major order
    mask        optional: [N] or [*grid] for all; [S, N] for each sample; or a table [G, N] with
    geometry    [S] int, the row of the table
    task        optional: [S] whole numbers 0 .. T-1, or names
    task_names  optional: [T] names
    split       optional: [S] "train", "validation", "test", or 0, 1, 2
    coord_names optional: [d] names

A mask is 1 inside. Outside it solutions must be 0 or NaN.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mtl_jax.data.operator_files.array_file import Arrays, read_arrays, words
from mtl_jax.data.operator_files.splits import check_fractions, given_splits, split_tasks
from mtl_jax.data.operators import OperatorSet, check_operators
from mtl_jax.errors import UserError, did_you_mean


def load_operator_file(
    path: str | Path, validation: float = 0.1, test: float = 0.1, *, seed: int = 0
) -> OperatorSet:
    """Returns the set of one .npz, .h5 or .hdf5 file; see the module for its keys.

    Args:
      path: of the file.
      validation: fraction of each task's samples that validates; a `split` array overrules it.
      test: fraction that tests; the rest trains.
      seed: of the draw.

    Raises:
      UserError: what is wrong with the file, in one line that names the array and its axes.
    """
    check_fractions(validation, test)
    where = Path(path).expanduser()
    arrays, source = read_arrays(where), str(where)
    samples, grid = _solutions_shape(arrays["solutions"], source)
    points = int(np.prod(grid))
    axes = f"solutions {list(arrays['solutions'].shape)} are S = {samples}, N = {points}"
    numbers = {
        name: _floats(arrays[name], f"{source}: {name}")
        for name in ("params", "field", "coords", "solutions")
        if name in arrays
    }
    for name in numbers.keys() & {"params", "field"}:
        _check_input(name, numbers[name], samples, source, axes)
    coords = _coords(numbers["coords"], samples, grid, source, axes)
    masks, geometry = _masks(arrays, samples, grid, source, axes)
    task, task_names = _tasks(arrays, samples, source, axes)
    solutions = numbers["solutions"].reshape(samples, points)
    if "mask" in arrays:
        solutions = np.where(np.isnan(solutions) & ~masks[geometry], np.float32(0), solutions)
    if "split" in arrays:
        _check_length("split", arrays["split"], samples, source, axes)
        labels = arrays["split"]
        labels = words(labels, "split") if labels.dtype.kind in "US" else labels.tolist()
        splits = given_splits(labels, task, task_names, source)
    else:
        splits = split_tasks(task, task_names, validation, test, source, seed)
    found = OperatorSet(
        task_names=task_names,
        params=numbers.get("params", np.zeros((samples, 0), np.float32)),
        field=numbers.get("field", np.zeros((samples, 0), np.float32)),
        coords=coords,
        coord_names=_coord_names(arrays, coords.shape[-1], source),
        grid=grid if len(grid) > 1 else (),
        masks=masks,
        solutions=solutions,
        task=task,
        geometry=geometry,
        splits=splits,
    )
    return check_operators(found, source)


def unique_masks(masks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the different rows [G, N] of masks [S, N], and the row [S] int32 of each sample."""
    packed = np.packbits(masks, axis=1)
    _, first, inverse = np.unique(packed, axis=0, return_index=True, return_inverse=True)
    order = np.argsort(first)
    rank = np.empty(len(order), np.int32)
    rank[order] = np.arange(len(order), dtype=np.int32)
    return masks[first[order]], rank[inverse.ravel()]


def _floats(array: np.ndarray, what: str) -> np.ndarray:
    if array.dtype.kind not in "fiub":
        raise UserError(f"{what} is of type {array.dtype}; real numbers are needed")
    with np.errstate(over="ignore"):  # What is too large becomes infinite, and is refused as such.
        return array.astype(np.float32)


def _solutions_shape(solutions: np.ndarray, source: str) -> tuple[int, tuple[int, ...]]:
    """The number of samples, and the grid: (N,) where the file has [S, N]."""
    if solutions.ndim < 2 or 0 in solutions.shape:
        raise UserError(
            f"{source}: solutions is {list(solutions.shape)}; it must be [S, N] or [S, *grid]"
        )
    return solutions.shape[0], solutions.shape[1:]


def _check_input(name: str, array: np.ndarray, samples: int, source: str, axes: str) -> None:
    want = "[S, P]" if name == "params" else "[S, ...]"
    fits = array.ndim == 2 if name == "params" else array.ndim >= 2
    if not fits or array.shape[0] != samples or 0 in array.shape:
        raise UserError(
            f"{source}: {name} is {list(array.shape)} where {want} with S = {samples} is needed"
            f" ({axes})"
        )


def _check_length(name: str, array: np.ndarray, samples: int, source: str, axes: str) -> None:
    if array.shape != (samples,):
        raise UserError(
            f"{source}: {name} is {list(array.shape)} where [S] = [{samples}] is needed ({axes})"
        )


def _coords(
    coords: np.ndarray, samples: int, grid: tuple[int, ...], source: str, axes: str
) -> np.ndarray:
    points = int(np.prod(grid))
    if coords.ndim > 1 and coords.shape[-1] == 0:
        raise UserError(f"{source}: coords is {list(coords.shape)}; d must be at least 1")
    if coords.ndim == len(grid) + 1 and coords.shape[:-1] == grid:
        return coords.reshape(points, -1)
    if coords.ndim == 3 and coords.shape[:2] == (samples, points):
        return coords
    if coords.ndim == 2 and coords.shape[0] == points:
        return coords
    hint = "; add an axis of length 1" if coords.ndim == 1 else ""
    if coords.ndim == 2 and coords.shape[1] == points:
        hint = "; transpose it"
    raise UserError(
        f"{source}: coords is {list(coords.shape)} where [N, d] with N = {points}, or [S, N, d] ="
        f" [{samples}, {points}, d], is needed ({axes}){hint}"
    )


def _masks(
    arrays: Arrays, samples: int, grid: tuple[int, ...], source: str, axes: str
) -> tuple[np.ndarray, np.ndarray]:
    """The table [G, N] bool and each sample's row [S] int32."""
    points = int(np.prod(grid))
    if "mask" not in arrays:
        return np.ones((1, points), bool), np.zeros(samples, np.int32)
    mask = arrays["mask"]
    if mask.dtype.kind not in "fiub" or not np.isin(mask, (0, 1)).all():
        raise UserError(f"{source}: mask holds other values than 0 (outside) and 1 (inside)")
    shared = mask.shape in ((points,), grid)
    if not shared and mask.shape[1:] not in ((points,), grid):
        raise UserError(
            f"{source}: mask is {list(mask.shape)} where [N], [S, N] or [G, N] with N = {points}"
            f" is needed ({axes})"
        )
    table = mask.astype(bool).reshape(-1, points)
    if "geometry" in arrays:
        if shared:
            raise UserError(f"{source}: 'geometry' needs a table 'mask' [G, N], and mask is [N]")
        rows = arrays["geometry"]
        _check_length("geometry", rows, samples, source, axes)
        chosen = _numbers(rows, len(table), f"{source}: geometry", "a row of the mask")
        table, row = unique_masks(table)
        return table, row[chosen]
    if len(table) == 1:
        return table, np.zeros(samples, np.int32)
    if len(table) != samples:
        raise UserError(
            f"{source}: mask is {list(mask.shape)}, {len(table)} geometries for {samples} samples;"
            " give 'geometry' [S], the row that each sample has"
        )
    return unique_masks(table)


def _tasks(
    arrays: Arrays, samples: int, source: str, axes: str
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Each sample's task [S] int32, and the names."""
    names = words(arrays["task_names"], f"{source}: task_names") if "task_names" in arrays else ()
    if len(set(names)) < len(names):
        raise UserError(f"{source}: task_names has a name twice ({', '.join(names)})")
    if "task" not in arrays:
        if len(names) > 1:
            raise UserError(
                f"{source}: {len(names)} task_names, and no 'task' [S] to say which sample is whose"
            )
        return np.zeros(samples, np.int32), names or ("task_0",)
    _check_length("task", arrays["task"], samples, source, axes)
    if arrays["task"].dtype.kind in "US":
        labels = words(arrays["task"], f"{source}: task")
        names = names or tuple(sorted(set(labels)))
        unknown = sorted(set(labels) - set(names))
        if unknown:
            raise UserError(
                f"{source}: task {unknown[0]!r} is not in task_names;"
                f" {did_you_mean(unknown[0], names)}"
            )
        task = np.array([names.index(label) for label in labels], np.int32)
    else:
        count = len(names) or int(np.max(arrays["task"])) + 1
        task = _numbers(arrays["task"], count, f"{source}: task", "a task")
        names = names or tuple(f"task_{t}" for t in range(count))
    empty = np.flatnonzero(np.bincount(task, minlength=len(names)) == 0)
    if len(empty):
        raise UserError(f"{source}: no sample of task {names[empty[0]]}; number tasks from 0 on")
    return task, names


def _numbers(values: np.ndarray, count: int, what: str, meaning: str) -> np.ndarray:
    if values.dtype.kind not in "iu":
        raise UserError(f"{what} is of type {values.dtype}; whole numbers are needed")
    if values.min() < 0 or values.max() >= count:
        raise UserError(
            f"{what} holds {values.min()} .. {values.max()}; {meaning} is 0 .. {count - 1}"
        )
    return values.astype(np.int32)


def _coord_names(arrays: Arrays, count: int, source: str) -> tuple[str, ...]:
    if "coord_names" not in arrays:
        return ("x", "y", "z")[:count] if count <= 3 else tuple(f"x{k}" for k in range(count))
    names = words(arrays["coord_names"], f"{source}: coord_names")
    if len(names) != count:
        raise UserError(f"{source}: {len(names)} coord_names for coords with d = {count}")
    return names

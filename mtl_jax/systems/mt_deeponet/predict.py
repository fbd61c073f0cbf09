"""Solutions of new cases: one .npz in, one .npz out.

The input holds, for S cases:

    params    [S, P]      as the network was trained with
    field     [S, ...]    likewise
    geometry  optional: [S] names of the run's geometries (its tasks), or one name; or instead
    mask      [*grid] or [S, *grid], 1 inside, for a geometry that the network has not seen
    task      [S] names of tasks, for networks with a product of each task's own (film)
    coords    optional: [n, d] other query points that all cases share, in the training set's units

The output holds `solutions` [S, *grid], NaN outside the geometry, or [S, n] at `coords`; and
`coords`.
"""

from __future__ import annotations

import os
import time
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from mtl_jax.data.operators import OperatorSet
from mtl_jax.errors import UserError, did_you_mean
from mtl_jax.systems.mt_deeponet.data import kept_points, unpack

if TYPE_CHECKING:
    from mtl_jax.engine.state import TrainState
    from mtl_jax.run import Run

KEYS = ("params", "field", "geometry", "mask", "task", "coords")
BATCH = 256
Arrays = dict[str, np.ndarray]


def predict_file(run: Run, state: TrainState, source: Path, target: Path) -> str:
    """Reads cases, writes their solutions; returns a line that says what was done.

    Raises:
      UserError: what is wrong with the input, in one line that names the array.
    """
    # Imported late: the builders draw on this package.
    from mtl_jax.systems.mt_deeponet.builders import load

    config: Any = run.config
    found = load(config.data)
    if found.pointwise:
        raise UserError(
            "this network was trained on query points of each sample's own; predict its cases with"
            " mtl_jax.run.predictions"
        )
    cases = _read(source)
    batch, grid = _batch(cases, found, config, str(source))
    samples = len(batch["params"])
    predict = jax.jit(run.system.predict)  # pyrefly: ignore[bad-argument-type]
    parts, start = [], time.perf_counter()
    for first in range(0, samples, BATCH):
        rows = {name: leaf[first : first + BATCH] for name, leaf in batch.items()}
        if "coords" in cases:
            rows["query"] = cases["coords"]
        parts.append(np.asarray(predict(state.params, state.model_state, rows)["solution"]))
    seconds = time.perf_counter() - start
    solutions = np.concatenate(parts)
    if "coords" in cases:
        coords = cases["coords"]
    else:
        solutions, coords = unpack(solutions, found).reshape(samples, *grid), found.coords
    temporary = target.with_name(f"{target.name}.{os.getpid()}.npz")
    np.savez_compressed(temporary, solutions=solutions, coords=coords)
    os.replace(temporary, target)
    return f"{target}: {samples} solutions of {solutions[0].size} points in {seconds:.2f} s"


def _read(source: Path) -> Arrays:
    try:
        with np.load(source, allow_pickle=False) as file:
            cases = {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{source}: not a readable .npz ({error})") from None
    for name, array in cases.items():
        if name not in KEYS:
            raise UserError(f"{source}: unknown array {name!r}; {did_you_mean(name, KEYS)}")
        if name not in ("geometry", "task") and array.dtype.kind not in "fiub":
            raise UserError(f"{source}: {name} is of type {array.dtype}; it must hold numbers")
    return cases


def _batch(
    cases: Arrays, found: OperatorSet, config: Any, source: str
) -> tuple[Arrays, tuple[int, ...]]:
    """Returns the arrays of a batch [S, ...] and the shape of a solution."""
    grid = found.grid or (found.masks.shape[1],)
    shapes = [cases[name].shape for name in ("params", "field") if name in cases]
    samples = {shape[0] if shape else 0 for shape in shapes}
    if len(samples) != 1 or 0 in samples:
        raise UserError(f"{source}: params and field must be there with as many rows as cases")
    count = samples.pop()
    batch: Arrays = {}
    for name in ("params", "field"):
        want = getattr(found, name).shape[1:]
        values = cases.get(name, np.zeros((count, *want)) if 0 in want else None)
        if values is None or values.shape[1:] != want:
            shape = "absent" if values is None else list(values.shape)
            raise UserError(f"{source}: {name} is {shape}; this network reads {[count, *want]}")
        if not np.isfinite(values).all():
            bad = np.argwhere(~np.isfinite(values))[0].tolist()
            raise UserError(f"{source}: {name} is not finite at {bad}; give numbers there")
        batch[name] = values.astype(np.float32)
    names = config.data.geometry if config.data.name == "darcy" else ()
    masks = _masks(cases, found, names, count, grid, source)
    batch["inside"] = masks[:, kept_points(found)]
    image = found.field.shape[1:]
    if tuple(grid) == image:
        batch["image_mask"] = masks.reshape(-1, *image)
    elif config.model.branch == "cnn":
        batch["image_mask"] = np.ones((count, *image), bool)
    if config.model.film and len(found.task_names) > 1 and "task" not in cases:
        raise UserError(
            f"{source}: this network has a product of each task's own; give task:"
            f" {', '.join(found.task_names)}"
        )
    batch["task"] = _named(cases, "task", found.task_names, count, source)
    if "coords" in cases:
        _check_coords(cases["coords"], found, config, source)
        batch["inside"] = np.ones((count, len(cases["coords"])), bool)
    return batch, grid


def _named(cases: Arrays, key: str, names: tuple[str, ...], count: int, source: str) -> np.ndarray:
    """Returns the numbers [S] of the names under `key`; 0 where they are not given."""
    if key not in cases:
        return np.zeros(count, np.int32)
    if cases[key].shape not in ((), (1,), (count,)):
        raise UserError(
            f"{source}: {key} is {list(cases[key].shape)}; it must be one name, or [{count}]"
        )
    given = np.broadcast_to(cases[key].astype(str), (count,))
    for name in given:
        if name not in names:
            raise UserError(f"{source}: {key} {str(name)!r}; {did_you_mean(str(name), names)}")
    return np.array([names.index(name) for name in given], np.int32)


def _masks(
    cases: Arrays,
    found: OperatorSet,
    names: tuple[str, ...],
    count: int,
    grid: tuple[int, ...],
    source: str,
) -> np.ndarray:
    """Returns the masks [S, N] of the cases."""
    if "mask" in cases:
        mask = cases["mask"]
        if mask.shape not in (tuple(grid), (1, *grid), (count, *grid)):
            raise UserError(
                f"{source}: mask is {list(mask.shape)}; it must be {list(grid)}, or that for each"
                f" of {count} cases"
            )
        if not np.isin(mask, (0, 1)).all():
            raise UserError(f"{source}: mask holds other values than 0 (outside) and 1 (inside)")
        masks = np.broadcast_to(mask.astype(bool), (count, *grid)).reshape(count, -1)
        if not masks.any(1).all():
            raise UserError(f"{source}: mask of case {int(masks.any(1).argmin())} is empty")
        covered = np.asarray(found.masks.any(axis=0))
        if "coords" not in cases and (masks & ~covered[None]).any():
            raise UserError(
                f"{source}: mask has points that no geometry of this run holds; give coords too"
            )
        return masks
    if names and "geometry" in cases:
        return found.masks[_named(cases, "geometry", tuple(names), count, source)]
    if len(found.masks) > 1:
        known = f"; give geometry: {', '.join(names)}" if names else ""
        raise UserError(
            f"{source}: this run has {len(found.masks)} geometries{known}, or give mask"
        )
    return np.broadcast_to(found.masks, (count, found.masks.shape[1]))


def _check_coords(coords: np.ndarray, found: OperatorSet, config: Any, source: str) -> None:
    if coords.ndim != 2 or coords.shape[1] != found.coords.shape[1] or not len(coords):
        names = ", ".join(found.coord_names)
        raise UserError(
            f"{source}: coords is {list(coords.shape)}; it must be"
            f" [points, {found.coords.shape[1]}] ({names})"
        )
    low, high = found.coords.min(0), found.coords.max(0)
    outside = np.argwhere(~((coords >= low) & (coords <= high)))  # NaN is nowhere
    if len(outside):
        point, axis = outside[0]
        raise UserError(
            f"{source}: coords of point {point} have {found.coord_names[axis]} ="
            f" {coords[point, axis]:g}, outside the box {low[axis]:g} .. {high[axis]:g} of training"
        )
    if config.data.scale_solution == "point":
        raise UserError(
            f"{source}: this network scales its solution at each training point, so it cannot go to"
            " other coords; train with config.data.scale_solution=global"
        )

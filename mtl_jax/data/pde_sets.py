"""Loads the sets that are solved here, `fisher` and `darcy`, as `OperatorSet`s."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mtl_jax.data.operators import SPLITS, OperatorSet, check_operators
from mtl_jax.data.pde import darcy_data, fisher
from mtl_jax.data.pde.darcy import Darcy
from mtl_jax.data.pde.shapes import SHAPES, SOURCES, read_shape
from mtl_jax.data.prepare import open_set, prepare, reading
from mtl_jax.errors import UserError, did_you_mean

Arrays = dict[str, np.ndarray]


def load_fisher(config: str = "default", data_dir: str | Path | None = None) -> OperatorSet:
    """Returns the Fisher set, preparing it first where it is missing: seconds.

    Tasks: "kpp", "nws", "zfk". `params` are the coefficients of u .. u^4, `field` is u(0) [S, 64];
    the grid is (20, 64), snapshots before points. Coordinates (t, x) are in the solver's units in
    "default"; in "paper" both run from 0 to 1 end points included, as the MT-DeepONet code has it.

    Args:
      config: "default" or "paper".
      data_dir: where sets are; None for the default.

    Raises:
      UserError: unknown config, a set that cannot be built or is damaged.
    """
    name = f"fisher/{config}"
    parts, _ = _read(name, data_dir)
    whole = {key: np.concatenate([parts[split][key] for split in SPLITS]) for key in parts["train"]}
    if config == "paper":
        times, places = np.linspace(0, 1, fisher.SNAPSHOTS), np.linspace(0, 1, fisher.POINTS)
    else:
        times = np.linspace(0, fisher.SETTINGS[config].end_time, fisher.SNAPSHOTS)
        places = fisher.cell_centres()
    t, x = np.meshgrid(times, places, indexing="ij")
    coords = np.stack([t.ravel(), x.ravel()], axis=1).astype(np.float32)
    found = OperatorSet(
        task_names=fisher.TASKS,
        params=whole["params"],
        field=whole["field"],
        coords=coords,
        coord_names=("t", "x"),
        grid=(fisher.SNAPSHOTS, fisher.POINTS),
        masks=np.ones((1, len(coords)), bool),
        solutions=whole["solutions"],
        task=whole["task"].astype(np.int32),
        geometry=np.zeros(len(whole["task"]), np.int32),
        splits=_positions([{s: len(parts[s]["task"]) for s in SPLITS}]),
    )
    return check_operators(found, name)


def load_darcy(
    geometries: Sequence[str] = SOURCES,
    full: bool = False,
    data_dir: str | Path | None = None,
    train_size: int | None = None,
) -> OperatorSet:
    """Returns Darcy flow on some geometries, one task each, preparing what is missing.

    `field` is log K [S, G, G] on the whole square, rows = y, columns = x; `solutions` are on the
    same grid, coordinates (x, y). `masks` has a row for each geometry, in the order of the tasks.

    Args:
      geometries: names of `shapes.SHAPES`, or JSON files of polygons (see `shapes.read_shape`),
        which are meshed (the extra `meshing`) and solved anew at each call.
      full: the 100 x 100 grid, 1800 / 200 / 500 samples a geometry, instead of every third of its
        points along each side and 600 / 100 / 200 samples.
      data_dir: where sets are; None for the default.
      train_size: takes the first so many training samples of each geometry; None for all.

    Raises:
      UserError: unknown or repeated geometry, a bad polygon, a size out of range, a set that cannot
        be built or is damaged.
    """
    suffix = "_full" if full else ""
    size = darcy_data.SIZES[suffix]
    if not geometries:
        raise UserError(f"no geometry given; {did_you_mean('', SHAPES)}")
    if train_size is not None and not 1 <= train_size <= size.counts["train"]:
        raise UserError(
            f"train_size = {train_size}, a geometry has 1..{size.counts['train']} training samples"
        )
    names, shared, blocks = [], [], []
    for geometry in geometries:
        if geometry.endswith(".json"):
            shape = read_shape(geometry)
            name, problem = shape.name, Darcy(shape)
            parts = {split: _joined(darcy_data.samples(problem, size, split)) for split in SPLITS}
            common = darcy_data.geometry(problem, size)
        elif geometry in SHAPES:
            name = geometry
            parts, common = _read(f"darcy/{geometry}{suffix}", data_dir)
        else:
            known = did_you_mean(geometry, SHAPES)
            raise UserError(f"unknown geometry {geometry!r}; {known}, or a polygon's .json file")
        if name in names:
            raise UserError(f"the geometry {name!r} is given twice; name each once")
        parts["train"] = {key: array[:train_size] for key, array in parts["train"].items()}
        names.append(name)
        shared.append(common)
        blocks.append(parts)
    counts = [{s: len(parts[s]["field"]) for s in SPLITS} for parts in blocks]
    task = np.repeat(np.arange(len(names), dtype=np.int32), [sum(c.values()) for c in counts])
    whole = {
        key: np.concatenate([parts[split][key] for parts in blocks for split in SPLITS])
        for key in ("field", "solutions")
    }
    found = OperatorSet(
        task_names=tuple(names),
        params=np.zeros((len(task), 0), np.float32),
        field=whole["field"],
        coords=shared[0]["coords"],
        coord_names=("x", "y"),
        grid=(size.grid, size.grid),
        masks=np.stack([common["mask"] for common in shared]),
        solutions=whole["solutions"],
        task=task,
        geometry=task,
        splits=_positions(counts),
    )
    return check_operators(found, f"darcy ({', '.join(names)})")


def _positions(counts: Sequence[dict[str, int]]) -> Arrays:
    """Sample numbers of each split where parts follow each other, each split by split."""
    found: dict[str, list[np.ndarray]] = {split: [] for split in SPLITS}
    start = 0
    for part in counts:
        for split in SPLITS:
            found[split].append(np.arange(start, start + part[split], dtype=np.int32))
            start += part[split]
    return {split: np.concatenate(rows) for split, rows in found.items()}


def _joined(blocks: Iterable[Arrays]) -> Arrays:
    listed = list(blocks)
    return {key: np.concatenate([block[key] for block in listed]) for key in listed[0]}


def _read(name: str, data_dir: str | Path | None) -> tuple[dict[str, Arrays], Arrays]:
    """Prepares and reads a set: the arrays of each split, and those that all samples share."""
    folder = prepare(name, data_dir)
    builder, _, _ = open_set(name, data_dir)
    with reading(name, folder):
        parts = {split: _joined(_records(builder, split)) for split in SPLITS}
        file = folder / "geometry.npz"
        common = {}
        if file.exists():
            with np.load(file, allow_pickle=False) as arrays:
                common = {key: arrays[key] for key in arrays.files}
    return parts, common


def _records(builder: Any, split: str) -> Iterable[Arrays]:
    source = builder.as_data_source(split)
    return (source[index] for index in range(len(source)))

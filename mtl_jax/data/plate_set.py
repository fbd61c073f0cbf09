"""Loads the heated plate, solving it first where it is missing: about 15 s on one core."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from mtl_jax.data import plate_geometry, plate_solver
from mtl_jax.data.operators import OperatorSet, check_operators
from mtl_jax.data.prepare import open_set, prepare, reading
from mtl_jax.errors import UserError, did_you_mean


def load_plate(
    config: str = "default", data_dir: str | Path | None = None, *, paper_split: bool = False
) -> OperatorSet:
    """Returns the 64 designs as samples of 8 tasks, the hole counts 2 .. 9.

    `params` are (holes, position), `field` is empty [64, 0], `masks` has a row for each design.
    Coordinates (x, y, z) are the paper's: x and y in [-2, 2], z in [-0.25, 1]. Temperatures are in
    units in which the air has 0.652, the `background`.

    Args:
      config: "default", a grid of 50 x 50 x 32 points, or "full", the paper's 100 x 100 x 100.
      data_dir: where sets are; None for the default.
      paper_split: tests on the paper's 40 designs; see `plate_geometry.split_designs`.

    Raises:
      UserError: unknown config, a set that cannot be built or is damaged.
    """
    if config not in plate_geometry.GRIDS:
        known = did_you_mean(config, plate_geometry.GRIDS)
        raise UserError(f"unknown config {config!r} of plate; {known}")
    name, grid = f"plate/{config}", plate_geometry.GRIDS[config]
    records = _read(name, data_dir)
    order = np.argsort([record["design"] for record in records])
    records = [records[k] for k in order]
    holes = np.array([record["holes"] for record in records])
    position = np.array([record["position"] for record in records])
    points = int(np.prod(grid))
    masks = np.stack([np.unpackbits(record["mask"], count=points) for record in records])
    solutions = np.zeros(masks.shape, np.float32)
    solutions[masks == 1] = np.concatenate([record["temperature"] for record in records])
    axes = plate_geometry.axes(grid)
    coords = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
    found = OperatorSet(
        task_names=tuple(f"holes_{count}" for count in plate_geometry.HOLES),
        params=np.stack([holes, position], axis=1).astype(np.float32),
        field=np.zeros((len(records), 0), np.float32),
        coords=coords.astype(np.float32),
        coord_names=("x", "y", "z"),
        grid=grid,
        masks=masks.astype(bool),
        solutions=solutions,
        task=(holes - plate_geometry.HOLES[0]).astype(np.int32),
        geometry=np.arange(len(records), dtype=np.int32),
        splits=plate_geometry.split_designs(holes, position, paper_split=paper_split),
        background=plate_solver.AIR,
    )
    return check_operators(found, name)


def _read(name: str, data_dir: str | Path | None) -> list[dict[str, Any]]:
    folder = prepare(name, data_dir)
    builder, _, _ = open_set(name, data_dir)
    with reading(name, folder):
        return [record for split in builder.info.splits for record in builder.as_data_source(split)]

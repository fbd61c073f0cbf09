"""The heated plate's files of the MT-DeepONet code, as its authors hand them out.

    interpol_results.mat    interp_results [64, N], NaN outside; xflat, yflat, zflat [N]
    doe.csv                 num_holes and hole_pos of each design

Source: the code of MT-DeepONet (Kumar et al. 2024), its `preprocessor_don.py`.
"""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from mtl_jax.data import plate_geometry
from mtl_jax.data.operator_files.arrays import unique_masks
from mtl_jax.data.operator_files.files import find_file, read_mat
from mtl_jax.data.operators import OperatorSet, check_operators
from mtl_jax.errors import UserError


def load_plate(folder: Path, *, paper_split: bool = False) -> OperatorSet:
    """Returns the heated plate in the files' own temperatures; as `plate_set.load_plate` else.

    Args:
      folder: with interpol_results.mat and doe.csv, or above them.
      paper_split: tests on the paper's 40 designs; see `plate_geometry.split_designs`.

    Raises:
      UserError: a file or array is missing or does not fit.
    """
    holes, position = _read_designs(find_file(folder, "doe.csv"))
    path = find_file(folder, "interpol_results.mat")
    keys = ("interp_results", "xflat", "yflat", "zflat")
    arrays = read_mat(path, keys)
    if missing := [key for key in keys if key not in arrays]:
        raise UserError(f"{path}: no {missing[0]!r} in it")
    values = arrays["interp_results"].astype(np.float32)
    columns = [arrays[key].ravel() for key in keys[1:]]
    if values.ndim != 2 or len(values) != len(holes) or {*map(len, columns)} != {values.shape[1]}:
        raise UserError(
            f"{path}: interp_results {list(values.shape)} is not [{len(holes)} designs of doe.csv,"
            f" {len(columns[0])} points of xflat]"
        )
    # The files say where each point is; whatever their order, ours has x slowest and z fastest.
    order = np.lexsort(columns[::-1])
    grid = tuple(len(np.unique(column)) for column in columns)
    values = values[:, order]
    masks, geometry = unique_masks(~np.isnan(values))
    names = sorted(set(holes.tolist()))
    found = OperatorSet(
        task_names=tuple(f"holes_{count}" for count in names),
        params=np.stack([holes, position], axis=1).astype(np.float32),
        field=np.zeros((len(holes), 0), np.float32),
        coords=np.stack(columns, axis=1)[order].astype(np.float32),
        coord_names=("x", "y", "z"),
        grid=grid if int(np.prod(grid)) == len(order) else (),
        masks=masks,
        solutions=np.nan_to_num(values, copy=False),
        task=np.searchsorted(names, holes).astype(np.int32),
        geometry=geometry,
        splits=plate_geometry.split_designs(holes, position, paper_split=paper_split),
    )
    return check_operators(found, str(folder))


def _read_designs(path: Path) -> tuple[np.ndarray, np.ndarray]:
    try:
        with open(path, newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        holes = np.array([int(row["num_holes"]) for row in rows])
        return holes, np.array([float(row["hole_pos"]) for row in rows])
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        raise UserError(
            f"{path}: not a table with the columns num_holes and hole_pos ({error!r})"
        ) from None

"""Darcy-16, the small Darcy flow set in the wheel of neuraloperator 0.2.0 and 0.3.0.

1000 + 50 samples on 16 x 16 points: a two-phase conductivity and the rescaled pressure. Later
wheels do not have it. Get one with `pip download --no-deps neuraloperator==0.3.0` (4 MB).

Licence of the wheel: BSD. Source: Li et al. 2021 (FNO), whose data this is, thinned.
"""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

import numpy as np

from mtl_jax.data.operator_files.files import find_file, find_files
from mtl_jax.data.operator_files.torch_files import read_tensors
from mtl_jax.data.operators import OperatorSet, check_operators
from mtl_jax.errors import UserError

FOLDER = "neuralop/datasets/data"  # in the wheel
SHA256 = {
    "darcy_train_16.pt": "0be662acdb1dab7dfd1a1da0b140e97f75cc94f98a14edcf768abe6968b3b418",
    "darcy_test_16.pt": "d2b19af9d4a6ae04ba2de54b8ecccc8b89766472faf6ce7f506c0b2a60f69a4c",
}


def load_darcy16(source: Path) -> OperatorSet:
    """Returns the set as one task; `field` is the phase, 0 or 1 [S, 16, 16].

    Points (x, y) are where the library puts them: 0, 1/16, ... 15/16 along each side. The test
    samples are the library's; the last tenth of the training samples validates, where it has none.

    Args:
      source: the wheel, or another zip of the two files, or a folder with the wheel or the files in
        it or below it.

    Raises:
      UserError: the files are not there, or are not the known ones.
    """
    train, test = (_tensors(source, name) for name in SHA256)
    field = np.concatenate([train["x"], test["x"]]).astype(np.float32)
    solutions = np.concatenate([train["y"], test["y"]]).astype(np.float32)
    grid = field.shape[1:]
    axes = [np.arange(n) / n for n in grid]
    coords = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 2)
    count = len(train["x"])
    numbers = np.arange(len(field), dtype=np.int32)
    first, second = count - count // 10, count
    found = OperatorSet(
        task_names=("darcy",),
        params=np.zeros((len(field), 0), np.float32),
        field=field,
        coords=coords.astype(np.float32),
        coord_names=("x", "y"),
        grid=grid,
        masks=np.ones((1, len(coords)), bool),
        solutions=solutions.reshape(len(field), -1),
        task=np.zeros(len(field), np.int32),
        geometry=np.zeros(len(field), np.int32),
        splits={
            "train": numbers[:first],
            "validation": numbers[first:second],
            "test": numbers[second:],
        },
    )
    return check_operators(found, str(source))


def _tensors(source: Path, name: str) -> dict[str, np.ndarray]:
    data, where = _bytes(source, name)
    if hashlib.sha256(data).hexdigest() != SHA256[name]:
        raise UserError(
            f"{where}: is not the file of neuraloperator 0.2.0 and 0.3.0 (sha256 differs);"
            " fetch it again"
        )
    found = read_tensors(data, where)
    shapes = [found[key].shape if key in found else () for key in ("x", "y")]
    if len(shapes[0]) != 3 or shapes[0] != shapes[1]:
        raise UserError(f"{where}: x {list(shapes[0])} and y {list(shapes[1])} are not [S, H, W]")
    return found


def _bytes(source: Path, name: str) -> tuple[bytes, str]:
    """The contents of a file in a wheel, a zip or a folder, and where they were."""
    if source.is_dir():
        if find_files(source, name):
            path = find_file(source, name)
            return path.read_bytes(), str(path)
        if not find_files(source, "neuraloperator-*.whl"):
            raise UserError(
                f"{source}: neither {name} nor a wheel neuraloperator-0.3.0-*.whl in it; get one"
                " with pip download --no-deps neuraloperator==0.3.0"
            )
        source = find_file(source, "neuraloperator-*.whl")
    if not source.is_file():
        raise UserError(f"{source}: no such file or folder")
    try:
        with zipfile.ZipFile(source) as archive:
            members = [m for m in archive.namelist() if m.rpartition("/")[2] == name]
            if not members:
                raise UserError(
                    f"{source}: no {FOLDER}/{name} in it; the wheels of neuraloperator 0.2.0 and"
                    " 0.3.0 have it"
                )
            return archive.read(members[0]), f"{source}, {members[0]}"
    except (OSError, zipfile.BadZipFile) as error:
        raise UserError(f"{source}: not a readable zip ({error})") from None

"""PDEBench's 1-D reaction-diffusion (16 tasks) and 2-D Darcy flow (5 tasks), as HDF5 files.

    ReacDiff_Nu{nu}_Rho{rho}.hdf5         tensor [S, T, X], t-coordinate (one longer than T),
                                          x-coordinate: u_t = nu u_xx + rho u (1 - u), periodic
    2D_DarcyFlow_beta{beta}_Train.hdf5    nu [S, X, Y], tensor [S, 1, X, Y], x- and y-coordinate:
                                          -div(nu grad u) = beta

The files of a family are made from the same random inputs, so sample i is a sibling in each: it is
in the same split in every task. As in PDEBench's own loader the first tenth is for the test; the
second tenth validates here, where PDEBench has no validation split.

Source: PDEBench (Takamoto et al. 2022), its code's `data_gen` and `models/fno/utils.py`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mtl_jax.data.fetch import say
from mtl_jax.data.operator_files.files import dataset, find_files, open_hdf5
from mtl_jax.data.operators import OperatorSet, check_operators
from mtl_jax.errors import UserError

_REACDIFF = re.compile(r"ReacDiff_Nu([0-9.]+)_Rho([0-9.]+)\.hdf5")
_DARCY = re.compile(r"2D_DarcyFlow_beta([0-9.]+)_Train\.hdf5")
_BLOCK = 64  # samples read at a time: a file has gigabytes, of which little is kept


class _Part(NamedTuple):
    """One file: its numbers from the file name, inputs, solutions [S, A, B] and the two axes."""

    numbers: tuple[float, ...]
    field: np.ndarray
    solutions: np.ndarray
    axes: tuple[np.ndarray, np.ndarray]


def load_reacdiff(
    folder: Path, samples: int = 1000, time_stride: int = 5, space_stride: int = 16
) -> OperatorSet:
    """Returns reaction-diffusion, one task for each pair (nu, rho) of which there is a file.

    `params` are (nu, rho), `field` is u(0), points are (t, x). The files have 10,000 samples of 101
    snapshots at 1024 points; the defaults keep 1000 of 21 at 64.

    Args:
      folder: with the files, or above them.
      samples: how many of each file, its first ones.
      time_stride: takes every so many-th snapshot.
      space_stride: takes every so many-th point.

    Raises:
      UserError: h5py is missing, there is no file, or files do not fit each other.
    """
    parts = {}
    for path, numbers in _family(folder, "ReacDiff_Nu*_Rho*.hdf5", _REACDIFF, 16):
        with open_hdf5(path) as file:
            tensor = dataset(file, "tensor", path, 3)
            t = _axis(file, "t-coordinate", path, tensor.shape[1])[::time_stride]
            x = _axis(file, "x-coordinate", path, tensor.shape[2])[::space_stride]
            values = _read(tensor, samples, (time_stride, space_stride))
        parts[path] = _Part(numbers, values[:, 0], values, (t, x))
    names = [f"nu{part.numbers[0]:g}_rho{part.numbers[1]:g}" for part in parts.values()]
    return _joined(folder, parts, names, ("t", "x"))


def load_darcy(folder: Path, samples: int = 1000, stride: int = 4) -> OperatorSet:
    """Returns Darcy flow on the square, one task for each beta of which there is a file.

    `params` is the decimal logarithm of beta (0.01 .. 100), `field` is nu [S, X, Y], which takes
    the values 0.1 and 1. The files have 10,000 samples on 128 x 128 points; the defaults keep 1000
    on 32 x 32.

    Args:
      folder: with the files, or above them.
      samples: how many of each file, its first ones.
      stride: takes every so many-th point along each side.

    Raises:
      UserError: h5py is missing, there is no file, or files do not fit each other.
    """
    parts = {}
    for path, numbers in _family(folder, "2D_DarcyFlow_beta*_Train.hdf5", _DARCY, 5):
        with open_hdf5(path) as file:
            tensor, nu = dataset(file, "tensor", path, 4), dataset(file, "nu", path, 3)
            if tensor.shape != (nu.shape[0], 1, *nu.shape[1:]):
                raise UserError(
                    f"{path}: tensor {list(tensor.shape)} and nu {list(nu.shape)} are not"
                    " [S, 1, X, Y] and [S, X, Y]"
                )
            x = _axis(file, "x-coordinate", path, nu.shape[1])[::stride]
            y = _axis(file, "y-coordinate", path, nu.shape[2])[::stride]
            values = _read(tensor, samples, (1, stride, stride))[:, 0]
            field = _read(nu, samples, (stride, stride))
        parts[path] = _Part((float(np.log10(numbers[0])),), field, values, (x, y))
    names = [f"beta{10 ** part.numbers[0]:g}" for part in parts.values()]
    return _joined(folder, parts, names, ("x", "y"))


def _family(
    folder: Path, glob: str, pattern: re.Pattern[str], full: int
) -> list[tuple[Path, tuple[float, ...]]]:
    """The files of a family with the numbers in their names, in the order of the numbers."""
    found = {}
    for path in find_files(folder, glob):
        match = pattern.fullmatch(path.name)
        try:
            numbers = tuple(float(text) for text in match.groups()) if match else ()
        except ValueError:
            numbers = ()
        if not numbers or min(numbers) <= 0:
            raise UserError(f"{path}: the name is not {glob} with positive numbers for *")
        if numbers in found:
            raise UserError(f"{path}: has the numbers of {found[numbers]}; leave one")
        found[numbers] = path
    if not found:
        raise UserError(f"{folder}: no file {glob} in it")
    if len(found) < full:
        say(f"{folder}: {len(found)} of PDEBench's {full} files {glob}")
    return [(found[numbers], numbers) for numbers in sorted(found)]


def _axis(file: Any, key: str, path: Path, length: int) -> np.ndarray:
    """A coordinate; the generator of the files writes one time more than it keeps snapshots."""
    found = dataset(file, key, path, 1)
    if found.shape[0] < length:
        raise UserError(f"{path}: {key} has {found.shape[0]} values for {length} of the tensor")
    return found[:length]


def _read(values: Any, samples: int, strides: tuple[int, ...]) -> np.ndarray:
    """The first samples [S, ...] float32 of a dataset, thinned along the other axes."""
    count = min(samples, values.shape[0])
    thin = (slice(None), *(slice(None, None, stride) for stride in strides))
    blocks = [
        values[start : min(start + _BLOCK, count)][thin].astype(np.float32)
        for start in range(0, count, _BLOCK)
    ]
    return np.concatenate(blocks)


def _joined(
    folder: Path, parts: dict[Path, _Part], names: list[str], coord_names: tuple[str, str]
) -> OperatorSet:
    first_path, first = next(iter(parts.items()))
    for path, part in parts.items():
        if part.solutions.shape != first.solutions.shape or not all(
            np.array_equal(*pair) for pair in zip(part.axes, first.axes, strict=True)
        ):
            raise UserError(
                f"{path}: samples and points {list(part.solutions.shape)} are not those of"
                f" {first_path.name}, {list(first.solutions.shape)}"
            )
    count, *grid = first.solutions.shape
    held = count // 10
    if held == 0:
        raise UserError(f"{folder}: {count} samples a file; 10 are the least")
    starts = count * np.arange(len(parts))[:, None]
    within = {"test": (0, held), "validation": (held, 2 * held), "train": (2 * held, count)}
    coords = np.stack(np.meshgrid(*first.axes, indexing="ij"), axis=-1).reshape(-1, 2)
    task = np.repeat(np.arange(len(parts), dtype=np.int32), count)
    found = OperatorSet(
        task_names=tuple(names),
        params=np.array([part.numbers for part in parts.values()], np.float32)[task],
        field=np.concatenate([part.field for part in parts.values()]),
        coords=coords.astype(np.float32),
        coord_names=coord_names,
        grid=tuple(grid),
        masks=np.ones((1, len(coords)), bool),
        solutions=np.concatenate([part.solutions for part in parts.values()]).reshape(
            len(task), -1
        ),
        task=task,
        geometry=np.zeros(len(task), np.int32),
        splits={
            split: (starts + np.arange(*span)).ravel().astype(np.int32)
            for split, span in within.items()
        },
    )
    return check_operators(found, str(folder))

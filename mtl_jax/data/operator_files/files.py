"""Finds files in the user's folders, and opens HDF5 and MATLAB files; every failure is one line."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mtl_jax.errors import UserError


def find_files(folder: Path, pattern: str) -> list[Path]:
    """Returns the files in `folder`, or below, whose name fits a pattern with *, sorted."""
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder")
    return sorted(path for path in folder.rglob(pattern) if path.is_file())


def find_file(folder: Path, pattern: str) -> Path:
    """Returns the one file in `folder`, or below, whose name fits.

    Raises:
      UserError: there is none, or several.
    """
    found = find_files(folder, pattern)
    if not found:
        raise UserError(f"{folder}: no file {pattern} in it")
    if len(found) > 1:
        raise UserError(
            f"{folder}: {len(found)} files {pattern} in it ({found[0]}, {found[1]} ...); leave one"
        )
    return found[0]


@contextlib.contextmanager
def open_hdf5(path: Path) -> Iterator[Any]:
    """Opens an HDF5 file for reading.

    Raises:
      UserError: h5py is not installed, the file is not there or damaged (on reading, too).
    """
    try:
        h5py = importlib.import_module("h5py")
    except ImportError:
        raise UserError(f"{path}: reading HDF5 needs h5py; pip install h5py") from None
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    try:
        with h5py.File(path, "r") as file:
            yield file
    except (OSError, RuntimeError) as error:
        raise UserError(f"{path}: not a readable HDF5 file ({error})") from None


def dataset(file: Any, key: str, path: Path, rank: int) -> Any:
    """Returns a numeric dataset of an open HDF5 file, not yet read, with `rank` axes."""
    found = file.get(key)
    if found is None or not hasattr(found, "shape"):
        raise UserError(f"{path}: no dataset {key!r} in it; it has {', '.join(sorted(file))}")
    if found.dtype.kind not in "fiu" or len(found.shape) != rank:
        raise UserError(
            f"{path}: {key} is {found.dtype} {list(found.shape)}, numbers with {rank} axes are"
            " needed"
        )
    return found


def read_mat(path: Path, keys: Sequence[str]) -> dict[str, np.ndarray]:
    """Returns those of the numeric arrays `keys` that a MATLAB file (up to version 7) has."""
    # Part of JAX's own requirements; imported here because few need it.
    from scipy.io import loadmat
    from scipy.io.matlab import matfile_version

    try:
        newer = matfile_version(path)[0] == 2  # An HDF5 file inside.
        found = {} if newer else loadmat(path, variable_names=list(keys))
    except Exception as error:  # The parser raises whatever a damaged file makes it meet.
        raise UserError(f"{path}: not a readable MATLAB file ({error})") from None
    if newer:
        raise UserError(f"{path}: is of MATLAB's version 7.3; write it with save(..., '-v7')")
    arrays = {key: found[key] for key in keys if key in found}
    for key, array in arrays.items():
        if array.dtype.kind not in "fiub":
            raise UserError(f"{path}: {key} is {array.dtype}, numbers are needed")
    return arrays


def read_npz(path: Path, keys: Sequence[str]) -> dict[str, np.ndarray]:
    """Returns the arrays `keys` of an .npz, all of them required; pickles are refused."""
    try:
        with np.load(path, allow_pickle=False) as file:
            missing = [key for key in keys if key not in file.files]
            if missing:
                raise UserError(
                    f"{path}: no {missing[0]!r} in it; it has {', '.join(sorted(file.files))}"
                )
            return {key: file[key] for key in keys}
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{path}: not a readable .npz of plain arrays ({error})") from None

"""Reads the arrays of a user's file, and refuses what is unknown, missing or pickled."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from mtl_jax.data.operator_files.files import open_hdf5
from mtl_jax.errors import UserError, did_you_mean

REQUIRED = ("coords", "solutions")
KEYS = (
    *("params", "field", "coords", "solutions", "mask", "geometry"),
    *("task", "task_names", "split", "coord_names"),
)
_HDF5 = (".h5", ".hdf5", ".hdf")
Arrays = dict[str, np.ndarray]


def read_arrays(path: Path) -> Arrays:
    """Returns the arrays of an .npz, .h5 or .hdf5 file by name.

    Raises:
      UserError: not such a file, an unknown or a missing array, pickled objects.
    """
    if not path.exists():
        raise UserError(f"{path}: no such file")
    if path.suffix.lower() in _HDF5:
        with open_hdf5(path) as file:
            _check_keys(path, list(file))
            return {key: _hdf5_array(file[key], key, path) for key in file}
    if path.suffix.lower() != ".npz":
        raise UserError(f"{path}: ends in {path.suffix!r}; an .npz, .h5 or .hdf5 file is needed")
    try:
        with np.load(path, allow_pickle=False) as file:
            _check_keys(path, file.files)
            return {key: _npz_array(file, key, path) for key in file.files}
    # TypeError: a lone .npy under another name, which NumPy opens as an array.
    except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"{path}: not a readable .npz ({error})") from None


def _check_keys(path: Path, found: Iterable[str]) -> None:
    keys = set(found)
    for key in sorted(keys - set(KEYS)):
        raise UserError(f"{path}: unknown array {key!r}; {did_you_mean(key, KEYS)}")
    for key in REQUIRED:
        if key not in keys:
            raise UserError(f"{path}: no {key!r} in it; it has {', '.join(sorted(keys)) or 'none'}")
    if not keys & {"params", "field"}:
        raise UserError(f"{path}: neither 'params' nor 'field' in it: what is a solution to?")
    if "geometry" in keys and "mask" not in keys:
        raise UserError(f"{path}: 'geometry' names rows of a table 'mask' [G, N], which is missing")


def _npz_array(file: Any, key: str, path: Path) -> np.ndarray:
    try:
        return file[key]
    except ValueError as error:
        if "allow_pickle" not in str(error):
            raise
        raise UserError(_no_objects(path, key)) from None


def _hdf5_array(found: Any, key: str, path: Path) -> np.ndarray:
    if not hasattr(found, "shape"):
        raise UserError(f"{path}: {key} is a group; a dataset is needed")
    if found.dtype.kind != "O":
        return found[()]
    try:
        return np.asarray(found.asstr()[()]).astype(np.str_)
    except TypeError:
        raise UserError(_no_objects(path, key)) from None


def _no_objects(path: Path, key: str) -> str:
    return (
        f"{path}: {key} holds Python objects, which may run code when they are read; store plain"
        " numbers or strings (array.astype(float) or astype(str))"
    )


def words(array: np.ndarray, what: str) -> tuple[str, ...]:
    """Returns an array [n] of strings or bytes as strings; `what` names it in the error."""
    if array.ndim != 1 or array.dtype.kind not in "US":
        raise UserError(f"{what} is {array.dtype} {list(array.shape)}; a row of names is needed")
    return tuple(str(array.astype(np.str_)[k]) for k in range(len(array)))

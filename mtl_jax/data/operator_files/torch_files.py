"""Reads the tensors of a torch `.pt` file without torch, and without trusting it.

Such a file is a zip: a pickle that describes the tensors, and their raw storages. The unpickler
here knows the names that tensors, their storages and an ordered dict have, refuses all others, and
imports nothing. Sizes and strides are checked before memory is read through them.
"""

from __future__ import annotations

import collections
import io
import math
import pickle
import zipfile
from typing import Any

import numpy as np

from mtl_jax.errors import UserError

STORAGES = {
    "BoolStorage": np.bool_,
    "ByteStorage": np.uint8,
    "CharStorage": np.int8,
    "DoubleStorage": np.float64,
    "FloatStorage": np.float32,
    "HalfStorage": np.float16,
    "IntStorage": np.int32,
    "LongStorage": np.int64,
    "ShortStorage": np.int16,
}


def read_tensors(data: bytes, where: str) -> dict[str, np.ndarray]:
    """Returns the dict of tensors that `torch.save` wrote, as arrays.

    Args:
      data: the bytes of the file.
      where: it comes from, for the error.

    Raises:
      UserError: not such a file, damaged, or it holds anything but tensors.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            pickles = [name for name in archive.namelist() if name.endswith("/data.pkl")]
            if len(pickles) != 1:
                raise pickle.UnpicklingError(f"{len(pickles)} data.pkl in it")
            root = pickles[0].removesuffix("data.pkl")
            order = f"{root}byteorder"
            if order in archive.namelist() and archive.read(order).strip() != b"little":
                raise pickle.UnpicklingError("its numbers are big-endian")
            found = _Unpickler(archive, root, archive.read(pickles[0])).load()
    except Exception as error:  # A hostile pickle can make its reader raise anything.
        raise UserError(f"{where}: not a torch file of plain tensors ({error})") from None
    if not isinstance(found, dict) or not all(
        isinstance(key, str) and isinstance(value, np.ndarray) for key, value in found.items()
    ):
        raise UserError(f"{where}: holds {type(found).__name__}, not a dict of named tensors")
    return dict(found)


class _Unpickler(pickle.Unpickler):
    """Turns the names of storages into dtypes, and refuses every other name but two."""

    def __init__(self, archive: zipfile.ZipFile, root: str, data: bytes):
        super().__init__(io.BytesIO(data))
        self._archive, self._root = archive, root

    def find_class(self, module: str, name: str) -> Any:
        if module == "torch" and name in STORAGES:
            return STORAGES[name]
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _rebuild
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        raise pickle.UnpicklingError(f"{module}.{name} is refused")

    def persistent_load(self, pid: Any) -> np.ndarray:
        kind, dtype, key, _, count = pid
        if kind != "storage" or dtype not in STORAGES.values() or not str(key).isdecimal():
            raise pickle.UnpicklingError(f"{pid} is no storage")
        storage = np.frombuffer(self._archive.read(f"{self._root}data/{key}"), dtype)
        if len(storage) != count:
            raise pickle.UnpicklingError(f"storage {key} has {len(storage)} numbers, not {count}")
        return storage


def _rebuild(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> np.ndarray:
    """A tensor of a storage: its number `offset` comes first, strides count numbers."""
    if not isinstance(storage, np.ndarray):
        raise pickle.UnpicklingError("a tensor without a storage")
    whole = [offset, *size, *stride]
    if len(size) != len(stride) or not all(type(n) is int and n >= 0 for n in whole):
        raise pickle.UnpicklingError(f"a tensor of size {size} and stride {stride}")
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if math.prod(size) > 0 and last >= len(storage):
        raise pickle.UnpicklingError(f"a tensor that ends at {last} of {len(storage)} numbers")
    if math.prod(size) > len(storage):
        raise pickle.UnpicklingError(f"a tensor of {size} in {len(storage)} numbers")
    bytes_each = [step * storage.itemsize for step in stride]
    return np.lib.stride_tricks.as_strided(storage[offset:], size, bytes_each).copy()

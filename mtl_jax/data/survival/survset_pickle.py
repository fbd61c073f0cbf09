"""Reads a pickled table of the package SurvSet into numpy arrays, without pandas.

A pickle is a program: reading one can run whatever it names. Here it runs nothing. First its
instructions are looked through: those of `_INSTRUCTIONS` build plain data and ask for no more
memory than the file has bytes. Then it is read. The names in `_NAMES` are all that a table of
SurvSet needs; each stands for an inert record of what it was called with, and any other name ends
the reading. Last the records, by now plain data, are read as arrays. So a pickle from elsewhere can
be wrong but not harmful.

What is read is pickle protocol 5 as pandas 2 writes it: a frame of blocks of columns, each a plain
array, a categorical or an array of whole numbers, truth values or strings with a mask.
"""

from __future__ import annotations

import io
import pickle
import pickletools
from typing import Any, NamedTuple

import numpy as np

from mtl_jax.errors import UserError

_NAMES = {
    "builtins.slice": "slice",
    "numpy.dtype": "dtype",
    "numpy.ndarray": "ndarray",
    # numpy 2 renamed its private module; which name a pickle has tells who wrote it.
    "numpy.core.multiarray._reconstruct": "array",
    "numpy._core.multiarray._reconstruct": "array",
    "numpy.core.numeric._frombuffer": "buffer",
    "numpy._core.numeric._frombuffer": "buffer",
    "pandas.core.frame.DataFrame": "frame",
    "pandas.core.internals.managers.BlockManager": "blocks",
    "pandas._libs.internals._unpickle_block": "block",
    "pandas.core.indexes.base._new_Index": "index",
    "pandas.core.indexes.base.Index": "index of names",
    "pandas.core.indexes.range.RangeIndex": "index of numbers",
    "pandas._libs.arrays.__pyx_unpickle_NDArrayBacked": "backed",
    "pandas.core.arrays.categorical.Categorical": "categorical",
    "pandas.core.dtypes.dtypes.CategoricalDtype": "categories",
    "pandas.core.arrays.integer.IntegerArray": "masked",
    "pandas.core.arrays.boolean.BooleanArray": "masked",
    "pandas.core.arrays.string_.StringArray": "strings",
    "pandas.core.arrays.integer.Int32Dtype": "dtype of masked",
    "pandas.core.arrays.integer.Int64Dtype": "dtype of masked",
    "pandas.core.arrays.boolean.BooleanDtype": "dtype of masked",
    "pandas.core.arrays.string_.StringDtype": "dtype of strings",
    "pandas._libs.missing.NA": "unknown",
}
# All that the tables use. Left out are a memo entry of any number, which takes any memory, and
# whatever gets at objects otherwise than by a name of the table above.
_LISTED = """
    APPEND APPENDS BINBYTES BINFLOAT BINGET BININT BININT1 BININT2 BINUNICODE BUILD BYTEARRAY8
    EMPTY_DICT EMPTY_LIST EMPTY_TUPLE FRAME LONG1 LONG_BINGET MARK MEMOIZE NEWFALSE NEWOBJ NEWTRUE
    NONE PROTO REDUCE SETITEM SETITEMS SHORT_BINBYTES SHORT_BINUNICODE STACK_GLOBAL STOP TUPLE
    TUPLE1 TUPLE2 TUPLE3
"""
_INSTRUCTIONS = frozenset(_LISTED.split())
_NUMBERS = {"b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f4", "f8"}
_TAIL = "give the file as SurvSet ships it"


class Factor(NamedTuple):
    """A categorical column.

    Attributes:
      levels: what codes 0, 1, ... stand for.
      codes: [N] int32, -1 where not known.
    """

    levels: tuple[str, ...]
    codes: np.ndarray


Column = np.ndarray | Factor
"""A column of N rows: numbers, objects (strings, None) or a factor."""


class _Wrong(Exception):
    """What is not as it should be; becomes a `UserError` that names the file."""


class _Record:
    """What was called, with what, and the state set afterwards."""

    __slots__ = ("args", "state")
    kind = ""

    args: tuple[Any, ...]
    state: Any

    def __new__(cls, *args: Any) -> _Record:
        self = object.__new__(cls)
        self.args, self.state = args, None
        return self

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Reader(pickle.Unpickler):
    def __init__(self, data: bytes) -> None:
        super().__init__(io.BytesIO(data))
        # New classes for each file, so that none can leave anything behind in them.
        self._classes: dict[str, type[_Record]] = {}

    def find_class(self, module: str, name: str) -> type[_Record]:
        full = f"{module}.{name}"
        if full not in _NAMES:
            raise _Wrong(f"it names {full[:100]!r}, which no table needs, so nothing of it is read")
        if full not in self._classes:
            members = {"__slots__": (), "kind": _NAMES[full]}
            self._classes[full] = type("_Named", (_Record,), members)
        return self._classes[full]


def read_pickled_table(data: bytes, where: str) -> dict[str, Column]:
    """Returns the columns of a pickled table by name, in its order, each of N rows.

    Args:
      data: the pickle.
      where: the file, for messages.

    Raises:
      UserError: not a pickle, one that names anything else than a table needs, or a table that is
        not whole.
    """
    try:
        for instruction, _, _ in pickletools.genops(data):
            if instruction.name not in _INSTRUCTIONS:
                raise _Wrong(f"it has the instruction {instruction.name}, which no table needs")
        return _table(_Reader(data).load())
    except _Wrong as wrong:
        reason = str(wrong)
    except Exception as error:  # A damaged pickle raises nearly anything.
        reason = f"not a table as SurvSet pickles it ({' '.join(str(error).split())})"
    raise UserError(f"{where}: {reason}; {_TAIL}")


def _table(root: Any) -> dict[str, Column]:
    manager = _of(_of(root, "frame").state["_mgr"], "blocks")
    blocks, (columns, rows) = manager.args[:2]
    names = _values(columns)
    if isinstance(names, Factor) or not all(isinstance(name, str) for name in names):
        raise _Wrong("the names of its columns are no strings")
    if len(set(names.tolist())) != len(names):
        raise _Wrong("names of columns repeat")
    count = _rows(rows)
    found: dict[int, Column] = {}
    for block in blocks:
        values, placement = _of(block, "block").args[:2]
        parts = _values(values)
        places = _places(placement, len(names))
        single = isinstance(parts, Factor) or parts.ndim == 1
        listed: list[Column] = [parts] if single else list(parts)  # type: ignore[list-item]
        if len(listed) != len(places):
            raise _Wrong(f"{len(listed)} columns stand in {len(places)} places")
        for place, column in zip(places, listed, strict=True):
            length = len(column.codes) if isinstance(column, Factor) else len(column)
            if place in found or length != count:
                raise _Wrong(f"column {names[place]!r} is there twice or has {length} rows")
            found[place] = column
    if missing := set(range(len(names))) - set(found):
        raise _Wrong(f"column {names[min(missing)]!r} is not in it")
    return {str(names[place]): found[place] for place in range(len(names))}


def _of(value: Any, kind: str) -> _Record:
    if not isinstance(value, _Record) or value.kind != kind:
        name = getattr(value, "kind", type(value).__name__)
        raise _Wrong(f"a {name} stands where a {kind} should")
    return value


def _rows(index: Any) -> int:
    """How many rows an index of rows has."""
    kind, options = _of(index, "index").args[:2]
    if kind.kind == "index of numbers":
        return len(range(options["start"], options["stop"], options["step"]))
    values = _values(index)
    return len(values.codes) if isinstance(values, Factor) else len(values)


def _places(value: Any, count: int) -> list[int]:
    """Which columns a block holds."""
    if isinstance(value, _Record) and value.kind == "slice":
        return list(range(count)[slice(*value.args)])
    places = _array(value)
    if places.dtype.kind not in "iu" or not all(0 <= place < count for place in places):
        raise _Wrong("a block stands in places outside the table")
    return places.tolist()


def _values(value: Any) -> Column:
    """The values of an array, an index or an extension array of pandas."""
    if not isinstance(value, _Record):
        raise _Wrong(f"a {type(value).__name__} stands where an array should")
    if value.kind == "index":
        return _values(value.args[1]["data"])
    if value.kind == "masked":
        data, mask = _array(value.state["_data"]), _array(value.state["_mask"])
        if not mask.any():
            return data
        found = data.astype(object)
        found[mask] = None
        return found
    if value.kind != "backed":
        return _array(value)
    kind = value.args[0].kind
    dtype, data = value.state[:2]
    if kind == "strings":
        return _array(data)
    if kind != "categorical":
        raise _Wrong(f"a {kind} stands where a categorical should")
    levels = _values(_of(dtype, "categories").state["categories"])
    codes = _array(data)
    if isinstance(levels, Factor) or levels.ndim != 1:
        raise _Wrong("levels of a factor are no list")
    if codes.dtype.kind != "i" or codes.min(initial=-1) < -1 or codes.max() >= len(levels):
        raise _Wrong(f"codes of a factor of {len(levels)} levels are outside of them")
    return Factor(tuple(str(level) for level in levels.tolist()), codes.astype(np.int32))


def _array(value: Any) -> np.ndarray:
    """A plain array, a copy of its own."""
    if isinstance(value, _Record) and value.kind == "buffer":
        data, dtype, shape, order = value.args
        return np.frombuffer(data, _number_type(dtype)).reshape(shape, order=order).copy()
    _, shape, dtype, by_column, data = _of(value, "array").state
    order = "F" if by_column else "C"
    if isinstance(data, bytes):
        return np.frombuffer(data, _number_type(dtype)).reshape(shape, order=order).copy()
    if _of(dtype, "dtype").args[0] != "O8":
        raise _Wrong("an array of numbers is a list")
    found = np.empty(len(data), object)
    found[:] = [_plain(one) for one in data]
    return found.reshape(shape, order=order)


def _plain(value: Any) -> str | int | float | None:
    """An object of an array; None where it is not known."""
    if value is None or isinstance(value, str | int | float):
        return value
    if getattr(value, "kind", "") == "unknown":
        return None
    raise _Wrong("an array holds other things than numbers and strings")


def _number_type(value: Any) -> np.dtype:
    name, order = _of(value, "dtype").args[0], value.state[1]
    if name not in _NUMBERS or order not in ("<", ">", "|"):
        raise _Wrong(f"an array is of type {order}{name}")
    return np.dtype(f"{order}{name}")

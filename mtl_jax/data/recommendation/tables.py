"""Text tables whose mistakes are told with file, line and the rule they break."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from mtl_jax.errors import UserError


def read_bytes(path: Path, comes_with: str) -> bytes:
    """Returns the contents of a file; a `UserError` names a missing or unreadable one."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; it comes with {comes_with}") from None
    except OSError as error:
        raise UserError(f"{path}: not a readable file ({error.strerror})") from None


def decode(data: bytes, where: str, encoding: str = "utf-8") -> list[str]:
    """Returns the lines that are not empty."""
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        raise UserError(f"{where}: not {encoding} text ({error.reason})") from None
    return [line for line in text.split("\n") if line.strip("\r ")]


def read_lines(path: Path, comes_with: str, encoding: str = "utf-8") -> Iterator[str]:
    """Yields the lines of a file of any size, without their ends."""
    if not path.is_file():
        raise UserError(f"{path}: no such file; it comes with {comes_with}")
    try:
        with open(path, encoding=encoding, newline="\n") as file:
            for line in file:
                yield line.rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not a readable {encoding} file ({error})") from None


def split_lines(
    lines: Iterable[str], separator: str, width: int, where: str, first: int = 1
) -> list[list[str]]:
    """Returns the `width` cells of every line, without blanks around them.

    Args:
      lines: the text.
      separator: between cells.
      width: the number of cells that each line must have.
      where: the file, for messages.
      first: the number of the first line, for messages.
    """
    rows = []
    for number, line in enumerate(lines, first):
        cells = line.rstrip("\r\n").split(separator)
        if len(cells) != width:
            raise UserError(
                f"{where}, line {number}: {len(cells)} cells, expected {width}"
                f" separated by {separator!r}"
            )
        rows.append([cell.strip() for cell in cells])
    if not rows:
        raise UserError(f"{where}: no rows")
    return rows


def header_positions(header: list[str], wanted: Iterable[str], where: str) -> list[int]:
    """Returns where each wanted column is; a `UserError` names the first that is missing."""
    names = [name.strip() for name in header]
    for name in wanted:
        if name not in names:
            raise UserError(f"{where}: no column {name!r}; it has {', '.join(names)[:200]}")
    return [names.index(name) for name in wanted]


def whole_numbers(cells: Iterable[str], where: str, column: str, first: int = 1) -> np.ndarray:
    """Returns cells as int64; "3" and "3.0" are both three.

    Args:
      cells: the column.
      where: the file, for messages.
      column: what it holds, for messages.
      first: the number of the line of the first cell, for messages.
    """
    listed = list(cells)
    try:
        return np.array([int(cell) for cell in listed], np.int64)
    except ValueError:
        pass
    found = []
    for number, cell in enumerate(listed, first):
        try:
            value = float(cell)
            if not value.is_integer():
                raise ValueError
        except (ValueError, OverflowError):
            raise UserError(
                f"{where}, line {number}: {column} is {cell!r}, expected a whole number"
            ) from None
        found.append(int(value))
    return np.array(found, np.int64)


def binary_label(cell: str, where: str, number: int, column: str) -> float:
    """Returns 0 or 1; a `UserError` for anything else."""
    if cell in ("0", "1"):
        return float(cell)
    try:
        value = float(cell)
    except ValueError:
        value = -1.0
    if value not in (0.0, 1.0):
        raise UserError(f"{where}, line {number}: {column} is {cell!r}, expected 0 or 1")
    return value

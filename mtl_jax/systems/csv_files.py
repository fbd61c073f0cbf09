"""CSV files of `mtl_jax.predict`: rows in, the same rows with further columns out."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from mtl_jax.errors import UserError


def read_rows(source: Path, what: str) -> tuple[list[str], list[list[str]]]:
    """Returns the names of the columns and the rows of a CSV file.

    Args:
      source: the file.
      what: of what a row is one, for messages.

    Raises:
      UserError: no such file, no rows, repeated names, a row of another length.
    """
    try:
        # Spreadsheets put a mark of the encoding first.
        with open(source, newline="", encoding="utf-8-sig") as file:
            lines = list(csv.reader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"--input is {source}, which is no readable CSV file ({reason})") from None
    while lines and not lines[-1]:  # Empty lines at the end are no rows.
        lines.pop()
    if len(lines) < 2:
        raise UserError(f"{source}: no {what}; it needs a line of names and a row for each")
    head, rows = lines[0], lines[1:]
    if len(set(head)) < len(head):
        raise UserError(f"{source}: column names repeat: {', '.join(head)}")
    for number, row in enumerate(rows, 2):
        if len(row) != len(head):
            raise UserError(f"{source}: line {number} has {len(row)} values, not {len(head)}")
    return head, rows


def read_numbers(
    raw: Sequence[str],
    name: str,
    source: str,
    low: float = -np.inf,
    high: float = np.inf,
    *,
    whole: bool = False,
    empty: bool = False,
) -> np.ndarray:
    """Returns the numbers of a column.

    Args:
      raw: its values.
      name: of the column.
      source: of the file, for messages.
      low: the least that is allowed.
      high: the greatest.
      whole: whether they must be whole.
      empty: whether an empty cell is allowed, and becomes NaN.

    Raises:
      UserError: the first value that is none.
    """
    kind = "a whole number" if whole else "a finite number"
    bounded = np.isfinite([low, high])
    rule = f"{kind} in {low}..{high}" if bounded.all() else kind
    if bounded[0] and not bounded[1]:
        rule = f"{kind} from {low:g} on"
    out = []
    for line, text in enumerate(raw, 2):
        if empty and not text.strip():
            out.append(np.nan)
            continue
        try:
            value = int(text) if whole else float(text)
        except ValueError:
            value = np.nan
        if not (low <= value <= high and np.isfinite(value)):
            raise UserError(f"{source}: line {line} has {name} = {text!r}; it must be {rule}")
        out.append(value)
    return np.array(out)


def write_rows(
    target: Path,
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    more: Mapping[str, Sequence[str]],
) -> None:
    """Writes the rows with the columns `more` behind theirs, whole or not at all."""
    temporary = target.with_name(f"{target.name}.{os.getpid()}")
    with open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([*head, *more])
        for row, own in zip(rows, zip(*more.values(), strict=True), strict=True):
            writer.writerow([*row, *own])
    os.replace(temporary, target)

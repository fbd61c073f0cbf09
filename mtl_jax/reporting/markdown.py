"""Markdown tables that commands write into a file, between two markers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from mtl_jax.errors import UserError


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Returns a Markdown table; cells are shown as `str` shows them.

    Raises:
      ValueError: a row that does not have one cell a column.
    """
    lines = [columns, ["---"] * len(columns), *rows]
    for line in lines:
        if len(line) != len(columns):
            raise ValueError(f"a row has {len(line)} cells, the table {len(columns)} columns")
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def write_between(path: Path, begin: str, end: str, text: str) -> None:
    """Replaces what stands between two markers of a file.

    Raises:
      UserError: the file does not hold each marker once, in this order.
    """
    old = path.read_text(encoding="utf-8")
    if old.count(begin) != 1 or old.count(end) != 1 or old.index(begin) > old.index(end):
        raise UserError(f"{path} must hold the markers {begin} and {end} once each, in this order")
    head, rest = old.split(begin)
    path.write_text(f"{head}{begin}\n{text}\n{end}{rest.split(end)[1]}", encoding="utf-8")

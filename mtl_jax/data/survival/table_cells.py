"""Cells of a table as numbers, dates, flags and levels; the first bad one is told exactly."""

from __future__ import annotations

import datetime
import math
import re
from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np

from mtl_jax.data.survival.table_files import Block
from mtl_jax.errors import UserError, did_you_mean

UNIT_SECONDS: Mapping[str, float] = {
    "second": 1.0,
    "minute": 60.0,
    "hour": 3600.0,
    "day": 86_400.0,
    "week": 7 * 86_400.0,
    "fortnight": 14 * 86_400.0,
    "month": 365.25 / 12 * 86_400,
    "year": 365.25 * 86_400,
}
"""Units of time; a month is a twelfth of 365.25 days."""
MISSING_CELLS = ("", "NA", "N/A", "NaN", "nan", "null", "NULL", "None", "\\N")
"""What a cell holds where nothing is known."""
_FLAGS = {"0": 0, "1": 1, "0.0": 0, "1.0": 1, "true": 1, "false": 0}
_LARGEST = float(np.finfo(np.float32).max)
_DATE = re.compile(r"\d{4}([-/])\d{2}\1\d{2}")


def bad_cell(block: Block, index: int, column: str, value: object, rule: str) -> UserError:
    """Returns the error of one cell: where it is, what it holds and what it should hold."""
    shown = value if isinstance(value, str) and len(value) <= 60 else str(value)[:60]
    return UserError(f"{block.where(index, column)}: {shown!r}; {rule}")


def read_numbers(
    block: Block,
    column: str,
    *,
    missing: Collection[str] = MISSING_CELLS,
    default: float | None = math.nan,
    least: float = -math.inf,
    above: float = -math.inf,
) -> np.ndarray:
    """Returns a column as float64 [n].

    Args:
      block: of rows.
      column: its name.
      missing: cells that stand for `default`; never for a number of their own.
      default: value of these; None where there must be one.
      least: no number may be below.
      above: every number must be above.

    Raises:
      UserError: the first cell that is not such a number.
    """
    cells = block.cells[column]
    try:
        found = np.array([float(cell) for cell in cells])
        unknown = np.isnan(found)
    except ValueError:
        found, unknown = np.empty(len(cells)), np.zeros(len(cells), bool)
        for index, cell in enumerate(cells):
            if cell.strip() in missing:
                found[index], unknown[index] = math.nan, True
                continue
            try:
                found[index] = float(cell)
            except ValueError:
                raise bad_cell(block, index, column, cell, "it must be a number") from None
            unknown[index] = np.isnan(found[index])
    if default is None and unknown.any():
        index = int(np.flatnonzero(unknown)[0])
        raise bad_cell(block, index, column, cells[index], "a number must be given in every row")
    for good, rule in (
        (np.abs(found) <= _LARGEST, "it must be finite, and have an absolute value below 3.4e38"),
        (found >= least, f"it must be {least:g} or more"),
        ((found > above) | (above == -math.inf), f"it must be above {above:g}"),
    ):
        wrong = np.flatnonzero(~(good | unknown))
        if len(wrong):
            index = int(wrong[0])
            raise bad_cell(block, index, column, cells[index], rule)
    return found if default is None else np.where(unknown, default, found)


def read_events(block: Block, column: str, causes: int = 1) -> np.ndarray:
    """Returns int32 [n] numbers of events: 0 for censored, up to `causes`; true and false are 1, 0.

    Raises:
      UserError: the first cell that is none of them.
    """
    known = _FLAGS | {str(k): k for k in range(causes + 1)}
    known |= {f"{k}.0": k for k in range(causes + 1)}
    cells = block.cells[column]
    found = [known.get(cell.strip().lower(), -1) for cell in cells]
    if -1 in found:
        index = found.index(-1)
        rule = (
            "it must be 1 (the event was seen) or 0 (censored)"
            if causes == 1
            else f"it must be from 0 (censored) to {causes}, the number of a cause"
        )
        raise bad_cell(block, index, column, cells[index], rule)
    return np.array(found, np.int32)


def read_dates(
    block: Block,
    column: str,
    *,
    missing: Collection[str] = MISSING_CELLS,
    needed: bool = True,
) -> np.ndarray:
    """Returns float64 [n] seconds since 1970 in UTC; NaN where nothing is given.

    A date is that day's beginning. Times without a zone are taken as UTC.

    Raises:
      UserError: the first cell that is no date, or an empty one where dates are `needed`.
    """
    cells = block.cells[column]
    found = np.empty(len(cells))
    known: dict[str, float] = {}  # Many rows share a date.
    for index, cell in enumerate(cells):
        value = known.get(cell)
        if value is None:
            if cell.strip() in missing:
                if needed:
                    raise bad_cell(block, index, column, cell, "a date must be given in every row")
                value = math.nan
            else:
                value = seconds_of(cell)
                if value is None:
                    rule = "it must be a date as 2020-09-01, perhaps with a time as 04:00:00Z"
                    raise bad_cell(block, index, column, cell, rule)
            known[cell] = value
        found[index] = value
    return found


def seconds_of(text: str) -> float | None:
    """Returns the seconds since 1970 in UTC of a date or a date and time, None if it is neither."""
    text = text.strip()
    if not _DATE.match(text):
        return None
    plain = text.replace("/", "-").removesuffix(" UTC")
    try:
        moment = datetime.datetime.fromisoformat(plain)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=datetime.UTC)
    return moment.timestamp()


def day_text(seconds: float) -> str:
    """Returns a time since 1970 as people write it, in UTC."""
    moment = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    form = "%Y-%m-%d" if seconds % 86_400 == 0 else "%Y-%m-%dT%H:%M:%SZ"
    return moment.strftime(form)


class Levels:
    """Codes of texts in the order in which they were met."""

    def __init__(self, known: Sequence[str] = ()) -> None:
        self._codes: dict[str, int] = {level: code for code, level in enumerate(known)}

    @property
    def names(self) -> tuple[str, ...]:
        """The texts of codes 0, 1, ..."""
        return tuple(self._codes)

    def add(self, cells: Sequence[str], missing: Collection[str] = ()) -> np.ndarray:
        """Returns int32 [n] codes, -1 for cells that are `missing`; new texts get new codes."""
        codes, found = self._codes, np.empty(len(cells), np.int32)
        for index, cell in enumerate(cells):
            text = cell.strip()
            found[index] = -1 if text in missing else codes.setdefault(text, len(codes))
        return found

    def ordered(self, codes: np.ndarray) -> tuple[tuple[str, ...], np.ndarray]:
        """Returns the levels sorted, as numbers if all are, and `codes` that go with them."""
        names = self.names
        try:
            order = sorted(range(len(names)), key=lambda code: (float(names[code]), names[code]))
        except ValueError:
            order = sorted(range(len(names)), key=names.__getitem__)
        place = np.full(len(names) + 1, -1, np.int32)  # The last place stands for code -1.
        place[order] = np.arange(len(names))
        return tuple(names[code] for code in order), place[codes]


def read_choice(
    block: Block, column: str, choices: Mapping[str, int], wrong: Callable[[str], str] | None = None
) -> np.ndarray:
    """Returns int32 [n]: what each cell, in lower case, stands for.

    Raises:
      UserError: the first cell that is not among `choices`.
    """
    cells = block.cells[column]
    found = [choices.get(cell.strip().lower(), -1) for cell in cells]
    if -1 in found:
        index = found.index(-1)
        value = cells[index]
        rule = wrong(value) if wrong else did_you_mean(value.strip(), choices)
        raise bad_cell(block, index, column, value, rule)
    return np.array(found, np.int32)

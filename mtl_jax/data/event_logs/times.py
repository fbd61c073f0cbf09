"""Times of a log: reading them, days and bounds."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute

from mtl_jax.errors import UserError

UNITS = {"day": 1, "s": 86_400, "ms": 86_400_000}  # ticks a day
MMDD_YEAR = 2014  # Any year without a 29 February: month and day alone do not say which.
_MONTHS = np.array([31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31])
_EPOCH = datetime.date(1970, 1, 1)
compute: Any = pyarrow.compute  # Its functions are made at run time.


class Clock(NamedTuple):
    """The unit of a set's times.

    Attributes:
      unit: "day", "s" or "ms".
      per_day: ticks a day.
      offset: what to add to a time, in ticks, so that days begin at local midnight.
    """

    unit: str
    per_day: int
    offset: int

    def day_of(self, times: np.ndarray) -> np.ndarray:
        """Returns the local day number of each time."""
        return (times + self.offset) // self.per_day

    def start_of(self, days: Any) -> Any:
        """Returns the first time of each local day."""
        return days * self.per_day - self.offset


def make_clock(unit: str, utc_offset: float) -> Clock:
    """Returns the clock of `unit`; `utc_offset` hours are what local time is ahead of UTC."""
    per_day = UNITS[unit]
    return Clock(unit, per_day, 0 if unit == "day" else round(utc_offset * per_day / 24))


def source_unit(time_unit: str) -> str:
    """Returns the unit that times have as they are read: a date format gives seconds or days."""
    if time_unit in UNITS:
        return time_unit
    dated_only = time_unit == "mmdd" or not any(f"%{c}" in time_unit for c in "HIMSTXcsr")
    return "day" if dated_only else "s"


def read_times(
    values: pa.Array, time_unit: str, utc_offset: float, unit: str, where: Callable[[int], str]
) -> np.ndarray:
    """Returns int64 times in `unit`.

    Args:
      values: numbers or text.
      time_unit: "day", "s", "ms", "mmdd" or a format of strptime in local time.
      utc_offset: hours.
      unit: that the times shall have, not finer than `time_unit`.
      where: says for an index where in which file the value is.

    Raises:
      UserError: the first value that is no such time.
    """
    coarse = source_unit(time_unit)
    if "%" in time_unit:
        times, good = _strptime(values, time_unit)
        times = times - round(utc_offset * 3600) if coarse == "s" else times // UNITS["s"]
    else:
        times, good = whole_numbers(values)
        if time_unit == "mmdd":
            times, good = _mmdd(times, good)
    if not good.all():
        bad = int(np.flatnonzero(~good)[0])
        raise UserError(f"{where(bad)}: time {values[bad].as_py()!r} is not {_expected(time_unit)}")
    return _coarser(times, make_clock(coarse, utc_offset), unit)


def whole_numbers(values: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """Returns int64 numbers (0 where there is none) and whether there was one."""
    try:
        numbers = values.cast(pa.int64())
    except pa.ArrowInvalid:
        found = [_integer(value) for value in values.to_pylist()]
        numbers = pa.array(found, pa.int64())
    good = numbers.is_valid().to_numpy(zero_copy_only=False)
    return numbers.fill_null(0).to_numpy(zero_copy_only=False), good


def bound(text: str, clock: Clock, *, end: bool, what: str) -> int:
    """Returns the time that `text` means: a number in the clock's unit, a date or date and time.

    A date (YYYY-MM-DD, local) means its first moment, or with `end` its last.

    Raises:
      UserError: neither.
    """
    if (number := _integer(text)) is not None:
        return number
    try:
        if len(text) == 10:
            day = (datetime.date.fromisoformat(text) - _EPOCH).days
            return clock.start_of(day + 1) - 1 if end else clock.start_of(day)
        moment = datetime.datetime.fromisoformat(text).replace(tzinfo=datetime.UTC)
        return int(moment.timestamp() * clock.per_day // 86_400) - clock.offset
    except ValueError:
        raise UserError(
            f"{what} = {text!r}; give a number in the log's unit ({clock.unit}), YYYY-MM-DD or "
            "YYYY-MM-DDTHH:MM"
        ) from None


def _coarser(times: np.ndarray, clock: Clock, unit: str) -> np.ndarray:
    if unit == clock.unit:
        return times
    return clock.day_of(times) if unit == "day" else times // (clock.per_day // UNITS[unit])


def _strptime(values: pa.Array, form: str) -> tuple[np.ndarray, np.ndarray]:
    found = compute.strptime(values.cast(pa.string()), format=form, unit="s", error_is_null=True)
    good = found.is_valid().to_numpy(zero_copy_only=False)
    return found.cast(pa.int64()).fill_null(0).to_numpy(zero_copy_only=False), good


def _mmdd(numbers: np.ndarray, good: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    month, day = numbers // 100, numbers % 100
    good = good & (month >= 1) & (month <= 12) & (day >= 1)
    month = np.where(good, month, 1)
    good = good & (day <= _MONTHS[month - 1])
    before = np.concatenate([[0], np.cumsum(_MONTHS)])[month - 1]
    first = (datetime.date(MMDD_YEAR, 1, 1) - _EPOCH).days
    return first + before + day - 1, good


def _integer(value: Any) -> int | None:
    try:
        return int(value)
    except (TypeError, ValueError):
        return None


def _expected(time_unit: str) -> str:
    if time_unit == "mmdd":
        return "a month and day as 101..1231"
    if "%" in time_unit:
        return f"of the form {time_unit}"
    return f"a whole number ({time_unit})"

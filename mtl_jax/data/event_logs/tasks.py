"""How labels are named in the options: behaviours within a time of the row.

A task is `NAME:WINDOW` or `NAME:WHAT:WINDOW`, about later events of the row's user with the row's
item:

    buy:0d            a buy on the same day
    cart:24h          a cart in the next 24 hours
    revisit:1-7d      any event on days 1 to 7 after the row's
    saved:fav+cart:3d a favourite or a cart on the same day or the next three
    deep:click>=3:0d  at least three clicks on the same day
    like:row          the row's own event is a like

WHAT is behaviours joined by `+`, or `any`, then perhaps `>=N`. Left out it is the behaviour called
NAME; for NAME `revisit` it is `any`. WINDOW is `row`, or `B` or `A-B` with a unit: `d` for calendar
days after the row's, both included, `h`, `m` or `s` for a time after the row's, more than A and at
most B. `B` alone is `0-B`. In logs by the day the row's own day counts as a whole; in finer logs
only what is later than the row does.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from mtl_jax.data.event_logs.times import Clock
from mtl_jax.errors import UserError, did_you_mean

_WINDOW = re.compile(r"(?:(\d+)-)?(\d+)([dhms])")
_WHAT = re.compile(r"(.*?)(?:>=(\d+))?")
_NAME = re.compile(r"[A-Za-z_]\w*")
_SECONDS = {"h": 3600, "m": 60, "s": 1}
ANY = "any"


class Task(NamedTuple):
    """A label.

    Attributes:
      name: of the task.
      mask: bits of the behaviours that count.
      least: how many events make the label 1.
      kind: "row", "day" or "time", what `first` and `last` count: nothing, days or ticks.
      first, last: of the window.
    """

    name: str
    mask: int
    least: int
    kind: str
    first: int
    last: int

    def ends(self, times: np.ndarray, clock: Clock) -> np.ndarray:
        """Returns the last time that decides each row's label."""
        if self.kind == "day":
            return clock.start_of(clock.day_of(times) + self.last + 1) - 1
        return times + self.last


def parse_tasks(texts: Sequence[str], behaviours: Mapping[str, int], clock: Clock) -> list[Task]:
    """Returns the tasks that `texts` name.

    Args:
      texts: in the syntax above.
      behaviours: {name: bits}.
      clock: of the log.

    Raises:
      UserError: no task, a repeated name, or a text that says nothing.
    """
    if not texts:
        raise UserError("tasks = (); name at least one label, as in buy:0d")
    tasks = [_parse(text, behaviours, clock) for text in texts]
    names = [task.name for task in tasks]
    for number, name in enumerate(names):
        if name in names[:number]:
            raise UserError(f"tasks: {name!r} is given twice; give each label a name of its own")
    return tasks


def behaviour_mask(text: str, behaviours: Mapping[str, int], where: str) -> int:
    """Returns the bits of behaviours joined by `+`; every bit for "any"."""
    if text == ANY:
        return sum(set(behaviours.values()))
    mask = 0
    for name in text.split("+"):
        if name not in behaviours:
            raise UserError(
                f"{where}: no behaviour is called {name!r}; {did_you_mean(name, behaviours)}"
            )
        mask |= behaviours[name]
    return mask


def check_behaviour_name(name: str) -> str:
    """Returns `name`; refuses what the syntax could not name."""
    if not _NAME.fullmatch(name) or name in (ANY, "row"):
        raise UserError(
            f"behaviour name {name!r}; use letters, digits and _, but not {ANY!r} or 'row'"
        )
    return name


def _parse(text: str, behaviours: Mapping[str, int], clock: Clock) -> Task:
    where = f"task {text!r}"
    parts = text.split(":")
    if len(parts) not in (2, 3) or not _NAME.fullmatch(parts[0]):
        raise UserError(
            f"{where}; write NAME:WINDOW or NAME:WHAT:WINDOW, as in buy:0d or deep:click>=3:0d"
        )
    name, window = parts[0], parts[-1]
    what = parts[1] if len(parts) == 3 else ANY if name == "revisit" else name
    matched = _WHAT.fullmatch(what)
    assert matched is not None
    mask = behaviour_mask(matched[1], behaviours, where)
    least = int(matched[2] or 1)
    if least < 1:
        raise UserError(f"{where}: at least {least} events is always true; give >=1 or more")
    kind, first, last = _parse_window(window, clock, where)
    if kind == "row" and least > 1:
        raise UserError(f"{where}: a row has one event; the window `row` takes no >=")
    return Task(name, mask, least, kind, first, last)


def _parse_window(text: str, clock: Clock, where: str) -> tuple[str, int, int]:
    if text == "row":
        return "row", 0, 0
    matched = _WINDOW.fullmatch(text)
    if matched is None:
        raise UserError(
            f"{where}: the window {text!r} is not `row`, B or A-B with d, h, m or s, as in 1-7d"
        )
    first, last, unit = int(matched[1] or 0), int(matched[2]), matched[3]
    if unit == "d":
        kind, ticks, empty = "day", 1, last < first
    elif clock.unit == "day":
        raise UserError(f"{where}: this log knows days only; give the window in d, as in 0-1d")
    else:
        kind, ticks, empty = "time", _SECONDS[unit] * clock.per_day // 86_400, last <= first
    if empty:
        raise UserError(f"{where}: the window {text!r} ends before it begins")
    return kind, first * ticks, last * ticks

"""What the survival metrics take: checked rows, curves over a grid, and the NaN that is announced.

Rows are observations of lifetimes, all arrays [N], on the host:

  time: of the event, or last seen without it; any unit, 0 or more.
  event: 0 or False for censored, else the number of the cause (1 or True if there is one cause).
  weights: 0 or more; None counts every row once. Rows of weight 0 are left out, whatever they hold.
  entry: under observation from here on (left truncation); a row is at risk at t if
    entry < t <= time. None means from the beginning: then an event at time 0 counts too.

Mistakes are one-line `UserError`s. A metric that is not defined on the rows is NaN, never an
exception, and a `UserWarning` says why in one sentence.
"""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

import numpy as np

from mtl_jax.errors import UserError

NAN = float("nan")


class Rows(NamedTuple):
    """The rows that count.

    Attributes:
      time: [N] float64.
      event: [N] int64.
      weights: [N] int64 where all are whole numbers of an integer type or absent, else float64.
      entry: [N] float64, -inf for rows that are observed from the beginning.
      kept: [N0] which of the given rows these are.
    """

    time: np.ndarray
    event: np.ndarray
    weights: np.ndarray
    entry: np.ndarray
    kept: np.ndarray

    @property
    def truncated(self) -> bool:
        """Whether any row entered late."""
        return bool(np.isfinite(self.entry).any())

    def only(self, mask: np.ndarray) -> Rows:
        """The rows of a mask [N]; `kept` still speaks of the rows as given."""
        kept = self.kept.copy()
        kept[self.kept] = mask
        return Rows(self.time[mask], self.event[mask], self.weights[mask], self.entry[mask], kept)


def check_rows(time: Any, event: Any, weights: Any = None, entry: Any = None) -> Rows:
    """Checks rows, see the module, and leaves out those of weight 0.

    Raises:
      UserError: shapes that differ, times that are negative or NaN, events that are no whole
        numbers of 0 or more, negative weights, or an entry that is not below its time.
    """
    given = {"time": np.asarray(time), "event": np.asarray(event)}
    given["weights"] = np.ones(given["time"].shape, np.int64) if weights is None else weights
    given["entry"] = np.full(given["time"].shape, -np.inf) if entry is None else entry
    given = {name: np.asarray(array) for name, array in given.items()}
    if given["time"].ndim != 1 or any(a.shape != given["time"].shape for a in given.values()):
        shapes = ", ".join(f"{name} {array.shape}" for name, array in given.items())
        raise UserError(f"the arrays of rows must all be [N], found {shapes}; give one value a row")
    weights = given["weights"]
    weights = weights.astype(np.int64 if weights.dtype.kind in "biu" else np.float64)
    _refuse(~((weights >= 0) & (weights < np.inf)), weights, "weights", "be finite and 0 or more")
    kept = weights > 0
    time, entry = (given[name][kept].astype(np.float64) for name in ("time", "entry"))
    event = given["event"][kept].astype(np.float64)
    _refuse(~((time >= 0) & (time < np.inf)), time, "time", "be finite and 0 or more")
    _refuse(
        ~((event >= 0) & (event == np.floor(event)) & (event < 2**31)),
        event,
        "event",
        "be 0 (censored) or the whole number of a cause",
    )
    _refuse(~(entry < time), entry, "entry", "lie below the time of its row; drop rows never seen")
    return Rows(time, event.astype(np.int64), weights[kept], entry, kept)


def check_cause(cause: int) -> int:
    """Returns the number of a cause, 1 or more."""
    if isinstance(cause, bool) or int(cause) != cause or cause < 1:
        raise UserError(f"cause is {cause!r}; it must be 1 or more, 0 stands for censored")
    return int(cause)


def check_scores(scores: Any, rows: Rows, name: str = "risk") -> np.ndarray:
    """Returns the scores [N] of the rows that count, float64."""
    scores = np.asarray(scores)
    if scores.shape != rows.kept.shape:
        raise UserError(
            f"{name} is {scores.shape}, the rows are {rows.kept.shape}; give one value a row"
        )
    return scores[rows.kept].astype(np.float64)


def check_curves(values: Any, grid: Any, rows: Rows, name: str = "survival") -> tuple:
    """Returns (values [N, K] of the rows that count, grid [K]), float64.

    Raises:
      UserError: wrong shapes, a grid that does not rise, or probabilities beyond [0, 1] by more
        than float32 rounding; NaN passes.
    """
    values, grid = np.asarray(values), np.asarray(grid, np.float64)
    if grid.ndim != 1 or not len(grid) or not np.all(np.diff(grid) > 0) or not grid[0] >= 0:
        raise UserError(f"the grid {_show(grid)} must be [K] rising times, 0 or more; sort it")
    if values.shape != (*rows.kept.shape, len(grid)):
        raise UserError(
            f"{name} is {values.shape}; it must be rows by times {(*rows.kept.shape, len(grid))}"
        )
    values = values[rows.kept].astype(np.float64)
    wrong = (values < -1e-6) | (values > 1 + 1e-6)
    _refuse(wrong, values, name, "be probabilities; pass probabilities and not logits")
    return np.clip(values, 0, 1), grid


def check_choice(name: str, value: str, known: tuple[str, ...]) -> None:
    """Raises a `UserError` if `value` is not one of the options `known`."""
    if value not in known:
        raise UserError(f"{name} is {value!r}; it must be one of {', '.join(known)}")


def dense_rank(values: np.ndarray) -> np.ndarray:
    """Numbers the distinct values [N] from 0 upwards; int64."""
    return np.unique(values, return_inverse=True)[1].reshape(values.shape).astype(np.int64)


def warn_nan(name: str, why: str) -> float:
    """Returns NaN after the warning "`name` is NaN: `why`"."""
    warnings.warn(f"{name} is NaN: {why}", UserWarning, stacklevel=3)
    return NAN


def _refuse(wrong: np.ndarray, values: np.ndarray, name: str, rule: str) -> None:
    if wrong.any():
        found = values[wrong].flat[0]
        where = np.argwhere(wrong)[0].tolist()
        raise UserError(f"{name} holds {found} at {where}; it must {rule}")


def _show(grid: np.ndarray) -> str:
    return np.array2string(grid.ravel()[:6], separator=", ", max_line_width=1000)

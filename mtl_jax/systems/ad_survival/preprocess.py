"""What the inputs of a survival network are made into, fitted to training rows alone.

Host side, numpy. `fit` looks at training rows, `apply` makes arrays of any set with the same
columns, also of another file with levels in another order; `to_dict` keeps what was fitted with
a run. Images are left as they are: the encoder knows their range.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from mtl_jax.data.lifetimes import MISSING, LifetimeSet
from mtl_jax.errors import UserError
from mtl_jax.systems.ad_survival.history import HistoryScale, fit_history, history_features

CLIP = 5.0
_NORMAL_IQR = 1.3489795  # Interquartile range of the standard normal distribution.
_ROWS_AT_ONCE = 4096


class NumberScale(NamedTuple):
    """How a number is standardised: (x - centre) / scale, of log(1 + x) where `log`.

    Attributes:
      name: of the column.
      log: whether the column is on a log scale.
      centre: median of the training rows.
      scale: their interquartile range as a standard deviation; the standard deviation itself
        where that range is 0; 1 where both are.
    """

    name: str
    log: bool
    centre: float
    scale: float


class Levels(NamedTuple):
    """The levels of a category that count by themselves.

    Attributes:
      name: of the column.
      kept: codes 0, 1, ... stand for these; all other levels share the code `len(kept)`.
    """

    name: str
    kept: tuple[str, ...]


class VectorScale(NamedTuple):
    """How precomputed vectors are standardised: (x - centre) / scale.

    One scale serves all d numbers, so that angles between centred vectors stay. A vector of zeros
    stands for none: it is not looked at and stays as it is.

    Attributes:
      name: of the vectors.
      centre: d means.
      scale: root mean square of what remains, 1 where it is 0.
    """

    name: str
    centre: tuple[float, ...]
    scale: float


class Fitted(NamedTuple):
    """What was learnt of the inputs of training rows.

    Attributes:
      numbers: one a numeric column.
      categories: one a categorical column.
      vectors: one a set of vectors.
      history: of the daily amounts; None where the set has none.
    """

    numbers: tuple[NumberScale, ...]
    categories: tuple[Levels, ...]
    vectors: tuple[VectorScale, ...]
    history: HistoryScale | None


def fit(
    found: LifetimeSet, rows: np.ndarray, min_count: int = 5, days: int | None = None
) -> Fitted:
    """Fits the preprocessing to training rows; no other row is looked at.

    Args:
      found: the set.
      rows: [n] numbers of the training rows.
      min_count: training rows that a level needs to count by itself.
      days: of the history to look at, counted from day 1: the latest landmark; None for all.

    Raises:
      UserError: no training row.
    """
    rows = np.asarray(rows)
    if not len(rows):
        raise UserError(f"{found.name} has no training row; choose another split")
    history = None
    if found.history_names:
        amounts = found.history[rows][:, :days]
        history = fit_history(amounts, found.history_days[rows], tuple(found.history_names))
    categories = []
    for category in found.categories:
        codes = category.codes[rows]
        counts = np.bincount(codes[codes >= 0], minlength=len(category.levels))
        pairs = zip(category.levels, counts, strict=True)
        kept = tuple(level for level, count in pairs if count >= max(min_count, 1))
        categories.append(Levels(category.name, kept))
    return Fitted(
        numbers=tuple(
            _fit_number(number.name, number.values[rows], number.scale == "log")
            for number in found.numbers
        ),
        categories=tuple(categories),
        vectors=tuple(_fit_vectors(name, v[rows]) for name, v in found.vectors.items()),
        history=history,
    )


def _fit_number(name: str, values: np.ndarray, log: bool) -> NumberScale:
    values = values[~np.isnan(values)].astype(np.float64)
    if not len(values):
        return NumberScale(name, log, 0.0, 1.0)
    if log:
        values = np.log1p(values)
    low, centre, high = np.quantile(values, (0.25, 0.5, 0.75))
    scale = (high - low) / _NORMAL_IQR
    # The rounding of equal values is no variation.
    least = 1e-9 * float(np.abs(values).max())
    if scale <= least:
        scale = values.std()
    return NumberScale(name, log, float(centre), float(scale) if scale > least else 1.0)


def _fit_vectors(name: str, values: np.ndarray) -> VectorScale:
    values = values[(values != 0).any(1)].astype(np.float64)
    centre = values.mean(0) if len(values) else np.zeros(values.shape[1])
    scale = float(np.sqrt(np.square(values - centre).mean())) if values.size else 0.0
    least = 1e-9 * float(np.abs(values).max(initial=0))
    return VectorScale(name, tuple(centre.tolist()), scale if scale > least else 1.0)


def apply(fitted: Fitted, found: LifetimeSet, days: int | None = None) -> dict[str, np.ndarray]:
    """Returns the inputs of all N rows.

    Args:
      fitted: of `fit`.
      found: a set that has the columns that were fitted; others are not looked at.
      days: of the history to give, counted from day 1: the latest landmark; None for all.

    Returns:
      `numbers` [N, K] float32, standardised and cut to +-5, 0 where missing; `missing` [N, K]
      float32, 1 where missing; `codes` [N, C] int32, see `Levels`, `MISSING` where not known;
      with a history `history` [N, D, F] float32, see `history.history_features`, and
      `history_days` [N] int32, at most D; `vectors/NAME` [N, d] float32 of each set of vectors.

    Raises:
      UserError: a column that was fitted is not there, or is another kind of column.
    """
    rows = len(found.time)
    numbers = {number.name: number for number in found.numbers}
    categories = {category.name: category for category in found.categories}
    values = np.zeros((rows, len(fitted.numbers)), np.float32)
    missing = np.zeros_like(values)
    codes = np.zeros((rows, len(fitted.categories)), np.int32)
    for column, own in enumerate(fitted.numbers):
        raw = _column(numbers, own.name, "number", found.name).values.astype(np.float64)
        if own.log:
            if (raw < 0).any():
                row = int(np.flatnonzero(raw < 0)[0])
                raise UserError(
                    f"{found.name}: row {row} has {own.name} {raw[row]:g}; on a log scale it must"
                    " not be negative"
                )
            raw = np.log1p(raw)
        absent = np.isnan(raw)
        scaled = np.clip((raw - own.centre) / own.scale, -CLIP, CLIP)
        values[:, column], missing[:, column] = np.where(absent, 0, scaled), absent
    for column, own in enumerate(fitted.categories):
        category = _column(categories, own.name, "category", found.name)
        codes[:, column] = _codes(own, category.levels, category.codes)
    made = {"numbers": values, "missing": missing, "codes": codes}
    for own in fitted.vectors:
        raw = _column(found.vectors, own.name, "vectors", found.name)
        if raw.shape[1] != len(own.centre):
            raise UserError(
                f"{found.name}: vectors {own.name!r} have {raw.shape[1]} numbers; the run was"
                f" trained with {len(own.centre)}"
            )
        centred = (raw - np.asarray(own.centre)) / own.scale
        there = (raw != 0).any(1, keepdims=True)
        made[f"vectors/{own.name}"] = np.where(there, centred, 0).astype(np.float32)
    if fitted.history is not None:
        made |= _history(fitted.history, found, days)
    return made


def _column(columns: Mapping[str, Any], name: str, kind: str, where: str) -> Any:
    if name not in columns:
        there = ", ".join(sorted(columns)) or "none"
        raise UserError(f"{where}: no {kind} {name!r}, which the run was trained with; has {there}")
    return columns[name]


def _codes(own: Levels, levels: tuple[str, ...], codes: np.ndarray) -> np.ndarray:
    """Codes of a set's levels as those of the kept ones, by name."""
    place = {level: code for code, level in enumerate(own.kept)}
    of_level = np.array([place.get(level, len(own.kept)) for level in levels] + [MISSING], np.int32)
    # The last entry is that of MISSING, which is -1.
    return of_level[codes]


def _history(scale: HistoryScale, found: LifetimeSet, days: int | None) -> dict[str, np.ndarray]:
    if tuple(found.history_names) != scale.names:
        raise UserError(
            f"{found.name}: amounts of its history are {', '.join(found.history_names) or 'none'};"
            f" the run was trained with {', '.join(scale.names)}"
        )
    amounts = found.history[:, :days]
    rows, length = amounts.shape[:2]
    made = np.zeros((rows, length, len(scale.mean)), np.float32)
    for first in range(0, rows, _ROWS_AT_ONCE):
        part = slice(first, first + _ROWS_AT_ONCE)
        made[part] = history_features(np, amounts[part].astype(np.float64), scale)
    return {
        "history": made,
        "history_days": np.minimum(found.history_days, length).astype(np.int32),
    }


def to_dict(fitted: Fitted) -> dict[str, Any]:
    """Returns what was fitted as plain dicts, lists, strings and numbers, for JSON."""
    return {
        "numbers": [dict(own._asdict()) for own in fitted.numbers],
        "categories": [{"name": own.name, "kept": list(own.kept)} for own in fitted.categories],
        "vectors": [{**own._asdict(), "centre": list(own.centre)} for own in fitted.vectors],
        "history": None
        if fitted.history is None
        else {key: _plain(value) for key, value in fitted.history._asdict().items()},
    }


def _plain(value: Any) -> Any:
    return [_plain(each) for each in value] if isinstance(value, tuple) else value


def from_dict(found: Mapping[str, Any]) -> Fitted:
    """Returns what `to_dict` made a dict of, equal to the bit.

    Raises:
      UserError: a dict of another shape.
    """
    try:
        history = found["history"]
        return Fitted(
            numbers=tuple(NumberScale(**own) for own in found["numbers"]),
            categories=tuple(
                Levels(own["name"], tuple(own["kept"])) for own in found["categories"]
            ),
            vectors=tuple(
                VectorScale(own["name"], tuple(own["centre"]), own["scale"])
                for own in found["vectors"]
            ),
            history=None
            if history is None
            else HistoryScale(
                names=tuple(history["names"]),
                priors=tuple((a, b) for a, b in history["priors"]),
                mean=tuple(history["mean"]),
                sd=tuple(history["sd"]),
            ),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"the preprocessing of the run is damaged ({error!r}); take it from a backup or train"
            " again"
        ) from None

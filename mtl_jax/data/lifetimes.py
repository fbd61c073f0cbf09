"""Lifetimes with covariates of five kinds in memory: what every survival set is made of.

A row is one thing that lives until an event ends it: an ad creative until its operator stops it, a
patient until death. Times are in the set's unit, mostly days, counted from the row's own beginning.

Nothing here is fitted to data: numbers are as they were, categories are codes of levels, texts are
places in a list of words. What depends on a training split (means, scales, levels that are too
rare) is made of it when a run begins, since a set may be split in several ways.

    event    time             upper           entry
    0        last seen alive  = time          under observation from here on (0: from the beginning)
    k > 0    of the event     = time          as above
    k > 0    last seen alive  seen ended      the event lies between (time, upper]: interval
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from mtl_jax.errors import UserError

SPLITS = ("train", "validation", "test")
MISSING = -1  # code of a category that is not known


class Text(NamedTuple):
    """A text of every row.

    Attributes:
      name: title, description, ...
      words: [N, L] int32 places in the set's list of words, 0 after the last word; a row without
        the text is all 0.
    """

    name: str
    words: np.ndarray


class Category(NamedTuple):
    """A categorical covariate.

    Attributes:
      name: of it.
      levels: what codes 0, 1, ... stand for.
      codes: [N] int32, `MISSING` where not known.
    """

    name: str
    levels: tuple[str, ...]
    codes: np.ndarray


class Numbers(NamedTuple):
    """A numeric covariate.

    Attributes:
      name: of it.
      values: [N] float32, NaN where not known.
      scale: "linear", or "log" for amounts and counts (0 or more), to be read as log(1 + x).
    """

    name: str
    values: np.ndarray
    scale: str


class LifetimeSet(NamedTuple):
    """A set of N lifetimes.

    Attributes:
      name: for messages.
      unit: of times: "day", "month", ...
      causes: names of events 1, 2, ...; one name where nothing is known of causes.
      event: [N] int32, 0 for censored, else the number of the cause.
      time: [N] float32, see the module.
      upper: [N] float32, see the module.
      entry: [N] float32, see the module; below `time`.
      start: [N] float32 calendar time of a row's beginning, same unit; zeros where unknown.
      group: [N] int32, rows of one advertiser, campaign or hospital; its own number for each row
        where there are none.
      group_name: what a group is; "" where there are none.
      weight: [N] float32, above 0.
      value: [N] float32, what a row is worth (sales), for subsets by value; zeros where unknown.
        Never an input.
      numbers: numeric covariates known at the beginning.
      categories: categorical covariates.
      texts: texts.
      words: what `Text.words` points at; words[0] is "".
      image: [N, H, W, 3] uint8; [N, 0, 0, 3] for none.
      has_image: [N] bool.
      history_names: the F amounts that are written down each day.
      history: [N, D, F] float32, day 1 first; rows of zeros from day `history_days` on.
      history_days: [N] int32, whole days on record, no more than were lived.
      vectors: {name: [N, d] float32} features computed elsewhere (embeddings of text or image).
      splits: {protocol: {split: row numbers int32}}, the default protocol first.
      path: [N, D, F] float32, what history would have been, had nobody stopped the row: only where
        a set was generated; [N, 0, F] else. Never an input.
      truth: what is known of generated rows, by name; {} else. Never an input.
    """

    name: str
    unit: str
    causes: tuple[str, ...]
    event: np.ndarray
    time: np.ndarray
    upper: np.ndarray
    entry: np.ndarray
    start: np.ndarray
    group: np.ndarray
    group_name: str
    weight: np.ndarray
    value: np.ndarray
    numbers: tuple[Numbers, ...]
    categories: tuple[Category, ...]
    texts: tuple[Text, ...]
    words: tuple[str, ...]
    image: np.ndarray
    has_image: np.ndarray
    history_names: tuple[str, ...]
    history: np.ndarray
    history_days: np.ndarray
    vectors: Mapping[str, np.ndarray]
    splits: Mapping[str, Mapping[str, np.ndarray]]
    path: np.ndarray
    truth: Mapping[str, np.ndarray]


def check_lifetimes(found: LifetimeSet, where: str) -> LifetimeSet:
    """Returns `found`; raises a `UserError` that names the first row to break a rule."""

    def require(holds: bool, rule: str) -> None:
        if not holds:
            raise UserError(f"{where}: {rule}")

    def each(name: str, good: Any, values: np.ndarray, rule: str) -> None:
        bad = np.flatnonzero(~np.asarray(good))
        if len(bad):
            raise UserError(f"{where}: row {bad[0]} has {name} {values[bad[0]]}; {rule}")

    rows = len(found.time)
    require(rows > 0, "no row")
    require(len(found.causes) > 0, "no cause is named")
    for name in ("event", "upper", "entry", "start", "group", "weight", "value", "has_image"):
        shape = getattr(found, name).shape
        require(shape == (rows,), f"{name} has shape {shape}; it must be ({rows},)")
    time, event, upper, entry = found.time, found.event, found.upper, found.entry
    each("time", np.isfinite(time) & (time >= 0), time, "times must be finite and not negative")
    causes = len(found.causes)
    each("event", (event >= 0) & (event <= causes), event, f"it must be from 0 to {causes}")
    each("upper", upper >= time, upper, "it must not be before the time")
    each("upper", (upper == time) | (event > 0), upper, "a censored row has upper = time")
    each("entry", (entry >= 0) & (entry <= time), entry, "it must be from 0 to the time")
    each("weight", np.isfinite(found.weight) & (found.weight > 0), found.weight, "it must be > 0")
    names = [kind.name for kind in (*found.numbers, *found.categories, *found.texts)]
    require(len(set(names)) == len(names), f"names of columns repeat: {names}")
    for number in found.numbers:
        values = number.values
        require(values.shape == (rows,), f"{number.name} has shape {values.shape}")
        require(number.scale in ("linear", "log"), f"{number.name}: scale {number.scale!r}")
        each(number.name, ~np.isinf(values), values, "it must be finite, or NaN for unknown")
        if number.scale == "log":
            each(number.name, ~(values < 0), values, "on a log scale it must not be negative")
    for category in found.categories:
        codes, levels = category.codes, len(category.levels)
        require(codes.shape == (rows,), f"{category.name} has shape {codes.shape}")
        good = (codes >= MISSING) & (codes < levels)
        each(category.name, good, codes, f"codes must be from {MISSING} to {levels - 1}")
    require(not found.texts or found.words[:1] == ("",), "words[0] must be empty")
    for text in found.texts:
        require(len(text.words) == rows, f"{text.name} has {len(text.words)} rows")
        good = ((text.words >= 0) & (text.words < len(found.words))).all(axis=1)
        each(text.name, good, text.words, f"words must be from 0 to {len(found.words) - 1}")
    require(
        found.image.ndim == 4 and found.image.shape[::3] == (rows, 3),
        f"image has shape {found.image.shape}; it must be ({rows}, H, W, 3)",
    )
    days, amounts = found.history.shape[1:], len(found.history_names)
    require(found.history.shape[::2] == (rows, amounts), f"history has shape {found.history.shape}")
    each(
        "history_days",
        (found.history_days >= 0) & (found.history_days <= days[0]),
        found.history_days,
        f"it must be from 0 to {days[0]}",
    )
    finite = np.isfinite(found.history).all(axis=(1, 2))
    each("history", finite, found.history_days, "every amount must be finite")
    for name, vectors in found.vectors.items():
        good = vectors.ndim == 2 and len(vectors) == rows and np.isfinite(vectors).all()
        require(bool(good), f"vectors {name!r} must be finite and [{rows}, d]")
    require(len(found.splits) > 0, "no split")
    for protocol, splits in found.splits.items():
        require(tuple(splits) == SPLITS, f"split {protocol!r} must have {', '.join(SPLITS)}")
        together = np.concatenate([splits[split] for split in SPLITS])
        require(len(set(together.tolist())) == len(together), f"rows of {protocol!r} repeat")
        for split in SPLITS:
            require(len(splits[split]) > 0, f"{protocol!r} has no row in {split}")
            inside = bool((splits[split] >= 0).all() and (splits[split] < rows).all())
            require(inside, f"{protocol!r}: {split} has rows outside the set")
    return found


def take_rows(found: LifetimeSet, rows: np.ndarray) -> LifetimeSet:
    """Returns some rows of a set, in the order given; its splits remain those of the whole."""
    kept: dict[str, Any] = {
        name: getattr(found, name)[rows]
        for name in (
            *("event", "time", "upper", "entry", "start", "group", "weight", "value"),
            *("image", "has_image", "history", "history_days", "path"),
        )
    }
    return found._replace(
        **kept,
        numbers=tuple(c._replace(values=c.values[rows]) for c in found.numbers),
        categories=tuple(c._replace(codes=c.codes[rows]) for c in found.categories),
        texts=tuple(c._replace(words=c.words[rows]) for c in found.texts),
        vectors={name: vectors[rows] for name, vectors in found.vectors.items()},
        truth={
            name: array[rows] if len(array) == len(found.time) else array
            for name, array in found.truth.items()
        },
    )


def split_rows(
    how: str,
    start: np.ndarray,
    group: np.ndarray,
    seed: int = 0,
    fractions: tuple[float, float] = (0.6, 0.2),
) -> dict[str, np.ndarray]:
    """Splits rows into train, validation and test.

    Args:
      how: "random"; "group", all rows of a group on one side; or "time", by `start`, the latest
        last, rows that begin together on one side.
      start: [N].
      group: [N].
      seed: of the order of rows or groups.
      fractions: of rows (of groups, for "group") in train and in validation.

    Raises:
      UserError: an unknown way, or a split that stays empty.
    """
    rng = np.random.default_rng(seed)
    rows = len(group)
    if how == "random":
        place = rng.permutation(rows) / rows
    elif how == "group":
        names, inverse = np.unique(group, return_inverse=True)
        place = (rng.permutation(len(names)) / len(names))[inverse]
    elif how == "time":
        # The share of rows that begin earlier, so that ties stay together.
        place = np.searchsorted(np.sort(start), start) / rows
    else:
        raise UserError(f"split {how!r}; it must be random, group or time")
    first, second = fractions[0], fractions[0] + fractions[1]
    sides = np.digitize(place, [first, second])
    found = {s: np.flatnonzero(sides == k).astype(np.int32) for k, s in enumerate(SPLITS)}
    if empty := [split for split in SPLITS if not len(found[split])]:
        raise UserError(f"split {how!r} of {rows} rows leaves {empty[0]} empty; choose another")
    return found

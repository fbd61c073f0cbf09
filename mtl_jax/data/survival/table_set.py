"""Puts the columns of a file together into a lifetime set, and warns of columns that leak."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np
import scipy.stats

from mtl_jax.data.fetch import Report, say
from mtl_jax.data.lifetimes import (
    MISSING,
    SPLITS,
    Category,
    LifetimeSet,
    Numbers,
    Text,
    check_lifetimes,
    split_rows,
)
from mtl_jax.data.survival.table_cells import MISSING_CELLS, Levels
from mtl_jax.data.survival.words import WordList
from mtl_jax.errors import UserError

LEAK = 0.98
"""Rank correlation with the time, among events, from which on a number is taken for the time."""
_FEW = 20  # Of fewer events nothing is concluded.


class Columns:
    """Covariates as they come, block by block; little more than the arrays of the set is kept."""

    def __init__(self, max_words: int, missing: Collection[str] = MISSING_CELLS) -> None:
        self._max_words, self._missing = max_words, frozenset(missing)
        self._numbers: dict[str, tuple[str, list[np.ndarray]]] = {}
        self._categories: dict[str, tuple[Levels, list[np.ndarray]]] = {}
        self._texts: dict[str, list[np.ndarray]] = {}
        self._words = WordList()

    def number(self, name: str, values: np.ndarray, scale: str = "linear") -> None:
        """Adds [n] values of a number, NaN where not known."""
        _, parts = self._numbers.setdefault(name, (scale, []))
        parts.append(np.asarray(values, np.float32))

    def category(self, name: str, cells: Sequence[str]) -> None:
        """Adds n levels."""
        levels, parts = self._categories.setdefault(name, (Levels(), []))
        parts.append(levels.add(cells, self._missing))

    def text(self, name: str, cells: Sequence[str]) -> None:
        """Adds n texts."""
        known = ["" if cell.strip() in self._missing else cell for cell in cells]
        self._texts.setdefault(name, []).append(self._words.encode(known, self._max_words))

    def numbers(self, keep: np.ndarray) -> tuple[Numbers, ...]:
        """Returns the numbers of rows `keep`."""
        return tuple(
            Numbers(name, np.concatenate(parts)[keep], scale)
            for name, (scale, parts) in self._numbers.items()
        )

    def categories(self, keep: np.ndarray) -> tuple[Category, ...]:
        """Returns the categories of rows `keep`, with the levels that they have, sorted."""
        found = []
        for name, (levels, parts) in self._categories.items():
            names, codes = levels.ordered(np.concatenate(parts))
            used, own = np.unique(codes[keep], return_inverse=True)
            first = int(used[:1].tolist() == [MISSING])
            own = (own - first).astype(np.int32)
            found.append(Category(name, tuple(names[code] for code in used[first:]), own))
        return tuple(found)

    def texts(self, keep: np.ndarray) -> tuple[tuple[Text, ...], tuple[str, ...]]:
        """Returns the texts of rows `keep`, no wider than the longest, and their words, sorted."""
        if not self._texts:
            return (), ()
        found = {name: np.concatenate(parts)[keep] for name, parts in self._texts.items()}
        everything = np.concatenate([np.unique(places) for places in found.values()])
        words = self._words.words()
        # Sorted, so that the list does not depend on where a file was cut into blocks.
        used = sorted(np.union1d(everything, [0]).tolist(), key=words.__getitem__)
        place = np.zeros(len(words), np.int32)
        place[used] = np.arange(len(used))
        texts = []
        for name, places in found.items():
            width = max(1, int((places > 0).sum(axis=1).max(initial=0)))
            texts.append(Text(name, place[places[:, :width]]))
        return tuple(texts), tuple(words[k] for k in used)


def make_set(
    columns: Columns,
    *,
    name: str,
    causes: Sequence[str],
    event: np.ndarray,
    time: np.ndarray,
    keep: np.ndarray | None = None,
    unit: str = "day",
    upper: np.ndarray | None = None,
    entry: np.ndarray | None = None,
    start: np.ndarray | None = None,
    group: np.ndarray | None = None,
    group_name: str = "",
    weight: np.ndarray | None = None,
    value: np.ndarray | None = None,
    image: np.ndarray | None = None,
    has_image: np.ndarray | None = None,
    history: Mapping[str, np.ndarray] | None = None,
    history_days: np.ndarray | None = None,
    vectors: Mapping[str, np.ndarray] | None = None,
    given: np.ndarray | None = None,
    splits: Sequence[str] = (),
    lenient: bool = False,
    fractions: tuple[float, float] = (0.6, 0.2),
    seed: int = 0,
    report: Report = say,
) -> LifetimeSet:
    """Returns a checked set of the N rows in `keep`, of all rows if None.

    Arrays have a row for each row of the file; what is None is as where nothing is known.

    Args:
      columns: covariates.
      name: of the set.
      causes: names of events 1, 2, ...
      event: numbers of causes, 0 for censored.
      time: in `unit`.
      keep: row numbers.
      unit: of times.
      upper: see `LifetimeSet`, as are the next five.
      entry: see there.
      start: see there.
      group: see there.
      group_name: see there.
      weight: see there.
      value: see there.
      image: [n, H, W, 3].
      has_image: [n].
      history: {amount: [n, D]}.
      history_days: [n].
      vectors: {name: [n, d]}.
      given: 0, 1, 2 for train, validation and test, the split "given".
      splits: ways to split, the default first; () for all that there is data for.
      lenient: leave a way out, with a warning, that would leave a split empty; so it is for ().
      fractions: see `split_rows`.
      seed: see there.
      report: called with a line for each warning.

    Raises:
      UserError: a set that cannot be, or cannot be split.
    """
    rows = np.arange(len(time)) if keep is None else keep
    n = len(rows)
    if not n:
        raise UserError(f"{name}: no row is left")

    def own(array: np.ndarray | None, default: float, dtype: type) -> np.ndarray:
        return np.full(n, default, dtype) if array is None else array[rows].astype(dtype)

    times = time[rows].astype(np.float32)
    starts = own(start, 0, np.float32)
    groups = np.arange(n, dtype=np.int32)
    if group is not None:
        groups = np.unique(group[rows], return_inverse=True)[1].astype(np.int32)
    amounts = {} if history is None else history
    days = next((len(values[0]) for values in amounts.values()), 0)
    daily = [np.zeros((n, days, 0), np.float32)]
    daily += [values[rows].astype(np.float32)[..., None] for values in amounts.values()]
    texts, words = columns.texts(rows)
    place = None if given is None else given[rows]
    ways = [
        *(["given"] if given is not None else []),
        *(["group"] if group is not None else []),
        "random",
        *(["time"] if start is not None else []),
    ]
    found = LifetimeSet(
        name=name,
        unit=unit,
        causes=tuple(causes),
        event=event[rows].astype(np.int32),
        time=times,
        upper=times if upper is None else np.maximum(upper[rows].astype(np.float32), times),
        entry=own(entry, 0, np.float32),
        start=starts,
        group=groups,
        group_name=group_name if group is not None else "",
        weight=own(weight, 1, np.float32),
        value=own(value, 0, np.float32),
        numbers=columns.numbers(rows),
        categories=columns.categories(rows),
        texts=texts,
        words=words,
        image=np.zeros((n, 0, 0, 3), np.uint8) if image is None else image[rows],
        has_image=own(has_image, 0, np.bool_),
        history_names=tuple(amounts),
        history=np.concatenate(daily, axis=2),
        history_days=own(history_days, 0, np.int32),
        vectors={key: v[rows].astype(np.float32) for key, v in (vectors or {}).items()},
        splits=_splits(
            splits or ways,
            ways,
            lambda how: split_rows(how, starts, groups, seed, fractions),
            place,
            report if lenient or not splits else None,
            name,
        ),
        path=np.zeros((n, 0, len(amounts)), np.float32),
        truth={},
    )
    check_lifetimes(found, name)
    for line in leaks(found):
        report(f"{name}: {line}")
    return found


def leaks(found: LifetimeSet) -> list[str]:
    """Returns a line for each covariate that seems to tell the outcome.

    Two kinds are looked for. Among events, a number that ranks as the time does (an absolute rank
    correlation above `LEAK`). And a covariate that tells events from censored rows: constant in one
    of the two, where "not known" counts as a value, and never so in the other. Nothing is said of
    fewer than 20 events or censored rows; a covariate may leak in other ways.
    """
    lines = []
    happened = found.event > 0
    some = min(int(happened.sum()), int((~happened).sum())) >= _FEW
    for number in found.numbers:
        values = number.values
        known = happened & np.isfinite(values)
        if known.sum() >= _FEW and np.ptp(values[known]) > 0 and np.ptp(found.time[known]) > 0:
            ranks = [scipy.stats.rankdata(each[known]) for each in (values, found.time)]
            correlation = float(np.corrcoef(*ranks)[0, 1])
            if abs(correlation) > LEAK:
                lines.append(
                    f"number {number.name!r} ranks events as their time does (rank correlation "
                    f"{correlation:.3f}); is it known at the beginning? If not, drop it"
                )
    covariates = [(n.name, np.where(np.isnan(n.values), np.inf, n.values)) for n in found.numbers]
    covariates += [(c.name, c.codes) for c in found.categories]
    for name, values in covariates if some else ():
        for one, other, who in ((happened, ~happened, "events"), (~happened, happened, "censored")):
            first = values[one][0]
            if (values[one] == first).all() and not (values[other] == first).any():
                lines.append(
                    f"column {name!r} has one value in all {who} rows and never in the others; is"
                    " it known at the beginning? If not, drop it"
                )
                break
    return lines


def _splits(
    wanted: Sequence[str],
    ways: Sequence[str],
    split: Callable[[str], dict[str, np.ndarray]],
    given: np.ndarray | None,
    report: Report | None,
    name: str,
) -> dict[str, dict[str, np.ndarray]]:
    """Returns the `wanted` ways to split; one that cannot be is told to `report`, or an error."""
    needs = {"given": "split", "group": "group", "time": "start"}
    found = {}
    for how in wanted:
        if how not in ways:
            raise UserError(
                f"{name}: splits has {how!r}, but no column {needs[how]} is there; it could be"
                f" {', '.join(ways)}"
            )
        if how == "given" and given is not None:
            parts = [np.flatnonzero(given == k).astype(np.int32) for k in range(3)]
            found[how] = dict(zip(SPLITS, parts, strict=True))
            continue
        try:
            found[how] = split(how)
        except UserError as error:
            if report is None or how == "random":
                raise UserError(f"{name}: {error}, or give more rows") from None
            report(f"{name}: {error}; left out")
    return found

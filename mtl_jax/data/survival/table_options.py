"""What the columns of a table of the user's are: the options, and what follows from a header."""

from __future__ import annotations

import dataclasses
import fnmatch
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from mtl_jax.data.survival.table_cells import MISSING_CELLS, UNIT_SECONDS
from mtl_jax.errors import UserError, did_you_mean

SPLITS_BY = ("given", "group", "random", "time")
_DAY = re.compile(r"(?:history_)?(.+)_(\d+)")


@dataclasses.dataclass(frozen=True)
class TableOptions:
    """A table with one row a lifetime, and what to make of its columns.

    Names of single columns go from `time` to `image`: the first two must be there, the others may
    be, and one that is named here otherwise than by default must be. Lists of columns hold names
    or patterns with `*`. A name goes before a pattern, and before the default of a single column:
    with numbers=("weight",) a column `weight` is a covariate.
    """

    path: str = ""
    """The table: .csv, .tsv, .txt (perhaps .gz, .bz2, .xz, .zip) or .parquet; several with `*`."""
    delimiter: str = ""
    """Between cells; empty for tabs in .tsv files and commas in others."""
    time: str = "time"
    """Time of the event, or when last seen without it; from the row's own beginning."""
    event: str = "event"
    """1 if the event was seen, 0 if censored; or the number of one of `causes`."""
    cause: str = "cause"
    """Name of the cause of an event; empty in censored rows."""
    upper: str = "upper"
    """Time by which the event had happened, where it is only known to lie in (time, upper]."""
    entry: str = "entry"
    """Time from which on the row was under observation; empty for 0."""
    start: str = "start"
    """Calendar time of the beginning: dates, or numbers in `unit`."""
    group: str = "group"
    """Advertiser, campaign, hospital: rows that may not be torn apart in the split by group."""
    weight: str = "weight"
    """Weight of the row, above 0; empty for 1."""
    value: str = "value"
    """What the row is worth (sales), for subsets by value; never an input."""
    split: str = "split"
    """train, validation or test: the split "given"."""
    image: str = "image_path"
    """File of the row's image; empty for none."""
    numbers: tuple[str, ...] = ("num*",)
    """Columns of numbers known at the beginning."""
    log_numbers: tuple[str, ...] = ()
    """Those of them that are amounts or counts, 0 or more, to be read as log(1 + x)."""
    categories: tuple[str, ...] = ("cat*",)
    """Columns of levels."""
    texts: tuple[str, ...] = ("text*",)
    """Columns of texts in any language."""
    histories: tuple[str, ...] = ("history*",)
    """Columns history_<amount>_<day>, or <amount>_<day>: what was delivered on days 1, 2, ..."""
    drop: tuple[str, ...] = ()
    """Columns to leave out, whatever they are."""
    vectors: str = ""
    """.npz file of features computed elsewhere: arrays [N, d], rows in the order of the table."""
    image_folder: str = ""
    """What paths of images begin at; empty for the table's folder."""
    image_size: int = 32
    """Height and width that images are brought to."""
    unit: str = "day"
    """Of times: second, minute, hour, day, week, fortnight, month or year."""
    causes: tuple[str, ...] = ()
    """Names of events 1, 2, ...; empty for "event", or for what the column `cause` holds."""
    max_words: int = 40
    """Words of a text that are kept."""
    missing: tuple[str, ...] = MISSING_CELLS
    """Cells that say that nothing is known."""
    splits: tuple[str, ...] = ()
    """Ways to split, the default first, of given, group, random, time; empty for all there are."""
    fractions: tuple[float, float] = (0.6, 0.2)
    """Shares of train and validation."""
    seed: int = 0
    """Of the splits random and group."""


class Roles(NamedTuple):
    """What the columns of a header are.

    Attributes:
      single: {role: column} of those of `SINGLE` that are there.
      numbers: columns with their scale, "linear" or "log".
      categories: columns.
      texts: columns.
      history: {amount: columns of days 1, 2, ..., D}, the same D for all.
      unused: columns that nothing asks for.
    """

    single: dict[str, str]
    numbers: dict[str, str]
    categories: tuple[str, ...]
    texts: tuple[str, ...]
    history: dict[str, tuple[str, ...]]
    unused: tuple[str, ...]

    def columns(self) -> list[str]:
        """Returns the columns to read."""
        days = [column for columns in self.history.values() for column in columns]
        return [*self.single.values(), *self.numbers, *self.categories, *self.texts, *days]


SINGLE = (
    *("time", "event", "cause", "upper", "entry", "start"),
    *("group", "weight", "value", "split", "image"),
)
_NEEDED = ("time", "event")
_LISTS = ("drop", "numbers", "log_numbers", "categories", "texts", "histories")
_DEFAULT = TableOptions()


def check_options(options: TableOptions) -> None:
    """Raises a `UserError` for options that no table can have; reads no file."""
    for role in _NEEDED:
        if not getattr(options, role):
            raise UserError(f"{role} = ''; name the column that holds it")
    named = list(_single(options).items())
    for kind in _LISTS:
        for name in getattr(options, kind):
            if not name:
                raise UserError(f"{kind} holds an empty name; leave it out")
        if kind != "log_numbers":  # They may be among the numbers as well.
            named += [(kind, name) for name in getattr(options, kind) if "*" not in name]
    seen: dict[str, str] = {}
    for role, name in named:
        if name in seen:
            raise UserError(f"column {name!r} is named as {seen[name]} and as {role}; choose one")
        seen[name] = role
    for name in options.log_numbers:
        if seen.get(name, "numbers") != "numbers":
            raise UserError(f"column {name!r} is named as {seen[name]} and as log_numbers")
    if options.unit not in UNIT_SECONDS:
        raise UserError(f"unit = {options.unit!r}; {did_you_mean(options.unit, UNIT_SECONDS)}")
    for name, least, most in (("max_words", 1, 10_000), ("image_size", 4, 1024), ("seed", 0, None)):
        value = getattr(options, name)
        if value < least or (most is not None and value > most):
            raise UserError(f"{name} = {value}; it must be {least}..{most or ''}")
    if len(options.delimiter) > 1:
        raise UserError(f"delimiter = {options.delimiter!r}; it must be one character")
    for name in options.splits:
        if name not in SPLITS_BY:
            raise UserError(f"splits: {name!r} is none; {did_you_mean(name, SPLITS_BY)}")
    for name, values in (("splits", options.splits), ("causes", options.causes)):
        if len(set(values)) < len(values) or "" in values:
            raise UserError(f"{name} = {values}; give each a name of its own, once")
    check_fractions(options.fractions)


def check_fractions(fractions: tuple[float, float]) -> None:
    """Raises a `UserError` unless they leave something for each of train, validation and test."""
    if not (min(fractions) > 0 and sum(fractions) < 1):
        raise UserError(
            f"fractions = {fractions}; both must be above 0 and leave something for test"
        )


def find_roles(options: TableOptions, names: Sequence[str], where: str) -> Roles:
    """Returns what the columns `names` are.

    Args:
      options: checked.
      names: the header; "" for columns without a name.
      where: the file, for messages.

    Raises:
      UserError: a column that is missing, or history that lacks a day.
    """
    free = [name for name in names if name]
    _require(free, _explicit(options), where)
    single = {role: name for role, name in _single(options).items() if name in free}
    taken = {*single.values(), *(n for kind in _LISTS for n in getattr(options, kind))}

    def of(kind: str) -> list[str]:
        patterns = [name for name in getattr(options, kind) if "*" in name]
        found = [
            name
            for name in free
            if name in getattr(options, kind)
            or (name not in taken and any(fnmatch.fnmatchcase(name, p) for p in patterns))
        ]
        taken.update(found)
        return found

    dropped = of("drop")
    log = of("log_numbers")
    plain = [name for name in of("numbers") if name not in log]
    numbers = {name: "log" if name in log else "linear" for name in free if name in (*log, *plain)}
    days = of("histories")
    categories, texts = of("categories"), of("texts")
    used = {*single.values(), *numbers, *days, *categories, *texts, *dropped}
    unused = tuple(name for name in free if name not in used)
    return Roles(single, numbers, tuple(categories), tuple(texts), _history(days, where), unused)


def _single(options: TableOptions) -> dict[str, str]:
    """{role: column} of single columns, without defaults whose name a list has."""
    listed = {name for kind in _LISTS for name in getattr(options, kind)}
    found = {role: getattr(options, role) for role in SINGLE}
    return {
        role: name
        for role, name in found.items()
        if name and (role in _NEEDED or name != getattr(_DEFAULT, role) or name not in listed)
    }


def _explicit(options: TableOptions) -> Iterable[str]:
    """Columns that must be there: time, event and whatever the user named himself."""
    for role, name in _single(options).items():
        if role in _NEEDED or name != getattr(_DEFAULT, role):
            yield name
    for kind in _LISTS:
        yield from (name for name in getattr(options, kind) if "*" not in name)


def _require(names: Sequence[str], wanted: Iterable[str], where: str) -> None:
    for name in wanted:
        if name not in names:
            raise UserError(f"{where}: no column {name!r}; {did_you_mean(name, names)}")


def _history(columns: Sequence[str], where: str) -> dict[str, tuple[str, ...]]:
    found: dict[str, dict[int, str]] = {}
    for column in columns:
        matched = _DAY.fullmatch(column)
        if matched is None:
            raise UserError(
                f"{where}: column {column!r} does not say its day; call it history_<amount>_<day>,"
                " or take it out of histories"
            )
        days = found.setdefault(matched[1], {})
        if (day := int(matched[2])) in days:
            raise UserError(f"{where}: {days[day]!r} and {column!r} are the same day; drop one")
        days[day] = column
    last = max((max(days) for days in found.values()), default=0)
    for amount, days in found.items():
        if 0 in days:
            raise UserError(f"{where}: column {days[0]!r} is of day 0; the first day is 1")
        for day in range(1, last + 1):
            if day not in days:
                raise UserError(
                    f"{where}: {amount!r} lacks day {day}; every amount needs days 1 to {last}"
                )
    return {
        amount: tuple(days[day] for day in range(1, last + 1)) for amount, days in found.items()
    }

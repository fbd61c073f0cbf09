"""Lifetimes from a table of the user's: one row a lifetime, any of the five kinds of covariates.

    time, event                  needed: when, and whether the event was seen
    cause, upper, entry, start,  optional single columns
    group, weight, value, split
    num*, cat*, text*            numbers, categories, texts
    image_path                   a file of an image
    history_<amount>_<day>       what was delivered on day 1, 2, ...

Columns may be called otherwise: `TableOptions` says what each is. Columns that nothing asks for are
named in a message and not read. Embeddings come from an .npz file beside the table.

Every value is checked, and the first bad one is told with its file, line and column. A table is
read once, in blocks; what is kept of a row is what the set holds of it. Files are not changed.

History. An amount of day d, 0 or more, is what was delivered in (d - 1, d], and days begin with the
row's own beginning; for another unit read it for "day". Cells from some day on may be empty:
nothing is on record then. Days that were not lived from beginning to end are cut: of an event at
time t the days below t are kept, of a row censored at t the days up to t, as in the generated set,
so that the day of the event, when it was perhaps already decided, is never seen.

Dates in `start` are counted from the beginning of the earliest one's day, in UTC.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from mtl_jax.data.event_logs.reading import find_files
from mtl_jax.data.fetch import Report, say
from mtl_jax.data.lifetimes import LifetimeSet
from mtl_jax.data.survival.table_cells import (
    UNIT_SECONDS,
    Levels,
    bad_cell,
    read_choice,
    read_dates,
    read_events,
    read_numbers,
    seconds_of,
)
from mtl_jax.data.survival.table_files import Block, read_blocks, read_header
from mtl_jax.data.survival.table_images import image_path, read_images
from mtl_jax.data.survival.table_options import (
    SINGLE,
    Roles,
    TableOptions,
    check_options,
    find_roles,
)
from mtl_jax.data.survival.table_set import Columns, make_set
from mtl_jax.errors import UserError, did_you_mean

_SPLIT = {"train": 0, "validation": 1, "valid": 1, "val": 1, "test": 2}


def load_table(options: TableOptions, data_dir: str | Path | None = None) -> LifetimeSet:
    """Returns the lifetimes that `options` make of a table.

    They are prepared once for each table and options, in `table/default-<digest>`.

    Args:
      options: with the path of the table.
      data_dir: where sets are; None for the default.

    Raises:
      UserError: an option, a file or a cell that is wrong.
    """
    from mtl_jax.data.survival.table_builder import load_made  # TFDS takes most of a second.

    return load_made("table", options, data_dir)


def table_files(options: TableOptions) -> list[Path]:
    """Returns every file that the set is made of; images are those that the table names."""
    check_options(options)
    files = find_files(options.path)
    found = list(files)
    if options.vectors:
        found.append(_vectors_file(options.vectors))
    for path in files:
        roles = find_roles(options, read_header(path, options.delimiter), str(path))
        if "image" in roles.single:
            column = roles.single["image"]
            for block in read_blocks(path, [column], options.delimiter):
                found += [file for file in _image_paths(options, block, column) if file]
    return list(dict.fromkeys(found))


def table_lifetimes(
    options: TableOptions, name: str = "table", report: Report = say
) -> tuple[LifetimeSet, list[str]]:
    """Returns the lifetimes of a table, and lines about where they came from.

    Args:
      options: with the path of the table.
      name: of the set.
      report: called with a line for each warning.

    Raises:
      UserError: an option, a file or a cell that is wrong.
    """
    check_options(options)
    files = find_files(options.path)
    reader = _Reader(options)
    for path in files:
        names = read_header(path, options.delimiter)
        roles = find_roles(options, names, str(path))
        if reader.roles is not None and set(roles.columns()) != set(reader.roles.columns()):
            odd = set(roles.columns()) ^ set(reader.roles.columns())
            raise UserError(f"{path}: column {min(odd)!r} is in some files only; all need it")
        if reader.roles is None and roles.unused:
            report(_unused(path, roles))
        reader.roles = reader.roles or roles
        for block in read_blocks(path, reader.roles.columns(), options.delimiter):
            reader.add(block)
    rows = len(reader.array("time"))
    vectors = _vectors(options.vectors, rows) if options.vectors else {}
    found = reader.finish(name, vectors, report)
    return found, [f"{options.path} ({rows} rows)"]


class _Reader:
    """What was read of a table so far."""

    def __init__(self, options: TableOptions) -> None:
        self.options = options
        self.roles: Roles | None = None
        self._columns = Columns(options.max_words, options.missing)
        self._parts: dict[str, list[np.ndarray]] = {}
        self._causes = Levels(options.causes)
        self._groups = Levels()
        self._dated: bool | None = None
        self._history: dict[str, list[np.ndarray]] = {}

    def array(self, key: str) -> np.ndarray:
        """Returns a single column of all rows."""
        return np.concatenate(self._parts[key])

    def add(self, block: Block) -> None:
        """Reads a block, and checks it."""
        roles, options = self.roles, self.options
        assert roles is not None
        single, missing = roles.single, options.missing
        time = read_numbers(block, single["time"], missing=missing, default=None, least=0)
        event = self._events(block, roles)
        self._put("time", time)
        self._put("event", event)
        for role, default, least, above in (
            ("entry", 0.0, 0.0, -np.inf),
            ("weight", 1.0, -np.inf, 0.0),
            ("value", 0.0, -np.inf, -np.inf),
        ):
            if role in single:
                values = read_numbers(
                    block, single[role], missing=missing, default=default, least=least, above=above
                )
                self._put(role, values)
                if role == "entry":
                    late = (values > 0) & (values >= time)
                    rule = "it must be before the row's time, {}"
                    _refuse(block, single[role], late, rule, time)
        if "upper" in single:
            upper = read_numbers(block, single["upper"], missing=missing)
            upper = np.where(np.isnan(upper), time, upper)
            rule = "it must not be before the row's time, {}"
            _refuse(block, single["upper"], upper < time, rule, time)
            rule = "the row is censored at {}: leave upper empty, or make event 1"
            _refuse(block, single["upper"], (upper > time) & (event == 0), rule, time)
            self._put("upper", upper)
        if "start" in single:
            self._put("start", self._starts(block, single["start"]))
        if "group" in single:
            self._put("group", self._group(block, single["group"]))
        if "split" in single:
            self._put("split", read_choice(block, single["split"], _SPLIT))
        if "image" in single:
            self._images(block, single["image"])
        for column, scale in roles.numbers.items():
            least = 0 if scale == "log" else -np.inf
            found = read_numbers(block, column, missing=missing, least=least)
            self._columns.number(column, found, scale)
        for column in roles.categories:
            self._columns.category(column, block.cells[column])
        for column in roles.texts:
            self._columns.text(column, block.cells[column])
        if roles.history:
            self._days(block, roles, time, event)

    def finish(self, name: str, vectors: Mapping[str, np.ndarray], report: Report) -> LifetimeSet:
        """Returns the set of all rows."""
        options, roles = self.options, self.roles
        assert roles is not None
        parts = {key: np.concatenate(values) for key, values in self._parts.items()}
        event = parts["event"]
        causes = options.causes or ("event",)
        if "cause" in roles.single and not options.causes and (event > 0).any():
            causes, codes = self._causes.ordered(event - 1)
            event = codes + 1
        start = parts.get("start")
        if start is not None and self._dated:
            earliest = np.floor(start.min() / UNIT_SECONDS["day"]) * UNIT_SECONDS["day"]
            start = (start - earliest) / UNIT_SECONDS[options.unit]
        return make_set(
            self._columns,
            name=name,
            causes=causes,
            event=event,
            time=parts["time"],
            unit=options.unit,
            upper=parts.get("upper"),
            entry=parts.get("entry"),
            start=start,
            group=parts.get("group"),
            group_name=roles.single.get("group", ""),
            weight=parts.get("weight"),
            value=parts.get("value"),
            image=parts.get("image"),
            has_image=parts.get("has_image"),
            history={amount: np.concatenate(own) for amount, own in self._history.items()},
            history_days=parts.get("history_days"),
            vectors=vectors,
            given=parts.get("split"),
            splits=options.splits,
            fractions=options.fractions,
            seed=options.seed,
            report=report,
        )

    def _put(self, key: str, values: np.ndarray) -> None:
        self._parts.setdefault(key, []).append(values)

    def _events(self, block: Block, roles: Roles) -> np.ndarray:
        column, cause = roles.single["event"], roles.single.get("cause")
        if cause is None:
            return read_events(block, column, max(1, len(self.options.causes)))
        event = read_events(block, column)
        cells = block.cells[cause]
        empty = np.array([cell.strip() in self.options.missing for cell in cells])
        _refuse(block, cause, empty & (event > 0), "an event needs a cause")
        rule = "the row is censored: leave its cause empty, or make its event 1"
        _refuse(block, cause, ~empty & (event == 0), rule)
        if known := self.options.causes:
            for index, cell in enumerate(cells):
                if not empty[index] and cell.strip() not in known:
                    rule = f"not among causes; {did_you_mean(cell.strip(), known)}"
                    raise bad_cell(block, index, cause, cell, rule)
        return self._causes.add(cells, self.options.missing) + 1

    def _starts(self, block: Block, column: str) -> np.ndarray:
        """Numbers as they are, or dates in seconds; the first cell says which of them all are."""
        if self._dated is None:
            self._dated = seconds_of(block.cells[column][0]) is not None
        if self._dated:
            return read_dates(block, column, missing=self.options.missing)
        return read_numbers(block, column, missing=self.options.missing, default=None)

    def _group(self, block: Block, column: str) -> np.ndarray:
        codes = self._groups.add(block.cells[column], self.options.missing)
        rule = "a group must be given in every row; a row of its own kind needs a name of its own"
        _refuse(block, column, codes < 0, rule)
        return codes

    def _images(self, block: Block, column: str) -> None:
        paths = _image_paths(self.options, block, column)
        places = [block.where(index, column) for index in range(len(paths))]
        self._put("image", read_images(paths, places, self.options.image_size))
        self._put("has_image", np.array([path is not None for path in paths]))

    def _days(self, block: Block, roles: Roles, time: np.ndarray, event: np.ndarray) -> None:
        first = next(iter(roles.history.values()))
        days, known = len(first), None
        amounts = {}
        for amount, columns in roles.history.items():
            found = [read_numbers(block, c, missing=self.options.missing, least=0) for c in columns]
            values = amounts[amount] = np.stack(found, axis=1)
            given = ~np.isnan(values)
            known = given if known is None else known
            gap = given[:, 1:] & ~given[:, :-1]
            for day in np.flatnonzero(gap.any(axis=0)):
                rule = f"{columns[day]!r} of the day before is empty; give all days up to the last"
                _refuse(block, columns[day + 1], gap[:, day], rule)
            for day in np.flatnonzero((given != known).any(axis=0)):
                rule = f"{first[day]!r} of the same day is not; give all amounts of a day or none"
                _refuse(block, columns[day], given[:, day] & ~known[:, day], rule)
                rule = f"{first[day]!r} of the same day is given; give all amounts of a day or none"
                _refuse(block, columns[day], known[:, day] & ~given[:, day], rule)
        assert known is not None
        lived = np.where(event > 0, np.ceil(time) - 1, np.floor(time))
        whole = np.minimum(known.sum(axis=1), np.maximum(lived, 0)).astype(np.int32)
        self._put("history_days", whole)
        inside = np.arange(days) < whole[:, None]
        for amount, values in amounts.items():
            own = np.where(inside, values, 0).astype(np.float32)
            self._history.setdefault(amount, []).append(own)


def _image_paths(options: TableOptions, block: Block, column: str) -> list[Path | None]:
    """The files that a block names; each is there."""
    folder = Path(options.image_folder).expanduser() if options.image_folder else block.path.parent
    return [
        None
        if cell.strip() in options.missing
        else image_path(cell, folder, block.where(index, column))
        for index, cell in enumerate(block.cells[column])
    ]


def _refuse(
    block: Block, column: str, wrong: np.ndarray, rule: str, values: np.ndarray | None = None
) -> None:
    """Raises an error for the first row where `wrong` [n] holds; `{}` in the rule is its value."""
    rows = np.flatnonzero(wrong)
    if len(rows):
        index = int(rows[0])
        shown = "" if values is None else f"{values[index]:g}"
        raise bad_cell(block, index, column, block.cells[column][index], rule.format(shown))


def _unused(path: Path, roles: Roles) -> str:
    hint = ""
    for column in roles.unused:  # A default column that is not there may be misspelt.
        if near := difflib.get_close_matches(column, set(SINGLE) - set(roles.single), 1, 0.8):
            hint += f"; {column!r} may be meant as {near[0]!r}"
    shown = ", ".join(roles.unused[:20]) + (", ..." if len(roles.unused) > 20 else "")
    return (
        f"{path}: not used: {shown}; name them in numbers, categories or texts to use them, or in "
        f"drop to be told no more{hint}"
    )


def _vectors_file(name: str) -> Path:
    path = Path(name).expanduser()
    if not path.is_file():
        raise UserError(f"vectors = {name!r}; there is no such file")
    return path


def _vectors(name: str, rows: int) -> dict[str, np.ndarray]:
    path = _vectors_file(name)
    try:
        with np.load(path, allow_pickle=False) as file:
            found = {key: file[key] for key in file.files}
    except Exception as error:  # Whatever numpy and zipfile raise for a damaged file.
        raise UserError(f"{path}: not an .npz file of plain arrays ({error})") from None
    if not found:
        raise UserError(f"{path}: holds no array")
    for key, values in found.items():
        if values.ndim != 2 or values.shape[0] != rows or values.dtype.kind not in "fiu":
            raise UserError(
                f"{path}: {key!r} has shape {list(values.shape)} of {values.dtype}; it must be "
                f"[{rows}, d] numbers, a row for each row of the table"
            )
        bad = np.flatnonzero(~np.isfinite(values).all(axis=1))
        if len(bad):
            raise UserError(f"{path}: {key!r} has a value that is not finite in row {bad[0]}")
    return found

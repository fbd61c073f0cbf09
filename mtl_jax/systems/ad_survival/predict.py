"""Stop order of new ads (or of any new rows): one CSV in, one CSV out.

The input has a line of column names and a row an ad. Columns of the set go by their names: numbers,
levels of categories, texts as they are written, `image_path` (from the file's folder), and days
delivered as `history_AMOUNT_DAY`, all from day 1 to an ad's last one. What is missing or empty
counts as not known; levels and words that training has not seen count as unseen. `day` says how
long an ad has lived so far, 0 where there is no such column: it is seen as at the latest landmark
up to then, and predictions are those of an ad that is alive on that day.

The output has the input's columns, and

    S(3), S(10), ...  chance to be still running after so many days
    short_risk        chance of a stop before the short term's end; empty once that is past
    long_risk         chance of a stop between there and the end, of ads that live to there
    days_left         expected days until the stop, at most to the end of the bins
    rank              1 for the ad that is likely to be stopped first, by the config's score
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import numpy as np

from mtl_jax import survival
from mtl_jax.data.lifetimes import MISSING, LifetimeSet
from mtl_jax.errors import UserError, did_you_mean
from mtl_jax.systems.csv_files import read_numbers, read_rows, write_rows

if TYPE_CHECKING:
    from mtl_jax.engine.state import TrainState
    from mtl_jax.run import Run

DAY, IMAGE = "day", "image_path"
_HISTORY = re.compile(r"history_(.+)_(\d+)")


def predict_file(run: Run, state: TrainState, source: Path, target: Path) -> str:
    """Reads ads, writes their survival; returns a line that says what was done.

    Raises:
      UserError: what is wrong with the input, in one line that names row and column.
    """
    # Imported late: the builders draw on this package.
    from mtl_jax.systems.ad_survival.builders import prepared
    from mtl_jax.systems.ad_survival.data import seen_days
    from mtl_jax.systems.ad_survival.forecasting import curves_of, outputs
    from mtl_jax.systems.ad_survival.scores import term_score

    config: Any = run.config
    head, lines = read_rows(source, "ads")
    ready = prepared(config.data, config.model.word_vectors)
    cases, day, notes = lifetimes_of(ready.found, head, lines, source)
    end = config.terms[-1].grid.end
    if (day >= end).any():
        line = int(np.flatnonzero(day >= end)[0]) + 2
        raise UserError(
            f"{source}: line {line} has day = {day[line - 2]:g}; it must be below {end:g}, the"
            " end of the run's bins"
        )
    views = config.data.views
    seen = np.minimum(seen_days(cases, views), np.floor(day)[:, None]).astype(np.int32)
    logits, grid = curves_of(run, state, outputs(run, state, ready, cases, seen))
    view = np.maximum(np.searchsorted(views.days, day, side="right") - 1, 0)
    logits = jnp.asarray(logits[np.arange(len(day)), view])
    horizon = min(float(config.data.short[-1]), grid.end)
    more = _columns(logits, grid, day, horizon)
    score = np.empty(len(day))
    for one in np.unique(day):
        own = day == one
        score[own] = term_score(config.model.score, logits[own], grid, float(one), grid.end)
    order = np.argsort(np.argsort(score, kind="stable"), kind="stable") + 1
    more["rank"] = [str(place) for place in order]
    write_rows(target, head, lines, more)
    return f"{target}: {len(lines)} ads; {'; '.join(notes) or 'every column is known'}"


def _columns(logits: Any, grid: survival.Grid, day: np.ndarray, horizon: float) -> dict[str, Any]:
    """What is written of each row but its rank."""

    def text(values: Any, keep: Any = True) -> list[str]:
        keep = np.broadcast_to(keep, len(day))
        pairs = zip(np.asarray(values), keep, strict=True)
        return [f"{value:.5f}" if here else "" for value, here in pairs]

    given = jnp.asarray(day, jnp.float32)

    def alive(time: float, since: Any) -> Any:
        """P(alive at `time`, or now if that is later | alive at `since`)."""
        at = jnp.maximum(given, time)
        return survival.survival_at(logits, grid, at[:, None], given=since)[:, 0]

    times = [time for time in (3.0, 10.0, 30.0, 60.0, 90.0) if grid.start < time < grid.end]
    more = {f"S({time:g})": text(alive(time, given)) for time in (*times, grid.end)}
    if grid.start < horizon:
        more["short_risk"] = text(1 - alive(horizon, given), day < horizon)
    if grid.end > horizon:
        more["long_risk"] = text(1 - alive(grid.end, jnp.maximum(given, horizon)))
    more["days_left"] = text(survival.rmst(logits, grid, given, grid.end, given=given))
    return more


def lifetimes_of(
    known: LifetimeSet, head: list[str], lines: list[list[str]], source: Path
) -> tuple[LifetimeSet, np.ndarray, list[str]]:
    """Returns the rows of a CSV as lifetimes of a known set.

    Args:
      known: the set that the network was trained on.
      head: names of the columns.
      lines: their values.
      source: the file, for messages and for the paths of images.

    Returns:
      (the set of the cases, whose list of words goes on behind that of `known`; [n] days lived so
      far; notes on what was not known).

    Raises:
      UserError: unknown columns, values that are no numbers, days left out, images that cannot be
        read.
    """
    # Words of new texts are cut as those of the set's files.
    from mtl_jax.systems.ad_survival.text_tables import encode_texts, word_index

    count, where = len(lines), str(source)
    amounts, length = known.history_names, known.history.shape[1]
    days = {f"history_{name}_{d + 1}" for name in amounts for d in range(length)}
    names = [column.name for column in (*known.numbers, *known.categories, *known.texts)]
    names += [DAY, *([IMAGE] if known.image.shape[1] else [])]
    for name in head:
        if name not in names and name not in days:
            shown = [*names, *(["history_AMOUNT_DAY"] if days else [])]
            if _HISTORY.fullmatch(name) and days:
                raise UserError(
                    f"{where}: column {name!r}; amounts are {', '.join(amounts)}, days 1..{length}"
                )
            raise UserError(f"{where}: column {name!r}; {did_you_mean(name, shown)}")
    raw = {name: [row[at] for row in lines] for at, name in enumerate(head)}
    absent = [name for name in names if name not in head and name != DAY]
    notes = [f"no columns {', '.join(absent)}"] if absent else []

    day = np.zeros(count)
    if DAY in raw:
        day = read_numbers(raw[DAY], DAY, where, 0)
    numbers = []
    for number in known.numbers:
        values = np.full(count, np.nan)
        if number.name in raw:
            low = 0 if number.scale == "log" else -np.inf
            values = read_numbers(raw[number.name], number.name, where, low, empty=True)
        numbers.append(number._replace(values=values.astype(np.float32)))
    categories = []
    for category in known.categories:
        place = {level: code for code, level in enumerate(category.levels)}
        cells = [cell.strip() for cell in raw.get(category.name, [""] * count)]
        # A level that the set does not have is put behind its own: rare, and not unknown.
        codes = [place.get(cell, len(place)) if cell else MISSING for cell in cells]
        unseen = sum(code == len(place) for code in codes)
        notes += [f"{unseen} levels of {category.name} are new"] if unseen else []
        levels = (*category.levels, "\0new")
        categories.append(category._replace(levels=levels, codes=np.array(codes, np.int32)))
    words, texts = list(known.words), []
    for text in known.texts:
        cells = raw.get(text.name, [""] * count)
        encoded = encode_texts(cells, word_index(words), text.words.shape[1], len(words))
        words += encoded.new
        texts.append(text._replace(words=encoded.words))
    notes += (
        [f"{len(words) - len(known.words)} words are new"] if len(words) > len(known.words) else []
    )
    history, last, more = _history(known, raw, day, where)
    notes += more
    image, has_image = _images(known, raw.get(IMAGE), source, count)
    zeros = np.zeros(count, np.float32)
    cases = known._replace(
        name=where,
        event=np.zeros(count, np.int32),
        time=day.astype(np.float32),
        upper=day.astype(np.float32),
        entry=zeros,
        start=zeros,
        group=np.arange(count, dtype=np.int32),
        weight=zeros + 1,
        value=zeros,
        numbers=tuple(numbers),
        categories=tuple(categories),
        texts=tuple(texts),
        words=tuple(words),
        image=image,
        has_image=has_image,
        history=history,
        history_days=np.minimum(last, np.floor(day)).astype(np.int32),
        vectors={
            name: np.zeros((count, v.shape[1]), np.float32) for name, v in known.vectors.items()
        },
        path=np.zeros((count, 0, len(amounts)), np.float32),
        truth={},
    )
    return cases, day, notes


def _history(
    known: LifetimeSet, raw: dict[str, list[str]], day: np.ndarray, where: str
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Returns amounts [n, D, F] of a file, [n] days on record, and notes; see `lifetimes_of`."""
    amounts, length = known.history_names, known.history.shape[1]
    history = np.zeros((len(day), length, len(amounts)), np.float32)
    given = np.zeros(history.shape, bool)
    columns = [[f"history_{name}_{d + 1}" for name in amounts] for d in range(length)]
    for d, names in enumerate(columns):
        for a, name in enumerate(names):
            if name in raw:
                values = read_numbers(raw[name], name, where, 0, empty=True)
                given[:, d, a], history[:, d, a] = ~np.isnan(values), np.nan_to_num(values)
    some = np.flatnonzero(given.any((0, 1)))
    last = np.where(given.any(2), np.arange(1, length + 1)[None], 0).max(1, initial=0)
    holes = (np.arange(length)[None] < last[:, None])[..., None] & ~given[..., some]
    if holes.any():
        row, d, a = np.argwhere(holes)[0]
        name = columns[d][some[a]]
        here = f"line {row + 2} has {name} = ''" if name in raw else f"there is no column {name}"
        raise UserError(
            f"{where}: {here}, but line {row + 2} has amounts of day {last[row]}; give every day up"
            " to an ad's last one"
        )
    notes = []
    if len(some) and len(some) < len(amounts):
        absent = [name for a, name in enumerate(amounts) if a not in some]
        notes.append(f"no {', '.join(absent)} on any day, counted as 0")
    if late := int((last > np.floor(day)).sum()):
        notes.append(f"{late} rows have amounts of days after their day, which are not looked at")
    return history, last, notes


def _images(
    known: LifetimeSet, cells: list[str] | None, source: Path, count: int
) -> tuple[np.ndarray, np.ndarray]:
    size = known.image.shape[1]
    if not size or cells is None:
        return np.zeros((count, *known.image.shape[1:]), np.uint8), np.zeros(count, bool)
    from mtl_jax.data.survival.table_images import image_path, read_images

    places = [f"{source}: line {line} has {IMAGE}" for line in range(2, count + 2)]
    paths = [
        image_path(cell, source.parent, place) if cell.strip() else None
        for cell, place in zip(cells, places, strict=True)
    ]
    return read_images(paths, places, size), np.array([path is not None for path in paths])

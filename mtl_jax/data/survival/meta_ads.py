"""Meta's Ad Library: how long ads on Facebook and Instagram ran, with their texts.

Reads what its interface returns, and tables made of that:

    .json            {"data": [ads]} or [ads], as one or several answers of `ads_archive` hold them
    .jsonl           an ad a line
    .csv             columns of the same names, or the older ones in the singular
                     (ad_creative_body, funding_entity, spend_min, ...), as scrapers write them

An ad lives from `ad_delivery_start_time` to `ad_delivery_stop_time`. The stop is the planned one,
or empty: so ads that are said to stop after the snapshot, and those without a stop, are
censored at it. The snapshot is by default the latest start in the file; since an answer holds
only the ads that were searched for, a snapshot that is known is better. Where both times are dates
without a time of day, the last day counts as lived, a stop on the day of the start is one day, and
the default snapshot is the end of the latest start's day.

Inputs: texts `body`, `title`, `description`, `caption` (several versions of an ad are joined);
categories `currency`, `languages`, `platforms`, `weekday`; numbers `versions` (log), and the bounds
of the audience that was aimed at (log) where they are given. With `advertiser` also page and
funder as categories. Not inputs, since they grow with the lifetime: impressions, reach and spend,
and who was reached. The middle of the range of spend, in the ad's own currency, is the set's
`value`. A group is a page. Splits: "random", "group" and "time".
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mtl_jax.data.fetch import Report, say
from mtl_jax.data.lifetimes import LifetimeSet
from mtl_jax.data.survival.table_ads import (
    DAY,
    AdsOptions,
    ad_lifetimes,
    ads_set,
    check_ads,
    find_snapshot,
    middle,
    weekday_and_hour,
)
from mtl_jax.data.survival.table_cells import Levels, bad_cell, read_dates, read_numbers
from mtl_jax.data.survival.table_files import ROWS, Block, read_blocks, read_header
from mtl_jax.data.survival.table_set import Columns
from mtl_jax.errors import UserError, did_you_mean

START, STOP = "ad_delivery_start_time", "ad_delivery_stop_time"
# {ours: the names that it has had, the first that is there counts}
TEXTS = {
    "body": ("ad_creative_bodies", "ad_creative_body"),
    "title": ("ad_creative_link_titles", "ad_creative_link_title", "link_title"),
    "description": (
        "ad_creative_link_descriptions",
        "ad_creative_link_description",
        "link_description",
    ),
    "caption": ("ad_creative_link_captions", "ad_creative_link_caption"),
}
CATEGORIES = {
    "currency": ("currency",),
    "languages": ("languages",),
    "platforms": ("publisher_platforms",),
}
PAGE = ("page_id", "page_name")
_ADVERTISER = {"page": ("page_name",), "funder": ("bylines", "byline", "funding_entity")}
_SPEND, _AUDIENCE = "spend", "estimated_audience_size"
_BOUNDS = re.compile(r"lower_bound\W+(\d+)(?:\W+upper_bound\W+(\d+))?")
_BREAK = "\n"  # Between the versions of a text.


def meta_ads_lifetimes(
    options: AdsOptions, name: str = "meta_ads", report: Report = say
) -> tuple[LifetimeSet, list[str]]:
    """Returns the lifetimes of a file of Meta's library, and lines about where they came from.

    Raises:
      UserError: an option, a file or a cell that is wrong.
    """
    path = check_ads(options)
    columns, groups = Columns(options.max_words), Levels()
    starts, ends, values, codes, latest = [], [], [], [], -np.inf
    for block in _blocks(path):
        start, end = read_dates(block, START), read_dates(block, STOP, needed=False)
        dated = [len(a.strip()) == len(b.strip()) == 10 for a, b in _pairs(block)]
        starts.append(start)
        ends.append(end + DAY * np.array(dated))
        whole = [len(cell.strip()) == 10 for cell in block.cells[START]]
        latest = max(latest, float((start + DAY * np.array(whole)).max()))
        values.append(_value(block, len(start)))
        codes.append(_pages(block, groups))
        _inputs(columns, block, start, options.advertiser)
    start, end = np.concatenate(starts), np.concatenate(ends)
    lives = ad_lifetimes(start, end, find_snapshot(options, latest), name, report)
    found = ads_set(
        columns,
        lives,
        options,
        name=name,
        group=codes,
        group_name="page",
        value=values,
        report=report,
    )
    return found, [f"{path}: {lives.about}"]


def bounds(cell: str) -> tuple[float, float]:
    """Returns the bounds in "lower_bound: 100, upper_bound: 199" or JSON of them; NaN for none."""
    matched = _BOUNDS.search(cell)
    if matched is None:
        return np.nan, np.nan
    return float(matched[1]), float(matched[2]) if matched[2] else np.nan


def _pairs(block: Block) -> Iterator[tuple[str, str]]:
    return zip(block.cells[START], block.cells[STOP], strict=True)


def _value(block: Block, rows: int) -> np.ndarray:
    """The middle of the range of spend; its lower end where there is no upper one."""
    if _SPEND in block.cells:
        low, high = np.array([bounds(cell) for cell in block.cells[_SPEND]]).T
        low = np.nan_to_num(low)
    elif "spend_min" in block.cells:
        low = read_numbers(block, "spend_min", default=0.0, least=0)
        high = np.full(rows, np.nan)
        if "spend_max" in block.cells:
            high = read_numbers(block, "spend_max", least=0)
    else:
        return np.zeros(rows)
    return middle(low, high)


def _pages(block: Block, groups: Levels) -> np.ndarray:
    column = _first(block.cells, PAGE)
    if column is None:
        raise UserError(
            f"{block.path}: no column 'page_id'; {did_you_mean('page_id', block.cells)}"
        )
    codes = groups.add(block.cells[column], ("",))
    empty = np.flatnonzero(codes < 0)
    if len(empty):
        raise bad_cell(block, int(empty[0]), column, "", "the page must be given for every ad")
    return codes


def _inputs(columns: Columns, block: Block, start: np.ndarray, advertiser: bool) -> None:
    cells = block.cells
    versions = np.ones(len(start))
    for name, known in TEXTS.items():
        if column := _first(cells, known):
            columns.text(name, cells[column])
            if column.endswith("s"):  # Only the plural is a list.
                own = np.array([cell.count(_BREAK) + 1 for cell in cells[column]])
                versions = np.maximum(versions, own)
    columns.number("versions", versions, "log")
    columns.category("weekday", weekday_and_hour(start)[0])
    for name, known in {**CATEGORIES, **(_ADVERTISER if advertiser else {})}.items():
        if column := _first(cells, known):
            columns.category(name, [" ".join(sorted(c.split(_BREAK))) for c in cells[column]])
    if _AUDIENCE in cells:
        low, high = np.array([bounds(cell) for cell in cells[_AUDIENCE]]).T
        columns.number("audience_from", low, "log")
        columns.number("audience_to", high, "log")


def _first(cells: Mapping[str, Sequence[str]], names: Sequence[str]) -> str | None:
    return next((name for name in names if name in cells), None)


def _blocks(path: Path) -> Iterator[Block]:
    """Yields all columns of a file that are of use here."""
    kinds = (*TEXTS.values(), *CATEGORIES.values(), *_ADVERTISER.values(), PAGE)
    known = [START, STOP, _SPEND, "spend_min", "spend_max", _AUDIENCE]
    known += [name for names in kinds for name in names]
    if path.suffix in (".json", ".jsonl"):
        yield from _json_blocks(path, known)
        return
    header = read_header(path)
    for block in read_blocks(path, [START, STOP, *(name for name in known if name in header)]):
        lists = {
            name: [_versions(cell) for cell in block.cells[name]]
            for name in block.cells
            if name.endswith("s") and name != "bylines"
        }
        yield block._replace(cells={**block.cells, **lists})


def _versions(cell: str) -> str:
    """A cell of a table that holds a list in JSON, as the items of it; others as they are."""
    if cell.startswith("["):
        try:
            return _text(json.loads(cell))
        except ValueError:
            pass
    return cell.replace(_BREAK, " ")


def _json_blocks(path: Path, known: Sequence[str]) -> Iterator[Block]:
    ads = list(_json_ads(path))
    if not ads:
        raise UserError(f"{path} holds no ad")
    there = {key for _, ad in ads for key in ad}
    if START not in there:
        raise UserError(f"{path}: no field {START!r}; {did_you_mean(START, there)}")
    names = [name for name in dict.fromkeys(known) if name in there or name == STOP]
    counted = "line" if path.suffix == ".jsonl" else "ad"
    for first in range(0, len(ads), ROWS):
        part = ads[first : first + ROWS]
        cells: dict[str, Sequence[str]] = {
            name: [_text(ad.get(name)) for _, ad in part] for name in names
        }
        yield Block(path, counted, [number for number, _ in part], cells)


def _json_ads(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yields the ads of a file with the line or place, from 1, of each."""
    try:
        text = path.read_text("utf-8-sig")
        if path.suffix == ".jsonl":
            lines = enumerate(text.splitlines(), 1)
            found = [(number, _loads(path, line, number)) for number, line in lines if line.strip()]
        else:
            whole = _loads(path, text, 0)
            answers = whole if isinstance(whole, list) else [whole]
            nested = [one["data"] for one in answers if isinstance(one, dict) and "data" in one]
            if any(not isinstance(data, list) for data in nested):
                raise UserError(f"{path}: 'data' must hold a list of ads")
            found = list(enumerate(itertools.chain(*nested) if nested else answers, 1))
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 ({error.reason}); save it in UTF-8") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    for number, ad in found:
        if not isinstance(ad, dict):
            raise UserError(f"{path}, ad {number}: {str(ad)[:60]!r}; it must be an object")
        yield number, ad


def _loads(path: Path, text: str, line: int) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        place = f", line {line}" if line else ""
        raise UserError(f"{path}{place}: not JSON ({error}); fetch it anew") from None


def _text(value: Any) -> str:
    """A JSON value as a cell: lists are joined by `_BREAK`, each item once."""
    if value is None:
        return ""
    if isinstance(value, list):
        items = [_text(item).replace(_BREAK, " ") for item in value]
        return _BREAK.join(dict.fromkeys(item for item in items if item))
    if isinstance(value, dict):
        return json.dumps(value)
    return str(value)

"""Google's political ads, from google-political-ads-creative-stats.csv of its transparency bundle.

A row is an ad, with the first and the last day on which it had an impression; also that table as
exported from BigQuery (`google_political_ads.creative_stats`), whose columns are in lower case. An
ad lives from the beginning of its first day to the end of its last: a whole number of days from 1.

The last day is observed, not planned, and a running ad has had its last impression lately: an ad
counts as stopped if its last day is more than `grace_days` (7) days before the day of the snapshot,
by default the latest last day of all. The others are censored at their last day. An ad that
pauses for longer than the grace and would come back counts as stopped, so choose it with care.

Inputs: `ad_type`, `regions`, `age`, `gender`, `weekday` of the first day (categories), how many
places are included and excluded (log), and their names as a text; with `advertiser` also the name
of the advertiser. The file has no word of the ad itself. Not inputs, since they grow with the
lifetime: days with impressions, impressions, spend, and the list of campaigns. The middle of the
range of spend in US dollars is the set's `value`. A group is an advertiser. Splits: "random",
"group" and "time".
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mtl_jax.data.fetch import Report, say
from mtl_jax.data.lifetimes import LifetimeSet
from mtl_jax.data.survival.table_ads import (
    DAY,
    AdsOptions,
    Lifetimes,
    ads_set,
    check_ads,
    count_list,
    find_snapshot,
    middle,
    weekday_and_hour,
)
from mtl_jax.data.survival.table_cells import (
    Levels,
    bad_cell,
    day_text,
    read_dates,
    read_numbers,
)
from mtl_jax.data.survival.table_files import Block, read_blocks, read_header
from mtl_jax.data.survival.table_set import Columns
from mtl_jax.errors import UserError, did_you_mean

NEEDED = ("Date_Range_Start", "Date_Range_End", "Advertiser_ID")
CATEGORIES = {
    "ad_type": "Ad_Type",
    "regions": "Regions",
    "age": "Age_Targeting",
    "gender": "Gender_Targeting",
}
PLACES = {"included": "Geo_Targeting_Included", "excluded": "Geo_Targeting_Excluded"}
SPEND = ("Spend_Range_Min_USD", "Spend_Range_Max_USD")
_NAME = "Advertiser_Name"


def google_ads_lifetimes(
    options: AdsOptions, name: str = "google_ads", report: Report = say
) -> tuple[LifetimeSet, list[str]]:
    """Returns the lifetimes of a file of Google's library, and lines about where they came from.

    Raises:
      UserError: an option, a file or a cell that is wrong.
    """
    path = check_ads(options)
    header = read_header(path)
    spelt = {column.lower(): column for column in header}
    optional = (*CATEGORIES.values(), *PLACES.values(), *SPEND, _NAME)
    for column in NEEDED:
        if column.lower() not in spelt:
            raise UserError(f"{path}: no column {column!r}; {did_you_mean(column, header)}")
    ours = {spelt[c.lower()]: c for c in (*NEEDED, *optional) if c.lower() in spelt}
    columns, groups = Columns(options.max_words), Levels()
    firsts, lasts, values, codes = [], [], [], []
    for raw in read_blocks(path, list(ours)):
        block = raw._replace(cells={ours[column]: cells for column, cells in raw.cells.items()})
        first, last = (np.floor(read_dates(block, column) / DAY) for column in NEEDED[:2])
        early = np.flatnonzero(last < first)
        if len(early):
            index = int(early[0])
            rule = f"it must not be before the first day, {day_text(first[index] * DAY)}"
            raise bad_cell(block, index, NEEDED[1], block.cells[NEEDED[1]][index], rule)
        firsts.append(first)
        lasts.append(last)
        values.append(_value(block, len(first)))
        codes.append(groups.add(block.cells["Advertiser_ID"]))
        _inputs(columns, block, first, options.advertiser)
    first, last = np.concatenate(firsts), np.concatenate(lasts)
    snapshot = np.floor(find_snapshot(options, float(last.max()) * DAY) / DAY)
    event = last + options.grace_days < snapshot
    keep = np.flatnonzero(first <= snapshot)
    seen = np.minimum(last, snapshot)
    about = (
        f"{len(keep)} ads, of which {int(event[keep].sum())} had no impression in the last "
        f"{options.grace_days} days before the snapshot {day_text(snapshot * DAY)}; "
        f"{len(first) - len(keep)} that begin after it left out"
    )
    start = first - first[keep].min(initial=np.inf)
    found = ads_set(
        columns,
        Lifetimes(event, seen - first + 1, start, keep, about),
        options,
        name=name,
        group=codes,
        group_name="advertiser",
        value=values,
        report=report,
    )
    return found, [f"{path}: {about}"]


def _value(block: Block, rows: int) -> np.ndarray:
    """The middle of the range of spend; its lower end where there is no upper one."""
    if SPEND[0] not in block.cells:
        return np.zeros(rows)
    low = read_numbers(block, SPEND[0], default=0.0, least=0)
    if SPEND[1] not in block.cells:
        return low
    high = read_numbers(block, SPEND[1], least=0)
    return middle(low, high)


def _inputs(columns: Columns, block: Block, first: np.ndarray, advertiser: bool) -> None:
    cells = block.cells
    for name, column in CATEGORIES.items():
        if column in cells:
            columns.category(name, cells[column])
    columns.category("weekday", weekday_and_hour(first * DAY)[0])
    if advertiser and _NAME in cells:
        columns.category("advertiser", cells[_NAME])
    for name, column in PLACES.items():
        if column in cells:
            columns.number(f"places_{name}", count_list(_targeted(cells[column])), "log")
    if PLACES["included"] in cells:
        columns.text("places", _targeted(cells[PLACES["included"]]))


def _targeted(cells: Sequence[str]) -> list[str]:
    """Places, without what the file says where nothing was chosen."""
    return ["" if cell.strip().lower() == "not targeted" else cell for cell in cells]

"""Snap's library of political ads: how long ads ran, from the file that Snap publishes each year.

A row is an ad with its start, its end, its targeting, its advertiser and its landing page. It lives
from the start on; it stops at its end. Its cause of death is one, "stop".

The end is the one that the advertiser set, and is empty for "until further notice". So ads that
are said to end after the snapshot are censored at the snapshot, as are those without an end. That
an ad was ended early by hand is seen only if the advertiser moved its end. The snapshot is not in
the file: it is at least the latest start, which is the default, since a library lists what was
shown. Rows without a lifetime are left out, and counted in the set's sources.

Inputs, all known at the start (texts are split by `words.split_words`):

    numbers      age_from, age_to; how many regions, districts, circles, metros, postal codes,
                 interests and demographics are included or excluded (log); hour of the start, UTC
    categories   country, currency, gender, language, os, connection, segments, media, attachment,
                 weekday; with `advertiser` also organisation and payer
    texts        landing (host and path of the page), campaign (values of its query, the utm words),
                 ballot (candidate or ballot), places and interests of the targeting

An empty targeting means everybody, and is a level of its own, "all". Not inputs: `Spend` is the
set's `value`, in the ad's own currency, and impressions are not read: both are totals up to the
snapshot, and grow with the lifetime. Postal codes and circles are only counted. A group is an
organisation. Splits: "random", "group" and "time" (by start; the latest rows are censored most).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from mtl_jax.data.fetch import Report, say
from mtl_jax.data.lifetimes import LifetimeSet
from mtl_jax.data.survival.table_ads import (
    AdsOptions,
    ad_lifetimes,
    address_texts,
    ads_set,
    check_ads,
    count_list,
    find_snapshot,
    weekday_and_hour,
)
from mtl_jax.data.survival.table_cells import Levels, read_dates, read_numbers
from mtl_jax.data.survival.table_files import Block, read_blocks, read_header
from mtl_jax.data.survival.table_set import Columns

NEEDED = ("StartDate", "EndDate", "OrganizationName", "Spend")
COUNTS = {
    "regions": "Regions (Included)",
    "regions_excluded": "Regions (Excluded)",
    "districts": "Electoral Districts (Included)",
    "districts_excluded": "Electoral Districts (Excluded)",
    "circles": "Radius Targeting (Included)",
    "circles_excluded": "Radius Targeting (Excluded)",
    "metros": "Metros (Included)",
    "metros_excluded": "Metros (Excluded)",
    "postal_codes": "Postal Codes (Included)",
    "postal_codes_excluded": "Postal Codes (Excluded)",
    "interest_count": "Interests",
    "demographics": "AdvancedDemographics",
}
CATEGORIES = {
    "country": "CountryCode",
    "currency": "Currency Code",
    "gender": "Gender",
    "language": "Language",
    "os": "OsType",
    "connection": "Targeting Connection Type",
    "segments": "Segments",
}
TEXTS = {
    "ballot": ("CandidateBallotInformation",),
    "places": ("Regions (Included)", "Metros (Included)", "Electoral Districts (Included)"),
    "interests": ("Interests", "AdvancedDemographics"),
}
_ADVERTISER = {"organisation": "OrganizationName", "payer": "PayingAdvertiserName"}
_AGE = re.compile(r"(\d+)(-?)(\d*)\+*")
_PROPERTY = re.compile(r"(?:^|,)([a-z][a-z_]*):(.*?)(?=,[a-z][a-z_]*:|$)", re.DOTALL)
_MEDIA = re.compile(r"[?&]mediaType=(\w+)")


def snap_ads_lifetimes(
    options: AdsOptions, name: str = "snap_ads", report: Report = say
) -> tuple[LifetimeSet, list[str]]:
    """Returns the lifetimes of a file of Snap's library, and lines about where they came from.

    Raises:
      UserError: an option, a file or a cell that is wrong.
    """
    path = check_ads(options)
    header = read_header(path)
    optional = [*COUNTS.values(), *CATEGORIES.values(), *_ADVERTISER.values()]
    optional += [column for columns in TEXTS.values() for column in columns]
    optional += ["AgeBracket", "CreativeUrl", "CreativeProperties"]
    wanted = [*NEEDED, *(column for column in optional if column in header)]
    columns, groups = Columns(options.max_words, missing=("",)), Levels()
    starts, ends, spends, codes = [], [], [], []
    for block in read_blocks(path, wanted):
        starts.append(read_dates(block, "StartDate"))
        ends.append(read_dates(block, "EndDate", needed=False))
        spends.append(read_numbers(block, "Spend", default=0.0, least=0))
        codes.append(groups.add(block.cells["OrganizationName"]))
        _inputs(columns, block, starts[-1], options.advertiser)
    start, end = np.concatenate(starts), np.concatenate(ends)
    snapshot = find_snapshot(options, float(start.max()))
    lives = ad_lifetimes(start, end, snapshot, name, report)
    found = ads_set(
        columns,
        lives,
        options,
        name=name,
        group=codes,
        group_name="organisation",
        value=spends,
        report=report,
    )
    return found, [f"{path}: {lives.about}"]


def age_range(cell: str) -> tuple[float, float]:
    """Returns the least and greatest age of "18-34", "18+" or "24-"; NaN where there is none."""
    matched = _AGE.fullmatch(cell.strip())
    if matched is None:
        return np.nan, np.nan
    first, dash, second = matched.groups()
    if dash and not second:  # "24-" is up to 24.
        return np.nan, float(first)
    return float(first), float(second) if second else np.nan


def landing_texts(cell: str) -> tuple[str, str, str]:
    """Returns what an ad leads to (web_view_url, ios_app, ...; "none"), and texts of its address.

    The two texts are those of `table_ads.address_texts`, of the first address only.
    """
    matched = _PROPERTY.match(cell)
    if matched is None:
        return "none", "", ""
    return matched[1], *address_texts(matched[2].strip())


def _inputs(columns: Columns, block: Block, start: np.ndarray, advertiser: bool) -> None:
    cells = block.cells
    if "AgeBracket" in cells:
        ages = np.array([age_range(cell) for cell in cells["AgeBracket"]])
        columns.number("age_from", ages[:, 0])
        columns.number("age_to", ages[:, 1])
    for name, column in COUNTS.items():
        if column in cells:
            columns.number(name, count_list(cells[column]), "log")
    weekday, hour = weekday_and_hour(start)
    columns.number("hour", hour)
    columns.category("weekday", weekday)
    for name, column in CATEGORIES.items():
        if column in cells:
            columns.category(name, [cell.strip().lower() or "all" for cell in cells[column]])
    if advertiser:
        for name, column in _ADVERTISER.items():
            if column in cells:
                columns.category(name, cells[column])
    if "CreativeUrl" in cells:
        media = [_MEDIA.search(cell) for cell in cells["CreativeUrl"]]
        columns.category("media", [found[1].lower() if found else "" for found in media])
    if "CreativeProperties" in cells:
        kinds, pages, campaigns = zip(
            *(landing_texts(cell) for cell in cells["CreativeProperties"]), strict=True
        )
        columns.category("attachment", kinds)
        columns.text("landing", pages)
        columns.text("campaign", campaigns)
    for name, own in TEXTS.items():
        there = [cells[column] for column in own if column in cells]
        if there:
            columns.text(name, _joined(there))


def _joined(texts: Sequence[Sequence[str]]) -> list[str]:
    return [" ".join(filter(None, each)) for each in zip(*texts, strict=True)]

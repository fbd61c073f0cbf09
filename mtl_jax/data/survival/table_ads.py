"""What the loaders of public ad libraries have in common: options, snapshots and lifetimes."""

from __future__ import annotations

import dataclasses
import re
import urllib.parse
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mtl_jax.data.fetch import Report
from mtl_jax.data.lifetimes import LifetimeSet
from mtl_jax.data.survival.table_cells import UNIT_SECONDS, day_text, seconds_of
from mtl_jax.data.survival.table_options import check_fractions
from mtl_jax.data.survival.table_set import Columns, make_set
from mtl_jax.errors import UserError

DAY = UNIT_SECONDS["day"]
CAUSE = "stop"
SPLITS_BY = ("random", "group", "time")
WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_WEB = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)


@dataclasses.dataclass(frozen=True)
class AdsOptions:
    """A file of an ad library."""

    path: str = ""
    """The file: .csv, perhaps .gz, .bz2, .xz or .zip; of Meta's library .json and .jsonl, too."""
    snapshot: str = ""
    """When the file was made: a date (its beginning, UTC) or a time; empty for the latest time in
    the file that says that an ad was running, which is at most a little earlier."""
    grace_days: int = 7
    """google_ads: days without an impression after which an ad counts as stopped."""
    advertiser: bool = False
    """Give the advertiser's names as categories, too. They help where rows are split at random and
    are unknown levels where they are split by advertiser."""
    max_words: int = 40
    """Words of a text that are kept."""
    fractions: tuple[float, float] = (0.6, 0.2)
    """Shares of train and validation."""
    seed: int = 0
    """Of the splits random and group."""


class Lifetimes(NamedTuple):
    """When ads stopped.

    Attributes:
      event: [N] int32, 1 for stopped by the snapshot.
      time: [N] days.
      start: [N] days from the beginning of the earliest start's day.
      keep: rows that lived for any time at all.
      about: what was done, for people.
    """

    event: np.ndarray
    time: np.ndarray
    start: np.ndarray
    keep: np.ndarray
    about: str


def check_ads(options: AdsOptions) -> Path:
    """Returns the file; a `UserError` for options that are wrong."""
    if not options.path:
        raise UserError("path is empty; give the ad library's file")
    if options.snapshot and seconds_of(options.snapshot) is None:
        raise UserError(
            f"snapshot = {options.snapshot!r}; write a date, 2020-09-29, or 2020-09-29T17:00:00Z"
        )
    for name, least in (("max_words", 1), ("grace_days", 0), ("seed", 0)):
        if getattr(options, name) < least:
            raise UserError(f"{name} = {getattr(options, name)}; it must be {least} or more")
    check_fractions(options.fractions)
    path = Path(options.path).expanduser()
    if path.is_dir():
        raise UserError(f"{path} is a folder; give the file itself")
    if not path.is_file():
        raise UserError(f"no file {path}")
    return path


def find_snapshot(options: AdsOptions, latest: float) -> float:
    """Returns the snapshot in seconds since 1970: the option's, or else `latest`."""
    found = seconds_of(options.snapshot)
    return latest if found is None else found


def ad_lifetimes(
    start: np.ndarray, end: np.ndarray, snapshot: float, name: str, report: Report
) -> Lifetimes:
    """Returns lifetimes of ads that run from `start` to a perhaps later, planned `end`.

    time = min(end, snapshot) - start and event = (end <= snapshot), as in the specification of
    this data. Ads with no time above 0 ended before they began, or began after the snapshot: they
    are left out and counted.

    Args:
      start: [N] seconds since 1970.
      end: [N], NaN for none.
      snapshot: seconds since 1970.
      name: of the set.
      report: called with a line where most ends lie behind the snapshot.

    Raises:
      UserError: no ad has a time above 0.
    """
    ended = end <= snapshot  # Never so for NaN.
    time = (np.where(ended, end, snapshot) - start) / DAY
    keep = np.flatnonzero(time > 0)
    if not len(keep):
        raise UserError(
            f"{name}: no row is left: no ad lives before the snapshot {day_text(snapshot)}, they"
            f" begin from {day_text(start.min())} to {day_text(start.max())}; set snapshot to when"
            " the file was made"
        )
    planned = int((end > snapshot).sum())
    if planned > ended.sum():
        report(
            f"{name}: {planned} of {int(np.isfinite(end).sum())} ends lie after the snapshot "
            f"{day_text(snapshot)} and count as censored; if the file is newer, set snapshot"
        )
    about = (
        f"{len(keep)} ads, of which {int(ended[keep].sum())} ended by the snapshot "
        f"{day_text(snapshot)}; {len(start) - len(keep)} without a lifetime left out"
    )
    earliest = np.floor(start[keep].min(initial=np.inf) / DAY) * DAY
    return Lifetimes(ended.astype(np.int32), time, (start - earliest) / DAY, keep, about)


def count_list(cells: Sequence[str], separator: str = ",") -> np.ndarray:
    """Returns how many things each cell lists, [n]; 0 for an empty one."""
    return np.array([cell.count(separator) + 1 if cell.strip() else 0 for cell in cells], float)


def weekday_and_hour(seconds: np.ndarray) -> tuple[list[str], np.ndarray]:
    """Returns the weekday and the hour, [n] in 0..24, of times since 1970, both in UTC."""
    days = np.floor(seconds / DAY)
    names = [WEEKDAYS[int(day) % 7] for day in days + 3]  # 1970 began on a Thursday.
    return names, (seconds - days * DAY) / 3600


def address_texts(address: str) -> tuple[str, str]:
    """Returns the text of an address (host and path) and that of the values of its query.

    Values of a query (utm_campaign=..., utm_content=...) are where advertisers write what an ad is;
    its keys are left out. Fragments, ports, user names and a leading www are, too.
    """
    try:
        parts = urllib.parse.urlsplit(address if _WEB.match(address) else f"//{address}")
        host = (parts.hostname or "").removeprefix("www.")
        values = [value for _, value in urllib.parse.parse_qsl(parts.query)]
    except ValueError:  # Not an address after all.
        return address, ""
    return f"{host} {urllib.parse.unquote(parts.path)}".strip(), " ".join(values)


def ads_set(
    columns: Columns,
    lives: Lifetimes,
    options: AdsOptions,
    *,
    name: str,
    group: Sequence[np.ndarray],
    group_name: str,
    value: Sequence[np.ndarray],
    report: Report,
) -> LifetimeSet:
    """Returns the set of a library's ads.

    Args:
      columns: covariates.
      lives: when they stopped.
      options: of the file.
      name: of the set.
      group: codes of advertisers, block by block.
      group_name: what an advertiser is called.
      value: money spent, block by block.
      report: called with lines about what is left out.
    """
    return make_set(
        columns,
        name=name,
        causes=(CAUSE,),
        event=lives.event,
        time=lives.time,
        keep=lives.keep,
        start=lives.start,
        group=np.concatenate(group),
        group_name=group_name,
        value=np.concatenate(value),
        splits=SPLITS_BY,
        lenient=True,
        fractions=options.fractions,
        seed=options.seed,
        report=report,
    )


def middle(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Returns the middle of each range; its lower end where there is no upper one (NaN)."""
    return np.where(np.isnan(high), low, (low + np.maximum(high, low)) / 2)

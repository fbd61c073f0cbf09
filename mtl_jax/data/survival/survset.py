"""Real lifetimes of patients, hard drives and job seekers: four tables of the package SurvSet.

    set        unit       rows    events  event rate  numbers  categories
    support2   day        9,105    6,201  .681        24       10
    rhc        day        5,735    3,722  .649        22       31
    hdfail     day       52,422    2,885  .055         1        5
    unempdur   fortnight  3,241    1,986  .613         5        1

support2. Seriously ill patients of five hospitals, until death; days from the study's entry, seen
from day 3 on. Two terms: 2,463 deaths to day 30, 3,738 later, nobody censored before. `fac_sfdm2`
is dropped: one of its levels says that the patient died within two months. `num_surv2m` and
`num_surv6m` are what the study's own model says of the chance to live 2 and 6 months; config
`no_model_scores` drops them. `fac_dnr` tells whether an order not to resuscitate was given, partly
after the entry, and config `at_entry` drops it, too. How the stay went on (its length, its cost) is
not in SurvSet's table.

rhc. Patients of the same study in intensive care, with or without a catheter of the right heart
(`fac_swang1`) on day 1, until death: 1,918 deaths to day 30, 1,804 later. `num_surv2md1` is the
model's chance to live 2 months; `no_model_scores` drops it.

hdfail. Hard drives of a storage company (R package frailtySurv), until failure; days of use in
24ths, so by the drive's own counter of hours (5 say more than ten years and are kept as they are).
Temperature and three flags of trouble (`fac_rsc`, `fac_rer`, `fac_psc`) are one reading a drive.
The source does not say of which day; but 61 % of the drives with `fac_psc` fail and 3 % of the
others, so it looks like the last one, which nobody knows at the beginning. Config `at_entry` drops
all four and leaves the maker and the model, `fac_brand` and `fac_type`.

unempdur. People who lost a job (R package Ecdat; McCall, Econometrica 64, 1996), until a new one
of whatever kind; whole numbers of two-week intervals from 1 to 28: time itself is discrete. Rows
that the source gives no state or several are not in SurvSet's table.

Numbers keep their values. Their scale is "log" where a column is never negative, is skewed to the
right (moment coefficient of skewness above 1) and is less so as log(1 + x): `number_scale` looks at
this one column, never at times. A level "missing" is what SurvSet writes for unknown ones; it is
`lifetimes.MISSING` here. A level without rows is left out and levels are sorted, as numbers if they
are. Some quantities are there twice, as number and as category: names tell which by `num_`, `fac_`.

Splits: "random", the default, and "random_1" to "random_4" put 60 % of rows into train, 20 % into
validation and 20 % into test, by `lifetimes.split_rows` with seeds 0 to 4, that is by the place of
a row in `numpy.random.default_rng(seed).permutation(N)`. For more seeds call `split_rows`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mtl_jax.data import fetch
from mtl_jax.data.fetch import Report
from mtl_jax.data.lifetimes import (
    MISSING,
    Category,
    LifetimeSet,
    Numbers,
    check_lifetimes,
    split_rows,
)
from mtl_jax.data.survival.survset_files import FACTOR, NUMBER, find_table
from mtl_jax.data.survival.survset_pickle import Column, Factor
from mtl_jax.errors import UserError, did_you_mean

SKEWED = 1.0
"""The skewness from which on a number may be read on a log scale."""
SEEDS = range(5)
_SUPPORT_SCORES = ("num_surv2m", "num_surv6m")


class Recipe(NamedTuple):
    """What is made of a table.

    Attributes:
      table: its name in SurvSet.
      sha256: of the package's file.
      unit: of times.
      cause: the event.
      dropped: columns that tell the outcome; in no config.
      configs: {config: columns that it drops as well}, the default first; {} for one config.
    """

    table: str
    sha256: str
    unit: str
    cause: str
    dropped: tuple[str, ...] = ()
    configs: Mapping[str, tuple[str, ...]] = {}


RECIPES: Mapping[str, Recipe] = {
    "support2": Recipe(
        "support2",
        "07d0545efecdc168ecefc7f43bcf1b1f58d9dd9b28f38213ac176d2b7f3ab3bb",
        "day",
        "death",
        dropped=("fac_sfdm2",),
        configs={
            "default": (),
            "no_model_scores": _SUPPORT_SCORES,
            "at_entry": (*_SUPPORT_SCORES, "fac_dnr"),
        },
    ),
    "rhc": Recipe(
        "rhc",
        "8250a5f1d8d5aa3d6f1a4c2cd18c41facc70506d0c77c655fa4423582ac780e4",
        "day",
        "death",
        configs={"default": (), "no_model_scores": ("num_surv2md1",)},
    ),
    "hdfail": Recipe(
        "hdfail",
        "aa496ae2cc9aea0b6ef0d0d22a91e11b9b85a9d8e317ef678d77830965b8e497",
        "day",
        "failure",
        configs={"default": (), "at_entry": ("num_temp", "fac_rsc", "fac_rer", "fac_psc")},
    ),
    "unempdur": Recipe(
        "UnempDur",
        "e2e85cf7026042bc33b3cb9cd2ca77bf3ff8372ca396abb9cf78f05bb8cac96e",
        "fortnight",
        "job",
    ),
}


def survset_lifetimes(
    name: str,
    config: str | None = None,
    manual_dir: Path | None = None,
    report: Report = fetch.say,
) -> tuple[LifetimeSet, str]:
    """Returns a set of `RECIPES` and where its table came from.

    Args:
      name: of the set.
      config: of the recipe's; None for the default.
      manual_dir: a folder with the user's own copy of the table.
      report: called with a line for each source tried.

    Raises:
      UserError: unknown name or config, no source, or a wrong file.
    """
    if name not in RECIPES:
        raise UserError(f"unknown set {name!r}; {did_you_mean(name, RECIPES)}")
    recipe = RECIPES[name]
    if config is not None and config not in recipe.configs:
        known = did_you_mean(config, recipe.configs) if recipe.configs else "it has one"
        raise UserError(f"unknown config {config!r} of {name}; {known}")
    chosen = config or next(iter(recipe.configs), None)
    columns, origin = find_table(name, recipe.table, recipe.sha256, manual_dir, report)
    dropped = recipe.dropped + (recipe.configs[chosen] if chosen else ())
    found = table_lifetimes(
        columns,
        name=f"{name}/{chosen}" if chosen else name,
        unit=recipe.unit,
        cause=recipe.cause,
        dropped=dropped,
    )
    return found, origin


def table_lifetimes(
    columns: Mapping[str, Column],
    *,
    name: str,
    unit: str,
    cause: str,
    dropped: tuple[str, ...] = (),
) -> LifetimeSet:
    """Returns the lifetimes of a table of SurvSet, with numbers and categories only.

    Args:
      columns: by name: `event` (0 or 1), `time`, perhaps `pid`, numbers `num_*` and `fac_*`.
      name: of the set.
      unit: of times.
      cause: the event's name.
      dropped: columns to leave out, where they are there.

    Raises:
      UserError: a column that is missing, unknown or of a wrong kind; subjects of several rows.
    """
    for column in ("event", "time"):
        if column not in columns:
            raise UserError(f"{name}: no column {column!r}; it has {', '.join(columns)[:200]}")
    if "time2" in columns:
        raise UserError(f"{name}: column 'time2' says that covariates change; one row a lifetime")
    event, time = (_numbers(columns[column], name, column) for column in ("event", "time"))
    odd = np.flatnonzero((event != 0) & (event != 1))
    if len(odd):
        raise UserError(f"{name}: row {odd[0]} has event {event[odd[0]]}; it must be 0 or 1")
    if "pid" in columns and _repeats(columns["pid"]):
        raise UserError(f"{name}: some 'pid' has several rows; it must be one row a lifetime")
    numbers, categories = [], []
    for column, values in columns.items():
        if column in ("event", "time", "pid", *dropped):
            continue
        if column.startswith(NUMBER):
            found = _numbers(values, name, column)
            numbers.append(Numbers(column, found.astype(np.float32), number_scale(found)))
        elif column.startswith(FACTOR) and isinstance(values, Factor):
            categories.append(_category(column, values))
        else:
            raise UserError(f"{name}: column {column!r} is neither a number num_* nor a fac_*")
    rows = len(time)
    zeros, group = np.zeros(rows, np.float32), np.arange(rows, dtype=np.int32)
    splits = {
        f"random_{seed}" if seed else "random": split_rows("random", zeros, group, seed)
        for seed in SEEDS
    }
    time = time.astype(np.float32)
    return check_lifetimes(
        LifetimeSet(
            name=name,
            unit=unit,
            causes=(cause,),
            event=event.astype(np.int32),
            time=time,
            upper=time,
            entry=zeros,
            start=zeros,
            group=group,
            group_name="",
            weight=np.ones(rows, np.float32),
            value=zeros,
            numbers=tuple(numbers),
            categories=tuple(categories),
            texts=(),
            words=(),
            image=np.zeros((rows, 0, 0, 3), np.uint8),
            has_image=np.zeros(rows, bool),
            history_names=(),
            history=np.zeros((rows, 0, 0), np.float32),
            history_days=np.zeros(rows, np.int32),
            vectors={},
            splits=splits,
            path=np.zeros((rows, 0, 0), np.float32),
            truth={},
        ),
        name,
    )


def number_scale(values: np.ndarray) -> str:
    """Returns "log" or "linear" for a numeric column [N], NaN where not known; see the module."""
    known = np.asarray(values, np.float64)
    known = known[np.isfinite(known)]
    if not len(known) or known.min() < 0:
        return "linear"
    before, after = _skewness(known), _skewness(np.log1p(known))
    return "log" if before > SKEWED and abs(after) < before else "linear"


def _skewness(values: np.ndarray) -> float:
    away = values - values.mean()
    spread = np.sqrt((away**2).mean())
    # A constant is not skewed, though its mean may be off by the last digit.
    return float(((away / spread) ** 3).mean()) if spread > 1e-9 * np.abs(values).max() else 0.0


def _category(name: str, column: Factor) -> Category:
    """A factor with sorted levels that occur, "missing" among the unknown."""
    present = set(np.unique(column.codes).tolist())
    kept = [code for code in range(len(column.levels)) if code in present]
    kept = [code for code in kept if column.levels[code].lower() != "missing"]
    whole = all(re.fullmatch(r"-?\d+(\.\d*)?", column.levels[code]) for code in kept)
    kept.sort(key=lambda code: float(column.levels[code]) if whole else column.levels[code])
    # The last place stands for code -1.
    place = np.full(len(column.levels) + 1, MISSING, np.int32)
    place[kept] = np.arange(len(kept))
    return Category(name, tuple(column.levels[code] for code in kept), place[column.codes])


def _numbers(column: Column, name: str, label: str) -> np.ndarray:
    """A column as float64; where unknown NaN."""
    if not isinstance(column, Factor):
        try:
            return np.asarray(column, np.float64)  # None becomes NaN.
        except (ValueError, TypeError):
            pass
    raise UserError(f"{name}: column {label!r} must hold numbers")


def _repeats(column: Column) -> bool:
    values = column.codes if isinstance(column, Factor) else column
    return len(set(values.tolist())) < len(values)

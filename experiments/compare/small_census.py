"""The system of recommendation on some rows and columns: Census-Income in seconds."""

from __future__ import annotations

import dataclasses
import functools
from typing import ClassVar

import numpy as np

from mtl_jax.data.impressions import SPLITS, ImpressionSet
from mtl_jax.data.overlay import stable_permutation
from mtl_jax.systems import dtrn
from mtl_jax.systems.base import Data, System
from mtl_jax.systems.dtrn import report
from mtl_jax.systems.dtrn.builders import build_on, load
from mtl_jax.systems.dtrn.config import DataConfig

__all__ = ["Config", "build", "report"]

# None that nearly tells a label, as the household of a spouse does.
COLUMNS = (
    "age",
    "worker_class",
    "occupation",
    "education",
    "race",
    "sex",
    "capital_gains",
    "dividends",
    "employer_size",
    "weeks_worked",
)


@dataclasses.dataclass(frozen=True)
class Config(dtrn.Config):
    """As that of `systems.dtrn`."""

    system: ClassVar[str] = "experiments.compare.small_census"

    rows: tuple[int, int, int] = (16_384, 4096, 8192)
    """How many rows of train, validation and test are kept, drawn once."""
    columns: tuple[str, ...] = COLUMNS
    """Which columns are kept: each has a table, and compiling them is most of a short run."""


def build(config: Config) -> tuple[System, Data]:
    """As that of `systems.dtrn`, on fewer rows and columns."""
    config.check()
    return build_on(part(config.data, config.rows, config.columns), config)


@functools.lru_cache(maxsize=1)  # for all cells
def part(data: DataConfig, rows: tuple[int, int, int], columns: tuple[str, ...]) -> ImpressionSet:
    """Returns a set without items and histories, cut to so many rows a split and some columns."""
    found = load(data)
    places = [k for k, column in enumerate(found.columns) if column.name in columns]
    found = found._replace(
        columns=tuple(found.columns[k] for k in places), fields=found.fields[:, places]
    )
    kept, splits, first = [], {}, 0
    for split, count in zip(SPLITS, rows, strict=True):
        own = found.splits[split]
        chosen = np.sort(own[stable_permutation(len(own), 0)[:count]])
        splits[split] = np.arange(first, first + len(chosen), dtype=np.int32)
        kept.append(chosen)
        first += len(chosen)
    at = np.concatenate(kept)
    names = ("fields", "dense", "starts", "ends", "labels", "label_mask", "group", "time", "truth")
    return found._replace(splits=splits, **{name: getattr(found, name)[at] for name in names})

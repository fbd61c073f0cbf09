"""Plain tables: what is read, how it is split, and what a wrong file is told."""

from __future__ import annotations

import gzip
import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from mtl_jax.data import tabular_sets
from mtl_jax.data.tabular_sets import (
    HORIZON,
    RF1_INPUTS,
    RF1_TARGETS,
    SITES,
    YEAST_INPUTS,
    YEAST_LABELS,
    find_rf1,
    find_yeast,
    load_tabular,
    rf1_set,
    spread_split,
    yeast_set,
)
from mtl_jax.errors import UserError

YEAST_COLUMNS = (*YEAST_INPUTS, *YEAST_LABELS)
RF1_COLUMNS = (*RF1_INPUTS, *RF1_TARGETS)
NAMES = {"train": "a/train", "test": "a/test"}


def yeast_table(rows: int = 40) -> np.ndarray:
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(rows, len(YEAST_INPUTS))).round(4)
    return np.concatenate([inputs, rng.random((rows, len(YEAST_LABELS))) < 0.3], 1)


def csv_bytes(columns: tuple[str, ...], values: np.ndarray) -> bytes:
    lines = [",".join(columns)]
    lines += [",".join("" if np.isnan(v) else f"{v:g}" for v in row) for row in values]
    return ("\n".join(lines) + "\n").encode()


def flows(hours: int, seed: int) -> np.ndarray:
    """A table as RF1's: lags and targets of one series of each gauge."""
    rng = np.random.default_rng(seed)
    series = rng.normal(size=(hours + HORIZON, len(SITES))).round(3)
    table = np.full((hours, len(RF1_COLUMNS)), np.nan)
    for k, name in enumerate(RF1_COLUMNS):
        site, _, lag = name.partition("__")
        shift = HORIZON if "_48H" in name else int(lag)
        at = np.arange(hours) + shift
        column = SITES.index(site.removesuffix("_48H"))
        table[at >= 0, k] = series[at[at >= 0], column]
    return table


def parquet_bytes(columns: tuple[str, ...], values: np.ndarray) -> bytes:
    """Missing numbers are nulls here, and NaN in the package's files."""
    arrays = [pa.array(column, pa.float64(), from_pandas=True) for column in values.T]
    file = io.BytesIO()
    pyarrow.parquet.write_table(pa.table(dict(zip(columns, arrays, strict=True))), file)
    return file.getvalue()


def test_yeast_is_read_packed_or_not_whatever_the_order_of_its_columns() -> None:
    values = yeast_table()
    plain = csv_bytes(YEAST_COLUMNS, values)
    found = yeast_set(plain, "yeast.csv")
    np.testing.assert_allclose(found.inputs, values[:, :103], rtol=1e-6)
    np.testing.assert_array_equal(found.labels, values[:, 103:])
    assert (found.kind, found.present) == ("binary", ())
    other = csv_bytes(YEAST_COLUMNS[::-1], values[:, ::-1])
    for data in (gzip.compress(plain), other):
        again = yeast_set(data, "yeast.csv")
        np.testing.assert_array_equal(again.inputs, found.inputs)
        np.testing.assert_array_equal(again.labels, found.labels)


def test_the_split_is_whole_and_spreads_every_class() -> None:
    rng = np.random.default_rng(1)
    labels = (rng.random((1000, 5)) < [0.02, 0.1, 0.3, 0.6, 0.9]).astype(float)
    parts = spread_split(labels, "here")
    assert [len(parts[split]) for split in tabular_sets.SPLITS] == [600, 200, 200]
    np.testing.assert_array_equal(np.sort(np.concatenate(list(parts.values()))), np.arange(1000))
    rare = labels[:, 0].sum()
    assert abs(labels[parts["train"], 0].sum() - 0.6 * rare) <= 2
    assert abs(labels[parts["test"], 0].sum() - 0.2 * rare) <= 2
    for rows in parts.values():
        np.testing.assert_allclose(labels[rows].mean(0), labels.mean(0), atol=0.05)
    again = spread_split(labels, "here")
    for split, rows in parts.items():
        np.testing.assert_array_equal(again[split], rows)


def test_rf1_keeps_the_order_of_time_and_no_training_target_reaches_validation() -> None:
    tables = {"train": flows(300, 0), "test": flows(100, 1)}
    found = rf1_set({part: csv_bytes(RF1_COLUMNS, t) for part, t in tables.items()}, NAMES)
    split = found.splits
    np.testing.assert_array_equal(split["validation"], np.arange(240, 300))
    np.testing.assert_array_equal(split["test"], np.arange(300, 400))
    np.testing.assert_array_equal(split["train"], np.arange(240 - HORIZON))
    # The last training target is the flow of the hour before the first validation row.
    assert found.present == tuple(range(8))
    np.testing.assert_array_equal(
        found.labels[split["train"][-1]], found.inputs[split["validation"][0] - 1, :8]
    )
    both = np.concatenate(list(tables.values()))
    np.testing.assert_allclose(found.inputs, both[:, :64], rtol=1e-6)
    assert np.isnan(found.inputs[0]).sum() == 56
    packed = {part: parquet_bytes(RF1_COLUMNS, table) for part, table in tables.items()}
    again = rf1_set(packed, NAMES)
    np.testing.assert_array_equal(again.inputs, found.inputs)
    np.testing.assert_array_equal(again.labels, found.labels)


def test_sets_are_prepared_and_read_back(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    (raw / "yeast.csv.gz").write_bytes(gzip.compress(csv_bytes(YEAST_COLUMNS, yeast_table())))
    for part, hours in (("train", 300), ("test", 60)):
        data = parquet_bytes(RF1_COLUMNS, flows(hours, hours))
        (raw / f"rf1_{part}.parquet.brotli").write_bytes(data)
    for name, find in (("yeast", find_yeast), ("rf1", find_rf1)):
        want, origin = find(raw)
        assert origin == str(raw)
        found = load_tabular(name, tmp_path / "sets", raw)
        assert (found.kind, found.present) == (want.kind, want.present)
        assert (found.input_names, found.task_names) == (want.input_names, want.task_names)
        for split, rows in want.splits.items():
            own = found.splits[split]
            np.testing.assert_array_equal(found.inputs[own], want.inputs[rows])
            np.testing.assert_array_equal(found.labels[own], want.labels[rows])


def test_without_a_source_the_line_says_what_to_bring(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no source has yeast here.* river: .*with yeast\.csv or"):
        find_yeast(report=lambda line: None)
    with pytest.raises(UserError, match=r"no rf1_train\.parquet\.brotli in it; give a folder"):
        find_rf1(tmp_path)


def broken_yeast(cell: str, column: str, row: int = 2) -> bytes:
    lines = csv_bytes(YEAST_COLUMNS, yeast_table()).decode().splitlines()
    cells = lines[row - 1].split(",")
    cells[YEAST_COLUMNS.index(column)] = cell
    lines[row - 1] = ",".join(cells)
    return "\n".join(lines).encode()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (csv_bytes(YEAST_COLUMNS[:-1], yeast_table()[:, :-1]), r"y\.csv: no column 'Class14'"),
        (broken_yeast("2", "Class3", 7), r"y\.csv, line 7: Class3 is 2, expected 0 or 1"),
        (broken_yeast("", "Class3"), r"y\.csv, line 2: Class3 is missing, expected 0 or 1"),
        (broken_yeast("high", "Att5", 4), r"line 4: Att5 is 'high', expected a number"),
        (broken_yeast("inf", "Att5", 4), r"line 4: Att5 is inf, expected a finite number"),
        (broken_yeast("1,2", "Att5", 3), r"line 3: 118 cells, the header has 117"),
        (csv_bytes(YEAST_COLUMNS, yeast_table()[:0]), r"y\.csv: no rows"),
        (csv_bytes(YEAST_COLUMNS, yeast_table(4)), r"4 rows; 5 or more are needed"),
        (b"", r"y\.csv: empty"),
        (b"\x1f\x8b\x08damaged", r"y\.csv: damaged gzip file"),
        (b"\xff\xfe\x00a", r"y\.csv: not a CSV file in UTF-8"),
    ],
)
def test_a_wrong_yeast_file_is_told_in_one_line(data: bytes, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        yeast_set(data, "y.csv")
    assert "\n" not in str(caught.value)


def test_a_wrong_rf1_file_is_told_in_one_line() -> None:
    good = parquet_bytes(RF1_COLUMNS, flows(100, 0))
    texts = pa.table({name: ["a"] for name in RF1_COLUMNS})
    file = io.BytesIO()
    pyarrow.parquet.write_table(texts, file)
    for train, message in (
        (good[:200] + b"PAR1", "a/train: not a readable parquet file"),
        (parquet_bytes(RF1_COLUMNS[1:], flows(100, 0)[:, 1:]), "a/train: no column 'CHSI2__0'"),
        (file.getvalue(), "a/train: column CHSI2__0 holds string, not numbers"),
        (parquet_bytes(RF1_COLUMNS, flows(60, 0)), "a/train: 60 rows; 48 hours are kept free"),
    ):
        with pytest.raises(UserError, match=message) as caught:
            rf1_set({"train": train, "test": good}, NAMES)
        assert "\n" not in str(caught.value)

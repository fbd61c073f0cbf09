"""Tables of the user's: what comes out of one, in which ways it may be written, and bad cells."""

import bz2
import csv
import dataclasses
import gzip
import io
import lzma
import zipfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from PIL import Image

from mtl_jax.data import __main__ as cli
from mtl_jax.data.lifetimes import MISSING, SPLITS
from mtl_jax.data.lifetimes_io import load_lifetimes
from mtl_jax.data.prepare import status
from mtl_jax.data.survival import table_files
from mtl_jax.data.survival.table import load_table, table_lifetimes
from mtl_jax.data.survival.table import table_files as files_of
from mtl_jax.data.survival.table_files import read_blocks, read_header
from mtl_jax.data.survival.table_loading import load_file
from mtl_jax.data.survival.table_options import TableOptions, check_options
from mtl_jax.errors import UserError

ROWS = 60


def make_table(rows=ROWS, seed=0):
    """Columns of every kind, as texts; event times are whole or not."""
    rng = np.random.default_rng(seed)
    time = np.round(rng.uniform(0.5, 9, rows) * 4) / 4
    event = rng.integers(0, 2, rows)
    columns = {
        "time": [f"{t:g}" for t in time],
        "event": [str(e) for e in event],
        "cause": [rng.choice(["cut", "wear"]) if e else "" for e in event],
        "upper": [f"{t + 1.5:g}" if e else "" for t, e in zip(time, event, strict=True)],
        "entry": ["" if k % 3 else f"{time[k] / 2:g}" for k in range(rows)],
        "start": [f"2024-01-{1 + k % 28:02d}" for k in range(rows)],
        "group": [f"g{k % 12}" for k in range(rows)],
        "weight": [f"{w:.3f}" for w in rng.uniform(0.5, 2, rows)],
        "value": ["" if k % 5 == 0 else str(k) for k in range(rows)],
        "num_age": [
            "NA" if k % 7 == 0 else f"{x:.4f}" for k, x in enumerate(rng.normal(size=rows))
        ],
        "num_spend": [f"{x:.3f}" for x in rng.lognormal(size=rows)],
        "cat_site": [rng.choice(["a", "b, with comma", ""]) for _ in range(rows)],
        "cat_size": [str(rng.choice([2, 10, 1])) for _ in range(rows)],
        "text_title": [f"Hello {'world ' * (k % 4)}{k}" for k in range(rows)],
        "text_body": [f'say "{k}"\nand more' for k in range(rows)],
        "comment": ["not used"] * rows,
    }
    for day in range(1, 4):
        given = [day <= 1 + k % 3 for k in range(rows)]
        for amount in ("shown", "clicks"):
            columns[f"history_{amount}_{day}"] = [
                str(100 * day + k + (amount == "clicks")) if g else "" for k, g in enumerate(given)
            ]
    return columns


def as_csv(columns, delimiter=","):
    out = io.StringIO(newline="")
    writer = csv.writer(out, delimiter=delimiter)
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))
    return out.getvalue()


def write(folder, columns, name="t.csv"):
    path = folder / name
    path.write_text(as_csv(columns, "\t" if ".tsv" in name else ","), newline="")
    return path


def read(path, report=lambda line: None, **changes):
    return table_lifetimes(TableOptions(path=str(path), **changes), report=report)[0]


def assert_same(one, other):
    """The same in everything but the name."""
    for field in one._fields:
        a, b = getattr(one, field), getattr(other, field)
        if field in ("numbers", "categories", "texts"):
            for x, y in zip(a, b, strict=True):
                for part in x._fields:
                    np.testing.assert_array_equal(getattr(x, part), getattr(y, part))
        elif field in ("splits", "vectors", "truth"):
            assert list(a) == list(b)
            for key, values in a.items():
                np.testing.assert_equal(dict(values) if field == "splits" else values, b[key])
        elif field != "name":
            np.testing.assert_array_equal(a, b)


@pytest.fixture
def path(tmp_path):
    return write(tmp_path, make_table())


def test_every_kind_of_column(path):
    said = []
    found = read(path, said.append, log_numbers=("num_spend",))
    columns = make_table()
    assert found.unit == "day"
    assert found.causes == ("cut", "wear")
    want = [("", "cut", "wear").index(cause) for cause in columns["cause"]]
    np.testing.assert_array_equal(found.event, want)
    time = np.array(columns["time"], np.float32)
    np.testing.assert_array_equal(found.time, time)
    np.testing.assert_array_equal(found.upper, np.where(found.event > 0, time + 1.5, time))
    np.testing.assert_array_equal(found.entry, np.where(np.arange(ROWS) % 3, 0, time / 2))
    np.testing.assert_array_equal(found.start, np.arange(ROWS) % 28)
    assert found.group_name == "group"
    np.testing.assert_array_equal(found.group, found.group[np.arange(ROWS) % 12])
    assert len(set(found.group.tolist())) == 12
    np.testing.assert_array_equal(found.weight, np.array(columns["weight"], np.float32))
    np.testing.assert_array_equal(found.value, np.arange(ROWS) * (np.arange(ROWS) % 5 > 0))
    age, spend = found.numbers
    assert (age.name, age.scale, spend.scale) == ("num_age", "linear", "log")
    np.testing.assert_array_equal(np.isnan(age.values), np.arange(ROWS) % 7 == 0)
    np.testing.assert_array_equal(spend.values, np.array(columns["num_spend"], np.float32))
    site, size = found.categories
    assert site.levels == ("a", "b, with comma")
    assert size.levels == ("1", "2", "10")  # In order as numbers.
    want = [MISSING if not cell else site.levels.index(cell) for cell in columns["cat_site"]]
    np.testing.assert_array_equal(site.codes, want)
    title, body = found.texts
    for row in (0, 3, 7):
        own = [found.words[place] for place in title.words[row] if place]
        assert own == ["hello", *["world"] * (row % 4), str(row)]
        assert [found.words[p] for p in body.words[row] if p] == ["say", str(row), "and", "more"]
    assert found.history_names == ("shown", "clicks")
    assert found.history.shape == (ROWS, 3, 2)
    whole = np.where(found.event > 0, np.ceil(time) - 1, np.floor(time))
    np.testing.assert_array_equal(found.history_days, np.minimum(whole, 1 + np.arange(ROWS) % 3))
    for day in range(3):
        seen = found.history_days > day
        shown = np.where(seen, 100 * (day + 1) + np.arange(ROWS), 0)
        np.testing.assert_array_equal(found.history[:, day, 0], shown)
        np.testing.assert_array_equal(found.history[:, day, 1], shown + seen)
    assert tuple(found.splits) == ("group", "random", "time")
    assert [line for line in said if "not used: comment;" in line]


def packed_zip(data):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("__MACOSX/t.csv", "")
        archive.writestr("readme.txt", "about")
        archive.writestr("folder/t.csv", data)
    return out.getvalue()


@pytest.mark.parametrize(
    ("suffix", "pack"),
    [(".gz", gzip.compress), (".bz2", bz2.compress), (".xz", lzma.compress)],
)
def test_packed_tables(tmp_path, path, suffix, pack):
    other = tmp_path / f"u.csv{suffix}"
    other.write_bytes(pack(path.read_bytes()))
    assert_same(read(other), read(path))
    other.write_bytes(pack(path.read_bytes())[:-20])
    with pytest.raises(UserError, match=f"u.csv{suffix}: .*damaged or cut off"):
        read(other)


def test_other_ways_to_write_the_same_table(tmp_path, path, monkeypatch):
    want, columns = read(path), make_table()
    texts = {"tabs": write(tmp_path, columns, "u.tsv")}
    (tmp_path / "v.txt").write_text("\ufeff" + as_csv(columns, ";"), "utf-8", newline="")
    assert_same(read(tmp_path / "v.txt", delimiter=";"), want)
    (tmp_path / "w.zip").write_bytes(packed_zip(path.read_bytes()))
    texts["zip"] = tmp_path / "w.zip"
    first = {name: cells[:25] for name, cells in columns.items()}
    second = {name: columns[name][25:] for name in reversed(columns)}
    write(tmp_path, first, "part-1.csv")
    write(tmp_path, second, "part-2.csv")
    texts["parts, columns in another order"] = tmp_path / "part-*.csv"
    renamed = {"": list("x" * ROWS), **columns}  # An index without a name, as some tools write.
    texts["index"] = write(tmp_path, renamed, "index.csv")
    for other in texts.values():
        assert_same(read(other), want)
    monkeypatch.setattr(table_files, "ROWS", 7)
    assert_same(read(path), want)


def test_parquet_with_types(tmp_path, path):
    columns = make_table()
    typed = {}
    for name, cells in columns.items():
        known = [cell if cell not in ("", "NA") else None for cell in cells]
        if name in ("start", "group", "cause") or name.startswith(("cat", "text", "comment")):
            typed[name] = pa.array(known)
        elif name == "event":
            typed[name] = pa.array([cell == "1" for cell in cells])
        else:
            typed[name] = pa.array([None if cell is None else float(cell) for cell in known])
    typed["start"] = pa.array(np.array(columns["start"], "datetime64[D]"))
    pyarrow.parquet.write_table(pa.table(typed), tmp_path / "t.parquet")
    assert_same(read(tmp_path / "t.parquet"), read(path))
    typed["num_age"] = pa.array([[1.0]] * ROWS)
    pyarrow.parquet.write_table(pa.table(typed), tmp_path / "bad.parquet")
    with pytest.raises(UserError, match=r"column 'num_age' is of type list.*write it as numbers"):
        read(tmp_path / "bad.parquet")
    typed["num_age"] = pa.array(["x"] * ROWS)
    pyarrow.parquet.write_table(pa.table(typed), tmp_path / "worse.parquet")
    with pytest.raises(UserError, match=r"worse.parquet, row 1, column 'num_age': 'x'; it must be"):
        read(tmp_path / "worse.parquet")
    (tmp_path / "no.parquet").write_text("time,event\n1,1\n")
    with pytest.raises(UserError, match=r"no.parquet: not parquet"):
        read(tmp_path / "no.parquet")


def test_columns_may_be_called_otherwise(tmp_path):
    rows = 30
    columns = {
        "days": [str(k + 1) for k in range(rows)],
        "died": ["True" if k % 2 else "False" for k in range(rows)],
        "weight": [str(50 + k % 5) for k in range(rows)],
        "num_x": [str(k % 3) for k in range(rows)],
        "num_y": [str(k % 4) for k in range(rows)],
        "income": [str(k % 6) for k in range(rows)],
        "hospital": [f"h{k % 6}" for k in range(rows)],
        "seen_1": ["1"] * rows,
    }
    path = write(tmp_path, columns)
    found = read(
        path,
        time="days",
        event="died",
        group="hospital",
        numbers=("num*", "weight"),
        log_numbers=("income",),
        categories=("num_y",),
        histories=("seen*",),
        drop=("num_x",),
        causes=("death",),
        unit="month",
        splits=("random", "group"),
        fractions=(0.5, 0.3),
    )
    assert [(n.name, n.scale) for n in found.numbers] == [("weight", "linear"), ("income", "log")]
    assert [c.name for c in found.categories] == ["num_y"]
    assert (found.unit, found.causes, found.history_names) == ("month", ("death",), ("seen",))
    np.testing.assert_array_equal(found.weight, 1)  # A name in a list goes before a default.
    np.testing.assert_array_equal(found.event, np.arange(rows) % 2)
    assert list(found.splits) == ["random", "group"]
    assert [len(found.splits["random"][s]) for s in SPLITS] == [15, 9, 6]


def test_a_split_that_is_given(tmp_path):
    columns = {
        "time": [str(k % 9 + 1) for k in range(30)],
        "event": ["1", "0", "2"] * 10,
        "split": ["train"] * 10 + ["Val"] * 10 + ["test"] * 10,
        "start": [str(k // 10) for k in range(30)],
    }
    found = read(write(tmp_path, columns), causes=("cut", "wear"))
    assert next(iter(found.splits)) == "given"
    np.testing.assert_array_equal(found.splits["given"]["validation"], np.arange(10, 20))
    np.testing.assert_array_equal(found.event, np.tile([1, 0, 2], 10))
    np.testing.assert_array_equal(found.start, np.repeat([0, 1, 2], 10))
    columns["split"][3] = "tset"
    with pytest.raises(UserError, match="line 5, column 'split': 'tset'; did you mean 'test'"):
        read(write(tmp_path, columns), causes=("cut", "wear"))


def test_ways_to_split_that_cannot_be(tmp_path):
    columns = {"time": ["1"] * 12, "event": ["1"] * 12, "group": ["a", "b"] * 6}
    said = []
    found = read(write(tmp_path, columns), said.append)
    assert list(found.splits) == ["random"]
    assert any("'group' of 12 rows leaves" in line and "left out" in line for line in said)
    with pytest.raises(UserError, match="split 'group' of 12 rows leaves"):
        read(write(tmp_path, columns), splits=("group",))
    with pytest.raises(UserError, match="splits has 'time', but no column start is there"):
        read(write(tmp_path, columns), splits=("time",))


def test_images(tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "img").mkdir()
    plain = rng.integers(0, 256, (16, 16, 3)).astype(np.uint8)
    Image.fromarray(plain).save(tmp_path / "img" / "a.png")
    clear = np.zeros((8, 8, 4), np.uint8)
    Image.fromarray(clear).save(tmp_path / "img" / "clear.png")
    Image.fromarray(plain[..., 0]).save(tmp_path / "img" / "grey.png")
    columns = {
        "time": ["1"] * 12,
        "event": ["1"] * 12,
        "image_path": ["img/a.png", "", "img/clear.png", str(tmp_path / "img" / "grey.png")] * 3,
    }
    path = write(tmp_path, columns)
    found = read(path, image_size=16)
    assert found.image.shape == (12, 16, 16, 3)
    np.testing.assert_array_equal(found.has_image, [True, False, True, True] * 3)
    np.testing.assert_array_equal(found.image[0], plain)
    np.testing.assert_array_equal(found.image[1], 0)
    np.testing.assert_array_equal(found.image[2], 255)  # What is transparent becomes white.
    np.testing.assert_array_equal(found.image[3], np.repeat(plain[..., :1], 3, 2))
    options = TableOptions(path=str(path), image_size=8)
    assert {p.name for p in files_of(options)} == {"t.csv", "a.png", "clear.png", "grey.png"}
    (tmp_path / "img" / "a.png").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"line 2, column 'image_path': .*a.png is not a readable"):
        read(path)
    columns["image_path"][1] = "img/b.png"
    with pytest.raises(UserError, match=r"line 3, column 'image_path': 'img/b.png'; there is no"):
        read(write(tmp_path, columns))
    columns["image_path"][0] = "https://a/b.png"
    with pytest.raises(UserError, match=r"line 2, .*it must be a file here: fetch the images"):
        read(write(tmp_path, columns))


def test_vectors_from_elsewhere(tmp_path, path):
    rng = np.random.default_rng(0)
    vectors = tmp_path / "v.npz"
    good = {"text_emb": rng.normal(size=(ROWS, 4)), "codes": np.ones((ROWS, 2), np.int64)}
    np.savez(vectors, **good)
    found = read(path, vectors=str(vectors))
    np.testing.assert_array_equal(found.vectors["text_emb"], good["text_emb"].astype(np.float32))
    assert found.vectors["codes"].dtype == np.float32
    for bad, message in (
        ({"a": np.zeros((ROWS - 1, 3))}, r"'a' has shape \[59, 3\] .*it must be \[60, d\]"),
        ({"a": np.zeros(ROWS)}, r"'a' has shape \[60\]"),
        ({"a": np.full((ROWS, 2), np.nan)}, "'a' has a value that is not finite in row 0"),
        ({"a": np.full((ROWS, 2), "x")}, "it must be .* numbers"),
        ({}, "holds no array"),
    ):
        np.savez(vectors, **bad)
        with pytest.raises(UserError, match=message):
            read(path, vectors=str(vectors))
    vectors.write_bytes(b"PK")
    with pytest.raises(UserError, match=r"not an .npz file"):
        read(path, vectors=str(vectors))
    with pytest.raises(UserError, match=r"vectors = 'none.npz'; there is no such file"):
        read(path, vectors="none.npz")


@pytest.mark.parametrize(
    ("column", "cell", "message"),
    [
        ("time", "-1", "column 'time': '-1'; it must be 0 or more"),
        ("time", "", "column 'time': ''; a number must be given in every row"),
        ("time", "nan", "column 'time': 'nan'; a number must be given in every row"),
        ("time", "inf", "column 'time': 'inf'; it must be finite"),
        ("time", "1e39", "column 'time': '1e39'; it must be finite"),
        ("time", "3 days", "column 'time': '3 days'; it must be a number"),
        ("event", "2", r"column 'event': '2'; it must be 1 \(the event was seen\) or 0"),
        ("event", "", "column 'event': ''; it must be 1"),
        ("cause", "", "column 'cause': ''; an event needs a cause"),
        ("upper", "0.01", "column 'upper': '0.01'; it must not be before the row's time, "),
        ("entry", "99", "column 'entry': '99'; it must be before the row's time, "),
        ("entry", "-2", "column 'entry': '-2'; it must be 0 or more"),
        ("start", "2024-13-01", "column 'start': '2024-13-01'; it must be a date as"),
        ("start", "", "column 'start': ''; a date must be given in every row"),
        ("group", "", "column 'group': ''; a group must be given in every row"),
        ("weight", "0", "column 'weight': '0'; it must be above 0"),
        ("weight", "-inf", "column 'weight': '-inf'; it must be finite"),
        ("num_age", "ten", "column 'num_age': 'ten'; it must be a number"),
        ("num_spend", "-3", "column 'num_spend': '-3'; it must be 0 or more"),
        ("history_shown_2", "x", "column 'history_shown_2': 'x'; it must be a number"),
    ],
)
def test_one_bad_cell_is_told_with_its_line(tmp_path, column, cell, message):
    columns = make_table()
    index = next(k for k in range(5, ROWS) if columns["event"][k] == "1")
    columns[column][index] = cell
    # Two lines a row: the text has a line end. The header is line 1.
    with pytest.raises(UserError, match=rf"t.csv, line {2 + 2 * index}, {message}") as error:
        read(write(tmp_path, columns), log_numbers=("num_spend",))
    assert "\n" not in str(error.value)


def test_censored_rows_have_neither_cause_nor_interval(tmp_path):
    for column, cell, message in (
        ("cause", "cut", "the row is censored: leave its cause empty"),
        ("upper", "1000", "the row is censored at .*: leave upper empty"),
    ):
        columns = make_table()
        columns[column][columns["event"].index("0")] = cell
        with pytest.raises(UserError, match=f"column '{column}': '{cell}'; {message}"):
            read(write(tmp_path, columns))
    columns = make_table()
    columns["cause"][columns["cause"].index("cut")] = "cutt"
    with pytest.raises(UserError, match="'cutt'; not among causes; did you mean 'cut'"):
        read(write(tmp_path, columns), causes=("wear", "cut"))


def test_history_must_be_without_gaps(tmp_path):
    for column, cell, message in (
        ("history_shown_2", "", "'history_shown_2' of the day before is empty"),
        ("history_clicks_3", "", "'history_shown_3' of the same day is given"),
    ):
        columns = make_table()
        columns[column][2] = cell  # Row 2 has all three days.
        with pytest.raises(UserError, match=f"line 6, .*{message}"):
            read(write(tmp_path, columns))
    columns = make_table()
    columns["history_clicks_2"][0] = "5"  # Row 0 has the first day only.
    with pytest.raises(UserError, match="'history_shown_2' of the same day is not"):
        read(write(tmp_path, columns))
    for name, message in (
        ("history_clicks_5", "'shown' lacks day 4; every amount needs days 1 to 5"),
        ("history_clicks_0", "'history_clicks_0' is of day 0; the first day is 1"),
        ("history_clicks", "'history_clicks' does not say its day"),
        ("history_clicks_02", "'history_clicks_2' and 'history_clicks_02' are the same day"),
    ):
        with pytest.raises(UserError, match=message):
            read(write(tmp_path, make_table() | {name: ["1"] * ROWS}))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "t.csv is empty; a first line with the names"),
        ("time,event\n", "t.csv holds no row"),
        ("time,evnt\n1,1\n", "no column 'event'; did you mean 'evnt'"),
        ("time,event,time\n1,1,1\n", "column 'time' is there twice"),
        ("time,event\n1,1\n2\n", "line 3: 1 cells, but 2 columns have names"),
        ("time,event\n1,1\n\n2,1,\n", "line 4: 3 cells, but 2 columns have names"),
        ('time,event\n1,1\n2,"1\n3,1\n', "line 3: a quote that begins in this row is never closed"),
        ('time,event\n1,1\n"2"2,1\n', "line 3: not CSV"),
    ],
)
def test_files_that_are_no_tables(tmp_path, text, message):
    path = tmp_path / "t.csv"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        read(path)


def test_files_that_cannot_be_read(tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes(b"time,event\n1,1\n2,\xff\n")
    with pytest.raises(UserError, match=r"t.csv.*not UTF-8"):
        read(path)
    with pytest.raises(UserError, match=r"no file .*none.csv"):
        read(tmp_path / "none.csv")
    with pytest.raises(UserError, match="path is empty"):
        read("")
    with pytest.raises(UserError, match="no file"):
        read_header(tmp_path / "none.csv")
    path = tmp_path / "t.zip"
    path.write_bytes(b"no archive")
    with pytest.raises(UserError, match=r"t.zip: the archive is damaged"):
        read(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.csv", "x")
        archive.writestr("b.csv", "x")
    with pytest.raises(UserError, match=r"t.zip holds several tables"):
        read(path)
    first = write(tmp_path, {"time": ["1"] * 9, "event": ["1"] * 9, "num_x": ["1"] * 9}, "a-1.csv")
    write(tmp_path, {"time": ["1"], "event": ["1"]}, "a-2.csv")
    with pytest.raises(UserError, match=r"a-2.csv: column 'num_x' is in some files only"):
        read(first.with_name("a-*.csv"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"time": ""}, "time = ''; name the column"),
        ({"time": "a", "event": "a"}, "column 'a' is named as time and as event"),
        ({"numbers": ("a",), "texts": ("a",)}, "column 'a' is named as numbers and as texts"),
        ({"texts": ("a",), "log_numbers": ("a",)}, "named as texts and as log_numbers"),
        ({"unit": "days"}, "unit = 'days'; did you mean 'day'"),
        ({"max_words": 0}, "max_words = 0; it must be 1.."),
        ({"image_size": 2}, "image_size = 2; it must be 4.."),
        ({"splits": ("tiem",)}, "splits: 'tiem' is none; did you mean 'time'"),
        ({"splits": ("time", "time")}, "give each a name of its own, once"),
        ({"fractions": (0.8, 0.2)}, "leave something for test"),
        ({"delimiter": "::"}, "it must be one character"),
        ({"numbers": ("",)}, "numbers holds an empty name"),
        ({"numbers": ("agee",)}, "no column 'agee'; did you mean 'age'"),
        ({"group": "hospitl"}, "no column 'hospitl'; did you mean 'hospital'"),
    ],
)
def test_options_that_are_wrong(tmp_path, change, message):
    path = write(
        tmp_path,
        {"time": ["1"] * 9, "event": ["1"] * 9, "age": ["1"] * 9, "hospital": ["1"] * 9},
    )
    with pytest.raises(UserError, match=message):
        read(path, **change)


def test_lists_may_repeat_between_numbers_and_log_numbers():
    check_options(TableOptions(numbers=("a", "b"), log_numbers=("b",)))


def test_columns_that_tell_the_outcome_are_named(tmp_path):
    rng = np.random.default_rng(0)
    rows = 80
    time = rng.uniform(1, 9, rows)
    event = np.arange(rows) % 2
    columns = {
        "time": [str(t) for t in time],
        "event": [str(e) for e in event],
        "num_copy": [str(np.exp(t) if e else 1.0) for t, e in zip(time, event, strict=True)],
        "num_fine": [str(t + 9 * rng.normal()) for t in time],
        "num_reason": ["3" if e else "" for e in event],
        "cat_reason": [f"r{rng.integers(3)}" if e else "running" for e in event],
        "cat_fine": [f"r{rng.integers(3)}" for e in event],
        "num_constant": ["1"] * rows,
    }
    said = []
    read(write(tmp_path, columns), said.append)
    assert len(said) == 4
    assert "number 'num_copy' ranks events as their time does (rank correlation 1.000)" in said[0]
    assert "column 'num_copy' has one value in all censored rows" in said[1]
    assert "column 'num_reason' has one value in all events rows" in said[2]
    assert "column 'cat_reason' has one value in all censored rows" in said[3]


def test_a_misspelt_column_is_hinted_at(tmp_path):
    said = []
    columns = {"time": ["1"] * 9, "event": ["1"] * 9, "wieght": ["1"] * 9}
    read(write(tmp_path, columns), said.append)
    assert "'wieght' may be meant as 'weight'" in said[0]


def test_prepared_once_and_read_back(tmp_path, path, capsys, monkeypatch):
    options = TableOptions(path=str(path), max_words=3)
    found = load_table(options, tmp_path / "sets")
    assert_same(found, read(path, max_words=3))
    first = capsys.readouterr().err
    assert "building" in first
    assert_same(load_table(options, tmp_path / "sets"), found)
    copy = tmp_path / "elsewhere.csv"  # The same contents in another place are the same set.
    copy.write_bytes(path.read_bytes())
    assert_same(load_file("table", str(copy), options, tmp_path / "sets"), found)
    assert "building" not in capsys.readouterr().err
    assert found.texts[0].words.shape[1] == 3
    whole = next(name for name in status(tmp_path / "sets") if name.startswith("table/default-"))
    assert_same(load_lifetimes(whole, tmp_path / "sets"), found)
    load_table(dataclasses.replace(options, max_words=4), tmp_path / "sets")
    assert "building" in capsys.readouterr().err
    with pytest.raises(UserError, match="unknown kind of file 'tabel'; did you mean 'table'"):
        load_file("tabel", str(path))


def test_the_command_line_knows_the_sets(tmp_path, capsys):
    folder = tmp_path / "mine"
    folder.mkdir()
    write(folder, make_table(), "mine.csv")
    data = ["--data-dir", str(tmp_path / "sets")]
    cli.main(["prepare", "table", "--manual-dir", str(folder), *data])
    assert "table: whole in" in capsys.readouterr().out
    cli.main(["list", *data])
    listed = capsys.readouterr().out
    for name in ("snap_ads", "google_ads", "meta_ads", "petfinder"):
        assert f"{name}/default: " in listed
    assert "mine.csv (60 rows)" in listed
    write(folder, make_table(), "other.csv")
    with pytest.raises(UserError, match=r"holds several tables \(mine.csv, other.csv\)"):
        cli.main(["prepare", "table", "--manual-dir", str(folder), *data])
    with pytest.raises(UserError, match=r"give --manual-dir a folder with one .csv"):
        cli.main(["prepare", "table", "--data-dir", str(tmp_path / "empty")])


def test_a_table_is_read_in_blocks(tmp_path, monkeypatch):
    path = write(tmp_path, make_table(50))
    monkeypatch.setattr(table_files, "ROWS", 8)
    blocks = list(read_blocks(path, ["time"]))
    assert [len(block.numbers) for block in blocks] == [8] * 6 + [2]
    assert blocks[1].where(0, "time") == f"{path}, line {2 + 2 * 8}, column 'time'"
    assert list(blocks[0].cells) == ["time"]

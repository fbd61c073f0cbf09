"""How labels and times are named in options, and every mistake in options or files as one line."""

from __future__ import annotations

import dataclasses
import gzip

import numpy as np
import pyarrow as pa
import pytest

from mtl_jax.data.event_logs.loading import load_event_log
from mtl_jax.data.event_logs.options import make_plan
from mtl_jax.data.event_logs.presets import preset
from mtl_jax.data.event_logs.tasks import Task, parse_tasks
from mtl_jax.data.event_logs.times import bound, make_clock, read_times, source_unit
from mtl_jax.errors import UserError
from tests.data.recommendation.fixtures import log_options, random_log, write_log

BITS = {"click": 1, "buy": 2, "fav": 4, "cart": 8}


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("buy:0d", Task("buy", 2, 1, "day", 0, 0)),
        ("buy:3d", Task("buy", 2, 1, "day", 0, 3)),
        ("revisit:1-7d", Task("revisit", 15, 1, "day", 1, 7)),
        ("cart:24h", Task("cart", 8, 1, "time", 0, 86_400_000)),
        ("saved:fav+cart:1-5m", Task("saved", 12, 1, "time", 60_000, 300_000)),
        ("deep:click>=3:0d", Task("deep", 1, 3, "day", 0, 0)),
        ("often:any>=2:10s", Task("often", 15, 2, "time", 0, 10_000)),
        ("buy:row", Task("buy", 2, 1, "row", 0, 0)),
    ],
)
def test_what_a_task_means(text, want):
    assert parse_tasks([text], BITS, make_clock("ms", 0)) == [want]


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ((), "name at least one label"),
        (("buy",), "write NAME:WINDOW"),
        (("buy:fav:0d:1d",), "write NAME:WINDOW"),
        (("bye:0d",), r"no behaviour is called 'bye'; did you mean 'buy'"),
        (("x:fav+chart:0d",), r"no behaviour is called 'chart'"),
        (("buy:7-1d",), "'7-1d' ends before it begins"),
        (("buy:0h",), "'0h' ends before it begins"),
        (("buy:1w",), "the window '1w' is not"),
        (("buy:-1d",), "the window '-1d' is not"),
        (("deep:click>=0:0d",), "is always true"),
        (("deep:click>=2:row",), "takes no >="),
        (("deep:click=>2:0d",), "no behaviour is called 'click=>2'"),
        (("buy:0d", "buy:1d"), "'buy' is given twice"),
    ],
)
def test_tasks_that_say_nothing(texts, message):
    with pytest.raises(UserError, match=message) as caught:
        parse_tasks(texts, BITS, make_clock("s", 0))
    assert "\n" not in str(caught.value)


def test_hours_mean_nothing_in_a_log_by_the_day():
    with pytest.raises(UserError, match="this log knows days only"):
        parse_tasks(["buy:24h"], BITS, make_clock("day", 0))


def test_days_are_local():
    clock = make_clock("s", 8)
    # 2017-11-24 16:00 UTC is midnight in UTC+8.
    midnight = 1_511_539_200
    assert bound("2017-11-25", clock, end=False, what="") == midnight
    assert bound("2017-11-25", clock, end=True, what="") == midnight + 86_399
    assert bound("2017-11-25T01:30", clock, end=True, what="") == midnight + 5_400
    assert bound("77", clock, end=True, what="") == 77
    days = clock.day_of(np.array([midnight - 1, midnight]))
    assert np.diff(days) == 1
    assert clock.start_of(days[1]) == midnight


@pytest.mark.parametrize(
    ("values", "time_unit", "unit", "want"),
    [
        (["0", "86400"], "s", "s", [0, 86_400]),
        (["57599", "57600"], "s", "day", [0, 1]),  # UTC+8
        (["1999"], "ms", "s", [1]),
        (["2014-05-11 08:00:01"], "%Y-%m-%d %H:%M:%S", "s", [1_399_766_401]),
        (["20140511"], "%Y%m%d", "day", [16_201]),
        (["511", "0512", "1112"], "mmdd", "day", [16_201, 16_202, 16_386]),
        ([5, 6], "day", "day", [5, 6]),
    ],
)
def test_times_in_many_forms(values, time_unit, unit, want):
    found = read_times(pa.array(values), time_unit, 8, unit, str)
    assert found.tolist() == want
    assert source_unit(time_unit) in ("day", "s", "ms")


@pytest.mark.parametrize(
    ("values", "time_unit", "message"),
    [
        (["1", "x"], "s", "row 1: time 'x' is not a whole number"),
        (["1", None], "s", "row 1: time None is not a whole number"),
        (["1.5"], "ms", "row 0: time '1.5' is not a whole number"),
        (["511", "230"], "mmdd", "row 1: time '230' is not a month and day"),
        (["1301"], "mmdd", "row 0: time '1301' is not a month and day"),
        (["2014-05-11", "11.5.2014"], "%Y-%m-%d", r"row 1: time '11\.5\.2014' is not of the form"),
    ],
)
def test_times_that_are_none(values, time_unit, message):
    with pytest.raises(UserError, match=message):
        read_times(pa.array(values), time_unit, 0, source_unit(time_unit), lambda row: f"row {row}")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rows": "pairs"}, "rows = 'pairs'; "),
        ({"policy": "forzen"}, "did you mean 'frozen'"),
        ({"features": ("pairs",)}, "features: 'pairs' is none; did you mean 'pair'"),
        ({"features": ("pair", "pair")}, "features: 'pair' is given twice"),
        ({"streams": ("click", "click")}, "streams: 'click' is given twice"),
        ({"streams": ("look",)}, "streams: no behaviour is called 'look'"),
        ({"tasks": ("buy:0d", "buy:0d")}, "tasks: 'buy:0d' is given twice"),
        ({"behaviours": (("0", "a"), ("0", "b"))}, "behaviours: '0' is given twice"),
        ({"behaviours": (("0", "a+b"),)}, r"behaviour name 'a\+b'; use letters"),
        ({"behaviours": ()}, "give either behaviours"),
        ({"flags": (("is_click", "click"),)}, "give either behaviours"),
        ({"item": "user_id"}, "column 'user_id' is given as two of"),
        ({"event_columns": ("type",)}, "column type holds outcomes"),
        ({"item_columns": ("tag*",)}, "need items_path"),
        ({"user_columns": ("age",), "item_columns": ("age",)}, "user_columns: 'age' also is"),
        ({"time_unit": "hour"}, "time_unit = 'hour'"),
        ({"resolution": "ms"}, "resolution = 'ms', but the file's times are in units of 'day'"),
        ({"train": ("5",)}, "give its first and its last time"),
        ({"train": ("9", "5")}, "ends before it begins"),
        ({"train": ("5", "20")}, "validation = .* begins before train"),
        ({"test": ("soon", "35")}, "test = 'soon'; give a number in the log's unit"),
        ({"min_count": 0}, "min_count = 0; it must be at least 1"),
        ({"split": "user", "fractions": (0.8, 0.2)}, "something left for test"),
        ({"split": "user", "rows": "cuts"}, "cut days are global"),
        ({"rows": "cuts", "train": ("9", "5")}, "in ascending order"),
        ({"rows": "cuts", "time_unit": "s"}, 'needs resolution = "day"'),
        ({"row_behaviours": ("look",)}, "row_behaviours: no behaviour is called 'look'"),
    ],
)
def test_wrong_options_are_named(changes, message):
    make_plan(log_options("log.csv"))
    with pytest.raises(UserError, match=message) as caught:
        make_plan(log_options("log.csv", **changes))
    assert "\n" not in str(caught.value)


def spoilt(tmp_path, line, text):
    path = write_log(tmp_path / "log.csv", random_log(0))
    lines = path.read_text().splitlines()
    lines[line] = text
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize(
    ("line", "text", "message"),
    [
        (0, "user_id,item,type,time,category", r"no column 'item_id'; did you mean 'item'"),
        (0, "user_id,item_id,type,time,time", r"column 'time' is there twice"),
        (5, "100,20,9,3,1", r"row 5, column 'type': behaviour '9' is not among the options' codes"),
        (5, "100,20,,3,1", r"row 5, column 'type': behaviour None is not among"),
        (7, "100,20,1,noon,1", r"row 7, column 'time': time 'noon' is not a whole number \(day\)"),
        (7, "100,20,1,-3,1", r"row 7, column 'time': time -3 is negative; give keep"),
        (3, ",20,1,3,1", r"row 3, column 'user_id': no user is given"),
        (3, "100,,1,3,1", r"row 3, column 'item_id': no item is given"),
        (4, "100,20,1", r"Expected 5 columns, got 3"),
    ],
)
def test_wrong_rows_are_named(tmp_path, line, text, message):
    path = spoilt(tmp_path, line, text)
    with pytest.raises(UserError, match=message) as caught:
        load_event_log(log_options(path), tmp_path / "sets")
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)
    assert not [p for p in (tmp_path / "sets" / "event_log").rglob("*") if p.is_file()]


def test_out_of_range_times_are_dropped_where_a_range_is_given(tmp_path):
    path = spoilt(tmp_path, 7, "100,20,1,-3,1")
    found = load_event_log(log_options(path, keep=("0", "39")), tmp_path / "sets")
    assert found.time.min() >= 5


def cut_archive(tmp_path):
    path = write_log(tmp_path / "log.csv", random_log(0, events=3000))
    packed = gzip.compress(path.read_bytes())
    (tmp_path / "log.csv.gz").write_bytes(packed[: len(packed) // 2])
    return tmp_path / "log.csv.gz"


def test_an_archive_that_is_cut_off(tmp_path):
    with pytest.raises(UserError, match=r"log\.csv\.gz: the archive is damaged or cut off"):
        load_event_log(log_options(cut_archive(tmp_path)), tmp_path / "sets")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("log.csv", "", r"log\.csv is empty"),
        ("log.csv", "user_id,item_id,type,time,category\n", r"log\.csv holds no row"),
        ("log.csv.gz", "not packed", r"log\.csv\.gz: the archive is damaged"),
        ("log.csv.xz", "not packed", r"log\.csv\.xz: the archive is damaged"),
        ("log.dat", "x", r"log\.dat: the name does not tell what it is; set format"),
        ("log.jsonl", '{"user_id": 1,\n', r"log\.jsonl: lines 1\.\.1: JSON parse error"),
        ("log.jsonl", '{"user_id": 1}\n', r"log\.jsonl: no column 'item_id'"),
        ("log.parquet", "x", r"log\.parquet: .*"),
    ],
)
def test_files_that_are_no_logs(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=message) as caught:
        load_event_log(log_options(tmp_path / name), tmp_path / "sets")
    assert "\n" not in str(caught.value)


def test_no_file_and_folders(tmp_path):
    with pytest.raises(UserError, match=r"no file .*nowhere"):
        load_event_log(log_options(tmp_path / "nowhere.csv"), tmp_path)
    with pytest.raises(UserError, match="is a folder; give a file"):
        load_event_log(log_options(tmp_path), tmp_path)
    with pytest.raises(UserError, match="path is empty"):
        load_event_log(log_options(""), tmp_path)
    with pytest.raises(UserError, match=r"unknown preset 'tmall2013'; did you mean 'tmall2014'"):
        preset("tmall2013", tmp_path)
    with pytest.raises(UserError, match=r"holds no tmall2014\*\.csv\*; give the log by its path"):
        preset("tmall2014", tmp_path)


def test_a_split_without_rows_says_where_the_log_is(tmp_path):
    options = log_options(write_log(tmp_path / "log.csv", random_log(0)), test=("50", "60"))
    with pytest.raises(
        UserError,
        match=r"log\.csv: no row falls into the split test \(test = \('50', '60'\)\); the log's "
        r"times are 0\.\.39 \(day\)",
    ):
        load_event_log(options, tmp_path / "sets")
    everything_out = dataclasses.replace(options, keep=("100", "200"))
    with pytest.raises(UserError, match="holds no event between 100 and 200"):
        load_event_log(everything_out, tmp_path / "sets")

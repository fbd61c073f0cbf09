"""Commands of the survival networks with wrong flags, files and folders: one line, exit code 2.

Every case goes through the command's own `main`, in this process. The line names the value, the
rule and, in a file, line and column; nothing is half-written.
"""

from __future__ import annotations

import csv
import json
import shlex
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from mtl_jax import evaluate, predict, report, train
from mtl_jax import run as runs
from mtl_jax.data import __main__ as data
from mtl_jax.data.prepare import prepare
from mtl_jax.errors import run_command
from tests.refusals import assert_says, contents, refused

Capture = pytest.CaptureFixture[str]
EXPERIMENTS = Path(__file__).parents[3] / "experiments" / "ad_survival"
# Numbers and sums of the history only, one head, two steps: what compiles fastest.
TINY = """
    --config.data.name=creatives/tiny --config.data.inputs numbers totals
    --config.data.landmarks 3 --config.model.terms=short --config.model.score=cumulative_hazard
    --config.model.out=2 --config.model.trunk 2 --config.model.dropout=0 --config.weights.kind=none
    --config.method.flat.combine=erm --config.method.flat.rho=0 --config.optim.warmup-steps=0
    --config.train.steps=2 --config.train.batch-size=32 --config.train.report=False
"""


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the tiny set is prepared."""
    folder = tmp_path_factory.mktemp("sets")
    prepare("creatives/tiny", folder)
    return folder


@pytest.fixture(scope="module")
def trained(sets: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two steps."""
    workdir = tmp_path_factory.mktemp("trained") / "run"
    run_command(train.main, argv_of("creatives", workdir, sets, TINY))
    return workdir


def argv_of(experiment: str, workdir: Path, sets: Path, flags: str) -> list[str]:
    """The command line of train."""
    argv = ["--config", f"{EXPERIMENTS / experiment}.py", "--workdir", str(workdir)]
    return [*argv, f"--config.data.data-dir={sets}", *shlex.split(flags)]


def left(folder: Path) -> list[str]:
    """Files that a command left behind; locks are no harm."""
    return [name for name in contents(folder) if not name.endswith(".lock")]


# Flags that no data is needed for

OPTIONS = [
    ("creatives", "--config.data.name=creativs", "'creativs'; did you mean 'creatives'"),
    ("creatives", "--config.data.name=creatives/hardd", "unknown config 'hardd' of creatives"),
    ("creatives", "--config.data.min-count=0", "config.data.min_count is 0; it must be 1 or more"),
    (
        "creatives",
        "--config.data.landmarks 0 120",
        "landmarks is (0.0, 120.0); they must be below 120, the end of config.data.long",
    ),
    ("creatives", "--config.data.landmarks 3 0", "landmarks is (3.0, 0.0); write times from 0 on"),
    ("creatives", "--config.data.landmarks nan", "config.data.landmarks is (nan,); write times"),
    ("creatives", "--config.data.landmarks -1", "config.data.landmarks is (-1.0,); write times"),
    ("creatives", "--config.data.short 0 nan 10", "config.data.short: grid edges (0, nan, 10)"),
    (
        "creatives",
        "--config.data.long 0 10 5",
        "config.data.long: grid edges (0, 10, 5)",
        "increase",
    ),
    (
        "creatives",
        "--config.data.long 0 20 120",
        "the long grid's first bin is [0, 20); it must be the short grid's horizon [0, 10)",
    ),
    ("creatives", "--config.data.inputs txt", "inputs has 'txt'; did you mean 'text'?"),
    ("creatives", "--config.model.head=cox", "head is cox, which has no bins", "terms=overall"),
    (
        "creatives",
        "--config.model.terms=overall --config.model.coherence=1",
        "config.model.coherence is 1.0, which needs two heads; choose config.model.terms=two",
    ),
    (
        "creatives",
        "--config.model.terms=overall --config.model.head=cox --config.data.protocol=paper",
        "config.model.head is cox; protocol=paper knows heads over bins only",
    ),
    ("creatives", "--config.model.score=survival@200", "'survival@200'", "up to 120"),
    ("creatives", "--config.weights.share=1", "config.weights.share is 1.0", "between 0 and 1"),
    (
        "creatives",
        "--config.weights.kind=none --config.weights.transform=rank",
        "config.weights.transform is rank, which is made of click rates; choose",
    ),
    (
        "creatives",
        "--config.weights.kind=none --config.weights.mean-one=True",
        "mean_one is True, but config.weights.kind is none",
    ),
    (
        "creatives",
        "--config.data.snapshot=2020-09-28",
        "config.data.snapshot is '2020-09-28', which creatives/large does not have; it belongs",
    ),
    (
        "support2",
        "--config.data.table.time=days",
        "config.data.table.time is 'days', which support2 does not have; it belongs to table",
    ),
    ("support2", "--config.data.path=a.csv", "config.data.path is 'a.csv'", "support2"),
    ("support2", "--config.data.name=support2/late", "unknown config 'late' of support2; known:"),
    ("table", "--config.data.path=", "config.data.path is empty; table reads a file"),
]


@pytest.mark.parametrize("case", OPTIONS, ids=[row[1] for row in OPTIONS])
def test_a_wrong_choice_is_refused_before_anything_is_made(
    case: tuple[str, ...], tmp_path: Path, capsys: Capture
) -> None:
    experiment, flags, *words = case
    argv = argv_of(experiment, tmp_path / "run", tmp_path / "sets", flags)
    assert_says(refused(train.main, argv, capsys), *words)
    assert not list(tmp_path.iterdir())


# Flags that do not fit the set

CHOICES = [
    ("--config.data.split=tme", "config.data.split is 'tme'; did you mean 'time'?"),
    ("--config.data.drop genra", "config.data.drop has 'genra'; did you mean 'genre'?"),
    ("--config.data.inputs vectors", "config.data.inputs has vectors, but creatives/tiny has none"),
    (
        "--config.weights.kind=ctr --config.data.landmarks 0",
        "config.weights.kind is ctr, which needs days of history: add later landmarks",
    ),
    (
        "--config.data.landmarks 20",
        "no training row alive at config.data.landmarks (20.0,) has an event in the short term's",
        "or earlier landmarks",
    ),
    ("--config.model.word-vectors=none.vec --config.data.inputs text", "none.vec: No such file"),
    ("--config.train.batch-size=512", "batch size 512 is larger than the 185 training examples"),
]


@pytest.mark.parametrize("case", CHOICES, ids=[row[0] for row in CHOICES])
def test_what_the_set_does_not_have_is_refused(
    case: tuple[str, ...], sets: Path, tmp_path: Path, capsys: Capture
) -> None:
    flags, *words = case
    argv = argv_of("creatives", tmp_path / "run", sets, f"{TINY} {flags}")
    assert_says(refused(train.main, argv, capsys), *words)
    assert left(tmp_path / "run") == []


# Tables

Rows = list[list[str]]
Change = Callable[[Rows], Any]
TABLE = ["time", "event", "num_age", "cat_kind", "text"]


def table_rows() -> Rows:
    """A header and 40 rows; the row in line n is number n - 1."""
    rows = [[f"{1 + i % 15}.5", str(i % 2), str(i), "xyz"[i % 3], f"word {i}"] for i in range(40)]
    return [TABLE, *rows]


def cell(line: int, column: int, value: str) -> Change:
    """Puts a value into a line of the file, counted from 1."""

    def change(rows: Rows) -> None:
        rows[line - 1] = [*rows[line - 1]]
        rows[line - 1][column] = value

    return change


def further(name: str, values: Mapping[int, str], default: str = "") -> Change:
    """Adds a column; `values` by line."""

    def change(rows: Rows) -> None:
        for at, row in enumerate(rows):
            rows[at] = [*row, name if at == 0 else values.get(at + 1, default)]

    return change


def both(*changes: Change) -> Change:
    def change(rows: Rows) -> None:
        for each in changes:
            each(rows)

    return change


def kept(count: int) -> Change:
    def change(rows: Rows) -> None:
        del rows[count:]

    return change


DAYS = [further(f"history_clicks_{day}", {}, "2") for day in (1, 2)]
CELLS: dict[str, tuple[Change, str, str]] = {
    "negative time": (cell(5, 0, "-2"), "line 5, column 'time': '-2'", "it must be 0 or more"),
    "no time": (cell(5, 0, "nan"), "line 5, column 'time': 'nan'", "must be given in every row"),
    "endless time": (cell(5, 0, "inf"), "line 5, column 'time': 'inf'", "it must be finite"),
    "event of no kind": (cell(41, 1, "2"), "line 41, column 'event': '2'", "must be 1 (the event"),
    "no event": (cell(2, 1, ""), "line 2, column 'event': ''", "or 0 (censored)"),
    "text as number": (cell(9, 2, "old"), "line 9, column 'num_age': 'old'", "must be a number"),
    "a row cut off": (lambda rows: rows[6].pop(), "line 7: 4 cells, but 5 columns", "quotes"),
    "entry too late": (further("entry", {3: "99"}), "line 3, column 'entry': '99'", "time, 2.5"),
    "weight of nothing": (further("weight", {4: "0"}), "line 4, column 'weight'", "be above 0"),
    "a third split": (further("split", {2: "tst"}), "line 2, column 'split'", "mean 'test'"),
    "cause of no event": (further("cause", {2: "x"}, "x"), "line 2, column 'cause'", "censored"),
    "no image": (further("image_path", {8: "a.png"}), "line 8, column 'image_path'", "no image"),
    "unreadable image": (further("image_path", {8: "t.csv"}), "line 8, column", "not a readable"),
    "negative amount": (
        both(*DAYS, cell(6, 5, "-1")),
        "line 6, column 'history_clicks_1': '-1'",
        "0 or more",
    ),
    "a day left out": (both(*DAYS, cell(6, 5, "")), "line 6", "give all days up to the last"),
    "no rows": (kept(1), "t.csv holds no row", "its first line names the columns"),
}
HEADERS: dict[str, tuple[Change, str, str]] = {
    "missing column": (cell(1, 0, "days"), "t.csv: no column 'time'", "known: cat_kind, days"),
    "repeated column": (cell(1, 2, "time"), "column 'time' is there twice", "name each once"),
    "a day of no number": (further("history_clicks", {}), "'history_clicks' does not say", "<day>"),
    "empty file": (kept(0), "t.csv is empty", "a first line with the names of columns"),
}


def write(path: Path, rows: Rows) -> Path:
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows(rows)
    return path


@pytest.mark.parametrize("case", [*CELLS, *HEADERS])
def test_a_broken_table_is_told_by_line_and_column(
    case: str, tmp_path: Path, capsys: Capture
) -> None:
    change, *words = (CELLS | HEADERS)[case]
    rows = table_rows()
    change(rows)
    path = write(tmp_path / "t.csv", rows)
    argv = argv_of("table", tmp_path / "run", tmp_path / "sets", f"--config.data.path={path}")
    # That a set is being built is said before its cells are read.
    assert_says(refused(train.main, argv, capsys, notes=case in CELLS), "t.csv", *words)
    assert left(tmp_path / "run") == left(tmp_path / "sets") == []


TABLES = [
    ("--config.data.path={tmp}/none.csv", "no file ", "none.csv"),
    ("--config.data.path={tmp}", "is a folder; give a file"),
    ("--config.data.path={tmp}/u.bin.csv", "u.bin.csv: not UTF-8", "save it in UTF-8"),
    ("--config.data.path={tmp}/t.csv --config.data.table.time=days", "no column 'days'; known:"),
    ("--config.data.path={tmp}/t.csv --config.data.table.unit=dya", "'dya'; did you mean 'day'?"),
    ("--config.data.path={tmp}/t.csv --config.data.table.vectors=v.npz", "'v.npz'; there is no"),
]


@pytest.mark.parametrize("case", TABLES, ids=[row[0][-25:] for row in TABLES])
def test_files_and_columns_that_are_not_there(
    case: tuple[str, ...], tmp_path: Path, capsys: Capture
) -> None:
    flags, *words = case
    write(tmp_path / "t.csv", table_rows())
    (tmp_path / "u.bin.csv").write_bytes(b"time,event\n1,\xff\n")
    argv = argv_of("table", tmp_path / "run", tmp_path / "sets", flags.format(tmp=tmp_path))
    assert_says(refused(train.main, argv, capsys), *words)
    assert left(tmp_path / "run") == left(tmp_path / "sets") == []


def test_tables_that_are_too_small(tmp_path: Path, capsys: Capture) -> None:
    rows = table_rows()
    for name, cut, words in (
        ("thin", [row[:2] for row in rows], ("nothing to predict from", "more in config.data.t")),
        ("short", rows[:3], ("split 'random' of 2 rows leaves validation empty", "more rows")),
    ):
        path = write(tmp_path / f"{name}.csv", cut)
        argv = argv_of("table", tmp_path / "run", tmp_path / "sets", f"--config.data.path={path}")
        assert_says(refused(train.main, argv, capsys, notes=True), *words)
        assert left(tmp_path / "run") == []


# An ad library

SNAP = ["StartDate", "EndDate", "OrganizationName", "Spend"]


def snap_rows() -> Rows:
    starts = [f"2020/09/{1 + i % 28:02d} 06:00:00Z" for i in range(30)]
    return [SNAP, *([start, "", f"org {i}", "5"] for i, start in enumerate(starts))]


SNAPS: dict[str, tuple[Change, str, tuple[str, ...]]] = {
    "no date": (cell(4, 0, "soon"), "", ("line 4, column 'StartDate': 'soon'", "a date as 2020-")),
    "no such day": (cell(4, 1, "2020-09-31"), "", ("line 4, column 'EndDate': '2020-09-31'",)),
    "negative spend": (cell(4, 3, "-3"), "", ("line 4, column 'Spend': '-3'; it must be 0 or",)),
    "missing column": (cell(1, 3, "Cost"), "", ("no column 'Spend'; known: Cost, EndDate",)),
    "snapshot of no form": (kept(99), "28.9.2020", ("snapshot = '28.9.2020'; write a date",)),
    "snapshot of no month": (kept(99), "2020-13-01", ("snapshot = '2020-13-01'; write a date",)),
    "all ads after the snapshot": (
        kept(99),
        "2019-01-01",
        ("no ad lives before the snapshot 2019-01-01", "from 2020-09-01T06:00:00Z", "set snapshot"),
    ),
}


@pytest.mark.parametrize("case", SNAPS)
def test_a_broken_ad_library_is_told(case: str, tmp_path: Path, capsys: Capture) -> None:
    change, snapshot, words = SNAPS[case]
    rows = snap_rows()
    change(rows)
    path = write(tmp_path / "ads.csv", rows)
    flags = f"--config.data.path={path} --config.data.snapshot={snapshot}"
    argv = argv_of("snap_ads", tmp_path / "run", tmp_path / "sets", flags)
    line = refused(train.main, argv, capsys, notes="snapshot of" not in case)
    assert_says(line, *words)
    assert left(tmp_path / "run") == left(tmp_path / "sets") == []


# New ads

ADS = [
    ["bid", "day", "history_clicks_1", "history_clicks_2"],
    ["1.5", "0", "", ""],
    ["2", "2", "3", "4"],
]
FILES: dict[str, tuple[Change, tuple[str, ...]]] = {
    "text as number": (cell(3, 0, "much"), ("line 3 has bid = 'much'; it must be a finite",)),
    "negative number": (cell(3, 0, "-1"), ("line 3 has bid = '-1'", "from 0 on")),
    "NaN": (cell(2, 0, "nan"), ("line 2 has bid = 'nan'", "a finite number")),
    "negative day": (cell(3, 1, "-2"), ("line 3 has day = '-2'", "from 0 on")),
    "empty day": (cell(3, 1, ""), ("line 3 has day = ''",)),
    "day beyond the bins": (cell(3, 1, "10"), ("line 3 has day = 10; it must be below 10",)),
    "unknown column": (cell(1, 0, "bidd"), ("column 'bidd'; did you mean 'bid'?",)),
    "a column that the run leaves out": (cell(1, 0, "genre"), ("column 'genre'; known:", "bid")),
    "repeated column": (cell(1, 1, "bid"), ("column names repeat: bid, bid",)),
    "unknown amount": (cell(1, 2, "history_views_1"), ("'history_views_1'; amounts are imp",)),
    "unknown day": (cell(1, 2, "history_clicks_999"), ("'history_clicks_999'", "days 1..120")),
    "negative amount": (cell(3, 3, "-4"), ("line 3 has history_clicks_2 = '-4'",)),
    "a day left out": (
        cell(3, 2, ""),
        ("line 3 has history_clicks_1 = '', but line 3 has amounts of day 2; give every day",),
    ),
    "a day without a column": (
        cell(1, 2, "history_clicks_3"),
        ("there is no column history_clicks_1, but line 3 has amounts of day 3",),
    ),
    "a row cut off": (lambda rows: rows[2].pop(), ("line 3 has 3 values, not 4",)),
    "an empty line": (lambda rows: rows.insert(1, []), ("line 2 has 0 values, not 4",)),
    "no rows": (kept(1), ("no ads; it needs a line of names and a row for each",)),
    "empty file": (kept(0), ("no ads; it needs a line of names",)),
}


def predict_argv(run: Path, source: Path, target: Path) -> list[Path | str]:
    return ["--workdir", run, "--input", source, "--output", target]


@pytest.fixture(scope="module")
def opened(trained: Path) -> tuple[Any, Any]:
    """What `predict` opens anew for every file: the run and its best state."""
    run = runs.open_run(trained)
    return run, runs.restore(run, trained, "best")


@pytest.mark.parametrize("case", FILES)
def test_a_broken_file_of_new_ads_is_told(
    case: str,
    trained: Path,
    opened: tuple[Any, Any],
    tmp_path: Path,
    capsys: Capture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(runs, "open_run", lambda _: opened[0])
    monkeypatch.setattr(runs, "restore", lambda *_: opened[1])
    change, words = FILES[case]
    rows = [[*row] for row in ADS]
    change(rows)
    source = write(tmp_path / "new_ads.csv", rows)
    argv = predict_argv(trained, source, tmp_path / "out.csv")
    assert_says(refused(predict.main, argv, capsys), "new_ads.csv", *words)
    assert [path.name for path in tmp_path.iterdir()] == ["new_ads.csv"]


def test_good_ads_are_predicted_with_what_was_not_known(
    trained: Path, tmp_path: Path, capsys: Capture
) -> None:
    source = write(tmp_path / "new_ads.csv", [*ADS, ["2", "1", "3", "4"]])
    # A mark of the encoding and empty lines at the end, as spreadsheets write them.
    source.write_bytes(b"\xef\xbb\xbf" + source.read_bytes() + b"\r\n")
    argv = predict_argv(trained, source, tmp_path / "out.csv")
    capsys.readouterr()
    run_command(predict.main, [str(word) for word in argv])
    said = capsys.readouterr().out
    assert "3 ads; no columns" in said
    assert "no impressions, conversions, cost on any day" in said
    assert "1 rows have amounts of days after their day" in said
    with open(tmp_path / "out.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["day"] for row in rows] == ["0", "2", "1"]
    assert sorted(row["rank"] for row in rows) == ["1", "2", "3"]


# Folders and names

COMMANDS: list[tuple[Any, Sequence[str], tuple[str, ...]]] = [
    (predict.main, ["--workdir", "{run}"], ("required: --input, --output",)),
    (
        predict.main,
        ["--workdir", "{tmp}", "--input", "{tmp}/a.csv", "--output", "{tmp}/b.csv"],
        ("no config.json in", "--workdir must be the folder of a run"),
    ),
    (
        predict.main,
        ["--workdir", "{run}", "--input", "{tmp}/a.csv", "--output", "{tmp}/b.csv"],
        ("a.csv, which is no readable CSV file (No such file or directory)",),
    ),
    (
        predict.main,
        ["--workdir", "{run}", "--input", "{tmp}/a.csv", "--output", "{tmp}/none/b.csv"],
        ("b.csv, whose folder does not exist; make it first",),
    ),
    (
        predict.main,
        ["--workdir", "{run}", "--input", "{tmp}/a.csv", "--output", "{tmp}/./a.csv"],
        ("a.csv, the input itself; name another file",),
    ),
    (evaluate.main, ["--workdir", "{tmp}"], ("no config.json in",)),
    (evaluate.main, ["--workdir", "{run}", "--split", "tst"], ("'tst'; did you mean 'test'?",)),
    (evaluate.main, ["--workdir", "{run}", "--which", "7"], ("no checkpoint 7 in", "known: [2]")),
    (report.main, ["--workdir", "{tmp}"], ("no config.json in",)),
    (data.main, ["prepare", "creativs"], ("unknown data set 'creativs'; did you mean",)),
    (data.main, ["prepare", "creatives/tinny"], ("'tinny' of creatives; did you mean 'tiny'",)),
    (data.main, ["prepare", "snap_ads", "--data-dir", "{tmp}"], ("give --manual-dir a folder",)),
    (
        data.main,
        ["prepare", "table", "--data-dir", "{tmp}", "--manual-dir", "{tmp}/none"],
        ("none' is not a folder",),
    ),
    (data.main, ["verify", "support2", "--data-dir", "{tmp}"], ("support2 is not prepared in",)),
]


@pytest.mark.parametrize("case", range(len(COMMANDS)))
def test_folders_and_names_of_something_else(
    case: int, trained: Path, tmp_path: Path, capsys: Capture
) -> None:
    main, argv, words = COMMANDS[case]
    before = contents(trained)
    filled = [word.format(run=trained, tmp=tmp_path) for word in argv]
    assert_says(refused(main, filled, capsys), *words)
    assert contents(trained) == before
    assert not list(tmp_path.iterdir())


def test_a_config_that_was_edited(trained: Path, tmp_path: Path, capsys: Capture) -> None:
    run = Path(shutil.copytree(trained, tmp_path / "run"))
    saved = json.loads((run / "config.json").read_text())
    saved["data"]["landmarks"] = [500]
    (run / "config.json").write_text(json.dumps(saved))
    line = refused(evaluate.main, ["--workdir", run], capsys)
    assert_says(line, "landmarks is (500,); they must be below 120", "restore config.json")

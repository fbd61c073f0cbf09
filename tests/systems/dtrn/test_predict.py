"""Scores of a file are those of the run; what a file may not hold is refused."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import pytest

from mtl_jax import predict
from mtl_jax import run as runs
from mtl_jax.data.impressions import UNSEEN, ImpressionSet
from mtl_jax.engine.state import TrainState
from mtl_jax.errors import UserError
from mtl_jax.systems.dtrn import builders
from mtl_jax.systems.dtrn.predict import impressions, predict_file
from mtl_jax.train import train
from tests.systems.dtrn import cases
from tests.systems.dtrn.cases import config_of

Table = tuple[list[str], list[list[str]]]


class Trained(NamedTuple):
    """A run on the Tmall contest's log, and what it says of its own test rows."""

    folder: Path
    run: runs.Run
    state: TrainState
    found: ImpressionSet
    vocabularies: dict[str, np.ndarray]
    rows: np.ndarray
    said: np.ndarray


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    root = tmp_path_factory.mktemp("predict")
    log = cases.write_tmall2014(root / "events.csv")
    config = config_of(
        root,
        **cases.PLAIN,
        data__name="event_log",
        data__preset="tmall2014",
        data__path=str(log),
        data__tasks=("buy", "revisit7"),
        optim__lr=0.1,
        train__steps=8,
        train__eval_every=8,
    )
    train(config, root / "run")
    run = runs.open_run(root / "run")
    state, _ = runs.restore(run, root / "run")
    parts = [(batch["row"], out["logit"]) for batch, out in runs.predictions(run, state, "test")]
    logits = np.concatenate([part[1] for part in parts])
    return Trained(
        root / "run",
        run,
        state,
        builders.load(config.data),
        builders.vocabularies(config.data),
        np.concatenate([part[0] for part in parts]),
        np.asarray(jax.nn.sigmoid(logits)),
    )


def raw_rows(trained: Trained, rows: np.ndarray) -> Table:
    """Some rows of the set as a file would have them: raw values, ids of derived columns, time."""
    names = [column.name for column in trained.found.columns]
    columns = []
    for f, name in enumerate(names):
        ids = trained.found.fields[rows, f]
        values = trained.vocabularies.get(name)
        raw = ids if values is None else [values[i - 2] if i > UNSEEN else "new" for i in ids]
        columns.append([str(value) for value in raw])
    columns.append([str(time) for time in trained.found.time[rows]])
    return [*names, "time"], [list(line) for line in zip(*columns, strict=True)]


def write(path: Path, table: Table) -> Path:
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([table[0], *table[1]])
    return path


def ask(trained: Trained, folder: Path, table: Table) -> Table:
    source = write(folder / "in.csv", table)
    argv = ["--workdir", str(trained.folder), "--input", str(source)]
    predict.main([*argv, "--output", str(folder / "out.csv")])
    with open(folder / "out.csv", newline="") as file:
        head, *lines = csv.reader(file)
    return head, lines


def test_test_rows_get_what_the_run_says_of_them(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    table = raw_rows(trained, trained.rows)
    head, lines = ask(trained, tmp_path, table)
    assert head == [*table[0], "buy", "revisit7"]
    assert [line[:-2] for line in lines] == table[1]
    scores = np.array([line[-2:] for line in lines], float)
    np.testing.assert_allclose(scores, trained.said, atol=2e-6)
    assert scores.std(0).min() > 1e-3
    assert f"{len(lines)} impressions" in capsys.readouterr().out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.csv", "out.csv"]


def cases_of(trained: Trained, table: Table) -> tuple[ImpressionSet, dict[str, int]]:
    return impressions(trained.found, trained.vocabularies, *table, "in.csv")


def test_histories_end_strictly_before_the_time_given(trained: Trained) -> None:
    table = raw_rows(trained, trained.rows)
    found, unseen = cases_of(trained, table)
    np.testing.assert_array_equal(found.fields, trained.found.fields[trained.rows])
    old, new = (
        trained.found.histories_of(trained.rows, 6),
        found.histories_of(np.arange(len(trained.rows)), 6),
    )
    np.testing.assert_array_equal(old, new)
    assert (old != 0).any()
    assert not any(unseen[name] for name in ("user", "item"))
    for row, time in enumerate(found.time):
        for s, history in enumerate(found.histories):
            shown = history.times[found.starts[row, s] : found.ends[row, s]]
            assert (shown < time).all()


def test_no_time_means_after_everything(trained: Trained) -> None:
    head, lines = raw_rows(trained, trained.rows[:5])
    found, _ = cases_of(trained, (head[:-1], [line[:-1] for line in lines]))
    assert (found.time == trained.found.time.max() + 1).all()
    timed, _ = cases_of(trained, (head, lines))
    assert (found.ends >= timed.ends).all()
    np.testing.assert_array_equal(found.starts, timed.starts)


def test_what_training_has_not_seen(trained: Trained) -> None:
    """An unknown user has no history; an absent column counts as unseen; both are counted."""
    table = (["user", "item"], [["nobody", "20"], [str(trained.vocabularies["user"][0]), "-1"]])
    found, unseen = cases_of(trained, table)
    names = [column.name for column in found.columns]
    assert found.fields[:, names.index("user")].tolist() == [UNSEEN, 2]
    assert found.fields[:, names.index("item")].tolist() == [2, UNSEEN]
    assert (found.fields[:, names.index("pair_click")] == UNSEEN).all()
    assert (unseen["user"], unseen["item"], unseen["pair_click"]) == (1, 1, 2)
    lengths = (found.ends - found.starts).sum(1)
    assert lengths[0] == 0
    assert lengths[1] > 0
    assert found.group[0] == -1
    assert found.group[1] >= 0


GOOD: Table = (["user", "item", "time"], [["1000", "20", "101"], ["1001", "21", "101"]])


def edited(line: int | None = None, column: str = "", value: str = "") -> Table:
    head, lines = list(GOOD[0]), [list(row) for row in GOOD[1]]
    if line is None:
        head[head.index(column)] = value
    else:
        lines[line][head.index(column)] = value
    return head, lines


WRONG: dict[str, tuple[Table, tuple[str, ...]]] = {
    "unknown column": (edited(None, "time", "tme"), ("column 'tme'", "did you mean 'time'")),
    "no item": (edited(None, "item", "pair_click"), ("no column 'item'", "scored")),
    "twice": (edited(None, "time", "user"), ("column names repeat: user, item, user",)),
    "ragged": ((GOOD[0], [GOOD[1][0], ["1001", "21"]]), ("line 3 has 2 values, not 3",)),
    "nan": (edited(1, "time", "nan"), ("line 3 has time = 'nan'", "a whole number")),
    "fraction": (edited(0, "time", "1.5"), ("line 2 has time = '1.5'", "a whole number")),
    "negative": (edited(0, "time", "-1"), ("line 2 has time = '-1'", "a whole number")),
    "empty time": (edited(0, "time", ""), ("line 2 has time = ''", "a whole number")),
    "no rows": ((GOOD[0], []), ("no impressions", "a line of names")),
    "a bucket out of range": (
        (["item", "pair_click"], [["20", "999"]]),
        ("line 2 has pair_click = '999'", "a whole number in 0.."),
    ),
    "a bucket by name": (
        (["item", "pair_click"], [["20", "many"]]),
        ("line 2 has pair_click = 'many'", "a whole number in 0.."),
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_files_are_refused(name: str, trained: Trained, tmp_path: Path) -> None:
    table, words = WRONG[name]
    refused(trained, write(tmp_path / "in.csv", table), tmp_path / "out.csv", *words)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", ("no impressions",)),
        (b"\xff\xfe\x00u\x00s", ("no readable CSV file",)),
        (None, ("no readable CSV file", "No such file")),
    ],
    ids=["empty", "binary", "absent"],
)
def test_files_that_are_none(
    content: bytes | None, words: tuple[str, ...], trained: Trained, tmp_path: Path
) -> None:
    source = tmp_path / "in.csv"
    if content is not None:
        source.write_bytes(content)
    refused(trained, source, tmp_path / "out.csv", *words)


def refused(trained: Trained, source: Path, target: Path, *words: str) -> None:
    before = sorted(path.name for path in target.parent.iterdir())
    with pytest.raises(UserError) as caught:
        predict_file(trained.run, trained.state, source, target)
    line = str(caught.value)
    assert "\n" not in line
    assert not [word for word in words if word not in line], line
    assert sorted(path.name for path in target.parent.iterdir()) == before

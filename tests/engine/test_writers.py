"""The record is valid JSON, survives kills, and a resumed run's lines are those of one run."""

from __future__ import annotations

import builtins
import io
import json
import math
import re
import resource

import jax.numpy as jnp
import numpy as np
import pytest

from mtl_jax.engine.writers import Writers, read_metrics
from mtl_jax.errors import UserError


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def write(workdir, steps, **options) -> str:
    stream = options.pop("stream", None) or io.StringIO()
    with Writers(workdir, stream=stream, **options) as writers:
        for step in steps:
            writers.write(step, {"loss": 1 / (step + 1)})
    return stream.getvalue()


def steps_of(workdir) -> list[int]:
    return [record["step"] for record in read_metrics(workdir)]


def test_values_come_back_exactly(tmp_path):
    values = {"a": 0.1 + 0.2, "b": 7, "nan": math.nan, "inf": math.inf, "minf": -math.inf}
    arrays = {"np": np.float32(0.1), "jax": jnp.float32(0.5), "int": np.int64(3)}
    with Writers(tmp_path, stream=io.StringIO()) as writers:
        writers.write(4, {**values, **arrays}, kind="eval")
    (record,) = read_metrics(tmp_path)
    assert (record["step"], record["kind"]) == (4, "eval")
    assert record["time"] > 1.7e9
    expected = {**values, "np": float(np.float32(0.1)), "jax": 0.5, "int": 3}
    np.testing.assert_equal(record["values"], expected)


def test_the_file_is_strict_json(tmp_path):
    with Writers(tmp_path, stream=io.StringIO()) as writers:
        writers.write(1, {"a": math.nan, "b": -math.inf})

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    (line,) = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert json.loads(line, parse_constant=refuse)["values"] == {"a": "NaN", "b": "-Infinity"}


def test_each_line_is_on_disk_at_once(tmp_path):
    with Writers(tmp_path, stream=io.StringIO()) as writers:
        writers.write(1, {"a": 1.0})
        assert steps_of(tmp_path) == [1]


def test_no_file_is_no_record(tmp_path):
    assert read_metrics(tmp_path) == []


@pytest.mark.parametrize(
    ("resume", "kept"), [(20, [10, 20]), (25, [10, 20]), (99, [10, 20, 30]), (None, [])]
)
def test_resuming_drops_later_lines(tmp_path, resume, kept):
    write(tmp_path, [10, 20, 30])
    write(tmp_path, [40], resume_step=resume)
    assert steps_of(tmp_path) == [*kept, 40]
    assert {path.name for path in tmp_path.iterdir()} == {"metrics.jsonl"}


def test_a_killed_and_resumed_run_has_the_lines_of_one_run(tmp_path):
    write(tmp_path, [10, 20, 30])  # killed after 30; the checkpoint is that of 20
    write(tmp_path, [30, 40], resume_step=20)
    assert steps_of(tmp_path) == [10, 20, 30, 40]


@pytest.mark.parametrize("cut", [1, 10, 30])
def test_a_half_written_last_line_is_passed_over_and_dropped(tmp_path, cut):
    write(tmp_path, [10, 20])
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(path.read_bytes()[:-cut])
    assert steps_of(tmp_path) == [10]
    write(tmp_path, [30], resume_step=20)
    assert steps_of(tmp_path) == [10, 30]


def test_a_damaged_line_is_named(tmp_path):
    write(tmp_path, [10, 20])
    path = tmp_path / "metrics.jsonl"
    path.write_text(path.read_text().replace('"step": 10', '"step": ,'))
    with pytest.raises(UserError, match=r"metrics.jsonl, line 1, is no record"):
        read_metrics(tmp_path)
    write(tmp_path, [30], resume_step=20)  # training goes on all the same
    assert steps_of(tmp_path) == [20, 30]


def test_a_full_disk_is_one_error(tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with Writers(tmp_path, stream=io.StringIO()) as writers:
        writers.write(1, {"a": 1.0})
        size = (tmp_path / "metrics.jsonl").stat().st_size
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 20, hard))
        try:
            with pytest.raises(UserError, match=r"cannot write .*metrics.jsonl: File too large"):
                writers.write(2, {"a": 1.0})
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert (tmp_path / "metrics.jsonl").stat().st_size == size  # no half line
        writers.write(2, {"a": 1.0})
    assert steps_of(tmp_path) == [1, 2]


def test_the_table_is_aligned_and_has_no_colour_codes_in_a_file(tmp_path):
    stream = io.StringIO()
    with Writers(tmp_path, stream=stream) as writers:
        writers.write(1, {"loss/left": 0.123456, "a_very_long_name/right": 12345.6, "n": 3})
        writers.write(100, {"loss/left": math.nan, "a_very_long_name/right": 1e-9, "n": -1})
    header, *rows = stream.getvalue().splitlines()
    assert "\x1b" not in stream.getvalue()
    assert {len(line) for line in rows} == {len(header)}
    assert header.split() == ["step", "loss/left", "a_very_long_name/right", "n"]
    assert rows[0].split() == ["1", "train", "0.1235", "12346", "3"]
    assert rows[1].split() == ["100", "train", "nan", "1.00e-09", "-1"]
    for name in re.finditer(r"\S+", header):  # right-aligned under its name
        end = name.end()
        assert all(row[end - 1] != " " and row[end : end + 1] in ("", " ") for row in rows)


def test_the_header_comes_again(tmp_path):
    text = write(tmp_path, range(1, 46))
    assert [i for i, line in enumerate(text.splitlines()) if "step" in line] == [0, 21, 42]
    stream = io.StringIO()
    with Writers(tmp_path, stream=stream) as writers:
        writers.write(1, {"loss": 1.0})
        writers.write(1, {"accuracy": 1.0}, kind="eval")
        writers.write(2, {"loss": 1.0})
    assert ["step" in line for line in stream.getvalue().splitlines()] == [True, False] * 3


def test_too_many_columns_are_counted_not_wrapped(tmp_path):
    stream = io.StringIO()
    scalars = {f"loss/task{t:02}": 0.5 for t in range(40)}
    with Writers(tmp_path, stream=stream) as writers:
        writers.write(1, scalars)
    lines = stream.getvalue().splitlines()
    assert max(map(len, lines)) <= 165
    shown = len(lines[1].split()) - 2
    assert lines[0].endswith(f"+{40 - shown}")
    assert len(read_metrics(tmp_path)[0]["values"]) == 40


def test_a_terminal_gets_a_bold_header(tmp_path, monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\x1b[1m" in write(tmp_path, [1], stream=Terminal())
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in write(tmp_path, [1], stream=Terminal())


def test_tensorboard_events_are_written(tmp_path):
    pytest.importorskip("tensorboardX")
    write(tmp_path, [1, 2], tensorboard=True)
    (events,) = (tmp_path / "events").iterdir()
    assert b"train/loss" in events.read_bytes()


def test_tensorboard_without_its_package_names_the_extra(tmp_path, monkeypatch):
    original = builtins.__import__

    def missing(name: str, *args: object) -> object:
        if name == "tensorboardX":
            raise ImportError(name)
        return original(name, *args)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(UserError, match=r"pip install 'mtl_jax\[tensorboard\]'"):
        Writers(tmp_path, tensorboard=True)

"""Run folders that are wrong, damaged, in use or full: one line, and nothing in them is lost."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mtl_jax import evaluate, report, train
from mtl_jax.engine import runfolder
from mtl_jax.engine.checkpoint_folder import Folder
from mtl_jax.errors import run_command
from tests.refusals import assert_says, contents, experiment, refused

__all__ = ["experiment"]

Capture = pytest.CaptureFixture[str]
Damage = Callable[[Path], Any]
MAINS = {"train": train.main, "evaluate": evaluate.main, "report": report.main}


def _argv(command: str, experiment: Path, run: Path) -> list[object]:
    return ["--workdir", run] if command != "train" else ["--config", experiment, "--workdir", run]


@pytest.fixture(scope="module")
def trained(experiment: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("trained") / "run"
    run_command(train.main, [str(word) for word in _argv("train", experiment, run)])
    assert len(list((run / "checkpoints").iterdir())) == 3
    return run


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A finished run of three checkpoints, free to be damaged."""
    return Path(shutil.copytree(trained, tmp_path / "run"))


def _write(name: str, text: str) -> Damage:
    return lambda run: (run / name).write_text(text)


def _saved(*path: str, value: Any = None) -> Damage:
    """Changes a value of config.json; takes the field out without a value."""

    def change(run: Path) -> None:
        config = json.loads((run / "config.json").read_text())
        inner = config
        for key in path[:-1]:
            inner = inner[key]
        if value is None:
            del inner[path[-1]]
        else:
            inner[path[-1]] = value
        (run / "config.json").write_text(json.dumps(config))

    return change


def _flip(*steps: int) -> Damage:
    """Flips one bit in the largest file of checkpoints."""

    def change(run: Path) -> None:
        for step in steps:
            files = [p for p in (run / f"checkpoints/{step}/state").rglob("*") if p.is_file()]
            path = max(files, key=lambda file: file.stat().st_size)
            content = bytearray(path.read_bytes())
            content[len(content) // 2] ^= 1
            path.write_bytes(content)

    return change


def _replace_by_folder(name: str) -> Damage:
    def change(run: Path) -> None:
        (run / name).unlink(missing_ok=True)
        (run / name).mkdir()

    return change


def _checkpoints_are_a_file(run: Path) -> None:
    shutil.rmtree(run / "checkpoints")
    (run / "checkpoints").write_text("moved to the archive")


def _no_manifests(run: Path) -> None:
    for path in (run / "checkpoints").glob("*/manifest.json"):
        path.unlink()


NOT_JSON = ("config.json cannot be read", "restore it from a copy")
OTHER = "holds a run with another config"
UNFIT = "the saved config does not fit this version of the code: "
# Each: what was done to the folder, which commands must refuse it, what they must say.
DAMAGES: dict[str, tuple[Damage, str, tuple[str, ...]]] = {
    "config cut": (_write("config.json", '{"optim": '), "train evaluate report", NOT_JSON),
    "config empty": (_write("config.json", ""), "train evaluate report", NOT_JSON),
    "config binary": (
        lambda run: (run / "config.json").write_bytes(b"\xff\xfe\0"),
        "train evaluate report",
        NOT_JSON,
    ),
    "config a folder": (_replace_by_folder("config.json"), "train evaluate report", NOT_JSON),
    "config a list": (
        _write("config.json", "[1]"),
        "train evaluate report",
        ("config.json holds a list, not a dict", "restore it from a copy"),
    ),
    "config gone": (lambda run: (run / "config.json").unlink(), "train", ("but no config.json",)),
    "config gone, read": (
        lambda run: (run / "config.json").unlink(),
        "evaluate report",
        ("no config.json in", "--workdir must be the folder of a run"),
    ),
    "extra field": (_saved("optim", "beta", value=1), "train", (OTHER, "optim.beta: 1 -> absent")),
    "extra field, read": (
        _saved("optim", "wormup_steps", value=1),
        "evaluate report",
        (UNFIT, "config.optim.wormup_steps is unknown; did you mean 'warmup_steps'?"),
    ),
    "missing field": (_saved("optim", "lr"), "train", (OTHER, "optim.lr: absent -> 0.002")),
    "field of another type": (
        _saved("optim", "lr", value="fast"),
        "evaluate report",
        (UNFIT, "config.optim.lr is 'fast'; it must be a number", "the version that wrote it"),
    ),
    "part of another type": (
        _saved("optim", value="adam"),
        "evaluate report",
        (UNFIT, "config.optim is 'adam'; it must hold the fields of OptimConfig"),
    ),
    "no system": (_saved("system"), "evaluate report", (UNFIT, "cannot import the system ''")),
    "lost system": (
        _saved("system", value="mtl_jax.systems.gone"),
        "evaluate report",
        (UNFIT, "cannot import the system 'mtl_jax.systems.gone'"),
    ),
    "no such system": (_saved("system", value="os.path"), "evaluate report", ("lacks Config",)),
    "lost method": (
        _saved("method", "aggregator", value="cagrd"),
        "evaluate",
        ("unknown method 'cagrd': did you mean 'cagrad'?",),
    ),
    "another model": (
        _saved("model", "widths", value=[16]),
        "evaluate",
        ("does not fit this run: params/", "float32[2, 32, 10] there, float32[2, 16, 10] here"),
    ),
    "environment": (
        _write("environment.json", '{"a": '),
        "train report",
        ("environment.json cannot be read", "restore it from a copy, or delete it"),
    ),
    "results": (_write("results.json", "[1]"), "report", ("results.json holds a list",)),
    "metrics": (
        _write("metrics.jsonl", '{"step": 2, "kind": "train", "values": {}}\nstep 4: 0.7\n'),
        "report",
        ("metrics.jsonl, line 2, is no record of metrics; delete that line",),
    ),
    "metrics in words": (
        _write("metrics.jsonl", '{"step": 2, "kind": "train", "values": {"loss": "low"}}\n'),
        "report",
        ("metrics.jsonl, line 1, is no record of metrics",),
    ),
    "metrics a folder": (_replace_by_folder("metrics.jsonl"), "report", ("Is a directory", "mend")),
    "figures a file": (_write("figures", ""), "report", ("figures cannot be made: File exists",)),
    "all checkpoints": (
        _flip(4, 8, 12),
        "train",
        ("no good checkpoint in", "checkpoint 12 is damaged (state/", "checkpoint 4 is damaged"),
    ),
    "the best checkpoint": (
        _flip(4, 8, 12),
        "evaluate",
        ("is damaged (state/", "has changed since it was written", "choose another step"),
    ),
    "no manifests": (_no_manifests, "train evaluate", ("its manifest cannot be read",)),
    "no checkpoints": (
        lambda run: shutil.rmtree(run / "checkpoints"),
        "evaluate",
        ("no checkpoint in", "train it first"),
    ),
    "checkpoints a file": (_checkpoints_are_a_file, "train evaluate", ("Not a directory",)),
}


@pytest.mark.parametrize("case", DAMAGES)
def test_a_damaged_run_folder_is_refused_and_left_as_it_is(
    experiment: Path, run: Path, capsys: Capture, case: str
) -> None:
    damage, commands, words = DAMAGES[case]
    damage(run)
    before = contents(run)
    for command in commands.split():
        line = refused(MAINS[command], _argv(command, experiment, run), capsys)
        assert_says(line, *words)
        assert contents(run) == before, command


def test_the_newest_checkpoint_damaged_is_said_and_the_run_goes_on(
    experiment: Path, run: Path, capsys: Capture
) -> None:
    good = contents(run / "checkpoints" / "8")
    _flip(12)(run)
    run_command(train.main, [str(word) for word in _argv("train", experiment, run)])
    said = capsys.readouterr().out
    assert_says(said, "warning: checkpoint 12 is damaged", "falling back to checkpoint 8")
    assert_says(said, "resuming at step 8 of 12")
    assert contents(run / "checkpoints" / "8") == good
    run_command(evaluate.main, ["--workdir", str(run), "--which", "12"])


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ("--config.optim.lr=1", (OTHER, "optim.lr: 0.002 -> 1.0", "another --workdir")),
        ("--config.model.widths 16", (OTHER, "model.widths: [32] -> [16]")),
        ("--config.method.aggregator=upgrad", (OTHER, 'method.aggregator: "cagrad" -> "upgrad"')),
        ("--config.train.steps=6", ("is at step 12, beyond the 6 steps", "give more")),
    ],
)
def test_another_config_does_not_touch_a_run(
    experiment: Path, run: Path, capsys: Capture, flags: str, words: tuple[str, ...]
) -> None:
    before = contents(run)
    argv = [*_argv("train", experiment, run), *flags.split()]
    assert_says(refused(train.main, argv, capsys), *words)
    assert contents(run) == before


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ("--split tset", "--split is 'tset'; did you mean 'test'? known: test, validation"),
        ("--split train", "--split is 'train'; known: test, validation"),
        ("--which bset", "--which is 'bset'; it must be best, last or a step number"),
        ("--which -1", "--which is '-1'; it must be best, last or a step number"),
        ("--which ²", "--which is '²'; it must be best, last or a step number"),
        ("--which 7", "no checkpoint 7 in"),
        (
            "--wich best",
            "unrecognized arguments: --wich best; see python -m mtl_jax.evaluate --help",
        ),
        ("--split", "argument --split: expected one argument"),
    ],
)
def test_a_wrong_question_to_a_run(trained: Path, capsys: Capture, flags: str, words: str) -> None:
    before = contents(trained)
    assert_says(refused(evaluate.main, ["--workdir", trained, *flags.split()], capsys), words)
    assert contents(trained) == before


def test_folders_of_something_else_are_left_alone(
    experiment: Path, tmp_path: Path, capsys: Capture
) -> None:
    thesis = tmp_path / "thesis"
    thesis.mkdir()
    (thesis / "chapter.tex").write_text("x")
    for workdir, words in (
        (thesis, "has files (chapter.tex) but no config.json"),
        (thesis / "chapter.tex", "is or passes a file; choose another workdir"),
        (thesis / "chapter.tex" / "run", "is or passes a file; choose another workdir"),
        ("/proc/nothing/run", "cannot be used: "),
        ("gs://bucket/run", "is a URL; give a local path"),
    ):
        argv = ["--config", experiment, "--workdir", workdir]
        assert_says(refused(train.main, argv, capsys), words, "workdir")
        for command in (evaluate.main, report.main):
            assert_says(refused(command, ["--workdir", workdir], capsys), "no config.json in")
    assert [path.name for path in tmp_path.rglob("*")] == ["thesis", "chapter.tex"]
    assert_says(refused(evaluate.main, [], capsys), "required: --workdir; see python -m")


HOLD = """
import fcntl, os, sys
lock = os.open(sys.argv[1] + "/.lock", os.O_RDWR | os.O_CREAT)
fcntl.lockf(lock, fcntl.LOCK_EX)
os.write(lock, b"process 7 on node3")
print("held", flush=True)
sys.stdin.read()
"""


def test_a_run_folder_in_use(experiment: Path, run: Path, capsys: Capture) -> None:
    (run / ".lock").unlink()
    command = [sys.executable, "-c", HOLD, str(run)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, text=True, **pipes) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        before = contents(run)
        line = refused(train.main, _argv("train", experiment, run), capsys)
        assert_says(line, "is in use by process 7 on node3; wait for it, or choose another")
        assert contents(run) == before
        holder.communicate("")


def _full(*_: object, **__: object) -> None:
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize(
    ("where", "words"),
    [
        ((os, "fsync"), "make space"),
        ((Folder, "make_ready"), "the same command starts again"),
        ((runfolder, "write_environment"), "give the same command again"),
    ],
)
def test_a_full_disk_of_a_new_run(
    experiment: Path,
    tmp_path: Path,
    capsys: Capture,
    monkeypatch: pytest.MonkeyPatch,
    where: tuple[Any, str],
    words: str,
) -> None:
    argv = _argv("train", experiment, tmp_path / "run")
    with monkeypatch.context() as patch:
        patch.setattr(*where, _full)
        assert_says(refused(train.main, argv, capsys), "No space left on device", words)
    left = contents(tmp_path / "run")
    assert not [name for name in left if name.startswith("checkpoints/")]
    if "config.json" in left:
        json.loads((tmp_path / "run" / "config.json").read_text())
    run_command(train.main, [str(word) for word in argv])  # with space, the same command does it
    assert (tmp_path / "run" / "results.json").exists()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of one megabyte: room for one checkpoint of half a megabyte, and not for two."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("needs the right to mount a file system")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_disk_that_fills_up_keeps_the_last_checkpoint(
    experiment: Path, small_disk: Path, capsys: Capture
) -> None:
    argv = _argv("train", experiment, small_disk / "run")
    line = refused(train.main, argv, capsys)
    assert_says(line, "No space left on device", "checkpoint 8 could not be written")
    assert_says(line, "earlier ones are kept", "resumes from step 4")
    kept = contents(small_disk / "run" / "checkpoints" / "4")
    assert [p.name for p in (small_disk / "run" / "checkpoints").iterdir()] == ["4"]
    subprocess.run(["mount", "-o", "remount,size=9m", str(small_disk)], check=True)
    run_command(train.main, [str(word) for word in argv])
    assert "resuming at step 4 of 12" in capsys.readouterr().out
    assert contents(small_disk / "run" / "checkpoints" / "4") == kept

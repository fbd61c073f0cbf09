"""Damaged run folders, and wrong questions to good ones: one line, and nothing is lost."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mtl_jax import evaluate, report, train
from mtl_jax.errors import run_command
from tests.refusals import argv_of, assert_says, contents, experiment, refused, run, trained

__all__ = ["experiment", "run", "trained"]

Capture = pytest.CaptureFixture[str]
Damage = Callable[[Path], Any]
MAINS = {"train": train.main, "evaluate": evaluate.main, "report": report.main}


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
    "extra field": (
        _saved("optim", "beta", value=1),
        "train",
        (UNFIT, "config.optim.beta is unknown"),
    ),
    "extra field, read": (
        _saved("optim", "wormup_steps", value=1),
        "evaluate report",
        (UNFIT, "config.optim.wormup_steps is unknown; did you mean 'warmup_steps'?"),
    ),
    "missing field": (_saved("optim", "lr"), "train", (OTHER, "optim.lr: 0.001 -> 0.002")),
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
        line = refused(MAINS[command], argv_of(command, experiment, run), capsys)
        assert_says(line, *words)
        assert contents(run) == before, command


def test_the_newest_checkpoint_damaged_is_said_and_the_run_goes_on(
    experiment: Path, run: Path, capsys: Capture
) -> None:
    good = contents(run / "checkpoints" / "8")
    _flip(12)(run)
    run_command(train.main, [str(word) for word in argv_of("train", experiment, run)])
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
    argv = [*argv_of("train", experiment, run), *flags.split()]
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

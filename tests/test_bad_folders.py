"""Run folders of something else, in use, or on a full disk: one line, and nothing is lost."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mtl_jax import evaluate, report, train
from mtl_jax.engine import runfolder
from mtl_jax.engine.checkpoint import Checkpoints
from mtl_jax.engine.checkpoint_folder import Folder
from mtl_jax.errors import run_command
from tests.refusals import argv_of, assert_says, contents, experiment, refused, run, trained

__all__ = ["experiment", "run", "trained"]

Capture = pytest.CaptureFixture[str]


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
        line = refused(train.main, argv_of("train", experiment, run), capsys)
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
    argv = argv_of("train", experiment, tmp_path / "run")
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
    """A disk of one megabyte: room for one or two checkpoints of the three."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("needs the right to mount a file system")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # orbax's threads
def test_a_disk_that_fills_up_keeps_the_last_checkpoint(
    experiment: Path, small_disk: Path, capsys: Capture
) -> None:
    argv, folder = argv_of("train", experiment, small_disk / "run"), small_disk / "run"
    line = refused(train.main, argv, capsys)
    with Checkpoints(folder) as saved:
        steps = saved.steps()
    assert steps in ([4], [4, 8])
    assert_says(line, f"checkpoint {steps[-1] + 4} could not be written", "No space left on device")
    assert_says(line, "earlier ones are kept", f"resumes from step {steps[-1]}")
    kept = contents(folder / "checkpoints" / "4")
    subprocess.run(["mount", "-o", "remount,size=9m", str(small_disk)], check=True)
    run_command(train.main, [str(word) for word in argv])
    assert f"resuming at step {steps[-1]} of 12" in capsys.readouterr().out
    assert contents(folder / "checkpoints" / "4") == kept
    assert (folder / "results.json").exists()

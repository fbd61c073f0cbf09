"""What every refused command has in common: one line, exit code 2, nothing lost or half-written."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from mtl_jax import train
from mtl_jax.data.prepare import prepare
from mtl_jax.errors import run_command
from tests import tiny


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny experiment, its data set prepared."""
    root = tmp_path_factory.mktemp("tiny")
    path = tiny.write_experiment(root)
    prepare("multi_mnist", root / "sets", root / "raw")
    return path


def argv_of(command: str, experiment: Path, run: Path) -> list[object]:
    """The command line of train, evaluate or report."""
    return ["--workdir", run] if command != "train" else ["--config", experiment, "--workdir", run]


@pytest.fixture(scope="module")
def trained(experiment: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of three checkpoints."""
    run = tmp_path_factory.mktemp("trained") / "run"
    run_command(train.main, [str(word) for word in argv_of("train", experiment, run)])
    assert len(list((run / "checkpoints").iterdir())) == 3
    return run


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A copy of it, free to be damaged."""
    return Path(shutil.copytree(trained, tmp_path / "run"))


def refused(
    main: Callable[[list[str]], None],
    argv: Sequence[object],
    capsys: pytest.CaptureFixture[str],
    *,
    notes: bool = False,
) -> str:
    """Runs a command that must end with exit code 2 and returns its one line.

    Args:
      main: of the command.
      argv: its command line.
      capsys: captures stderr.
      notes: what the command had begun to do may stand in lines before the last one.
    """
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        run_command(main, [str(word) for word in argv])
    lines = [line for line in capsys.readouterr().err.splitlines() if line.strip()]
    assert stop.value.code == 2, lines
    assert [line for line in lines if line.startswith("error: ")] == lines[-1:], lines
    assert notes or len(lines) == 1, lines
    assert "Traceback" not in "".join(lines)
    return lines[-1]


def contents(folder: Path) -> dict[str, str]:
    """The sha256 of every file under a folder, but for the lock."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


def assert_says(line: str, *words: str) -> None:
    """Every word is in the line, however it breaks paths."""
    missing = [word for word in words if word not in line]
    assert not missing, f"{missing} not in: {line}"

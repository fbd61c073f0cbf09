"""The training command from end to end: runs, resumes bit for bit, survives kills, stops on NaN."""

from __future__ import annotations

import json
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import pytest

from mtl_jax import evaluate, train
from mtl_jax import run as runs
from mtl_jax.engine import parallel
from mtl_jax.engine.checkpoint import Checkpoints
from mtl_jax.engine.writers import read_metrics
from mtl_jax.errors import UserError
from tests import tiny

LONG = ["--config.train.steps=600", "--config.train.eval-every=25", "--config.train.log-every=1"]


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_experiment(tmp_path_factory.mktemp("tiny"))


def _command(experiment: Path, workdir: Path, *flags: str) -> list[str]:
    return ["-m", "mtl_jax.train", "--config", str(experiment), "--workdir", str(workdir), *flags]


def _start(command: list[str], env: dict[str, str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *command],
        env=env,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def _wait_for_step(process: subprocess.Popen[str], workdir: Path, step: int) -> None:
    """Returns once the log has reached a step, or the process has ended."""
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        if (workdir / "metrics.jsonl").exists():
            records = read_metrics(workdir)
            if records and records[-1]["step"] >= step:
                return
        time.sleep(0.002)
    assert process.poll() is not None, f"step {step} was not reached in time"


def _last(workdir: Path) -> list[np.ndarray]:
    """The leaves of the newest checkpoint, the step among them."""
    run = runs.open_run(workdir)
    state, _ = runs.restore(run, workdir, "last")
    return jax.tree.leaves(parallel.to_host(state))


def _assert_same_to_the_bit(first: Path, second: Path) -> None:
    for a, b in zip(_last(first), _last(second), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


@pytest.fixture(scope="module")
def straight(experiment: Path, run_python: Callable, tmp_path_factory: object) -> Path:
    """A long run that nothing interrupts."""
    workdir = tmp_path_factory.mktemp("straight") / "run"
    done = run_python(*_command(experiment, workdir, *LONG), timeout=300)
    assert done.returncode == 0, done.stderr
    return workdir


def test_a_run_leaves_what_it_promises(experiment: Path, tmp_path: Path, capsys: object) -> None:
    final = train.train(*train.parse(_command(experiment, tmp_path / "a")[2:]))
    results = json.loads((tmp_path / "a" / "results.json").read_text())
    assert results == final
    assert {"best/test/accuracy", "last/validation/top_left/nll", "last/step"} <= results.keys()
    assert results["last/step"] == 12
    assert json.loads((tmp_path / "a" / "config.json").read_text())["optim"]["lr"] == 2e-3
    assert json.loads((tmp_path / "a" / "environment.json").read_text())[0]["packages"]["jax"]
    records = read_metrics(tmp_path / "a")
    train_steps = [record["step"] for record in records if record["kind"] == "train"]
    assert train_steps == [2, 4, 6, 8, 10, 12]
    assert [record["step"] for record in records if record["kind"] == "eval"] == [4, 8, 12]
    first, last = (records[k]["values"] for k in (0, -2))
    assert last["top_left/loss"] < first["top_left/loss"]
    assert {"cosine", "conflict", "bottom_right/gap", "top_left/flat_norm"} <= last.keys()

    # The same line again finds the run complete, changes nothing, and says the same.
    assert train.train(*train.parse(_command(experiment, tmp_path / "a")[2:])) == final
    assert [r["step"] for r in read_metrics(tmp_path / "a")] == [r["step"] for r in records]
    capsys.readouterr()
    evaluate.main(["--workdir", str(tmp_path / "a"), "--split", "test", "--which", "last"])
    said = capsys.readouterr().out
    assert f"{results['last/test/accuracy']:.5f}" in said


def test_more_steps_go_on_from_a_complete_run(experiment: Path, tmp_path: Path) -> None:
    short = _command(experiment, tmp_path / "a")[2:]
    train.train(*train.parse(short))
    train.train(*train.parse([*short, "--config.train.steps=16"]))
    whole = _command(experiment, tmp_path / "b", "--config.train.steps=16")[2:]
    train.train(*train.parse(whole))
    _assert_same_to_the_bit(tmp_path / "a", tmp_path / "b")


def test_calls_of_several_steps_log_and_resume_like_single_ones(
    experiment: Path, tmp_path: Path
) -> None:
    flags = ("--config.train.steps_per_call=4", "--config.train.log_every=4")
    command = _command(experiment, tmp_path / "a", *flags, "--config.train.eval_every=4")[2:]
    train.train(*train.parse([*command, "--config.train.steps=8"]))
    train.train(*train.parse([*command, "--config.train.steps=16"]))
    records = read_metrics(tmp_path / "a")
    assert [r["step"] for r in records if r["kind"] == "train"] == [4, 8, 12, 16]
    whole = _command(experiment, tmp_path / "b", *flags, "--config.train.steps=16")[2:]
    train.train(*train.parse(whole))
    _assert_same_to_the_bit(tmp_path / "a", tmp_path / "b")
    with pytest.raises(UserError, match="steps_per_call is 5, which does not divide the 2 steps"):
        train.train(
            *train.parse(
                _command(experiment, tmp_path / "c", "--config.train.steps_per_call=5")[2:]
            )
        )
    three = ("steps=18", "log_every=3", "eval_every=3", "steps_per_call=3")
    other = [f"--config.train.{flag}" for flag in three]
    with pytest.raises(UserError, match="goes on at step 16, which is no multiple"):
        train.train(*train.parse(_command(experiment, tmp_path / "a", *other)[2:]))


def test_what_flags_change_is_printed(experiment: Path, capsys: object) -> None:
    train.parse(_command(experiment, Path("runs/a"), "--config.optim.lr=0.5")[2:])
    assert capsys.readouterr().out == f"not as in {experiment}: optim.lr: 0.002 -> 0.5\n"


def test_micro_batches_and_backends_are_the_same_run(experiment: Path, tmp_path: Path) -> None:
    finals = []
    for name, flag in (
        ("plain", "--config.seed=0"),
        ("micro", "--config.train.microbatches=4"),
        ("shard_map", "--config.train.backend=shard_map"),
        ("calls", "--config.train.steps_per_call=2"),
        ("scan", "--config.method.strategy=scan"),
        ("vmap", "--config.method.strategy=vmap"),
    ):
        finals.append(train.train(*train.parse(_command(experiment, tmp_path / name, flag)[2:])))
    for other in finals[1:]:
        for name, value in finals[0].items():
            np.testing.assert_allclose(other[name], value, rtol=1e-4, atol=1e-4, err_msg=name)


def _kill_and_resume(
    experiment: Path, straight: Path, workdir: Path, clean_env: Callable, kills: int, seed: int
) -> None:
    command = _command(experiment, workdir, *LONG)
    steps = sorted(random.Random(seed).sample(range(5, 580), kills))
    for step in steps:
        process = _start(command, clean_env())
        _wait_for_step(process, workdir, step)
        process.send_signal(signal.SIGKILL)
        process.wait()
    process = _start(command, clean_env())
    assert process.wait(timeout=300) == 0, process.stderr.read()
    _assert_same_to_the_bit(workdir, straight)
    mine, reference = (
        [(r["step"], r["kind"]) for r in read_metrics(folder)] for folder in (workdir, straight)
    )
    assert mine == reference


def test_killed_at_three_random_steps_the_run_is_the_same_to_the_bit(
    experiment: Path, straight: Path, tmp_path: Path, clean_env: Callable
) -> None:
    _kill_and_resume(experiment, straight, tmp_path / "killed", clean_env, 3, 1)


@pytest.mark.slow
def test_killed_at_fifty_random_steps_the_run_is_the_same_to_the_bit(
    experiment: Path, straight: Path, tmp_path: Path, clean_env: Callable
) -> None:
    _kill_and_resume(experiment, straight, tmp_path / "killed", clean_env, 50, 2)


def test_sigterm_saves_and_the_same_command_goes_on(
    experiment: Path, straight: Path, tmp_path: Path, clean_env: Callable
) -> None:
    command = _command(experiment, tmp_path / "run", *LONG)
    process = _start(command, clean_env())
    _wait_for_step(process, tmp_path / "run", 40)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 0, process.stderr.read()
    with Checkpoints(tmp_path / "run") as saved:
        assert 40 <= saved.latest_step() < 600
    assert not (tmp_path / "run" / "results.json").exists()
    process = _start(command, clean_env())
    assert process.wait(timeout=300) == 0, process.stderr.read()
    _assert_same_to_the_bit(tmp_path / "run", straight)


def test_a_loss_that_is_not_finite_stops_the_run(
    experiment: Path, tmp_path: Path, run_python: Callable
) -> None:
    flags = ["--config.optim.name=sgd", "--config.optim.lr=1e30", "--config.train.eval-every=1"]
    done = run_python(*_command(experiment, tmp_path / "a", *flags), timeout=120)
    assert done.returncode == 2
    line = done.stderr.strip().splitlines()[-1]
    assert re.search(r"not finite at step \d+: (top_left|bottom_right) is (nan|inf)", line), line
    assert re.search(r"checkpoint \d+ is good|no checkpoint", line)

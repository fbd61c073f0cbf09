"""A run folder has one writer, is never taken for another thing, and is never half-written."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import pytest

from mtl_jax.engine import runfolder
from mtl_jax.engine.runfolder import (
    claim,
    compare_config,
    environment,
    read_json,
    write_environment,
    write_json_atomic,
)
from mtl_jax.errors import UserError

HOLD = """
import sys, os, time
from mtl_jax.engine.runfolder import claim
with claim(sys.argv[1]):
    if len(sys.argv) > 2:
        child = os.fork()  # a data worker that outlives its trainer
        if child == 0:
            time.sleep(60)
            os._exit(0)
        print(child, flush=True)
    else:
        print("held", flush=True)
    time.sleep(60)
"""


def _hold(workdir: Path, env: dict[str, str], *args: str) -> tuple[subprocess.Popen, str]:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(workdir), *args],
        env=env,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout is not None
    return holder, holder.stdout.readline().strip()


def test_json_is_the_old_or_the_new(tmp_path, monkeypatch):
    path = tmp_path / "config.json"
    write_json_atomic(path, {"a": 1})
    assert read_json(path) == {"a": 1}

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(UserError, match=r"cannot write .*config.json: No space left on device"):
        write_json_atomic(path, {"a": 2})
    assert read_json(path) == {"a": 1}
    assert os.listdir(tmp_path) == ["config.json"]
    with pytest.raises(TypeError):
        write_json_atomic(path, {"a": object()})
    assert read_json(path) == {"a": 1}


def test_reading_json_says_what_is_wrong(tmp_path):
    with pytest.raises(UserError, match=r"no config.json in .*must be the folder of a run"):
        read_json(tmp_path / "config.json")
    (tmp_path / "config.json").write_text('{"a": ')
    with pytest.raises(UserError, match="cannot be read"):
        read_json(tmp_path / "config.json")


def test_a_new_folder_and_a_run_folder_are_claimed(tmp_path):
    with claim(tmp_path / "runs" / "a") as folder:
        assert folder == tmp_path / "runs" / "a"
        write_json_atomic(folder / "config.json", {})
    with claim(folder):
        pass
    (folder / "config.json").unlink()
    with claim(folder):  # killed before anything but the lock was there
        pass


def test_the_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    with (
        pytest.raises(UserError, match=r"has files \(thesis.tex\) but no config.json"),
        claim(tmp_path),
    ):
        pass
    assert os.listdir(tmp_path) == ["thesis.tex"]
    for path in (tmp_path / "thesis.tex", tmp_path / "thesis.tex" / "run"):
        with pytest.raises(UserError, match="is or passes a file"), claim(path):
            pass
    with pytest.raises(UserError, match="is a URL"), claim("gs://bucket/run"):
        pass


def test_a_folder_that_cannot_be_made_is_one_error():
    path = Path("/proc/self/mtl_jax_run")
    if not path.parent.is_dir():
        pytest.skip("no /proc here")
    with (
        pytest.raises(UserError, match=r"workdir /proc/self/mtl_jax_run cannot be used"),
        claim(path),
    ):
        pass


def test_two_trainers_cannot_share_a_folder(tmp_path, clean_env):
    holder, _ = _hold(tmp_path, clean_env())
    try:
        with pytest.raises(UserError, match=f"in use by process {holder.pid} on"), claim(tmp_path):
            pass
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()
    with claim(tmp_path):  # the lock of a dead process does not block
        pass


def test_a_worker_that_outlives_a_killed_trainer_does_not_hold_the_lock(tmp_path, clean_env):
    holder, worker = _hold(tmp_path, clean_env(), "fork")
    try:
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        os.kill(int(worker), 0)  # it lives
        with claim(tmp_path):
            pass
    finally:
        os.kill(int(worker), signal.SIGKILL)
        holder.stdout.close()


def test_one_process_cannot_claim_twice(tmp_path):
    with claim(tmp_path):
        with pytest.raises(UserError, match="already"), claim(tmp_path / ".." / tmp_path.name):
            pass
        with pytest.raises(UserError, match="already"), claim(tmp_path):
            pass  # the failed attempt did not drop the lock
    with claim(tmp_path):
        pass


def test_compare_config_lists_every_difference():
    saved = {
        "name": "a",
        "optim": {"lr": 1e-3, "clip": None, "old": 1},
        "method": {"options": {"c": 0.4}},
        "sizes": [1, 2],
        "adaptive": True,
    }
    now = {
        "name": "b",
        "optim": {"lr": 3e-4, "clip": 0.0},
        "method": {"options": {}},
        "sizes": (1, 2),
        "adaptive": 1,
        "new": {"x": "y"},
    }
    assert compare_config(saved, now) == [
        'name: "a" -> "b"',
        "optim.lr: 0.001 -> 0.0003",
        "optim.clip: null -> 0.0",
        "optim.old: 1 -> absent",
        "method.options.c: 0.4 -> absent",
        "adaptive: true -> 1",
        "method.options: absent -> {}",
        'new.x: absent -> "y"',
    ]


def test_compare_config_of_equals_is_empty():
    config = {"lr": 1.0, "nan": float("nan"), "sizes": (1, (2,)), "nested": {"empty": {}}}
    assert compare_config(config, config) == []
    assert compare_config(json.loads(json.dumps(config)), {**config, "lr": 1}) == []


def test_environment_names_versions_and_devices(tmp_path):
    write_environment(tmp_path)
    write_environment(tmp_path)
    entries = read_json(tmp_path / "environment.json", list)
    assert len(entries) == 2  # one for each start
    entry = entries[-1]
    assert entry["packages"]["jax"] == jax.__version__
    assert {"jaxlib", "flax", "optax", "numpy"} <= {k for k, v in entry["packages"].items() if v}
    assert entry["device_count"] == jax.device_count()
    assert entry["device_kind"] == jax.devices()[0].device_kind
    assert entry["argv"] == sys.argv
    assert entry["date"][:10] == time.strftime("%Y-%m-%d", time.gmtime())


def _git(folder: Path, *args: str) -> str:
    env = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    who = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
    done = subprocess.run(
        ["git", "-C", str(folder), *who, *args], env=env, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_the_commit_is_that_of_this_code_or_none(tmp_path, monkeypatch):
    source = tmp_path / "engine" / "runfolder.py"
    source.parent.mkdir()
    source.write_text("x = 1\n")
    monkeypatch.setattr(runfolder, "__file__", str(source))
    assert environment()["git_commit"] is None  # no repository
    try:
        _git(tmp_path, "init", "-q")
    except FileNotFoundError:
        pytest.skip("git is not installed")
    (tmp_path / "other").write_text("x")
    _git(tmp_path, "add", "other")
    _git(tmp_path, "commit", "-qm", "x")
    assert environment()["git_commit"] is None  # somebody else's repository
    _git(tmp_path, "add", "engine")
    _git(tmp_path, "commit", "-qm", "y")
    commit = _git(tmp_path, "rev-parse", "HEAD")
    assert environment()["git_commit"] == commit
    source.write_text("x = 2\n")
    assert environment()["git_commit"] == f"{commit}-dirty"

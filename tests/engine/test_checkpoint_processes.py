"""Checkpoints against SIGKILL, over several devices, and over several processes."""

from __future__ import annotations

import random
import signal
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest

from mtl_jax.engine.checkpoint import Checkpoints

STATE = """
import numpy as np

def make(step):  # 20 MB in three leaves, a function of the step
    draw = np.random.Generator(np.random.Philox(key=step)).random
    return {"a": draw((1000, 1000)), "b": {"c": draw(1_500_000)}, "step": step, "d": draw(3)}
"""

LOOP = (
    STATE
    + """
import sys
from mtl_jax.engine.checkpoint import Checkpoints

with Checkpoints(sys.argv[1], metric="score") as checkpoints:
    restored = checkpoints.restore(make(0))
    step = restored.step if restored else 0
    while True:
        step += 1
        # Falls and rises, so that best and last are often different checkpoints.
        checkpoints.save(step, make(step), {"score": -((step * 7) % 11)}, {"step": step})
        print(step, flush=True)
"""
)


def _kill_and_check(workdir: Path, env: dict[str, str], rng: random.Random) -> int:
    """Runs the loop, kills it at a random moment, and returns the step that restores."""
    names: dict = {}
    exec(STATE, names)
    make = names["make"]
    child = subprocess.Popen(
        [sys.executable, "-c", LOOP, str(workdir)], env=env, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    try:
        lines = [child.stdout.readline() for _ in range(rng.randint(2, 5))]
        time.sleep(rng.uniform(0, 0.15))
        child.send_signal(signal.SIGKILL)
        seen = int((lines + child.stdout.read().split())[-1])
    finally:
        child.kill()
        child.wait()
        child.stdout.close()
    said: list[str] = []
    checkpoints = Checkpoints(workdir, metric="score", log=said.append)
    restored = checkpoints.restore(make(0))
    assert restored is not None
    assert said == []  # a kill never looks like damage
    # When `save(seen)` had returned, the save before it was on disk.
    assert seen - 1 <= restored.step <= seen + 1
    assert restored.meta == {"step": restored.step}
    expected = make(restored.step)
    for got, want in ((restored.state["a"], expected["a"]), (restored.state["b"], expected["b"])):
        np.testing.assert_equal(got, want)
    assert restored.state["step"] == restored.step
    for step in checkpoints.steps():  # the older ones are whole as well
        assert checkpoints.restore(make(0), step=step).state["step"] == step
    return restored.step


def _kills(workdir: Path, env: dict[str, str], kills: int) -> None:
    rng = random.Random(kills)
    steps = [_kill_and_check(workdir, env, rng) for _ in range(kills)]
    assert steps == sorted(set(steps))  # each run went further than the one before


def test_a_kill_at_any_moment_leaves_a_folder_that_restores(tmp_path, clean_env):
    _kills(tmp_path, clean_env(), kills=4)


@pytest.mark.slow
def test_many_kills(tmp_path, clean_env):
    _kills(tmp_path, clean_env(), kills=40)


def test_outputs_of_a_parallel_step_are_saved_without_a_device_axis(tmp_path, run_python):
    code = """
    import sys, jax, numpy as np
    from mtl_jax.engine import parallel
    from mtl_jax.engine.checkpoint import Checkpoints
    for backend in ("pmap", "shard_map"):
        step = parallel.DataParallel(
            lambda carry, _, x: ({"w": carry["w"] + parallel.psum(x.sum(0))}, ()), backend)
        state = parallel.replicate({"w": np.zeros(3, np.float32)})
        batch = np.arange(12, dtype=np.float32).reshape(4, 3)
        with Checkpoints(f"{sys.argv[1]}/{backend}") as checkpoints:
            for i in range(1, 4):
                state, _ = step(state, {}, batch)
                checkpoints.save(i, state)
            got = checkpoints.restore({"w": np.zeros(3, np.float32)}).state["w"]
        np.testing.assert_array_equal(got, 3 * batch.sum(0))
        again, _ = step(parallel.replicate({"w": got}), {}, batch)
        np.testing.assert_array_equal(again["w"], 4 * batch.sum(0))
    split = parallel.shard(batch)
    checkpoints = Checkpoints(f"{sys.argv[1]}/split", async_save=False)
    checkpoints.save(1, {"x": split})
    assert checkpoints.restore({"x": np.zeros(split.shape, np.float32)}).state["x"].sum() == 66
    """
    done = run_python("-c", textwrap.dedent(code), str(tmp_path), devices=4)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


TWO = """
import sys
import numpy as np
import jax
from mtl_jax.engine import parallel
from mtl_jax.engine.checkpoint import Checkpoints
from mtl_jax.errors import UserError

port, process, root = sys.argv[1], int(sys.argv[2]), sys.argv[3]
jax.distributed.initialize(f"127.0.0.1:{port}", 2, process, initialization_timeout=60)
workdir = f"{root}/{process}"  # no shared disk: each process has a folder of its own
signs = np.asarray([-0.0, 0.0, np.nan, 1e-45], np.float32)
state = {"signs": parallel.replicate(signs), "local": np.arange(5) + 10 * process, "n": 7,
         "none": np.zeros((0, 2)), "big": parallel.replicate(np.arange(6e6, dtype=np.float32))}
with Checkpoints(workdir) as checkpoints:
    assert checkpoints.restore(state) is None
    checkpoints.save(1, state, {}, {"from": process})
    checkpoints.save(2, state, {}, {"from": process})
    restored = checkpoints.restore(state)
    assert (restored.step, restored.meta) == (2, {"from": 0})
    assert restored.state["signs"].tobytes() == signs.tobytes()
    assert restored.state["local"].tolist() == [10 * 0 + i for i in range(5)]
    assert restored.state["n"] == 7 and restored.state["none"].shape == (0, 2)
    np.testing.assert_array_equal(restored.state["big"], np.arange(6e6, dtype=np.float32))
    placed = parallel.replicate(restored.state["signs"])
    checkpoints.save(3, {**state, "signs": placed})
    try:
        checkpoints.restore({**state, "n": np.zeros(3)})
    except UserError as error:
        assert "n is int64[] there, float64[3] here" in str(error), error
    else:
        raise AssertionError("a wrong template was accepted")
try:
    with Checkpoints(workdir) as again:
        again.save(4, {"x": parallel.shard(np.arange(4.0))})
except ValueError as error:
    assert process == 0 and "differs between processes" in str(error), error
else:
    assert process == 1
print("done", checkpoints.steps())
"""


def test_two_processes_without_a_shared_disk(tmp_path, clean_env):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    children = [
        subprocess.Popen(
            [sys.executable, "-c", TWO, port, str(process), str(tmp_path)],
            env=clean_env(2),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for process in range(2)
    ]
    try:
        outputs = [child.communicate(timeout=170) for child in children]
    finally:
        for child in children:
            child.kill()
    for child, (_, err) in zip(children, outputs, strict=True):
        assert child.returncode == 0, err
    assert outputs[0][0].splitlines()[-1] == "done [2, 3]"
    assert outputs[1][0].splitlines()[-1] == "done []"

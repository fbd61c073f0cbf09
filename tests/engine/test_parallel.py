"""One device, eight devices and two processes are the same run, by either backend."""

from __future__ import annotations

import pathlib
import socket
import subprocess
import sys
from collections.abc import Callable

import jax
import numpy as np
import pytest

from mtl_jax.engine import parallel
from mtl_jax.errors import UserError

WORKER = "tests/engine/parallel_worker.py"


@pytest.fixture(scope="module")
def one_device(run_python: Callable, tmp_path_factory: pytest.TempPathFactory) -> dict:
    out = tmp_path_factory.mktemp("one") / "one.npz"
    done = run_python(WORKER, str(out), "pmap", devices=1, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return {name: value for name, value in np.load(out).items() if "/sent/" not in name}


def _same(out: pathlib.Path, reference: dict, backend: str) -> None:
    found = {name: value for name, value in np.load(out).items() if "/sent/" not in name}
    # Directions are compared of all methods with pmap only, and always on several devices.
    everywhere = {name for name in reference if not name.startswith("directions/")}
    assert everywhere <= found.keys() <= reference.keys()
    assert backend != "pmap" or found.keys() == reference.keys()
    for name, value in found.items():
        np.testing.assert_allclose(value, reference[name], rtol=1e-9, atol=1e-9, err_msg=name)


def test_the_run_moves(one_device: dict) -> None:
    assert len(one_device) > 100
    assert all(np.isfinite(value).all() for value in one_device.values())


@pytest.mark.parametrize(("backend", "devices"), [("pmap", 8), ("shard_map", 1), ("shard_map", 8)])
def test_devices_and_backends_change_nothing(
    backend: str, devices: int, one_device: dict, run_python: Callable, tmp_path: pathlib.Path
) -> None:
    done = run_python(WORKER, str(tmp_path / "o.npz"), backend, devices=devices, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    _same(tmp_path / "o.npz", one_device, backend)
    if devices > 1:
        _sends_parts(dict(np.load(tmp_path / "o.npz")))


def _sends_parts(found: dict) -> None:
    """The stack of 2 tasks is never whole: 65 numbers and 7 of padding, float64, over 8 devices."""
    columns, tasks = 72, 2
    assert found["directions/sent/reduce-scatter"] == 8 * tasks * columns // 8
    methods = {name.split("/")[1] for name in found if name.startswith("directions/")} - {"sent"}
    both_of_mgda = "directions/mgda/loss+/0" in found and "directions/mgda/0" in found
    assert found["directions/sent/all-gather"] == 8 * columns * (len(methods) + both_of_mgda)
    assert found["directions/sent/all-reduce"] < 8 * tasks * columns


@pytest.mark.parametrize("backend", [pytest.param("pmap", marks=pytest.mark.slow), "shard_map"])
def test_two_processes_of_two_devices_change_nothing(
    backend: str, one_device: dict, clean_env: Callable, tmp_path: pathlib.Path
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    workers = [
        subprocess.Popen(
            [
                sys.executable,
                WORKER,
                str(tmp_path / "o.npz"),
                backend,
                f"127.0.0.1:{port}",
                "2",
                str(process),
            ],
            env=clean_env(2),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for process in range(2)
    ]
    try:
        logs = [worker.communicate(timeout=300)[0] for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
    assert [worker.returncode for worker in workers] == [0, 0], logs[0][-2000:] + logs[1][-2000:]
    _same(tmp_path / "o.npz", one_device, backend)


def test_outside_the_axis_psum_is_the_identity() -> None:
    assert jax.jit(lambda x: parallel.psum(x) + parallel.pmean(x))(3.0) == 6.0
    assert parallel.example_index(4).tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("backend", ["pmap", "shard_map"])
def test_another_shape_is_an_error_and_not_a_recompilation(backend: str) -> None:
    step = parallel.DataParallel(lambda c, r, b: (c + 1, b["x"].sum()), backend)
    count = parallel.replicate(np.int32(0))
    for _ in range(3):
        count, out = step(count, {}, {"x": np.ones(4, np.float32)})
    assert (int(count), float(out)) == (3, 4.0)
    assert step.compile_seconds > 0
    with pytest.raises(TypeError):
        step(count, {}, {"x": np.ones(6, np.float32)})


def test_batch_size_must_divide() -> None:
    parallel.check_batch_size(8, 4)
    for batch_size, parts in ((6, 4), (0, 1), (-8, 1)):
        with pytest.raises(UserError, match="use a multiple of"):
            parallel.check_batch_size(batch_size, parts)


def test_unknown_backend_and_missing_coordinator() -> None:
    with pytest.raises(UserError, match="known: pmap, shard_map"):
        parallel.DataParallel(lambda c, r, b: (c, b), "xmap")
    with pytest.raises(UserError, match="--coordinator"):
        parallel.initialise("", 2, 0)

"""Settings and fixtures of the whole suite. The settings must stand before anything imports JAX."""

from __future__ import annotations

import gc
import os
import pathlib
import subprocess
import sys
from collections.abc import Callable, Iterator

ROOT = pathlib.Path(__file__).resolve().parent.parent

# Compiling is most of the suite's time, so compiled code is kept between runs (8x less CPU time
# when warm); outside the repository, because it is specific to this processor. An environment
# variable that is already set wins.
SETTINGS = {
    "JAX_COMPILATION_CACHE_DIR": os.path.join(os.path.expanduser("~"), ".cache", "mtl_jax", "xla"),
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    # The suite means the same on every machine. For the tests marked gpu: JAX_PLATFORMS=cuda.
    "JAX_PLATFORMS": "cpu",
    # A [T] that meets a [B, T] by accident is a bug that no value test is sure to see.
    "JAX_NUMPY_RANK_PROMOTION": "raise",
    "MPLBACKEND": "Agg",
    "TQDM_DISABLE": "1",
}
for _name, _value in SETTINGS.items():
    os.environ.setdefault(_name, _value)

import hypothesis  # noqa: E402
import pytest  # noqa: E402

# The same examples in every run, and no deadline: the first example of a shape compiles.
hypothesis.settings.register_profile("mtl_jax", deadline=None, derandomize=True, max_examples=30)
hypothesis.settings.load_profile("mtl_jax")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skips the tests marked gpu where JAX runs on the CPU."""
    if item.get_closest_marker("gpu") is None:
        return
    import jax

    if jax.default_backend() == "cpu":
        pytest.skip("needs an accelerator: JAX_PLATFORMS=cuda .venv/bin/python -m pytest -m gpu")


@pytest.fixture(scope="module", autouse=True)
def forget_compiled_programs() -> Iterator[None]:
    """Frees every compiled program after its module.

    On the CPU a program holds several memory mappings, and the suite compiles enough of them to
    reach the kernel's limit (vm.max_map_count, 65,530), where JAX dies of a segmentation fault.
    """
    yield
    import jax

    jax.clear_caches()
    gc.collect()


@pytest.fixture(scope="session")
def clean_env() -> Callable[..., dict[str, str]]:
    """Returns `clean_env(devices=None, **extra)`: the environment for a subprocess.

    Nothing of the parent's JAX, XLA, pytest or proxy settings is inherited, except those of this
    file. `devices=8` forces that many host devices.
    """

    def make(devices: int | None = None, **extra: str) -> dict[str, str]:
        foreign = ("JAX_", "XLA_", "TF_", "TPU_", "CUDA_", "PYTEST_", "PYTHON")
        env = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
        env |= {name: os.environ[name] for name in SETTINGS}
        env |= {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
        if devices is not None:
            env["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={devices}"
        return env | extra

    return make


@pytest.fixture(scope="session")
def run_python(
    clean_env: Callable[..., dict[str, str]],
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Returns `run_python(*args, devices=None, timeout=120, cwd=ROOT, env=None)`.

    Runs this Python on `args` (`"-m", "mtl_jax.train", ...` or `"-c", code`) and captures its
    output as text; the exit code is the caller's to check.
    """

    def run(
        *args: str,
        devices: int | None = None,
        timeout: float = 120,
        cwd: pathlib.Path = ROOT,
        env: dict[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *args],
            env=clean_env(devices, **(env or {})),
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    return run

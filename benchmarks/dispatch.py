"""What a call of a compiled step costs besides its arithmetic: pmap, shard_map and plain jit.

A step of a few microseconds of arithmetic is called through each of them. "traced" is the
function that `jax.pmap` or `jax.jit` returns; "compiled" is the executable made from it ahead of
time, which is what `engine.parallel.DataParallel` calls ("data_parallel": with the placement of
the host batch).

    python -m benchmarks.dispatch
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import timing
from mtl_jax.engine import parallel
from mtl_jax.errors import run_command

Tree = Any
COLUMNS = ("leaves", "batch", "call", "median_us", "min_us", "cpu_us")


def _step(carry: Tree, resident: Tree, batch: Tree) -> tuple[Tree, jax.Array]:
    """One multiply-add a leaf and a mean: next to no arithmetic."""
    mean = parallel.pmean(jnp.mean(batch["x"] * resident["scale"]))
    return jax.tree.map(lambda leaf: leaf * 0.999 + mean, carry), mean


def measure(
    leaves: int = 40, batch_size: int = 8, *, rounds: int = 20, seconds: float = 1.0
) -> list[dict[str, Any]]:
    """Times one small step with a state of `leaves` arrays; one row a way of calling it."""
    carry = {f"leaf_{k}": jnp.ones(16) for k in range(leaves)}
    resident = {"scale": jnp.ones(())}
    devices = jax.local_device_count()
    host = {"x": np.ones((batch_size * devices, 4), np.float32)}
    split = jax.tree.map(lambda leaf: leaf.reshape(devices, -1, *leaf.shape[1:]), host)
    axes: dict[str, Any] = {"axis_name": parallel.AXIS, "in_axes": (None, None, 0)}

    jitted = jax.jit(_step)
    pmapped = jax.pmap(_step, out_axes=None, **axes)
    calls: dict[str, Callable[[], Any]] = {
        "jit, traced": lambda: jitted(carry, resident, host),
        "pmap, traced": lambda: pmapped(placed, everywhere, sharded),
    }
    placed, everywhere = parallel.replicate(carry), parallel.replicate(resident)
    sharded = parallel.shard(host)
    jit_exe = jitted.lower(carry, resident, host).compile()
    calls["jit, compiled"] = lambda: jit_exe(carry, resident, host)
    pmap_exe = pmapped.lower(placed, everywhere, split).compile()
    calls["pmap, compiled"] = lambda: pmap_exe(placed, everywhere, sharded)
    for backend in ("pmap", "shard_map"):
        step = parallel.DataParallel(_step, backend, donate=False)
        calls[f"{backend}, data_parallel"] = lambda step=step: step(placed, everywhere, host)
    times = timing.paired(calls, rounds=rounds, seconds=seconds)
    return [
        {
            "leaves": leaves, "batch": batch_size, "call": name,
            "median_us": round(1e3 * taken.median_ms, 1),
            "min_us": round(1e3 * taken.min_ms, 1),
            "cpu_us": round(1e3 * taken.cpu_ms, 1),
        }
        for name, taken in times.items()
    ]  # fmt: skip


def run(full: bool = False) -> list[dict[str, Any]]:
    """Times a small and, when `full`, a larger state, and prints the rows."""
    rows = [row for leaves in ((40, 200) if full else (40,)) for row in measure(leaves)]
    timing.show(rows, COLUMNS)
    return rows


def main(argv: list[str]) -> None:
    """The command."""
    del argv
    before = timing.environment()
    print(f"written: {timing.write('dispatch', run(True), before, full=True)}")


if __name__ == "__main__":
    run_command(main)

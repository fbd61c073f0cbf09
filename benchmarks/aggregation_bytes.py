"""What devices send each other to aggregate T task gradients: all of them, or parts.

The CAGrad step of an MLP on made-up images, a linear head for each task, by `config.train.reduce`.
Bytes are those of the results of all collectives of a step on one device, by kind, read from the
compiled program; `sent_mb` is what each device sends for them along rings (`ring_bytes`): an
all-reduce of N bytes costs 2 N (D - 1) / D, a reduce-scatter or an all-gather of N in all
N (D - 1) / D. Times of devices that are threads of one processor say what the copies cost there,
and nothing of a network: `over_all` is the ratio to the step that sends all, within rounds.

    python -m benchmarks.aggregation_bytes          # 8 devices of one processor, or what is there
    python -m benchmarks.aggregation_bytes --full   # for longer
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import jax

from benchmarks import models, timing
from benchmarks.train_step import Stepper
from mtl_jax.config import FlatConfig, MethodConfig, Reduce
from mtl_jax.engine import parallel
from mtl_jax.engine.collectives import collective_bytes, ring_bytes
from mtl_jax.errors import UserError, run_command
from mtl_jax.systems.vision.classification import make_system
from mtl_jax.systems.vision.heads import Head
from mtl_jax.systems.vision.mlp import MLP

COLUMNS = (
    "tasks", "reduce", "devices", "shared", "all_reduce_mb", "reduce_scatter_mb", "all_gather_mb",
    "sent_mb", "sent_over_all", "median_ms", "over_all", "compile_seconds", "temp_mb",
)  # fmt: skip
REDUCES: tuple[Reduce, ...] = ("all", "scatter")
TASKS = (2, 10, 40)
DEVICES = 8
WIDTHS, BATCH = (128, 128, 50), 64


def measure(
    num_tasks: int,
    *,
    widths: Sequence[int] = WIDTHS,
    batch_size: int = BATCH,
    rounds: int = 5,
    seconds: float = 2.0,
) -> list[dict[str, Any]]:
    """Counts and times both ways of a step, in turns; a row each, fields of `COLUMNS`."""
    parallel.check_batch_size(batch_size)
    devices = parallel.device_count()
    tasks = tuple(f"task_{t}" for t in range(num_tasks))
    system = make_system(MLP(widths), Head(10), tasks)
    data = models.image_data(num_tasks, batch_size)
    config = MethodConfig("cagrad", flat=FlatConfig(combine="erm"))
    steppers = {how: Stepper(system, data, config.make(how)) for how in REDUCES}
    calls: dict[Any, Callable[[], Any]] = {**steppers}
    times = timing.paired(calls, rounds=rounds, seconds=seconds)
    params = steppers["all"].params
    found: list[dict[str, Any]] = []
    for how, stepper in steppers.items():
        sent, taken = collective_bytes(stepper.step.text()), times[how]
        row: dict[str, Any] = {
            "tasks": num_tasks,
            "reduce": how,
            "devices": devices,
            "batch": batch_size,
            "shared": sum(leaf.size for leaf in jax.tree.leaves(params["trunk"])),
            "collective_bytes": sent,
            "sent_bytes": ring_bytes(sent, devices),
            **taken.fields(),
            "over_all": round(taken.over(times["all"]), 4),
            "compile_seconds": round(stepper.step.compile_seconds, 2),
            "temp_mb": round(stepper.step.temp_bytes() / 2**20, 2),
        }
        for kind in ("all-reduce", "reduce-scatter", "all-gather"):
            row[f"{kind.replace('-', '_')}_mb"] = round(sent.get(kind, 0) / 2**20, 3)
        row["sent_mb"] = round(row["sent_bytes"] / 2**20, 3)
        first = (found or [row])[0]["sent_bytes"]
        row["sent_over_all"] = round(row["sent_bytes"] / first, 4) if first else 1.0
        found.append(row)
    return found


def run(full: bool = False) -> list[dict[str, Any]]:
    """Runs every number of tasks, prints as it goes, and returns all rows."""
    if parallel.device_count() == 1:
        raise UserError("there is one device, which sends nothing; run it where there are more")
    rows = []
    for num_tasks in TASKS:
        new = measure(num_tasks, seconds=10.0 if full else 3.0)
        timing.show(new, COLUMNS)
        rows += new
    return rows


def main(argv: list[str]) -> None:
    """The command."""
    # Before anything asks for a device; accelerators do not mind.
    if "host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
        jax.config.update("jax_num_cpu_devices", DEVICES)
    timing.command("aggregation_bytes", run, argv, "for longer")


if __name__ == "__main__":
    run_command(main)

"""The whole training step of operator networks by number of tasks, beside a matrix product.

MT-DeepONet's network for one space dimension (the config of `experiments/mt_deeponet/fisher.py`)
and for geometries (`darcy.py`, its small tier), in float32 on random samples of their shapes, read
from a file like a user's. A step is the loop's: host batch to new parameters, with Adam. A product
of two square matrices takes turns with the steps: `of_product` is the share of its FLOP/s that the
LS step reaches, by the FLOPs that XLA counts (it counts a loop over tasks once, so only there).

The trunk sees the query points once for all tasks, the branch each sample once: gradients of T
tasks cost T backward passes of the trunk alone.

    python -m benchmarks.operator_step          # T = 1, 2, 8; one T of the other networks
    python -m benchmarks.operator_step --full   # T = 1, 2, 4, 8, 16, with all and with drawn points
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import timing
from benchmarks.train_step import compare
from experiments.mt_deeponet import darcy, fisher
from mtl_jax.errors import run_command
from mtl_jax.systems.mt_deeponet import builders
from mtl_jax.systems.mt_deeponet.config import Config

COLUMNS = (
    "network", "tasks", "batch", "points", "method", "median_ms", "min_ms", "cpu_ms",
    "over_ls", "points_per_second", "gflop_per_second", "of_product", "compile_seconds", "temp_mb",
)  # fmt: skip
ALL_TASKS = (1, 2, 4, 8, 16)
TASKS = {"1d": ((1, 2, 8), ALL_TASKS), "1d_drawn": ((2,), ALL_TASKS), "geometries": ((3,), (3,))}
"""Numbers of tasks of the short and of the full form."""
SAMPLES = 480  # of all tasks together, three quarters of them to train on
SIZE = 2048  # of the matrices


class Network(NamedTuple):
    """A network and the shapes of its samples.

    Attributes:
      title: in a table.
      config: its experiment's.
      params: numbers of a sample.
      field: shape of its input function.
      grid: of the query points.
      batch: samples a step; whole for the numbers of tasks that are timed.
      points: query points drawn for a step, 0 for all.
    """

    title: str
    config: Callable[[], Config]
    params: int
    field: tuple[int, ...]
    grid: tuple[int, ...]
    batch: int
    points: int


NETWORKS = {
    "1d": Network("1-D, all points", fisher.get_config, 4, (64,), (20, 64), 192, 0),
    "1d_drawn": Network("1-D, points drawn", fisher.get_config, 4, (64,), (20, 64), 192, 256),
    "geometries": Network("geometries", darcy.get_config, 0, (34, 34), (34, 34), 60, 0),
}


def write_set(path: Path, network: Network, num_tasks: int, seed: int = 0) -> None:
    """Writes random samples of a network's shapes; every task has as many."""
    rng = np.random.default_rng(seed)
    axes = [np.linspace(0, 1, count) for count in network.grid]
    arrays: dict[str, Any] = {
        "field": rng.normal(size=(SAMPLES, *network.field)).astype(np.float32),
        "coords": np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, len(axes)),
        "solutions": rng.normal(size=(SAMPLES, *network.grid)).astype(np.float32),
        "task": np.arange(SAMPLES) % num_tasks,
    }
    if network.params:
        arrays["params"] = rng.normal(size=(SAMPLES, network.params)).astype(np.float32)
    np.savez(path, **arrays)


def make_config(network: Network, path: Path) -> Config:
    """The experiment on the file at `path`."""
    config = network.config()
    data = dataclasses.replace(
        config.data,
        name="file",
        path=str(path),
        train_size=0,
        points_per_step=network.points,
        validation=0.125,
        test=0.125,
    )
    return dataclasses.replace(
        config, data=data, train=dataclasses.replace(config.train, batch_size=network.batch)
    )


def matrix_product(size: int = SIZE) -> Callable[[], Any]:
    """Returns a call that multiplies two matrices [size, size]: 2 size^3 FLOPs."""
    x = jnp.ones((size, size))
    multiply = jax.jit(jnp.matmul)
    return lambda: multiply(x, x)


def measure(
    name: str, num_tasks: int, *, rounds: int = 5, seconds: float = 2.0, size: int = SIZE
) -> list[dict[str, Any]]:
    """Times the methods on a network; one row each, with the fields of `COLUMNS`."""
    network = NETWORKS[name]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "random.npz"
        write_set(path, network, num_tasks)
        parts = builders.build(make_config(network, path))
    points = network.points or int(np.prod(network.grid))
    about = {"network": name, "tasks": num_tasks, "batch": network.batch, "points": points}
    product = {"product": matrix_product(size)}
    rows, times = compare(about, *parts, beside=product, rounds=rounds, seconds=seconds)
    for row in rows:
        own = times[row["method"], row["backend"]]
        row["points_per_second"] = round(1e3 * network.batch * points / own.median_ms)
        counted = row.pop("gflop")
        if row["method"] == "ls":
            share = counted / (2e-9 * size**3) / own.over(times["product"])
            row["gflop_per_second"] = round(1e3 * counted / own.median_ms, 2)
            row["of_product"] = round(share, 4)
    return rows


def run(full: bool = False) -> list[dict[str, Any]]:
    """Runs every network, prints as it goes, and returns all rows."""
    rows = []
    for name in NETWORKS:
        for num_tasks in TASKS[name][full]:
            new = measure(name, num_tasks, seconds=4.0 if full else 1.0)
            timing.show(new, COLUMNS)
            rows += new
    return rows


def main(argv: list[str]) -> None:
    """The command."""
    timing.command("operator_step", run, argv, "more tasks, and for longer")


if __name__ == "__main__":
    run_command(main)

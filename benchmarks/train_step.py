"""The whole training step as the loop runs it, host batch to new parameters: examples a second.

Gathering and composing the batch, forward and backward passes, aggregator, Adam, and the hand-over
from the host are all inside. LS is one backward pass of the summed loss; CAGrad needs every
task's gradient, FS-CAGrad two of them: `floor` counts passes as `benchmarks.task_grads` does.

    python -m benchmarks.train_step          # two tasks
    python -m benchmarks.train_step --full   # also ten tasks, and every backend
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import optax

from benchmarks import models, timing
from benchmarks.task_grads import floor
from mtl_jax.config import FlatConfig, MethodConfig
from mtl_jax.engine import parallel
from mtl_jax.engine.optim import make_optimizer
from mtl_jax.engine.step import init_state, make_train_step
from mtl_jax.errors import run_command
from mtl_jax.methods.base import Method
from mtl_jax.systems.base import Data, System

# Which passes a method needs, for its floor.
METHODS = {"ls": "sum", "cagrad": "first", "fs_cagrad": "fs"}
NAMES = {"ls": "LS", "cagrad": "CAGrad", "fs_cagrad": "FS-CAGrad"}
COLUMNS = (
    "model", "tasks", "batch", "method", "backend", "median_ms", "min_ms", "cpu_ms",
    "examples_per_second", "over_ls", "floor", "over_floor", "compile_seconds", "temp_mb",
)  # fmt: skip


def make_method(name: str) -> Method:
    """Builds a method by the config of the experiments (CAGrad c 0.4, adaptive joint rho 2)."""
    if name == "ls":
        return MethodConfig("linear_scalarization", flat=FlatConfig(combine="erm")).make()
    flat = FlatConfig() if name == "fs_cagrad" else FlatConfig(combine="erm")
    return MethodConfig("cagrad", {"c": 0.4}, flat=flat).make()


class Stepper:
    """Calls a training step on the batches of its data, one after the other.

    Attributes:
      step: the compiled step.
      params: the parameters as they are now.
    """

    def __init__(self, system: System, data: Data, method: Method, backend: Any = "pmap"):
        schedule = optax.constant_schedule(1e-3)

        def make_tx(params: Any, owners: Any) -> optax.GradientTransformation:
            del params
            return make_optimizer("adam", schedule, schedule, owners)

        state, tx = init_state(system, data, method, make_tx, seed=0)
        self._data = data._replace(resident=parallel.replicate(data.resident))
        self._state = parallel.replicate(state)
        self.step = parallel.DataParallel(
            make_train_step(system, self._data, method, tx, seed=0), backend
        )
        self._count = 0

    @property
    def params(self) -> Any:
        return self._state.params

    def __call__(self) -> Any:
        host = self._data.train_batch(self._count)
        self._state, metrics = self.step(self._state, self._data.resident, host)
        self._count += 1
        return self._state, metrics


def compare(
    about: Mapping[str, Any],
    system: System,
    data: Data,
    *,
    methods: Sequence[str] = tuple(METHODS),
    backends: Sequence[str] = ("pmap",),
    beside: Mapping[str, Callable[[], Any]] | None = None,
    rounds: int = 5,
    seconds: float = 2.0,
) -> tuple[list[dict[str, Any]], dict[Any, timing.Timing]]:
    """Times methods and backends in turns; returns a row each, and all timings.

    `over_ls` is the ratio to the LS step of the first backend and of the same turns.

    Args:
      about: the first fields of every row; `batch` among them.
      system: the model.
      data: its data.
      methods: of `METHODS`.
      backends: of `parallel.DataParallel`.
      beside: more calls to time in the same turns, by name.
      rounds: see `timing.in_turns`.
      seconds: likewise.
    """
    keys = [(method, backend) for backend in backends for method in methods]
    steppers = {key: Stepper(system, data, make_method(key[0]), key[1]) for key in keys}
    calls: dict[Any, Callable[[], Any]] = {**steppers, **(beside or {})}
    times: dict[Any, timing.Timing] = dict(timing.paired(calls, rounds=rounds, seconds=seconds))
    base = times.get(("ls", backends[0]))
    rows = []
    for (method, backend), stepper in steppers.items():
        taken = times[method, backend]
        row: dict[str, Any] = {
            **about, "method": method, "backend": backend, **taken.fields(),
            "examples_per_second": round(1e3 * about["batch"] / taken.median_ms, 1),
        }  # fmt: skip
        if base is not None:
            row["over_ls"] = round(taken.over(base), 4)
        row["compile_seconds"] = round(stepper.step.compile_seconds, 2)
        row["temp_mb"] = round(stepper.step.temp_bytes() / 2**20, 1)
        row["gflop"] = round(stepper.step.flops() / 1e9, 3)
        rows.append(row)
    return rows, times


def measure(
    model: str,
    num_tasks: int,
    *,
    batch_size: int = 0,
    methods: Sequence[str] = tuple(METHODS),
    backends: Sequence[str] = ("pmap",),
    rounds: int = 5,
    seconds: float = 2.0,
) -> list[dict[str, Any]]:
    """Times methods and backends on a model; one row each, with the fields of `COLUMNS`."""
    batch_size = batch_size or models.default_batch(model)
    parallel.check_batch_size(batch_size)
    rows, _ = compare(
        {"model": model, "tasks": num_tasks, "batch": batch_size},
        *models.build(model, num_tasks, batch_size),
        methods=methods,
        backends=backends,
        rounds=rounds,
        seconds=seconds,
    )
    for row in rows:
        if "over_ls" in row:
            least = floor(METHODS[row["method"]], num_tasks)
            row |= {"floor": round(least, 4), "over_floor": round(row["over_ls"] / least, 4)}
    return rows


def run(full: bool = False) -> list[dict[str, Any]]:
    """Runs every model, prints as it goes, and returns all rows."""
    tasks = (2, 10) if full else (2,)
    rows = []
    for model in models.MODELS:
        for num_tasks in tasks:
            big = model == "resnet18"
            backends = ("pmap", "shard_map") if full and not big and num_tasks == 2 else ("pmap",)
            if big and num_tasks > 2 and jax.default_backend() == "cpu":
                continue  # a minute a round
            new = measure(model, num_tasks, backends=backends, seconds=4.0 if full else 2.0)
            timing.show(new, COLUMNS)
            rows += new
    return rows


def main(argv: list[str]) -> None:
    """The command."""
    timing.command("train_step", run, argv, "ten tasks and every backend too")


if __name__ == "__main__":
    run_command(main)

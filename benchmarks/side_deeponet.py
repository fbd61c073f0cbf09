"""This package's side of `versus_deepxde`: whole training steps of MT-DeepONet's Fisher network.

The set is solved here and goes through a file, a config and `mtl_jax.run.build`, as a user's would;
the loop is that of `mtl_jax.train` without logs and checkpoints: samples drawn on the host in a
thread, 50 steps a call on data that stays on the device, metrics fetched a call behind.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks import timing
from mtl_jax import run as runs
from mtl_jax.config import FlatConfig, MethodConfig, OptimConfig, TrainConfig
from mtl_jax.data.loader import prefetch
from mtl_jax.data.pde import fisher
from mtl_jax.engine import parallel
from mtl_jax.engine.optim import path_name
from mtl_jax.engine.step import stack_batches
from mtl_jax.systems.mt_deeponet import normaliser
from mtl_jax.systems.mt_deeponet.builders import load
from mtl_jax.systems.mt_deeponet.config import Config, DataConfig
from mtl_jax.train import IN_FLIGHT

# The paper's batch, learning rate and number of samples of each task; steps a call of its file.
BATCH, LR, SAMPLES, PER_CALL = 200, 1e-3, (1000, 1000, 2000), 50


@dataclasses.dataclass(frozen=True)
class Variant:
    """One way to train on the same samples.

    Attributes:
      title: in a table.
      tasks: keep the three equations apart, or call all samples one task.
      points: query points a step, 0 for all.
    """

    title: str
    tasks: bool
    points: int = 0


VARIANTS = {
    "one_task": Variant("one task: the same computation", False),
    "three_tasks": Variant("three tasks, a loss each, and their mean", True),
    "points_256": Variant("another computation: 256 points drawn anew each step", True, 256),
}


def describe(threads: int) -> dict[str, Any]:
    """The environment; XLA takes all cores by itself."""
    del threads
    timing.without_compile_cache()
    return timing.environment()


def write_sets(folder: Path, samples: Sequence[int] = SAMPLES) -> None:
    """Solves the Fisher set (seconds) and writes it as one task and as three, with one split."""
    parts = [
        fisher.make_samples(fisher.DEFAULT, task, range(count))
        for task, count in zip(fisher.TASKS, samples, strict=True)
    ]
    total = sum(samples)
    share = np.argsort(np.random.default_rng(0).random(total)) / total
    times, places = np.linspace(0, 1, fisher.SNAPSHOTS), fisher.cell_centres()
    arrays = {
        "params": np.concatenate([part.params for part in parts]),
        "field": np.concatenate([part.initial for part in parts]),
        "solutions": np.concatenate([part.solutions for part in parts]),
        "coords": np.stack(np.meshgrid(times, places, indexing="ij"), -1).astype(np.float32),
        "coord_names": np.array(["t", "x"]),
        "split": np.where(share < 0.8, "train", np.where(share < 0.9, "validation", "test")),
    }
    task = np.repeat(np.arange(len(samples)), samples)
    np.savez(folder / "one_task.npz", **arrays)
    np.savez(folder / "three_tasks.npz", task=task, task_names=fisher.TASKS, **arrays)


def make_config(
    variant: Variant, folder: Path, batch_size: int = BATCH, per_call: int = PER_CALL
) -> Config:
    """The paper's training without its L2 and its decay of the learning rate."""
    name = "three_tasks" if variant.tasks else "one_task"
    return Config(
        data=DataConfig(
            name="file",
            path=str(folder / f"{name}.npz"),
            batches="mixed",
            points_per_step=variant.points,
        ),
        loss="grid_mse",
        method=MethodConfig("linear_scalarization", flat=FlatConfig(combine="erm")),
        optim=OptimConfig(name="adam", lr=LR),
        train=TrainConfig(
            steps=per_call,
            batch_size=batch_size,
            steps_per_call=per_call,
            eval_every=per_call,
            log_every=per_call,
        ),
    )


class Stepper:
    """Trains one variant, a number of steps at a time."""

    def __init__(self, config: Config):
        self.run = runs.build(config)
        self.config = config
        self.parameters = runs.parameter_count(self.run.init())
        self._count = config.train.steps_per_call
        self._state = parallel.replicate(self.run.init())
        self._done = 0

    def _batches(self, first: int) -> Any:
        numbers = range(first, first + self._count)
        return stack_batches([self.run.data.train_batch(step) for step in numbers])

    def train(self, steps: int) -> Any:
        """Trains for so many steps, a multiple of the steps a call; returns the state."""
        firsts = range(self._done, self._done + steps, self._count)
        flying: collections.deque[Any] = collections.deque()
        with prefetch(map(self._batches, firsts), 2) as batches:
            for hosts in batches:
                self._state, metrics = self.run.train_step(
                    self._state, self.run.data.resident, hosts
                )
                flying.append(metrics)
                if len(flying) >= IN_FLIGHT:
                    parallel.to_host(flying.popleft())
        self._done += steps
        return self._state

    def losses_on_first_batch(self) -> list[float]:
        """Trains on the first batch alone; returns its mean squared error before each update.

        A call's worth of steps; its tasks' losses are weighted as they are in the batch.
        """
        host = self.run.data.train_batch(0)
        task = np.asarray(self.run.data.resident["task"])[host["index"]]
        shares = np.bincount(task, minlength=len(self.run.system.task_names)) / len(task)
        hosts = stack_batches([host] * self._count)
        self._state, metrics = self.run.train_step(self._state, self.run.data.resident, hosts)
        return (np.asarray(parallel.to_host(metrics["losses"]), np.float64) @ shares).tolist()


class Side:
    """All variants of one set of samples; a call named after a variant trains for `steps` steps.

    Writes `shared.npz` into `folder` for the other sides: the first parameters by path, the
    training samples as the network sees them, and which of them make the first batch.
    """

    def __init__(
        self,
        folder: str,
        steps: int,
        batch_size: int = BATCH,
        per_call: int = PER_CALL,
        samples: Sequence[int] = SAMPLES,
    ):
        self._folder, self._steps = Path(folder), steps
        self._sizes = (batch_size, per_call)
        write_sets(self._folder, samples)
        self.calls: dict[str, Any] = {}
        self._steppers: dict[str, Stepper] = {}
        self._share(self._stepper("one_task"))

    def _stepper(self, what: str) -> Stepper:
        if what not in self._steppers:
            self._steppers[what] = Stepper(make_config(VARIANTS[what], self._folder, *self._sizes))
        return self._steppers[what]

    def _share(self, stepper: Stepper) -> None:
        found, state = load(stepper.config.data), stepper.run.init()
        train, scales = found.splits["train"], state.model_state["constants"]
        numbers, field = normaliser.inputs(scales, found.params[train], found.field[train])
        mean, std = (np.asarray(scales[f"solution_{name}"]) for name in ("mean", "std"))
        arrays: dict[str, Any] = {
            "branch": np.concatenate([numbers, field], 1),
            "trunk": normaliser.coordinates(scales, found.coords),
            "solution": (found.solutions[train] - mean) / std,
            "first": np.searchsorted(train, stepper.run.data.train_batch(0)["index"]),
        }
        for path, leaf in jax.tree_util.tree_leaves_with_path(state.params):
            arrays[f"params/{path_name(path)}"] = leaf
        np.savez(self._folder / "shared.npz", **arrays)

    def prepare(self, what: str) -> dict[str, Any]:
        """Compiles a variant; returns its losses on the first batch and how large a step is."""
        stepper = self._stepper(what)
        losses = stepper.losses_on_first_batch()
        self.calls[what] = lambda: stepper.train(self._steps)
        return {
            "losses": losses,
            "parameters": stepper.parameters,
            "tasks": len(stepper.run.system.task_names),
            "points": VARIANTS[what].points or stepper.run.data.resident["masks"].shape[1],
        }

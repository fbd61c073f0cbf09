"""This package's side of `versus_rechub`: SharedBottom, MMoE and PLE without histories.

Calls, each `steps` steps: "loop", the loop of `mtl_jax.train` without logs and checkpoints (row
numbers drawn on the host in a thread, data that stays on the device, metrics fetched a call
behind), and "batches", the step alone on batches that were put together on the host beforehand.
"""

from __future__ import annotations

import collections
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks import timing
from benchmarks.train_step import Stepper, make_method
from mtl_jax.data.impressions import Column, ImpressionSet, check_impressions
from mtl_jax.data.loader import prefetch
from mtl_jax.engine import parallel
from mtl_jax.engine.optim import path_name
from mtl_jax.engine.step import init_state
from mtl_jax.systems.dtrn.builders import make_network
from mtl_jax.systems.dtrn.config import ModelConfig
from mtl_jax.systems.dtrn.data import impression_data
from mtl_jax.systems.dtrn.model import make_system
from mtl_jax.train import IN_FLIGHT

DIM, BOTTOM, TOWER, EXPERTS, OWN_EXPERTS, TASKS = 16, (128, 64), (32,), 4, 1, 2
CHECKED = 6
"""Losses on the first batch that are compared, one before each update."""


def describe(threads: int) -> dict[str, Any]:
    """The environment; XLA takes all cores by itself."""
    del threads
    timing.without_compile_cache()
    return timing.environment()


def random_set(rows: int, columns: int, size: int, held_out: int = 256) -> ImpressionSet:
    """Impressions of uniformly drawn ids, none of them padding, with random labels."""
    rng = np.random.default_rng(0)
    total = rows + 2 * held_out
    order = np.arange(total, dtype=np.int32)
    return check_impressions(
        ImpressionSet(
            name="random",
            task_names=tuple(f"task_{t}" for t in range(TASKS)),
            columns=tuple(Column(f"c{k}", size, "context") for k in range(columns)),
            item="",
            attributes=(),
            dense_names=(),
            histories=(),
            fields=rng.integers(1, size, (total, columns)).astype(np.int32),
            dense=np.zeros((total, 0), np.float32),
            starts=np.zeros((total, 0), np.int64),
            ends=np.zeros((total, 0), np.int64),
            labels=rng.integers(0, 2, (total, TASKS)).astype(np.float32),
            label_mask=np.ones((total, TASKS), np.float32),
            group=np.zeros(total, np.int32),
            time=np.zeros(total, np.int64),
            splits={
                "train": order[:rows],
                "validation": order[rows : rows + held_out],
                "test": order[rows + held_out :],
            },
            truth=np.zeros((total, 0), np.float32),
        ),
        "random",
    )


class Loop(Stepper):
    """Steps as `mtl_jax.train` makes them."""

    def __init__(self, *args: Any):
        super().__init__(*args)
        self._done = 0

    def train(self, steps: int) -> Any:
        """Trains for so many steps; returns the state."""
        numbers = range(self._done, self._done + steps)
        flying: collections.deque[Any] = collections.deque()
        with prefetch(map(self._data.train_batch, numbers), 2) as hosts:
            for host in hosts:
                self._state, metrics = self.step(self._state, self._data.resident, host)
                flying.append(metrics)
                if len(flying) >= IN_FLIGHT:
                    parallel.to_host(flying.popleft())
        self._done += steps
        return self._state

    def on_batches(self, hosts: list[Any]) -> tuple[Any, list[float]]:
        """Takes a step on each batch; returns the state, and the mean loss before each step."""
        found = []
        for host in hosts:
            self._state, metrics = self.step(self._state, self._data.resident, host)
            found.append(metrics["losses"])
        return self._state, [float(np.mean(parallel.to_host(losses))) for losses in found]


class Side:
    """One model; writes `shared.npz` into `folder` for the other side.

    That has the first parameters by path ("params/..."), "fields" [N, F] and "labels" [N, T] of the
    training rows, and "first", which of them make the first batch.
    """

    def __init__(
        self, folder: str, model: str, batch_size: int, steps: int, columns: int, size: int
    ):
        found = random_set(batch_size * steps, columns, size)
        top: Any = model
        network = make_network(
            found,
            1,
            ModelConfig(
                top=top,
                encoder="none",
                trm=False,
                dim=DIM,
                bottom=BOTTOM,
                tower=TOWER,
                experts=EXPERTS,
                own_experts=OWN_EXPERTS,
                dropout=0.0,
            ),
        )
        self._system = make_system(network, found.task_names)
        self._steps, self.calls = steps, {}
        data = [
            impression_data(
                found,
                length=1,
                batch_size=batch_size,
                eval_batch_size=batch_size,
                seed=0,
                shard=0,
                shards=1,
                resident=resident,
            )
            for resident in (True, False)
        ]
        on_host = data[1].train_batch

        def columns_only(step: int) -> Any:
            """What such a network reads; the rest, histories and numbers, is empty here."""
            return {name: leaf for name, leaf in on_host(step).items() if leaf.size}

        self._data = {"loop": data[0], "batches": data[1]._replace(train_batch=columns_only)}
        state, _ = init_state(
            self._system, data[0], make_method("ls"), lambda params, owners: _Nothing(), 0
        )
        leaves = jax.tree_util.tree_leaves_with_path(state.params)
        self._parameters = sum(leaf.size for _, leaf in leaves)
        arrays: dict[str, Any] = {f"params/{path_name(path)}": leaf for path, leaf in leaves}
        arrays["fields"], arrays["labels"] = found.fields, found.labels
        arrays = {**arrays, "first": data[0].train_batch(0)["row"]}
        np.savez(Path(folder) / "shared.npz", **arrays)

    def prepare(self, what: str) -> dict[str, Any]:
        """Compiles "loop" or "batches"; returns its losses on the first batch, and its size."""
        data = self._data[what]
        loop = Loop(self._system, data, make_method("ls"))
        _, losses = loop.on_batches([data.train_batch(0)] * CHECKED)
        if what == "loop":
            self.calls[what] = lambda: loop.train(self._steps)
        else:
            hosts = [data.train_batch(step) for step in range(self._steps)]
            self.calls[what] = lambda: loop.on_batches(hosts)[0]
        return {"losses": losses, "parameters": self._parameters}


class _Nothing:
    """An optimiser without a state."""

    def init(self, params: Any) -> tuple[()]:
        del params
        return ()

"""The training step of a model with one large embedding table, by number of rows.

Two tasks on a shared layer over a few looked-up vectors an example, ids drawn log-uniformly, as
hot items are. The dense update differentiates with respect to the whole table and moves every row
with Adam; row updates (`mtl_jax.engine.tables`) read, move and write only the rows that a batch
touches. `over_smallest` is the ratio to the same update of the smallest table, within rounds. With
several devices the bytes of their collectives are read from the compiled program.

    python -m benchmarks.embedding_step          # 4,096 ids a step
    python -m benchmarks.embedding_step --full   # also 122,880, and longer
"""

from __future__ import annotations

import gc
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks import timing
from mtl_jax.engine import parallel, tables
from mtl_jax.engine.collectives import collective_bytes
from mtl_jax.engine.row_rules import make_row_rule
from mtl_jax.engine.step import init_shapes, init_state, make_train_step
from mtl_jax.errors import UserError, did_you_mean, run_command
from mtl_jax.layers.embedding import init_table, lookup
from mtl_jax.methods.flat_regions import as_method
from mtl_jax.methods.loss_weighting import linear_scalarization
from mtl_jax.systems.base import Data, System

COLUMNS = (
    "rows", "ids", "update", "tables", "devices", "median_ms", "min_ms", "cpu_ms",
    "examples_per_second", "over_smallest", "compile_seconds", "temp_mb", "collective_kb",
)  # fmt: skip
UPDATES = ("dense_adam", "row_adagrad", "lazy_adam", "sgd")
ROWS = (100_000, 1_000_000, 4_000_000)
DIM, HIDDEN, TASKS = 16, 64, 2
SIZES = ((1024, 4), (4096, 30))
"""Examples a step and lookups an example, of the short form and what the full one adds."""
BATCHES = 8  # drawn before the clock runs


def build(rows: int, batch_size: int, lookups: int) -> tuple[System, Data]:
    """A model with a table [rows, DIM], and random batches for it."""
    rng = np.random.default_rng(0)
    ids = np.exp(rng.random((BATCHES, batch_size, lookups)) * np.log(rows)).astype(np.int32)
    labels = rng.integers(0, 2, (BATCHES, batch_size, TASKS)).astype(np.float32)

    def init(key: Any, batch: dict) -> tuple[dict, dict]:
        keys = jax.random.split(key, 3)
        width = batch["ids"].shape[1] * DIM
        return {
            "tables": {"item": init_table(keys[0], rows, DIM)},
            "bottom": {"w": jax.random.normal(keys[1], (width, HIDDEN)) / width**0.5},
            "heads": {"w": jax.random.normal(keys[2], (TASKS, HIDDEN)) / HIDDEN**0.5},
        }, {}

    def features(params: dict, state: dict, batch: dict, key: Any, train: bool) -> tuple:
        x = lookup(params, batch, "item", "ids", batch["ids"])
        return jax.nn.relu(x.reshape(len(x), -1) @ params["bottom"]["w"]), state

    def task_loss(params: dict, z: Any, batch: dict, t: Any) -> tuple:
        logits = z @ params["heads"]["w"]
        losses = optax.sigmoid_binary_cross_entropy(logits, batch["y"][:, t])
        return losses.sum(), jnp.asarray(len(z), jnp.float32)

    system = System(
        task_names=("a", "b"),
        init=init,
        features=features,
        task_loss=task_loss,
        owner=lambda path: "stacked" if path[0] == "heads" else "shared",
        metrics=lambda params, state, batch: {},
        table_ids=lambda batch: {"item": {"ids": batch["ids"]}},
    )

    def train_batch(step: int) -> dict:
        return {"ids": ids[step % BATCHES], "y": labels[step % BATCHES]}

    data = Data({}, train_batch, lambda split: iter(()), lambda _, host, key: host, BATCHES, ())
    return system, data


class Stepper:
    """Calls a training step on one batch after the other.

    Attributes:
      step: the compiled step.
    """

    def __init__(
        self,
        rows: int,
        batch_size: int,
        lookups: int,
        update: str,
        table_backend: tables.TableBackend = "replicated",
        backend: parallel.Backend = "pmap",
    ) -> None:
        if update not in UPDATES:
            raise UserError(f"unknown update {update!r}; {did_you_mean(update, UPDATES)}")
        system, self._data = build(rows, batch_size, lookups)
        method, plan = as_method(linear_scalarization()), None
        if update != "dense_adam":
            rule = make_row_rule(update, 1e-2)
            plan = tables.plan(
                system, *init_shapes(system, self._data), rule, min_rows=0, backend=table_backend
            )
        state, tx = init_state(
            system, self._data, method, lambda params, owners: optax.adam(1e-3), 0, tables=plan
        )
        self._state = tables.place(plan, state)
        self.step = parallel.DataParallel(
            make_train_step(system, self._data, method, tx, seed=0, tables=plan),
            backend,
            is_dealt=tables.is_dealt(plan),
        )
        self._count = 0

    def __call__(self) -> Any:
        host = self._data.train_batch(self._count)
        self._state, metrics = self.step(self._state, {}, host)
        self._count += 1
        return self._state, metrics


def measure(
    update: str,
    sizes: Sequence[int] = ROWS,
    *,
    batch_size: int = 1024,
    lookups: int = 4,
    table_backend: tables.TableBackend = "replicated",
    rounds: int = 5,
    seconds: float = 2.0,
) -> list[dict[str, Any]]:
    """Times an update of tables of several sizes in turns; a row each, fields of `COLUMNS`."""
    parallel.check_batch_size(batch_size)
    steppers = {
        rows: Stepper(rows, batch_size, lookups, update, table_backend) for rows in sorted(sizes)
    }
    named = {str(rows): stepper for rows, stepper in steppers.items()}
    times = timing.paired(named, rounds=rounds, seconds=seconds)
    smallest = times[str(min(sizes))]
    found = []
    for rows, stepper in steppers.items():
        taken = times[str(rows)]
        sent = collective_bytes(stepper.step.text())
        found.append(
            {
                "rows": rows,
                "ids": batch_size * lookups,
                "update": update,
                "tables": "dense" if update == "dense_adam" else table_backend,
                "devices": parallel.device_count(),
                "batch": batch_size,
                "dim": DIM,
                **taken.fields(),
                "examples_per_second": round(1e3 * batch_size / taken.median_ms, 1),
                "over_smallest": round(taken.over(smallest), 4),
                "compile_seconds": round(stepper.step.compile_seconds, 2),
                "temp_mb": round(stepper.step.temp_bytes() / 2**20, 2),
                "collective_kb": round(sum(sent.values()) / 2**10, 2),
                "collective_bytes": sent,
            }
        )
    return found


def run(full: bool = False) -> list[dict[str, Any]]:
    """Runs every update, prints as it goes, and returns all rows."""
    rows = []
    backends: tuple[tables.TableBackend, ...] = ("replicated",)
    if parallel.device_count() > 1:
        backends = ("replicated", "sharded")
    for batch_size, lookups in SIZES if full else SIZES[:1]:
        for update in UPDATES:
            for backend in backends if update != "dense_adam" else backends[:1]:
                new = measure(
                    update,
                    batch_size=batch_size,
                    lookups=lookups,
                    table_backend=backend,
                    seconds=4.0 if full else 2.0,
                )
                timing.show(new, COLUMNS)
                rows += new
                gc.collect()  # the tables of the last ones
    return rows


def main(argv: list[str]) -> None:
    """The command."""
    timing.command("embedding_step", run, argv, "more ids a step, and for longer")


if __name__ == "__main__":
    run_command(main)

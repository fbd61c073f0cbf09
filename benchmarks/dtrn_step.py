"""The whole training step of DTRN by encoder, upper network and number of items.

Three tasks, three behaviour types of ten events, embeddings of 16 numbers, 1,024 examples a step,
on random impressions that stay on the device; other sizes are the config's defaults. A step is the
loop's, host batch to new parameters, LS with Adam; row updates move the item table by AdaGrad and
all else by Adam. What is compared takes turns: `over_shared` is the ratio to the plain transformer
that all pairs of a task and a behaviour type share, under the same upper network, `over_smallest`
the ratio to the same network with the fewest items. The bytes that devices send each other are
read from the program that is compiled for eight of them, in a process where the CPU poses as such.

    python -m benchmarks.dtrn_step          # every encoder under mmoe, every top under the shared
                                            # transformer and TIM + TRM; up to 4 million items
    python -m benchmarks.dtrn_step --full   # every encoder under every top; dense up to 4 million
"""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from benchmarks import timing
from mtl_jax.data.impressions import Attribute, Column, History, ImpressionSet, check_impressions
from mtl_jax.engine import parallel, tables
from mtl_jax.engine.collectives import collective_bytes
from mtl_jax.engine.optim import make_optimizer
from mtl_jax.engine.row_rules import make_row_rule
from mtl_jax.engine.step import init_shapes, init_state, make_train_step
from mtl_jax.errors import UserError, did_you_mean, run_command
from mtl_jax.methods.flat_regions import as_method
from mtl_jax.methods.loss_weighting import linear_scalarization
from mtl_jax.systems.base import Data, System
from mtl_jax.systems.dtrn.builders import make_network
from mtl_jax.systems.dtrn.config import ModelConfig
from mtl_jax.systems.dtrn.data import impression_data
from mtl_jax.systems.dtrn.model import make_system

COLUMNS = (
    "part", "encoder", "top", "items", "update", "median_ms", "min_ms", "cpu_ms",
    "examples_per_second", "over_shared", "over_smallest", "parameters", "compile_seconds",
    "temp_mb",
)  # fmt: skip
COLLECTIVES = ("part", "items", "update", "tables", "devices", "collective_kb")
ENCODERS: dict[str, dict[str, Any]] = {
    "mean": {"encoder": "mean", "trm": False},
    "shared": {"conditioning": "none", "trm": False},
    "tim": {"conditioning": "hyper", "trm": False},
    "tim_table": {"conditioning": "table", "trm": False},
    "tim_separate": {"conditioning": "separate", "trm": False},
    "tim_trm": {"conditioning": "hyper", "trm": True},
}
NAMES = {
    "mean": "mean of the events",
    "shared": "shared transformer",
    "tim": "TIM",
    "tim_table": "TIM, free scales",
    "tim_separate": "a transformer a pair",
    "tim_trm": "TIM + TRM",
}
TOPS = ("shared_bottom", "mmoe", "ple")
UPDATES = ("dense", "row_adagrad")
ITEMS = (100_000, 1_000_000, 4_000_000)
TASKS, BEHAVIOURS, LENGTH, DIM, BATCH = 3, 3, 10, 16, 1024
USERS, HOURS, CATEGORIES = 10_000, 26, 1_000
ROWS, EVENTS = 65_536, 200_000
"""Impressions, all but a few to train on, and events of a behaviour type."""
DEVICES = 8
DEALT: tuple[tuple[str, tables.TableBackend], ...] = (
    ("dense", "replicated"),
    ("row_adagrad", "replicated"),
    ("row_adagrad", "sharded"),
)


class Cell(NamedTuple):
    """What is timed.

    Attributes:
      encoder: of `ENCODERS`.
      top: of `TOPS`.
      items: V.
      update: dense, or the rule of the item table's rows.
    """

    encoder: str
    top: str = "mmoe"
    items: int = ITEMS[0]
    update: str = "dense"


def encoder_cells(full: bool) -> list[Cell]:
    """Encoders under tops, with the fewest items."""
    both = [Cell(encoder, top) for top in TOPS for encoder in ENCODERS]
    chosen = ("shared", "tim_trm")
    return [cell for cell in both if full or cell.top == "mmoe" or cell.encoder in chosen]


def item_cells(full: bool) -> list[Cell]:
    """The cheapest and the whole network by number of items."""
    dense = ITEMS if full else ITEMS[:-1]
    sizes = [(items, "dense") for items in dense] + [(items, "row_adagrad") for items in ITEMS]
    return [Cell(name, "mmoe", *size) for name in ("mean", "tim_trm") for size in sizes]


def random_set(
    items: int, *, rows: int = ROWS, events: int = EVENTS, users: int = USERS, seed: int = 0
) -> ImpressionSet:
    """Random impressions of three tasks; items are drawn log-uniformly, as hot ones are.

    Histories have no to twice `LENGTH` events.
    """
    rng = np.random.default_rng(seed)

    def draw(*shape: int) -> np.ndarray:
        return (1 + np.exp(rng.random(shape) * np.log(items - 1))).astype(np.int32)

    user = rng.integers(2, users, rows)
    fields = np.stack([user, draw(rows), rng.integers(2, HOURS, rows)], 1).astype(np.int32)
    times = np.arange(events, dtype=np.int64)
    histories = tuple(
        History(f"behaviour_{s}", "item_id", draw(events), times, np.ones(events, np.int32))
        for s in range(BEHAVIOURS)
    )
    ends = rng.integers(0, events + 1, (rows, BEHAVIOURS))
    starts = np.maximum(ends - rng.integers(0, 2 * LENGTH + 1, ends.shape), 0)
    category = np.concatenate([[0], rng.integers(2, CATEGORIES, items - 1)]).astype(np.int32)
    order, few = np.arange(rows, dtype=np.int32), max(rows // 64, 1)
    return check_impressions(
        ImpressionSet(
            name="random",
            task_names=tuple(f"task_{t}" for t in range(TASKS)),
            columns=(
                Column("user_id", users, "user"),
                Column("item_id", items, "item"),
                Column("hour", HOURS, "context"),
            ),
            item="item_id",
            attributes=(Attribute("category", CATEGORIES, category[:, None]),),
            dense_names=(),
            histories=histories,
            fields=fields,
            dense=np.zeros((rows, 0), np.float32),
            starts=starts,
            ends=ends,
            labels=rng.integers(0, 2, (rows, TASKS)).astype(np.float32),
            label_mask=np.ones((rows, TASKS), np.float32),
            group=(user - 2).astype(np.int32),
            time=events + rng.integers(0, 1000, rows),
            splits={
                "train": order[: -2 * few],
                "validation": order[-2 * few : -few],
                "test": order[-few:],
            },
            truth=np.zeros((rows, 0), np.float32),
        ),
        "random",
    )


def build(found: ImpressionSet, cell: Cell, batch_size: int = BATCH) -> tuple[System, Data]:
    """Builds a cell's system and data.

    Raises:
      UserError: an unknown encoder, top or update.
    """
    for name, known in ((cell.encoder, ENCODERS), (cell.top, TOPS), (cell.update, UPDATES)):
        if name not in known:
            raise UserError(f"unknown {name!r}; {did_you_mean(name, known)}")
    top: Any = cell.top
    model = ModelConfig(top=top, dim=DIM, width=DIM, **ENCODERS[cell.encoder])
    network, sparse = make_network(found, LENGTH, model), cell.update != "dense"
    data = impression_data(
        found,
        length=LENGTH,
        batch_size=batch_size,
        eval_batch_size=batch_size,
        seed=0,
        shard=0,
        shards=1,
        event_attributes=sparse or not network.items,
    )
    return make_system(network, found.task_names, sparse=sparse), data


class Stepper:
    """Calls a cell's training step on the batches of its data, one after the other.

    Args:
      found: a set with `cell.items` items.
      cell: what to train.
      batch_size: examples a step.
      table_backend: of row updates.
      min_rows: tables with fewer rows are trained densely, as the config has it.

    Attributes:
      step: the compiled step.
      parameters: how many there are.
    """

    def __init__(
        self,
        found: ImpressionSet,
        cell: Cell,
        batch_size: int = BATCH,
        table_backend: tables.TableBackend = "replicated",
        min_rows: int = 20_000,
    ):
        parallel.check_batch_size(batch_size)
        system, self._data = build(found, cell, batch_size)
        method, plan = as_method(linear_scalarization()), None
        if cell.update != "dense":
            rule: Any = cell.update
            plan = tables.plan(
                system,
                *init_shapes(system, self._data),
                make_row_rule(rule, 1e-2),
                min_rows=min_rows,
                backend=table_backend,
            )
        schedule = optax.constant_schedule(1e-3)

        def make_tx(params: Any, owners: Any) -> optax.GradientTransformation:
            del params
            return make_optimizer("adam", schedule, schedule, tables.cut(plan, owners))

        state, tx = init_state(system, self._data, method, make_tx, 0, tables=plan)
        self.parameters = sum(leaf.size for leaf in jax.tree.leaves(state.params))
        self._data = self._data._replace(resident=parallel.replicate(self._data.resident))
        self._state = tables.place(plan, state)
        self.step = parallel.DataParallel(
            make_train_step(system, self._data, method, tx, seed=0, tables=plan),
            is_dealt=tables.is_dealt(plan),
        )
        self._count = 0

    def compile(self) -> None:
        """Compiles the step without a run."""
        self.step.compile(self._state, self._data.resident, self._data.train_batch(0))

    def __call__(self) -> Any:
        host = self._data.train_batch(self._count)
        self._state, metrics = self.step(self._state, self._data.resident, host)
        self._count += 1
        return self._state, metrics


def compile_all(steppers: Iterable[Stepper]) -> None:
    """Compiles as many at once as there are cores: one compilation keeps one core busy."""
    with ThreadPoolExecutor(timing.cores()) as pool:
        list(pool.map(Stepper.compile, steppers))


def measure(
    part: str,
    cells: Sequence[Cell],
    *,
    batch_size: int = BATCH,
    rounds: int = 5,
    seconds: float = 20.0,
    min_rows: int = 20_000,
    **sizes: int,
) -> list[dict[str, Any]]:
    """Times cells in turns; a row each, with the fields of `COLUMNS`.

    `compile_seconds` are those of a core of which the others compile too. Ratios are there where
    the cell that they refer to is among `cells`.

    Args:
      part: name of the comparison, a field of the rows.
      cells: what to time.
      batch_size: examples a step.
      rounds: see `timing.in_turns`.
      seconds: likewise.
      min_rows: see `Stepper`.
      sizes: of `random_set`.
    """
    sets = {items: random_set(items, **sizes) for items in {cell.items for cell in cells}}
    steppers = {
        cell: Stepper(sets[cell.items], cell, batch_size, min_rows=min_rows) for cell in cells
    }
    compile_all(steppers.values())
    named = {"/".join(map(str, cell)): stepper for cell, stepper in steppers.items()}
    taken = timing.paired(named, rounds=rounds, seconds=seconds)
    times = dict(zip(cells, taken.values(), strict=True))
    rows = []
    for cell, stepper in steppers.items():
        own = times[cell]
        row: dict[str, Any] = {
            "part": part,
            **cell._asdict(),
            "batch": batch_size,
            "devices": parallel.device_count(),
            **own.fields(),
            "examples_per_second": round(1e3 * batch_size / own.median_ms, 1),
        }
        alike = [c for c in cells if c._replace(items=cell.items) == cell]
        smallest = min(alike, key=lambda c: c.items)
        for field, other in (
            ("over_shared", cell._replace(encoder="shared")),
            ("over_smallest", smallest if len(alike) > 1 else None),
        ):
            if other in times:
                row[field] = round(own.over(times[other]), 4)
        row |= {
            "parameters": stepper.parameters,
            "compile_seconds": round(stepper.step.compile_seconds, 2),
            "temp_mb": round(stepper.step.temp_bytes() / 2**20, 2),
        }
        rows.append(row)
    return rows


def sent(
    items: Sequence[int] = ITEMS[1:2],
    encoder: str = "tim_trm",
    *,
    batch_size: int = BATCH,
    min_rows: int = 20_000,
    **sizes: int,
) -> list[dict[str, Any]]:
    """Bytes of the collectives of an encoder's step under mmoe on the devices of this process.

    Nothing runs; a row for each number of items and each of `DEALT`, with the fields of
    `COLLECTIVES`.
    """
    rows = []
    for count in items:
        found = random_set(count, **sizes)
        cells = [(Cell(encoder, "mmoe", count, update), backend) for update, backend in DEALT]
        made = [Stepper(found, cell, batch_size, how, min_rows) for cell, how in cells]
        compile_all(made)
        for (cell, backend), stepper in zip(cells, made, strict=True):
            taken = collective_bytes(stepper.step.text())
            rows.append(
                {
                    "part": "collectives",
                    **cell._asdict(),
                    "tables": backend,
                    "devices": parallel.device_count(),
                    "batch": batch_size,
                    "collective_kb": round(sum(taken.values()) / 2**10, 2),
                    "collective_bytes": taken,
                }
            )
        del made, stepper
        gc.collect()  # a dense state on every device
    return rows


def sent_by_devices(devices: int = DEVICES, **options: Any) -> list[dict[str, Any]]:
    """Runs `sent(**options)` in a process whose CPU poses as so many devices.

    Raises:
      UserError: that process failed.
    """
    env = {**os.environ, "JAX_PLATFORMS": "cpu"}
    forced = f"--xla_force_host_platform_device_count={devices}"
    env["XLA_FLAGS"] = f"{env.get('XLA_FLAGS', '')} {forced}".strip()
    code = (
        "import json, sys; from benchmarks import dtrn_step, timing;"
        " timing.without_compile_cache();"
        " print(json.dumps(dtrn_step.sent(**json.loads(sys.argv[1]))))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps(options)],
        stdout=subprocess.PIPE,
        text=True,
        env=env,
        cwd=Path(__file__).parents[1],
        check=False,
    )
    if done.returncode:
        raise UserError(
            f"the process with {devices} devices died with exit code {done.returncode}; see its"
            " output above"
        )
    return json.loads(done.stdout.splitlines()[-1])


def run(full: bool = False) -> list[dict[str, Any]]:
    """Runs every part, prints as it goes, and returns all rows."""
    rows = []
    for part, cells in (("encoders", encoder_cells(full)), ("items", item_cells(full))):
        new = measure(part, cells, seconds=90.0 if full else 20.0)
        timing.show(new, COLUMNS)
        rows += new
        gc.collect()  # the tables of the last ones
    new = sent_by_devices(items=ITEMS[:2] if full else ITEMS[1:2])
    timing.show(new, COLLECTIVES)
    return rows + new


def main(argv: list[str]) -> None:
    """The command."""
    timing.command("dtrn_step", run, argv, "every encoder under every top, and for longer")


if __name__ == "__main__":
    run_command(main)

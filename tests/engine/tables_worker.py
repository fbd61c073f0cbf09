"""A toy with embedding tables, and ways to train it; run by test_tables on several devices.

python tests/engine/tables_worker.py OUT BACKEND [COORDINATOR PROCESSES PROCESS [RUN]]
python tests/engine/tables_worker.py sizes BACKEND

The first writes what three steps of several rules make of the parameters, and a checkpoint beside
OUT that it goes on from (from that of RUN, where given). The second prints, by table backend and
number of rows, the bytes that devices send each other and the temporary memory of a step.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mtl_jax.config import ExperimentConfig
from mtl_jax.engine import parallel, tables
from mtl_jax.engine.checkpoint import Checkpoints
from mtl_jax.engine.collectives import collective_bytes
from mtl_jax.engine.row_rules import RowRule, lazy_adam, row_adagrad, sgd
from mtl_jax.engine.step import init_shapes, init_state, make_eval_step, make_train_step
from mtl_jax.layers.embedding import lookup
from mtl_jax.methods.cagrad import cagrad
from mtl_jax.methods.flat_regions import as_method, flat_regions
from mtl_jax.methods.loss_weighting import famo, linear_scalarization
from mtl_jax.methods.upgrad import upgrad
from mtl_jax.metrics.base import Mean
from mtl_jax.systems.base import Data
from tests import toys

ITEMS, USERS, LENGTH, SIZE = 47, 11, 4, 64
METHODS = {
    "ls": lambda: as_method(linear_scalarization()),
    "famo": lambda: as_method(famo()),
    "cagrad": lambda: as_method(cagrad()),
    "upgrad": lambda: as_method(upgrad()),
    "flat": lambda: flat_regions(cagrad(), 0.1),
}
RULES = {
    "sgd": lambda: sgd(0.1),
    "row_adagrad": lambda: row_adagrad(0.1, 1e-8, 0.01),
    "lazy_adam": lambda: lazy_adam(0.05),
}


def toy(items: int = ITEMS, own_users: bool = False) -> toys.Toy:
    """A table of items with two uses, one of them with padding, and a table of users.

    With `own_users` the user table belongs to task 0 alone.
    """
    plain = toys.stacked()

    def init(key: Any, batch: dict) -> tuple:
        params, state = plain.system.init(key, batch)
        rng = np.random.default_rng(5)
        dtype = batch["x"].dtype
        made = {
            name: jnp.asarray(rng.normal(size=(rows, toys.WIDTH)), dtype)
            for name, rows in (("item", items), ("user", USERS))
        }
        return {**params, "tables": made}, state

    def ids(batch: dict) -> dict:
        return {
            "item": {"candidate": batch["candidate"], "history": batch["history"]},
            "user": {"user": batch["user"]},
        }

    def find(params: dict, batch: dict, table: str, use: str) -> jax.Array:
        return lookup(params, batch, table, use, batch[use])

    def features(params: dict, state: Any, batch: dict, key: Any, train: bool) -> tuple:
        x = batch["x"] + find(params, batch, "item", "candidate")
        x = x + find(params, batch, "item", "history").sum(1)
        if not own_users:
            x = x + find(params, batch, "user", "user")
        return jnp.tanh(x @ params["trunk"]["w"]), state

    def task_loss(params: dict, z: Any, batch: dict, t: Any) -> tuple:
        if own_users and t == 0:
            z = z * jax.nn.sigmoid(find(params, batch, "user", "user").sum(1, keepdims=True))
        return toys._squared((z @ params["heads"]["w"])[:, 0], batch, t, mask=True)

    def owner(path: tuple[str, ...]) -> Any:
        return 0 if own_users and path[-1] == "user" else plain.system.owner(path)

    def metrics(params: dict, state: Any, batch: dict) -> dict:
        z, _ = features(params, state, batch, None, False)
        rows = [toys.head_row(params, t) for t in range(3)]
        sums = [task_loss(rows[t], z, batch, t) for t in range(3)]
        return {f"task{t}": {"loss": Mean(*sums[t])} for t in range(3)}

    def predict(params: dict, state: Any, batch: dict) -> dict:
        return {"z": features(params, state, batch, None, False)[0]}

    system = plain.system._replace(
        init=init,
        predict=predict,
        features=features,
        task_loss=task_loss,
        owner=owner,
        metrics=metrics,
        table_ids=ids,
    )
    return toys.Toy(system, plain.batch)


def data_of(items: int = ITEMS, batch_size: int = toys.BATCH) -> Data:
    """64 rows whose ids repeat, are padding, or lie outside the table."""
    shard, shards = parallel.process_index(), parallel.process_count()
    plain = toys.data_of(
        toys.stacked(), size=SIZE, batch_size=batch_size, shard=shard, shards=shards
    )
    rng = np.random.default_rng(7)
    history = rng.integers(0, items, (SIZE, LENGTH)).astype(np.int32)
    history[rng.random(history.shape) < 0.3] = 0
    history[3, 1] = items + 2
    history[5] = 0
    more = {
        "candidate": rng.integers(0, items, SIZE).astype(np.int32),
        "history": history,
        "user": rng.integers(1, USERS, SIZE).astype(np.int32),
    }

    def assemble(resident: dict, host: dict, keys: Any) -> dict:
        mask = {"mask": host["mask"]} if "mask" in host else {}
        return {**plain.assemble(resident, host, keys), **mask}

    return plain._replace(resident={**plain.resident, **more}, assemble=assemble)


@dataclasses.dataclass(frozen=True)
class Config(ExperimentConfig):
    """A config that `run.build` takes."""

    system: ClassVar[str] = "tests.engine.tables_worker"


def build(config: Config) -> tuple:
    """What `run.build` asks a system's module for."""
    del config
    return toy().system, data_of()


def planned(system: Any, data: Data, rule: RowRule, **options: Any) -> Any:
    """`tables.plan` for all tables, however small."""
    options = {"min_rows": 0, **options}
    return tables.plan(system, *init_shapes(system, data), rule, **options)


def train(
    rule: RowRule | None,
    method: Any,
    *,
    steps: int = 3,
    parts: Any = None,
    backend: Any = "",
    table_backend: Any = "replicated",
    tx: Any = None,
    microbatches: int = 1,
    start: Any = None,
    first: int = 0,
    free: Any = None,
    scored: bool = False,
    **options: Any,
) -> tuple:
    """Trains; returns (state on the host in whole tables, metrics, evaluation sums)."""
    system, data = parts or (toy().system, data_of())
    plan = None
    if rule is not None:
        plan = planned(system, data, rule, backend=table_backend, **options)

    def make_tx(params: Any, owners: Any) -> Any:
        return tx or optax.sgd(0.1)

    state, tx = init_state(system, data, method, make_tx, 0, tables=plan)
    if start is not None:
        state = start
    step = make_train_step(
        system, data, method, tx, seed=0, tables=plan, microbatches=microbatches, free=free
    )
    score = make_eval_step(system, data, plan)
    if backend:
        marks = tables.is_dealt(plan)
        call: Any = parallel.DataParallel(step, backend, is_dealt=marks)
        score_call: Any = parallel.DataParallel(score, backend, donate=False, is_dealt=marks)
        state, resident = tables.place(plan, state), parallel.replicate(data.resident)
    else:
        call, score_call, resident = jax.jit(step), jax.jit(score), data.resident
    metrics = {}
    for k in range(first, first + steps):
        state, metrics = call(state, resident, data.train_batch(k))
        jax.block_until_ready(metrics)
    sums = [
        parallel.to_host(score_call((state.params, state.model_state), resident, host)[1])
        for host in (data.eval_batches("val") if scored else ())
    ]
    return tables.export(plan, state), parallel.to_host(metrics), sums


def goes_on(out: str, backend: str, source: str) -> tuple:
    """Trains three steps, saves, restores and trains three more; or restores those of a run."""
    rule, method = RULES["lazy_adam"], METHODS["ls"]
    options: Any = {"backend": backend, "table_backend": "sharded"}
    state, _, _ = train(rule(), method(), steps=0 if source else 3, **options)
    folder = source or f"{out}.run"
    with Checkpoints(folder, async_save=False) as saved:
        if not source:
            saved.save(3, state)
        found = saved.restore(state)
    assert found is not None
    assert found.step == 3
    return train(rule(), method(), start=found.state, first=3, **options)


def sizes(backend: Any) -> None:
    """Prints {table backend: {rows: {"collectives": {...}, "temp": ...}}}."""
    found: dict[str, dict[str, Any]] = {}
    for where in ("replicated", "sharded"):
        found[where] = {}
        for items in (1009, 20011):
            system, data = toy(items).system, data_of(items)
            plan = planned(system, data, RULES["lazy_adam"](), backend=where)
            method = METHODS["ls"]()
            state, tx = init_state(
                system, data, method, lambda params, owners: optax.sgd(0.1), 0, tables=plan
            )
            marks = tables.is_dealt(plan)
            step = make_train_step(system, data, method, tx, seed=0, tables=plan)
            call = parallel.DataParallel(step, backend, is_dealt=marks)
            score = make_eval_step(system, data, plan)
            score_call = parallel.DataParallel(score, backend, donate=False, is_dealt=marks)
            if where == "sharded":
                check_refusals(call, state, data)
            state = tables.place(plan, state)
            resident = parallel.replicate(data.resident)
            call.compile(state, resident, data.train_batch(0))
            carry = (state.params, state.model_state)
            score_call.compile(carry, resident, next(iter(data.eval_batches("val"))))
            found[where][str(items)] = {
                "train": collective_bytes(call.text()),
                "eval": collective_bytes(score_call.text()),
                "temp": [call.temp_bytes(), score_call.temp_bytes()],
            }
            if where == "sharded":
                try:
                    parallel.to_host(state.params)
                except ValueError as error:
                    assert "collect it first" in str(error)  # noqa: PT017
                else:
                    raise AssertionError("one device's rows were taken for the table")
    print(json.dumps(found))


def check_refusals(call: parallel.DataParallel, state: Any, data: Data) -> None:
    try:
        call.compile(state, data.resident, data.train_batch(0))
    except ValueError as error:
        assert "place the state first" in str(error)  # noqa: PT017
    else:
        raise AssertionError("a state that was not placed was compiled")


def main(
    out: str,
    backend: str,
    coordinator: str = "",
    processes: str = "1",
    process: str = "0",
    source: str = "",
) -> None:
    jax.config.update("jax_enable_x64", True)
    if out == "sizes":
        sizes(backend)
        return
    parallel.initialise(coordinator, int(processes), int(process))
    result: dict[str, Any] = {}
    cases = [("row_adagrad", "flat"), ("lazy_adam", "famo")]
    for where in ("replicated", "sharded"):
        for rule, method in cases:
            state, metrics, sums = train(
                RULES[rule](),
                METHODS[method](),
                backend=backend,
                table_backend=where,
                scored=method == "famo",
            )
            rows = {name: leaf["rule"] for name, leaf in state.opt_state["tables"].items()}
            kept = parallel.to_host((state.params, rows, state.method_state, metrics, sums))
            for i, leaf in enumerate(jax.tree.leaves(kept)):
                result[f"{where}/{rule}/{method}/{i}"] = leaf
    state, metrics, _ = goes_on(out, backend, source)
    for i, leaf in enumerate(jax.tree.leaves(parallel.to_host((state.params, metrics)))):
        result[f"resumed/{i}"] = leaf
    if parallel.process_index() == 0:
        np.savez(out, **result)


if __name__ == "__main__":
    main(*sys.argv[1:])

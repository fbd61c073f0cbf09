"""Tables updated row by row are the tables updated densely, at the price of the touched rows."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import socket
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mtl_jax import run as runs
from mtl_jax.config import FlatConfig, MethodConfig, OptimConfig, TableConfig, TrainConfig
from mtl_jax.engine import tables
from mtl_jax.engine.checkpoint import Checkpoints
from mtl_jax.engine.collectives import collective_bytes
from mtl_jax.engine.row_rules import sgd, with_l2
from mtl_jax.engine.step import init_shapes, init_state, make_train_step, repeat, stack_batches
from mtl_jax.errors import UserError
from mtl_jax.methods.base import Method
from tests import toys
from tests.engine import tables_worker as worker

WORKER = "tests/engine/tables_worker.py"
BACKENDS = ["pmap", pytest.param("shard_map", marks=pytest.mark.slow)]  # slow: a minute each


def _close(a: Any, b: Any, rtol: float = 2e-5, atol: float = 2e-6) -> None:
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=rtol, atol=atol), a, b)


def _same_bits(a: Any, b: Any) -> None:
    jax.tree.map(np.testing.assert_array_equal, a, b)


def _tables(state: Any) -> dict[str, np.ndarray]:
    return jax.tree.map(np.asarray, state.params["tables"])


def _touched(steps: int, first: int = 0) -> dict[str, set[int]]:
    """The rows that the steps from `first` to before `steps` touch."""
    data, system = worker.data_of(), worker.toy().system
    found: dict[str, set[int]] = {}
    for step in range(first, steps):
        batch = data.assemble(data.resident, data.train_batch(step), None)
        for name, uses in tables.ids_of(system, batch).items():
            size = {"item": worker.ITEMS, "user": worker.USERS}[name]
            ids = np.concatenate([np.ravel(part) for part in uses.values()])
            found.setdefault(name, set()).update(ids[(ids > 0) & (ids < size)].tolist())
    return found


# Equal to dense updates


@pytest.mark.parametrize("method", list(worker.METHODS))
def test_sgd_row_by_row_is_sgd(method: str) -> None:
    """Task gradients, Gram matrix, perturbations, the loss after the step: all as with V rows."""
    make = worker.METHODS[method]
    dense, metrics, scores = worker.train(None, make(), scored=True)
    rows, row_metrics, row_scores = worker.train(worker.RULES["sgd"](), make(), scored=True)
    last = [len(_touched(3, first=2)[name]) for name in ("item", "user")]
    assert row_metrics.pop("table_rows").tolist() == last
    _close(dense.params, rows.params)
    _close(metrics, row_metrics, rtol=1e-4)
    _close(dense.method_state, rows.method_state, rtol=1e-4)
    _close(scores, row_scores)


def test_micro_batches_share_the_rows() -> None:
    make = worker.METHODS["cagrad"]
    whole, _, _ = worker.train(worker.RULES["row_adagrad"](), make())
    parts, _, _ = worker.train(worker.RULES["row_adagrad"](), make(), microbatches=4)
    _close(whole.params, parts.params)


def test_a_table_of_one_task() -> None:
    """Its rows take that task's own gradient, as a head does."""
    parts = worker.toy(own_users=True).system, worker.data_of()
    make = worker.METHODS["cagrad"]
    dense, metrics, _ = worker.train(None, make(), parts=parts)
    rows, row_metrics, _ = worker.train(worker.RULES["sgd"](), make(), parts=parts)
    _close(dense.params, rows.params)
    _close(metrics["cosines"], row_metrics["cosines"], rtol=1e-4)


def test_row_adagrad_is_a_dense_row_adagrad_in_numpy() -> None:
    system, data, method = worker.toy().system, worker.data_of(), worker.METHODS["upgrad"]()

    # An optimiser that moves nothing and keeps the gradient.
    def kept(updates: Any, state: Any, params: Any = None) -> tuple:
        return jax.tree.map(jnp.zeros_like, updates), updates

    keep = optax.GradientTransformation(lambda params: params, kept)
    state, _ = init_state(system, data, method, lambda params, owners: keep, 0)
    step = jax.jit(make_train_step(system, data, method, keep, seed=0))
    totals = {"item": np.full(worker.ITEMS, 0.01), "user": np.full(worker.USERS, 0.01)}
    for k in range(3):
        state, _ = step(state, data.resident, data.train_batch(k))
        grads = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), state.opt_state)
        after = jax.tree.map(lambda p, g: p - 0.1 * g, jax.device_get(state.params), grads)
        for name, total in totals.items():
            grad = grads["tables"][name]
            total += (grad**2).mean(1)
            before = np.asarray(state.params["tables"][name], np.float64)
            after["tables"][name] = before - 0.1 * grad / (np.sqrt(total) + 1e-8)[:, None]
        state = state.replace(params=jax.tree.map(lambda p: jnp.asarray(p, jnp.float32), after))
    rows, _, _ = worker.train(worker.RULES["row_adagrad"](), worker.METHODS["upgrad"]())
    _close(rows.params, state.params)
    for name, total in totals.items():
        np.testing.assert_allclose(rows.opt_state["tables"][name]["rule"]["sum"], total, rtol=1e-4)


def test_lazy_adam_is_adam_where_every_row_is_touched() -> None:
    parts = worker.toy(items=6).system, worker.data_of(items=6, batch_size=worker.SIZE)
    tx, make = optax.adam(0.05), worker.METHODS["cagrad"]
    dense, _, _ = worker.train(None, make(), parts=parts, tx=tx)
    rows, metrics, _ = worker.train(worker.RULES["lazy_adam"](), make(), parts=parts, tx=tx)
    assert metrics["table_rows"].tolist() == [5, worker.USERS - 1]
    _close(dense.params, rows.params, rtol=1e-4, atol=1e-5)


def test_untouched_rows_keep_every_bit_and_so_does_padding() -> None:
    """Where dense Adam would go on moving them."""
    first, _, _ = worker.train(worker.RULES["lazy_adam"](), worker.METHODS["ls"](), steps=0)
    state, _, _ = worker.train(worker.RULES["lazy_adam"](), worker.METHODS["ls"](), steps=1)
    before, after, touched = _tables(first), _tables(state), _touched(1)
    for name in before:
        moved = {int(i) for i in np.flatnonzero((before[name] != after[name]).any(1))}
        assert moved == touched[name]
        assert len(moved) < len(before[name]) - 1
        counts = np.asarray(state.opt_state["tables"][name]["rule"]["count"])
        assert set(np.flatnonzero(counts)) == touched[name]


def test_one_clipping_of_rows_and_other_parameters() -> None:
    tx = optax.chain(optax.clip_by_global_norm(0.05), optax.sgd(0.1))
    dense, _, _ = worker.train(None, worker.METHODS["ls"](), tx=tx)
    rows, metrics, _ = worker.train(worker.RULES["sgd"](), worker.METHODS["ls"](), clip_norm=0.05)
    _close(dense.params, rows.params)
    assert metrics["grad_norm"] == pytest.approx(0.05, rel=1e-4)


def test_l2_and_regularisers_see_touched_rows_only() -> None:
    system, data = worker.toy().system, worker.data_of()
    first, _, _ = worker.train(worker.RULES["sgd"](), worker.METHODS["ls"](), steps=0)
    plain, _, _ = worker.train(worker.RULES["sgd"](), worker.METHODS["ls"](), steps=1)
    l2, _, _ = worker.train(with_l2(sgd(0.1), 0.3), worker.METHODS["ls"](), steps=1)

    def penalty(params: dict) -> Any:
        return 0.15 * sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(params["tables"]))

    parts = system._replace(regulariser=penalty), data
    added, _, _ = worker.train(worker.RULES["sgd"](), worker.METHODS["ls"](), steps=1, parts=parts)
    for name, rows in _touched(1).items():
        want = _tables(plain)[name].copy()
        at = sorted(rows)
        want[at] -= 0.1 * 0.3 * _tables(first)[name][at]
        _close(_tables(l2)[name], want)
        _close(_tables(added)[name], want)


def test_a_table_that_is_not_trained_stays() -> None:
    system, data = worker.toy().system, worker.data_of()
    shapes, _ = init_shapes(system, data)
    free = jax.tree.map(lambda _: True, shapes)
    free["tables"]["item"] = False
    first, _, _ = worker.train(worker.RULES["lazy_adam"](), worker.METHODS["ls"](), steps=0)
    state, _, _ = worker.train(with_l2(sgd(0.1), 0.3), worker.METHODS["ls"](), free=free)
    before, after = _tables(first), _tables(state)
    _same_bits(before["item"], after["item"])
    assert (before["user"] != after["user"]).any()


def test_small_tables_stay_with_the_dense_optimiser() -> None:
    state, metrics, _ = worker.train(
        worker.RULES["sgd"](), worker.METHODS["ls"](), tx=optax.adam(0.1), min_rows=worker.ITEMS
    )
    assert metrics["table_rows"].shape == (1,)
    assert set(state.opt_state["tables"]) == {"item"}
    assert "user" in state.opt_state["dense"][0].mu["tables"]
    first, _, _ = worker.train(None, worker.METHODS["ls"](), steps=0)
    moved = np.abs(_tables(state)["user"] - _tables(first)["user"]).max()
    assert moved > 0.05  # Adam's steps are of the size of its rate


def test_several_steps_in_one_call() -> None:
    system, data, method = worker.toy().system, worker.data_of(), worker.METHODS["cagrad"]()
    plan = worker.planned(system, data, worker.RULES["lazy_adam"]())
    state, tx = init_state(
        system, data, method, lambda params, owners: optax.sgd(0.1), 0, tables=plan
    )
    many = jax.jit(repeat(make_train_step(system, data, method, tx, seed=0, tables=plan), 3))
    state, metrics = many(
        state, data.resident, stack_batches([data.train_batch(k) for k in range(3)])
    )
    want, last, _ = worker.train(worker.RULES["lazy_adam"](), worker.METHODS["cagrad"]())
    assert metrics["table_rows"].shape == (3, 2)
    _close(state.params, want.params)
    np.testing.assert_array_equal(metrics["table_rows"][-1], last["table_rows"])


# Distinct ids


def _find(uses: dict[str, np.ndarray], size: int, capacity: int = 0) -> tables.Rows:
    """With a scratch array full of what earlier steps may have left."""
    plan = tables.Tables({"t": sgd(0.1)}, {"t": size}, capacity)
    scratch = np.random.default_rng(9).integers(-5, 3 * size, size).astype(np.int32)
    return jax.jit(lambda *args: tables.find(plan, "t", *args))(uses, jnp.asarray(scratch))


@pytest.mark.parametrize("capacity", [0, 9, 12, 40])
@pytest.mark.parametrize("seed", range(3))
def test_distinct_ids_by_brute_force(seed: int, capacity: int) -> None:
    size, rng = 10, np.random.default_rng(seed)
    uses = {"a": rng.integers(-2, 13, 7), "b": rng.integers(0, 10, (3, 5)), "c": np.zeros((2, 0))}
    uses = {use: ids.astype(np.int32) for use, ids in uses.items()}
    found = _find(uses, size, capacity)
    ids = np.concatenate([part.ravel() for part in uses.values()])
    real = set(ids[(ids > 0) & (ids < size)].tolist())
    at = np.asarray(found.at)
    assert int(found.count) == len(real)
    assert len(at) == (capacity if 0 < capacity < len(ids) else len(ids))
    assert set(at[at < size].tolist()) == real
    assert len(set(at.tolist())) == len(at)  # nothing is written twice
    for use, part in uses.items():
        slots = np.asarray(found.slots[use])
        assert slots.shape == part.shape
        inside = (part > 0) & (part < size)
        np.testing.assert_array_equal(at[slots[inside]], part[inside])
        assert (slots[~inside] >= len(at)).all()


def test_nothing_but_padding_changes_nothing() -> None:
    found = _find({"a": np.zeros((4, 2), np.int32)}, 10)
    assert int(found.count) == 0
    assert (np.asarray(found.at) >= 10).all()
    data = worker.data_of()
    none = {name: np.zeros_like(data.resident[name]) for name in ("candidate", "history", "user")}
    parts = worker.toy().system, data._replace(resident={**data.resident, **none})
    first, _, _ = worker.train(worker.RULES["row_adagrad"](), worker.METHODS["cagrad"](), steps=0)
    state, metrics, _ = worker.train(
        worker.RULES["row_adagrad"](), worker.METHODS["cagrad"](), parts=parts
    )
    _same_bits(_tables(first), _tables(state))
    assert np.isfinite(metrics["losses"]).all()
    assert metrics["table_rows"].tolist() == [0, 0]


def test_a_capacity_that_is_enough_changes_nothing_and_one_that_is_not_stops_the_run() -> None:
    make, rule = worker.METHODS["cagrad"], worker.RULES["row_adagrad"]
    want, free_metrics, _ = worker.train(rule(), make(), steps=1)
    most = int(free_metrics["table_rows"].max())
    state, metrics, _ = worker.train(rule(), make(), steps=1, capacity=most)
    _close(want.params, state.params)
    plan = tables.Tables({"item": sgd(0.1), "user": sgd(0.1)}, {}, most)
    tables.check_capacity(plan, metrics["table_rows"], 1)
    tables.check_capacity(None, metrics["table_rows"], 1)
    _, metrics, _ = worker.train(rule(), make(), steps=1, capacity=most - 1)
    assert np.isnan(metrics["losses"]).all()  # a loop that does not check stops too
    assert int(metrics["table_rows"].max()) == most
    with pytest.raises(UserError, match=f"step 7 has {most} distinct ids of the table item"):
        tables.check_capacity(plan._replace(capacity=most - 1), metrics["table_rows"], 7)


# Refusals


def test_a_method_with_a_state_of_every_parameter_is_refused() -> None:
    plain = worker.METHODS["ls"]()
    keeps = Method(lambda params, owners, num_tasks: params, plain.update)
    with pytest.raises(UserError, match=r"keeps a state for every parameter.*item, user"):
        worker.train(worker.RULES["sgd"](), keeps)


def test_plans_that_cannot_be() -> None:
    system, data = worker.toy().system, worker.data_of()
    with pytest.raises(UserError, match="known: replicated, sharded"):
        worker.planned(system, data, sgd(0.1), backend="both")
    with pytest.raises(UserError, match="capacity of tables is -1"):
        worker.planned(system, data, sgd(0.1), capacity=-1)
    assert worker.planned(system, data, sgd(0.1), min_rows=1000) is None
    assert worker.planned(toys.stacked().system, data, sgd(0.1)) is None
    wrong = system._replace(table_ids=lambda batch: {"shop": {"a": batch["candidate"]}})
    with pytest.raises(ValueError, match="'shop'"):
        worker.planned(wrong, data, sgd(0.1))


# Checkpoints


def test_a_run_goes_on_bit_for_bit(tmp_path: pathlib.Path) -> None:
    make, rule = worker.METHODS["flat"], worker.RULES["lazy_adam"]
    whole, _, _ = worker.train(rule(), make(), steps=4)
    half, _, _ = worker.train(rule(), make(), steps=2)
    with Checkpoints(tmp_path) as saved:
        saved.save(2, half)
        found = saved.restore(half)
    assert found is not None
    again, _, _ = worker.train(rule(), make(), steps=2, start=found.state, first=2)
    _same_bits(whole, again)


def test_the_state_of_a_system_without_tables_is_as_ever() -> None:
    system, data, method = toys.table().system, toys.data_of(toys.table()), worker.METHODS["ls"]()
    state, _ = init_state(system, data, method, lambda params, owners: optax.adam(0.1), 0)
    assert jax.tree.structure(state.opt_state) == jax.tree.structure(
        optax.adam(0.1).init(state.params)
    )


# A run from a config


@pytest.mark.parametrize("where", ["replicated", "sharded"])
def test_a_run_from_a_config(where: Any, tmp_path: pathlib.Path) -> None:
    config = worker.Config(
        method=MethodConfig("linear_scalarization", flat=FlatConfig(combine="erm")),
        optim=OptimConfig(lr=0.1, name="sgd", clip_norm=0.05, trainable="tables/item,trunk/*"),
        train=TrainConfig(steps=3, batch_size=toys.BATCH, log_every=1, eval_every=1),
    )
    dense = runs.build(config)
    rows = TableConfig("sgd", min_rows=0, backend=where)
    config = dataclasses.replace(config, optim=dataclasses.replace(config.optim, tables=rows))
    run = runs.build(config)
    assert dense.tables is None
    assert run.tables is not None
    found = []
    for one in (dense, run):
        state = one.place(one.init())
        for k in range(3):
            state, _ = one.train_step(state, one.data.resident, one.data.train_batch(k))
        values, _ = runs.evaluate(one, state, "val")
        answers = [answer["z"] for _, answer in runs.predictions(one, state, "val")]
        with Checkpoints(tmp_path / one.data.splits[0] / str(len(found))) as saved:
            saved.save(3, one.export(state))
            again = saved.restore(one.init())
        assert again is not None
        back = one.export(one.place(again.state))
        _same_bits(jax.device_get(back.params), jax.device_get(one.export(state).params))
        found.append((jax.device_get(back.params), values, answers))
    _close(*found)
    no_tables = run.system._replace(table_ids=None)
    with pytest.raises(UserError, match="has no embedding tables"):
        runs._tables(config, no_tables, run.data, 3)


# Several devices


@pytest.fixture(scope="module")
def one_device(run_python: Callable, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    out = tmp_path_factory.mktemp("one") / "one.npz"
    done = run_python(WORKER, str(out), "pmap", devices=1, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    return out


def _same_run(out: pathlib.Path, reference: pathlib.Path) -> None:
    found, want = dict(np.load(out)), dict(np.load(reference))
    assert found.keys() == want.keys()
    for name, value in want.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-9, atol=1e-9, err_msg=name)


def test_sharded_is_replicated(one_device: pathlib.Path) -> None:
    found = dict(np.load(one_device))
    names = [name for name in found if name.startswith("replicated/")]
    assert len(names) > 40
    for name in names:
        twin = found[name.replace("replicated", "sharded")]
        np.testing.assert_allclose(twin, found[name], rtol=1e-9, atol=1e-9, err_msg=name)


@pytest.mark.parametrize("backend", BACKENDS)
def test_eight_devices_are_one(
    backend: str, one_device: pathlib.Path, run_python: Callable, tmp_path: pathlib.Path
) -> None:
    """With shard_map the run goes on from the checkpoint that one device wrote."""
    more = ["", "1", "0", f"{one_device}.run"] if backend == "shard_map" else []
    out = tmp_path / "o.npz"
    done = run_python(WORKER, str(out), backend, *more, devices=8, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    _same_run(out, one_device)


@pytest.mark.slow
def test_two_processes_of_two_devices_are_one(
    one_device: pathlib.Path, clean_env: Callable, tmp_path: pathlib.Path
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    out = tmp_path / "o.npz"
    started = [
        subprocess.Popen(
            [sys.executable, WORKER, str(out), "shard_map", address, "2", str(process)],
            env=clean_env(2),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for process in range(2)
    ]
    try:
        logs = [process.communicate(timeout=600)[0] for process in started]
    finally:
        for process in started:
            process.kill()
    assert [process.returncode for process in started] == [0, 0], logs[0][-2000:] + logs[1][-2000:]
    _same_run(out, one_device)


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_devices_send_and_need_does_not_grow_with_the_table(
    backend: str, run_python: Callable
) -> None:
    done = run_python(WORKER, "sizes", backend, devices=8, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout)
    for where, by_rows in found.items():
        small, large = by_rows.values()
        assert small == large, where
        assert sum(small["train"].values()) > 0
    assert "all-gather" in found["replicated"]["1009"]["train"]
    assert "all-gather" not in found["replicated"]["1009"]["eval"]
    assert "reduce-scatter" in found["sharded"]["1009"]["eval"]


def test_collectives_are_counted_by_the_bytes_of_their_results() -> None:
    text = """
  %a = f32[8,16]{1,0} all-reduce(%x), to_apply=%add
  %b = (f32[2]{0}, s32[3]{0}, pred[4]{0}) all-reduce(%x, %y, %z), to_apply=%add
  %c = (f32[1,4], f32[8,4]) all-gather-start(%x), dimensions={0}
  %d = bf16[8,4]{1,0} all-gather-done(%c)
  %e = f64[] reduce-scatter(%x)
  %f = f32[100] add(%all-reduce.1, %y)
"""
    assert collective_bytes(text) == {
        "all-gather": 64,
        "all-reduce": 512 + 8 + 12 + 4,
        "reduce-scatter": 8,
    }

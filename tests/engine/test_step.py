"""The compiled step: batch statistics, keys, the regulariser, the loss after the step."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mtl_jax.engine import rng
from mtl_jax.engine.step import (
    init_state,
    make_eval_step,
    make_train_step,
    repeat,
    stack_batches,
)
from mtl_jax.methods.base import LossWeighting
from mtl_jax.methods.cagrad import cagrad
from mtl_jax.methods.flat_regions import as_method, flat_regions
from mtl_jax.methods.loss_weighting import famo, linear_scalarization
from tests import toys
from tests.engine.parallel_worker import noisy


def _run(toy: toys.Toy, method: object, steps: int = 1, **options: object) -> tuple:
    data = toys.data_of(toy)
    state, tx = init_state(toy.system, data, method, lambda params, owners: optax.sgd(0.1), 0)
    step = jax.jit(make_train_step(toy.system, data, method, tx, seed=0, **options))
    first = state
    for k in range(steps):
        state, metrics = step(state, data.resident, data.train_batch(k))
    return first, state, metrics


def _changed(a: object, b: object) -> float:
    return max(
        float(jnp.abs(x - y).max())
        for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    )


@pytest.mark.parametrize("microbatches", [1, 2])
def test_batch_statistics_move_once_a_step_by_the_clean_pass(microbatches: int) -> None:
    """However many perturbed passes there are, the statistics are those of plain training."""
    plain = _run(noisy(), as_method(linear_scalarization()), microbatches=microbatches)
    flat = _run(noisy(), flat_regions(cagrad(), 0.5), microbatches=microbatches)
    assert _changed(plain[0].model_state, plain[1].model_state) > 1e-3
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7),
        plain[1].model_state,
        flat[1].model_state,
    )


def test_one_forward_pass_by_hand_gives_the_same_statistics() -> None:
    toy = noisy()
    first, after, _ = _run(toy, flat_regions(cagrad(), 0.5))
    data = toys.data_of(toy)
    batch = data.assemble(data.resident, data.train_batch(0), None)
    keys = jax.random.split(jax.random.key(0), toys.BATCH)  # dropout comes after the statistics
    _, state = toy.system.features(first.params, first.model_state, batch, keys, True)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7),
        state,
        after.model_state,
    )


def test_a_run_is_a_function_of_the_seed_and_the_step() -> None:
    toy = noisy()
    method = flat_regions(cagrad(), 0.1)
    _, once, _ = _run(toy, method, steps=3)
    _, again, _ = _run(toy, method, steps=3)
    assert _changed(once.params, again.params) == 0
    assert int(once.step) == 3


def test_keys_differ_by_seed_step_and_stream_and_by_example() -> None:
    keys = {
        tuple(jax.random.key_data(rng.key_for(seed, step, stream)).tolist())
        for seed in (0, 1)
        for step in (0, 1)
        for stream in ("train", "method")
    }
    assert len(keys) == 8
    index = jnp.arange(4)
    each = jax.random.key_data(rng.example_keys(rng.key_for(0, 0, "train"), index))
    assert len({tuple(row) for row in each.tolist()}) == 4
    later = jax.random.key_data(rng.example_keys(rng.key_for(0, 0, "train"), index[2:]))
    np.testing.assert_array_equal(each[2:], later)


def test_the_regulariser_is_added_after_aggregation_and_not_perturbed() -> None:
    toy = toys.stacked()
    method = flat_regions(cagrad(), 0.5)

    def penalty(params: dict) -> jax.Array:
        return 0.5 * 0.3 * sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(params))

    first, plain, _ = _run(toy, method)
    _, decayed, _ = _run(toys.Toy(toy.system._replace(regulariser=penalty), toy.batch), method)
    jax.tree.map(
        lambda p, a, b: np.testing.assert_allclose(b, a - 0.1 * 0.3 * p, atol=1e-6),
        first.params,
        plain.params,
        decayed.params,
    )


def test_a_method_that_asks_for_the_loss_after_the_step_gets_it() -> None:
    seen = {}
    base = linear_scalarization()

    def after_step(state: object, before: jax.Array, after: jax.Array, *, active: object) -> object:
        del state
        return {"before": before, "after": after}

    probe = LossWeighting(
        lambda num_tasks: {"before": jnp.zeros(num_tasks), "after": jnp.zeros(num_tasks)},
        lambda losses, state, *, active, key: (
            base.weights(losses, (), active=active, key=key)[0],
            state,
        ),
        after_step,
    )
    toy = toys.stacked()
    _, state, metrics = _run(toy, as_method(probe))
    seen = state.method_state
    np.testing.assert_allclose(seen["before"], metrics["losses"], rtol=1e-6)
    assert float(seen["after"].sum()) < float(seen["before"].sum())
    _, state, _ = _run(toy, as_method(famo()), steps=3)
    assert float(jnp.abs(state.method_state.values).max()) > 0


def test_several_steps_in_one_call_are_those_steps() -> None:
    toy, method = toys.table(), flat_regions(cagrad(), 0.1)
    _, want, metrics = _run(toy, method, steps=3)
    data = toys.data_of(toy)
    state, tx = init_state(toy.system, data, method, lambda params, owners: optax.sgd(0.1), 0)
    many = jax.jit(repeat(make_train_step(toy.system, data, method, tx, seed=0), 3))
    hosts = stack_batches([data.train_batch(k) for k in range(3)])
    after, rows = many(state, data.resident, hosts)
    assert int(after.step) == 3
    assert rows["losses"].shape == (3, 3)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
        (after.params, jax.tree.map(lambda leaf: leaf[-1], rows)),
        (want.params, metrics),
    )


def test_the_evaluation_step_counts_every_example_once() -> None:
    """70 rows in batches of 16: the last batch is ragged and padded, nothing is dropped."""
    toy = toys.table()
    data = toys.data_of(toy, size=70)
    method = as_method(linear_scalarization())
    state, _ = init_state(toy.system, data, method, lambda params, owners: optax.sgd(0.1), 0)
    step = jax.jit(make_eval_step(toy.system, data))
    total = None
    for host in data.eval_batches("val"):
        _, sums = step((state.params, state.model_state), data.resident, host)
        total = sums if total is None else jax.tree.map(jnp.add, total, sums)
    labels = np.asarray(data.resident["label_mask"]).sum(0)
    for t in range(3):
        assert float(total[f"loss_{t}"][1]) == labels[t]

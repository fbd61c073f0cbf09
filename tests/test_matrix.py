"""Every method, plain and with flat regions, trains; so does every toy, with 1 to 40 tasks."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mtl_jax.engine.step import init_state, make_train_step
from mtl_jax.methods import METHODS, as_method, flat_regions, make
from tests import toys


def _losses(toy: toys.Toy, base: str, flat: bool, steps: int) -> np.ndarray:
    """Mean loss before each of the steps [steps]; asserts that nothing stops being finite."""
    data = toys.data_of(toy, size=toys.BATCH)  # one batch, again and again
    method = flat_regions(make(base), 0.05) if flat else as_method(make(base))
    state, tx = init_state(toy.system, data, method, lambda params, owners: optax.adam(3e-3), 0)
    step = jax.jit(make_train_step(toy.system, data, method, tx, seed=0))
    means = []
    for _ in range(steps):
        state, metrics = step(state, data.resident, data.train_batch(0))
        means.append(metrics["losses"].mean())
    leaves = jax.tree.leaves(state) + jax.tree.leaves(metrics)
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in leaves)
    return np.asarray(means)


@pytest.mark.parametrize("flat", [False, True], ids=["plain", "flat"])
@pytest.mark.parametrize("base", METHODS)
def test_every_method_trains_with_missing_labels(base: str, flat: bool) -> None:
    losses = _losses(toys.table(), base, flat, 20)
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("base", ["upgrad", "famo"])
@pytest.mark.parametrize("name", [name for name in toys.ALL if name != "table"])
def test_every_toy_system_trains(name: str, base: str) -> None:
    losses = _losses(toys.ALL[name](), base, True, 20)
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("num_tasks", [1, 2, 40])
@pytest.mark.parametrize("name", ["stacked", "axis"])
def test_one_to_forty_tasks(name: str, num_tasks: int) -> None:
    losses = _losses(toys.ALL[name](num_tasks), "cagrad", True, 20)
    assert losses[-1] < losses[0]

"""Every method trains with flat regions (most in the slow tests); so does every toy, 1 to 40 tasks.

Toys stand for systems here. The recommendation networks, whose rows of tasks are owned in every way
there is, and the survival networks, of two terms on one trunk, are traced with every method
besides.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mtl_jax.data.survival.creatives import CONFIGS, generate
from mtl_jax.engine.state import TrainState
from mtl_jax.engine.step import init_state, make_train_step
from mtl_jax.methods import METHODS, as_method, flat_regions, make
from mtl_jax.methods.ownership import owner_tree
from mtl_jax.systems.ad_survival.builders import Prepared, inputs_of, only_inputs
from mtl_jax.systems.ad_survival.builders import make_network as survival_network
from mtl_jax.systems.ad_survival.config import Config, DataConfig
from mtl_jax.systems.ad_survival.config import ModelConfig as SurvivalModel
from mtl_jax.systems.ad_survival.data import columns_of, gather, loss_weights
from mtl_jax.systems.ad_survival.model import make_system as survival_system
from mtl_jax.systems.ad_survival.preprocess import fit
from mtl_jax.systems.ad_survival.terms import make_targets
from mtl_jax.systems.base import Data, System
from mtl_jax.systems.dtrn.builders import make_network
from mtl_jax.systems.dtrn.config import ModelConfig
from mtl_jax.systems.dtrn.data import impression_data
from mtl_jax.systems.dtrn.model import make_system
from mtl_jax.systems.row_data import row_data
from tests import toys
from tests.impression_sets import tiny_set


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


# One of each kind: losses alone, weights that are learned, after the step, Grams, elementwise, with
# state of the gradients' size. With flat regions a method also does all that it does without.
TRAINED = ("linear_scalarization", "uncertainty", "famo", "upgrad", "pcgrad", "grad_drop", "moco")


@pytest.mark.parametrize(
    ("base", "flat"),
    [
        *(pytest.param(m, True, marks=[] if m in TRAINED else [pytest.mark.slow]) for m in METHODS),
        ("linear_scalarization", False),
        ("upgrad", False),
    ],
)
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


@functools.cache
def _recommendation(top: str) -> tuple[System, Data]:
    """TRM over MMoE, or over ESMM, where every task's rows reach the other losses too."""
    found, length = tiny_set(), 4
    model = ModelConfig(top=top, encoder="mean", dim=4, bottom=(8,), dropout=0.0)
    network = make_network(found, length, model)
    batches = {"batch_size": 16, "eval_batch_size": 32, "seed": 0, "shard": 0, "shards": 1}
    data = impression_data(found, length=length, **batches)
    return make_system(network, found.task_names), data


@functools.cache
def _survival() -> tuple[System, Data]:
    """Two terms at two landmarks, from numbers, categories and sums of the history."""
    found = only_inputs(generate(CONFIGS["tiny"], seed=2), ("categories", "numbers", "totals"))
    config = Config(
        data=DataConfig(name="creatives/tiny", landmarks=(0.0, 3.0)),
        model=SurvivalModel(out=4, trunk=(8,)),
    )
    splits = found.splits["group"]
    ready = Prepared(found, splits, fit(found, splits["train"], 1, 3), None, None, 3)
    targets = make_targets(found, config.terms, config.data.views, config.model.censoring)
    weights = loss_weights(found, config.data.views, splits["train"], config.weights)
    columns = columns_of(found, inputs_of(ready), targets, config.data.views, weights)
    batches = {"batch_size": 16, "eval_batch_size": 32, "seed": 0, "shard": 0, "shards": 1}
    system = survival_system(survival_network(ready, config))
    return system, row_data(columns, splits, gather, **batches)


def _fits(base: str, system: System, data: Data) -> None:
    """A step, from whose state another one can go on; traced, nothing is compiled."""
    method = flat_regions(make(base), 0.05)
    tx, num_tasks = optax.adam(3e-3), len(system.task_names)

    def start(resident: dict, host: dict) -> TrainState:
        params, model_state = system.init(jax.random.key(0), data.assemble(resident, host, None))
        owners = owner_tree(params, system.owner, num_tasks)
        inner = method.init(params, owners, num_tasks)
        return TrainState(jnp.zeros((), jnp.int32), params, tx.init(params), model_state, inner)

    step = make_train_step(system, data, method, tx, seed=0, strategy="scan")
    host = data.train_batch(0)
    before = jax.eval_shape(start, data.resident, host)
    after, metrics = jax.eval_shape(step, before, data.resident, host)
    assert metrics["losses"].shape == (num_tasks,)
    assert jax.tree.structure(after) == jax.tree.structure(before)
    shapes = [[(x.shape, x.dtype) for x in jax.tree.leaves(state)] for state in (before, after)]
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize(
    ("base", "top"), [(base, "mmoe") for base in METHODS] + [("upgrad", "esmm"), ("famo", "esmm")]
)
def test_every_method_fits_the_recommendation_networks(base: str, top: str) -> None:
    _fits(base, *_recommendation(top))


@pytest.mark.parametrize("base", METHODS)
def test_every_method_fits_the_survival_networks(base: str) -> None:
    _fits(base, *_survival())

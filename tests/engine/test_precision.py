"""Networks in bfloat16: what is computed in it, what is not, and that every method can do with it.

Task gradients of two small networks, one with batch normalisation and one with group and layer
normalisation, are computed once in each precision, clean and at the worst points of flat regions;
all methods are fed with them.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from mtl_jax import run as runs
from mtl_jax.config import FlatConfig, MethodConfig, TrainConfig
from mtl_jax.engine import rng
from mtl_jax.engine.step import Precision, bind, init_state, make_train_step
from mtl_jax.errors import UserError
from mtl_jax.layers.batch_norm import BatchNorm
from mtl_jax.layers.conv import Conv
from mtl_jax.methods import METHODS, as_method, flat_regions, make
from mtl_jax.methods.base import LossWeighting, Problem, TaskGrads
from mtl_jax.methods.ownership import owner_tree
from mtl_jax.methods.perturbation import Perturbation, perturbed_grads
from mtl_jax.systems.base import Data, System
from mtl_jax.systems.molecules.model import make_system as molecule_system
from mtl_jax.systems.molecules.network import Head as MoleculeHead
from mtl_jax.systems.molecules.network import MessagePassing
from mtl_jax.systems.mt_deeponet import builders as operator_builders
from mtl_jax.systems.tabular.model import make_system as table_system
from mtl_jax.systems.vision.classification import make_system
from mtl_jax.systems.vision.dense import make_dense_system
from mtl_jax.systems.vision.heads import Head
from mtl_jax.systems.vision.segnet import SegNetSmall
from tests import operator_sets, test_matrix
from tests.engine import tables_worker as worker
from tests.systems.mt_deeponet.test_model import config_of
from tests.systems.vision import test_dense_system

TASKS, BATCH, CLASSES = 3, 16, 4
NETWORKS = ("batch", "group")
HOW = Perturbation(0.05, 0.05)
QUICK = {"xla_backend_optimization_level": 0}  # compiles in half the time


class Trunk(nn.Module):
    """Two layers, the first of them a convolution or a dense one, and normalisation behind each."""

    norm: str

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        if self.norm == "batch":
            x = nn.relu(BatchNorm(use_running_average=not train)(Conv(4, 3, padding=1)(x)))
            x = nn.Dense(12)(x.reshape(x.shape[0], -1))
            return nn.relu(BatchNorm(use_running_average=not train)(x))
        x = nn.relu(nn.GroupNorm(num_groups=2)(nn.Dense(16)(x.reshape(x.shape[0], -1))))
        return nn.relu(nn.LayerNorm()(nn.Dense(12)(x)))


@functools.cache
def _vision(norm: str) -> tuple[System, Data]:
    """Three tasks of four classes, brightest quarters of noisy images, the easier ones clearer."""
    draw = np.random.default_rng(0)
    label = draw.integers(0, CLASSES, (BATCH, TASKS)).astype(np.int32)
    image = draw.integers(0, 90, (BATCH, 8, 8, 1)).astype(np.float32)
    for t in range(TASKS):
        for b, where in enumerate(label[:, t]):
            row, column = 4 * (where // 2), 4 * (where % 2)
            image[b, row : row + 4, column : column + 4] += 50 - 15 * t
    batch = {"image": image.astype(np.uint8), "label": label}
    system = make_system(Trunk(norm), Head(CLASSES), tuple(f"task_{t}" for t in range(TASKS)))
    return system, Data({}, lambda step: batch, lambda split: iter(()), lambda r, h, k: h, 1, ())


class Measured(NamedTuple):
    """What one network gives methods.

    Attributes:
      grads: task gradients; perturbed: those at the worst points.
      losses: [T]; after: [T] at the worst points; active: [T]; aux: the model state.
      params: they belong to; owners: of the parameters.
    """

    grads: TaskGrads
    perturbed: TaskGrads
    losses: Any
    after: Any
    active: Any
    aux: Any
    params: Any
    owners: Any


def _bound(system: System, precision: Precision, start: tuple[Any, Any], batch: Any) -> Problem:
    count = jax.tree.leaves(batch)[0].shape[0]
    keys = rng.example_keys(jax.random.key(1), jnp.arange(count))
    return bind(system, *start, batch, keys, precision=precision, strategy="scan")


@functools.cache
def _function(norm: str, precision: Precision) -> tuple[Callable, Any]:
    """The compiled gradients of a network, and their one argument."""
    system, data = _vision(norm)
    start = jax.jit(system.init)(jax.random.key(0), data.train_batch(0))

    def run(start: Any) -> tuple:
        batch = jax.tree.map(jnp.asarray, data.train_batch(0))
        problem = _bound(system, precision, start, batch)
        grads, losses, active, aux = problem.task_grads(start[0])
        perturbed, after = perturbed_grads(problem, start[0], grads, HOW)
        return grads, perturbed, losses, after, active, aux

    return jax.jit(run, compiler_options=QUICK), start


@functools.cache
def _measured(norm: str, precision: Precision) -> Measured:
    run, start = _function(norm, precision)
    owners = owner_tree(start[0], _vision(norm)[0].owner, TASKS)
    return Measured(*run(start), start[0], owners)


def _rows(shared: Any, width: int = 0) -> np.ndarray:
    """Stacked task gradients as one [T, P], zeros up to `width`."""
    flat = np.concatenate(
        [np.asarray(leaf).reshape(TASKS, -1) for leaf in jax.tree.leaves(shared)], 1
    )
    return np.pad(flat, ((0, 0), (0, max(0, width - flat.shape[1]))))


def _flat_parts(found: Measured, width: int = 0) -> np.ndarray:
    return _rows(found.perturbed.shared, width) - _rows(found.grads.shared, width)


def _cosine(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a.astype(np.float64).ravel(), b.astype(np.float64).ravel()
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def _assert_all_float32(tree: Any) -> None:
    for leaf in jax.tree.leaves(tree):
        if jnp.issubdtype(leaf.dtype, jnp.floating):
            assert leaf.dtype == jnp.float32


# What the networks give


@pytest.mark.parametrize("norm", NETWORKS)
def test_gradients_are_float32_and_close_to_those_of_float32(norm: str) -> None:
    half, full = (_measured(norm, precision) for precision in ("bfloat16", "float32"))
    _assert_all_float32(half[:6])
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(half[:6]))
    np.testing.assert_allclose(half.losses, full.losses, rtol=2e-2)
    np.testing.assert_allclose(half.after, full.after, rtol=2e-2)
    for name in ("shared", "heads"):
        got, want = _rows(getattr(half.grads, name)), _rows(getattr(full.grads, name))
        assert (got != want).any()
        # Of linear scalarisation, and of each task.
        assert _cosine(got.sum(0), want.sum(0)) > 0.99
        errors = np.linalg.norm(got - want, axis=1) / np.linalg.norm(want, axis=1)
        assert errors.max() < 0.1, errors
    # A difference of gradients at two points near each other keeps fewer bits than they have.
    cosines = [_cosine(*(_flat_parts(x)[t] for x in (half, full))) for t in range(TASKS)]
    assert min(cosines) > 0.85, cosines


@pytest.mark.parametrize("norm", NETWORKS)
def test_products_are_those_of_the_precision(norm: str) -> None:
    """Every one, forward and backward: a float32 array anywhere before it would show."""
    for precision, kind in (("bfloat16", "bf16"), ("float32", "f32")):
        run, start = _function(norm, precision)
        assert _products(run.lower(start)) == {(kind, kind, kind)}


def _products(lowered: Any) -> set[tuple[str, ...]]:
    """Types of both operands and the result of all matrix products and convolutions."""
    lines = lowered.as_text().splitlines()
    lines = [line for line in lines if re.search("(dot_general|convolution)[( ]", line)]
    kinds = [re.findall(r"tensor<[\dx]*x(\w+)>", line.rpartition(": (")[2]) for line in lines]
    assert len(kinds) >= 8
    return {tuple(kind) for kind in kinds}


def test_batch_statistics_stay_float32_and_move_alike() -> None:
    half, full = (_measured("batch", precision).aux for precision in ("bfloat16", "float32"))
    before = jax.tree.leaves(_function("batch", "float32")[1][1])
    leaves = list(zip(jax.tree.leaves(half), jax.tree.leaves(full), before, strict=True))
    assert len(leaves) == 4
    for got, want, old in leaves:
        assert got.dtype == jnp.float32
        assert np.abs(want - old).max() > 1e-3
        np.testing.assert_allclose(got, want, rtol=2e-2, atol=2e-3)


# What methods make of it


# The others in the slow tests: what they are compiled to is long.
QUICK_ONES = ("linear_scalarization", "uncertainty", "famo", "gradnorm", "grad_drop", "moco")


@pytest.mark.parametrize(
    "base",
    [pytest.param(m, marks=[] if m in QUICK_ONES else [pytest.mark.slow]) for m in METHODS],
)
def test_every_method_gives_finite_float32(base: str) -> None:
    method, key = make(base), jax.random.key(4)
    found = [_measured(norm, "bfloat16") for norm in NETWORKS]
    active = np.ones(TASKS, bool)
    if isinstance(method, LossWeighting):
        for one in found:
            out = method.weights(one.losses, method.init(TASKS), active=active, key=key)
            _assert_finite_float32(out)
        return
    width = max(_rows(one.grads.shared).shape[1] for one in found)
    start = method.init({"w": jnp.zeros(width)}, TASKS)
    update = jax.jit(method.update, compiler_options=QUICK)
    for one in found:
        for rows in (_rows(one.grads.shared, width), _flat_parts(one, width)):
            out = update({"w": rows}, start, losses=one.losses, active=active, key=key)
            _assert_finite_float32(out)
            assert np.abs(out[0]["w"]).max() > 0


def _assert_finite_float32(tree: Any) -> None:
    _assert_all_float32(tree)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(tree))


@pytest.mark.parametrize("base", METHODS)
def test_every_update_of_a_bfloat16_network_is_float32(base: str) -> None:
    """Plain and with flat regions; traced only, on the types that the networks gave."""
    for norm, method in (
        ("group", as_method(make(base))),
        ("batch", flat_regions(make(base), 0.05)),
    ):
        real = _measured(norm, "bfloat16")

        def update(found: Measured, method: Any = method, owners: Any = real.owners) -> Any:
            state = method.init(found.params, owners, TASKS)
            problem = _stub(found._replace(owners=owners))
            out = method.update(problem, found.params, state, jax.random.key(0))
            return out.grads, out.state, out.losses, out.info

        grads, *rest = jax.eval_shape(update, real._replace(owners=None))
        _assert_all_float32((grads, rest))
        assert jax.tree.structure(grads) == jax.tree.structure(real.params)


def _stub(found: Measured) -> Any:
    """A problem that gives what was measured."""
    clean = (found.grads, found.losses, found.active)

    def weighted_grads(params: Any, weigh: Any) -> tuple:
        weights, out = weigh(found.losses, found.active)
        return params, found.losses, found.active, (weights, out), found.aux

    stub: Any = Problem(
        num_tasks=TASKS,
        owners=found.owners,
        losses=None,
        weighted_grads=weighted_grads,
        task_grads=lambda params: (*clean, found.aux),
        grad_at=lambda point, moves, heads: (found.perturbed, found.after),
        losses_at=None,
        leading=lambda share: stub,
        grads_with_lead=lambda params, share, synced: (
            *clean,
            found.aux,
            lambda: (found.grads, *clean),
        ),
        task_shards=None,
    )
    return stub


# The four systems


def _operators() -> tuple[System, Data]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(operator_builders, "load", lambda data: operator_sets.families())
        config = config_of("families", model__branch_norm="layer", model__trunk_frequencies=2)
        return operator_builders.build(config)


def _maps() -> tuple[System, Data]:
    system = make_dense_system(SegNetSmall((3, 4)), test_dense_system.ALL, 5)
    batch = test_dense_system.batch_of(0)
    return system, _vision("batch")[1]._replace(train_batch=lambda step: batch)


def _molecules() -> tuple[System, Data]:
    """Two properties of made-up molecules of up to five atoms."""
    draw = np.random.default_rng(0)
    charges = draw.choice(np.array([0, 1, 6, 8]), (BATCH, 5)).astype(np.int32)
    positions = draw.normal(size=(BATCH, 5, 3)).astype(np.float32)
    target = draw.normal(size=(BATCH, 2)).astype(np.float32)
    batch = {"charges": charges, "positions": positions, "target": target}
    scales = {"mean": np.zeros(2, np.float32), "std": np.ones(2, np.float32)}
    network = MessagePassing(width=8, messages=4, layers=1, basis=4)
    system = molecule_system(network, MoleculeHead(4), ("mu", "alpha"), scales)
    return system, _vision("batch")[1]._replace(train_batch=lambda step: batch)


def _table() -> tuple[System, Data]:
    """Three binary labels of a table of numbers."""
    draw = np.random.default_rng(0)
    batch = {
        "x": draw.normal(size=(BATCH, 6)).astype(np.float32),
        "target": draw.integers(0, 2, (BATCH, 3)).astype(np.float32),
        "label_mask": np.ones((BATCH, 3), np.float32),
    }
    system = table_system("binary", ("a", "b", "c"), (8,), (4,), 0.0, np.ones(3))
    return system, _vision("batch")[1]._replace(train_batch=lambda step: batch)


SYSTEMS: dict[str, Callable[[], tuple[System, Data]]] = {
    "vision": lambda: _vision("batch"),
    "maps": _maps,
    "recommendation": lambda: test_matrix._recommendation("mmoe"),
    "survival": test_matrix._survival,
    "operators": _operators,
    "molecules": _molecules,
    "table": _table,
}
# The first product of coordinates; the sum over basis functions, and its derivatives.
EXACT = {"operators": {("f32", "f32", "f32"), ("bf16", "bf16", "f32")}}


@pytest.mark.parametrize("name", SYSTEMS)
def test_every_system_computes_in_bfloat16(name: str) -> None:
    """All products of the task gradients, heads included; lowered, nothing is compiled."""
    system, data = SYSTEMS[name]()

    def run(start: Any, batch: Any) -> Any:
        return _bound(system, "bfloat16", start, batch).task_grads(start[0])

    batch = jax.eval_shape(data.assemble, data.resident, data.train_batch(0), None)
    start = jax.eval_shape(system.init, jax.random.key(0), batch)
    found = _products(jax.jit(run).lower(start, batch))
    assert found == {("bf16", "bf16", "bf16")} | EXACT.get(name, set())


@pytest.mark.slow
@pytest.mark.parametrize("name", SYSTEMS)
def test_every_system_trains_in_bfloat16(name: str) -> None:
    system, data = SYSTEMS[name]()
    method = flat_regions(make("linear_scalarization"), 0.05)
    state, tx = init_state(system, data, method, lambda params, owners: optax.adam(3e-3), 0)
    made = make_train_step(system, data, method, tx, seed=0, strategy="scan", precision="bfloat16")
    step = jax.jit(made, compiler_options=QUICK)
    losses = []
    for _ in range(2):
        state, metrics = step(state, data.resident, data.train_batch(0))
        losses.append(np.asarray(metrics["losses"]).mean())
    _assert_finite_float32((state, metrics))
    assert losses[1] != losses[0]


def test_a_run_passes_the_precision_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """From the option to `make_train_step`, and no other precision is taken."""
    given = []

    def noted(*args: Any, precision: str, **kwargs: Any) -> Any:
        given.append(precision)
        return make_train_step(*args, precision=precision, **kwargs)

    monkeypatch.setattr(runs, "make_train_step", noted)
    for precision in ("float32", "bfloat16"):
        settings = TrainConfig(batch_size=16, precision=precision, select="validation/loss")
        runs.build(
            worker.Config(train=settings, method=MethodConfig(flat=FlatConfig(combine="erm")))
        )
    assert given == ["float32", "bfloat16"]
    with pytest.raises(UserError, match=r"config\.train\.precision is 'float16'"):
        worker.Config(train=TrainConfig(precision="float16")).check()  # type: ignore[arg-type]

"""The system: what is computed once and what per task agree, masks hide, points are drawn."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mtl_jax.data.operators import OperatorSet
from mtl_jax.engine import rng
from mtl_jax.engine.optim import free_tree
from mtl_jax.engine.step import bind, init_state, make_train_step
from mtl_jax.errors import UserError
from mtl_jax.methods import METHODS, as_method, flat_regions, make
from mtl_jax.systems.mt_deeponet import builders
from mtl_jax.systems.mt_deeponet.config import Config, DataConfig, ModelConfig
from mtl_jax.systems.mt_deeponet.data import points_of_step
from tests import operator_sets

SMALL: dict[str, Any] = {"branch_widths": (8,), "trunk_widths": (8, 8), "latent": 6}


def config_of(name: str, **changes: Any) -> Config:
    """A small experiment on one of the sets of `operator_sets`, which the caller patches in."""
    model = dict(SMALL)
    if name == "geometries":
        model |= {"branch": "cnn", "branch_channels": (3, 3)}
    base = Config(
        data=DataConfig(name="fisher", scale_solution="global"), model=ModelConfig(**model)
    )
    train = dataclasses.replace(
        base.train, steps=2, batch_size=6, select="validation/rel_l2_mean", select_mode="min"
    )
    out = dataclasses.replace(base, train=train)
    for path, value in changes.items():
        part, _, field = path.partition("__")
        part_value = dataclasses.replace(getattr(out, part), **{field: value}) if field else value
        out = dataclasses.replace(out, **{part: part_value})
    return out


@pytest.fixture
def build(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Returns `build(name, **changes)`: system and data of a small set."""

    def make_one(name: str, found: Any = None, **changes: Any) -> tuple:
        whole = operator_sets.ALL[name]() if found is None else found
        monkeypatch.setattr(builders, "load", lambda data: whole)
        return builders.build(config_of(name, **changes))

    return make_one


def first_batch(system: Any, data: Any, step: int = 0) -> tuple:
    batch = data.assemble(data.resident, data.train_batch(step), None)
    params, state = system.init(jax.random.key(3), batch)
    keys = rng.example_keys(jax.random.key(5), jnp.arange(batch["task"].shape[0]))
    return params, state, batch, keys


def test_a_trunk_that_sees_each_design_from_its_holes(build: Any) -> None:
    system, data = build("designs", data__name="plate", model__trunk_coords="hole")
    params, state, batch, keys = first_batch(system, data)
    z, _ = system.features(params, state, batch, keys, True)
    samples, points = batch["solution"].shape
    assert z["basis"].shape == (samples, points, 6)
    whole = system.predict(params, state, batch)["solution"]
    one = jax.tree.map(lambda leaf: leaf[2:3], batch)
    np.testing.assert_allclose(
        system.predict(params, state, one)["solution"][0], whole[2], rtol=1e-5, atol=1e-6
    )
    moved = {**batch, "params": batch["params"] + np.array([0, 0.1], np.float32)}
    z_moved, _ = system.features(params, state, moved, keys, True)
    assert float(jnp.abs(z_moved["basis"] - z["basis"]).max()) > 1e-3
    with pytest.raises(UserError, match="fisher has no holes that its parameters describe"):
        config_of("families", model__trunk_coords="hole").check()


def _losses(system: Any, data: Any) -> np.ndarray:
    params, state, batch, keys = first_batch(system, data)
    z, _ = system.features(params, state, batch, keys, True)
    sums = [system.task_loss(params, z, batch, t) for t in range(len(system.task_names))]
    return np.array([total / weight for total, weight in sums])


@pytest.mark.parametrize("name", operator_sets.ALL)
def test_a_batch_is_stratified_and_walks_through_each_task(build: Any, name: str) -> None:
    system, data = build(name)
    found = operator_sets.ALL[name]()
    num_tasks = len(system.task_names)
    each = [np.sum(found.task[found.splits["train"]] == t) for t in range(num_tasks)]
    seen: list[int] = []
    for step in range(min(each) // (6 // num_tasks)):
        host = data.train_batch(step)
        batch = data.assemble(data.resident, host, None)
        np.testing.assert_array_equal(batch["task"], np.arange(6) % num_tasks)
        seen += host["index"].tolist()
    assert len(seen) == len(set(seen))
    assert set(seen) <= set(found.splits["train"].tolist())


@pytest.mark.parametrize("name", operator_sets.ALL)
@pytest.mark.parametrize("loss", ["relative_l2", "interior_mse", "grid_mse"])
def test_a_mixed_batch_of_the_same_samples_gives_the_same_losses(
    build: Any, name: str, loss: str
) -> None:
    """Rows of each task by slicing, or all rows with weights: one sum, two ways to compute it."""
    stratified, data = build(name, loss=loss)
    mixed, _ = build(name, loss=loss, data__batches="mixed")
    params, state, batch, keys = first_batch(stratified, data)
    both = []
    for system in (stratified, mixed):
        bound = bind(system, params, state, batch, keys)
        method = as_method(make("upgrad"))
        update = method.update(
            bound, params, method.init(params, bound.owners, bound.num_tasks), jax.random.key(0)
        )
        both.append((update.losses, update.info.gram, update.grads))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=1e-6), *both)


def test_the_losses_are_what_their_names_say(build: Any) -> None:
    found = operator_sets.geometries()
    for loss in ("relative_l2", "interior_mse", "grid_mse"):
        system, data = build("geometries", loss=loss)
        params, state, batch, _ = first_batch(system, data)
        said = np.asarray(system.predict(params, state, {**batch})["solution"])
        truth, inside = np.asarray(batch["solution"]), np.asarray(batch["inside"])
        std = np.asarray(state["constants"]["solution_std"])[0]
        for t in range(2):
            rows = np.asarray(batch["task"]) == t
            gap = np.where(inside, said - truth, 0)[rows]
            if loss == "relative_l2":
                size = np.linalg.norm(np.where(inside, truth, 0)[rows], axis=1)
                want = (np.linalg.norm(gap, axis=1) / size).mean()
            elif loss == "interior_mse":
                want = np.square(gap / std).sum() / inside[rows].sum()
            else:
                want = np.square(gap / std).sum() / (rows.sum() * found.masks.shape[1])
            np.testing.assert_allclose(_losses(system, data)[t], want, rtol=1e-4)


def without_corners() -> OperatorSet:
    """As `geometries`, but of the square a part only: no geometry holds all points of the grid."""
    found = operator_sets.geometries()
    masks = found.masks.copy()
    masks[0, :100] = False
    solutions = np.where(masks[found.geometry], found.solutions, 0).astype(np.float32)
    return found._replace(masks=masks, solutions=solutions)


@pytest.mark.parametrize("branch", ["cnn", "mlp"])
@pytest.mark.parametrize("make_set", [operator_sets.geometries, without_corners])
def test_nothing_outside_a_mask_matters(build: Any, make_set: Any, branch: str) -> None:
    """Other numbers outside: same scales, same losses, same metrics; NaN there included."""
    found = make_set()
    inside = found.masks[found.geometry]
    spoiled = found._replace(
        solutions=np.where(inside, found.solutions, np.nan).astype(np.float32),
        field=np.where(inside.reshape(found.field.shape), found.field, 7e3).astype(np.float32),
    )
    runs = []
    for which in (found, spoiled):
        system, data = build("geometries", which, model__branch=branch)
        params, state, _, _ = first_batch(system, data)
        host = next(iter(data.eval_batches("test")))
        metrics = system.metrics(params, state, data.assemble(data.resident, host, None))
        runs.append((state["constants"], _losses(system, data), metrics))
    assert np.isfinite(jax.flatten_util.ravel_pytree(runs[1][1:])[0]).all()
    jax.tree.map(np.testing.assert_array_equal, *runs)


def test_query_points_are_drawn_anew_for_each_step_and_shared_by_the_batch(build: Any) -> None:
    system, data = build("families", data__points_per_step=7)
    params, state, batch, keys = first_batch(system, data, step=4)
    chosen = np.asarray(points_of_step(0, jnp.int32(4), 40, 7))
    assert len(set(chosen.tolist())) == 7
    assert set(chosen.tolist()) != set(np.asarray(points_of_step(0, jnp.int32(5), 40, 7)).tolist())
    index = data.train_batch(4)["index"]
    want = operator_sets.families().solutions[index][:, chosen]
    np.testing.assert_array_equal(batch["solution"], want)
    z, _ = system.features(params, state, batch, keys, True)
    whole, whole_data = build("families")
    all_batch = whole_data.assemble(whole_data.resident, whole_data.train_batch(4), None)
    full, _ = whole.features(params, state, all_batch, keys, True)
    np.testing.assert_allclose(z["basis"], np.asarray(full["basis"])[chosen], rtol=1e-5, atol=1e-6)


def test_points_outside_every_geometry_are_not_evaluated(build: Any) -> None:
    found = operator_sets.geometries()
    only_disc = found._replace(
        masks=found.masks[1:],
        geometry=np.zeros_like(found.geometry),
        solutions=np.where(found.masks[1], found.solutions, 0).astype(np.float32),
    )
    system, data = build("geometries", only_disc)
    params, state, batch, keys = first_batch(system, data)
    z, _ = system.features(params, state, batch, keys, True)
    assert z["basis"].shape[0] == found.masks[1].sum() < found.masks.shape[1]
    assert batch["image_mask"].shape[1:] == (16, 16)


def test_film_gives_each_task_a_product_of_its_own(build: Any) -> None:
    system, data = build("families", model__film=True)
    params, state, batch, _ = first_batch(system, data)
    assert params["film"]["scale"].shape == (3, 6)
    assert system.owner(("film", "scale")) == "stacked"
    before = np.asarray(system.predict(params, state, batch)["solution"])
    params["film"]["shift"] = params["film"]["shift"].at[1].set(2.0)
    after = np.asarray(system.predict(params, state, batch)["solution"])
    moved = np.abs(after - before).max(1) > 0
    np.testing.assert_array_equal(moved, np.asarray(batch["task"]) == 1)


def test_l2_is_that_of_the_branchs_kernels(build: Any) -> None:
    system, data = build("families", model__branch_l2=0.5)
    params, *_ = first_batch(system, data)
    kernels = [params["branch"][name]["kernel"] for name in ("dense_0", "dense_1")]
    want = 0.5 * sum(float(np.square(kernel).sum()) for kernel in kernels)
    np.testing.assert_allclose(float(system.regulariser(params)), want, rtol=1e-6)


# One of each kind: losses alone, after the step, Grams, elementwise, with state of the gradients'
# size. With flat regions a method also does all that it does without.
TRAINED = ("linear_scalarization", "famo", "upgrad", "grad_drop", "moco")
CELLS = [*((base, True) for base in TRAINED), ("linear_scalarization", False), ("upgrad", False)]


@pytest.mark.parametrize("base", [base for base in METHODS if base not in TRAINED])
def test_every_method_fits(build: Any, base: str) -> None:
    """Two steps are traced, nothing is compiled."""
    system, data = build("families", data__batches="mixed", train__batch_size=2)
    method = flat_regions(make(base), 0.05)
    state, tx = init_state(system, data, method, lambda params, owners: optax.adam(3e-3), 0)
    step = make_train_step(system, data, method, tx, seed=0, strategy="scan")
    host = data.train_batch(0)
    after, _ = jax.eval_shape(step, state, data.resident, host)
    again, metrics = jax.eval_shape(step, after, data.resident, host)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), again) == jax.tree.map(
        lambda x: (x.shape, x.dtype), state
    )
    assert metrics["losses"].shape == (3,)


@pytest.mark.parametrize(("base", "flat"), CELLS)
def test_methods_of_every_kind_train_two_steps(build: Any, base: str, flat: bool) -> None:
    """In a mixed batch of two samples that leaves tasks without any."""
    system, data = build("families", data__batches="mixed", train__batch_size=2)
    method = flat_regions(make(base), 0.05) if flat else as_method(make(base))
    state, tx = init_state(system, data, method, lambda params, owners: optax.adam(3e-3), 0)
    step = jax.jit(make_train_step(system, data, method, tx, seed=0, strategy="scan"))
    for k in range(2):
        state, metrics = step(state, data.resident, data.train_batch(k))
        assert 0 < int(metrics["active"].sum()) < 3
    leaves = jax.tree.leaves((state.params, metrics))
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in leaves)


def test_frozen_parameters_have_no_part_in_grams_and_perturbations(build: Any) -> None:
    system, data = build("families")
    params, state, batch, keys = first_batch(system, data)
    free = {
        "branch": jax.tree.map(lambda _: True, params["branch"]),
        "trunk": jax.tree.map(lambda _: False, params["trunk"]),
    }
    method = flat_regions(make("cagrad"), 0.5)
    updates = []
    for marks in (None, free):
        bound = bind(system, params, state, batch, keys, free=marks)
        first = method.init(params, bound.owners, bound.num_tasks)
        updates.append(method.update(bound, params, first, jax.random.key(0)))
    everything, half = updates
    assert not any(leaf.any() for leaf in jax.tree.leaves(half.grads["trunk"]))
    assert any(leaf.any() for leaf in jax.tree.leaves(half.grads["branch"]))
    assert (np.diag(half.info.gram) < np.diag(everything.info.gram)).all()
    np.testing.assert_array_equal(half.losses, everything.losses)


def test_l2_of_frozen_parameters_is_not_clipped_with_the_rest(build: Any) -> None:
    norms = []
    for l2 in (0.0, 5.0):
        system, data = build("families", model__branch_l2=l2)
        method = as_method(make("linear_scalarization"))
        state, tx = init_state(system, data, method, lambda params, owners: optax.sgd(0.1), 0)
        free = {
            name: jax.tree.map(lambda _, name=name: name == "trunk", part)
            for name, part in state.params.items()
        }
        step = jax.jit(make_train_step(system, data, method, tx, seed=0, free=free))
        norms.append(step(state, data.resident, data.train_batch(0))[1]["grad_norm"])
    np.testing.assert_allclose(norms[0], norms[1], rtol=1e-6)


@pytest.mark.parametrize("name", ["families", "geometries"])
def test_micro_batches_are_the_batch_and_leave_the_scales_alone(build: Any, name: str) -> None:
    """The scales to the bit: a sum of equal numbers over their number is not always that number."""
    method = as_method(make("linear_scalarization"))
    states = []
    for parts in (1, 5):
        tasks = 3 if name == "families" else 2
        system, data = build(name, train__batch_size=5 * tasks, train__microbatches=parts)
        state, tx = init_state(system, data, method, lambda params, owners: optax.sgd(0.1), 0)
        step = jax.jit(make_train_step(system, data, method, tx, seed=0, microbatches=parts))
        first = state.model_state["constants"]
        for k in range(2):
            state, _ = step(state, data.resident, data.train_batch(k))
        jax.tree.map(np.testing.assert_array_equal, state.model_state["constants"], first)
        states.append(state.params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), *states)


def test_the_loss_on_all_points_does_not_depend_on_how_many_are_drawn(build: Any) -> None:
    """As in the report's loss surface, which evaluates a training loss on whole samples."""
    losses = []
    for points in (0, 7):
        system, data = build("designs", data__points_per_step=points, loss="grid_mse")
        params, state, _, keys = first_batch(system, data)
        host = next(iter(data.eval_batches("test")))
        batch = data.assemble(data.resident, host, None)
        z, _ = system.features(params, state, batch, keys, False)
        total, weight = system.task_loss(params, z, batch, 0)
        losses.append(float(total / weight))
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-6)


def test_a_solution_that_is_zero_everywhere_has_no_relative_error(build: Any) -> None:
    found = operator_sets.families()
    solutions = found.solutions.copy()
    solutions[found.splits["train"][3]] = 0
    with pytest.raises(UserError, match="is 0 everywhere"):
        build("families", found._replace(solutions=solutions))
    build("families", found._replace(solutions=solutions), loss="interior_mse")


@pytest.mark.parametrize("name", ["families", "geometries"])
@pytest.mark.parametrize("hidden", [1, 3])
def test_the_presets_of_what_is_trained_name_the_last_layers(
    build: Any, name: str, hidden: int
) -> None:
    config = config_of(name, model__trunk_widths=(8,) * hidden, model__branch_widths=(8,) * hidden)
    system, data = build(
        name, model__trunk_widths=(8,) * hidden, model__branch_widths=(8,) * hidden
    )
    params, *_ = first_batch(system, data)
    presets = builders.trainable(config)
    for preset, globs in presets.items():
        free = free_tree(params, globs)
        net = free["trunk"]["net"]
        last = max(net, key=lambda layer: int(layer.split("_")[1]))
        assert last == f"dense_{hidden}"
        assert all(net[last].values())
        assert any(net["dense_0"].values()) == (preset == "full")
        dense = free["branch"]["dense"] if name == "geometries" else free["branch"]
        assert all(dense[last].values())
        assert any(dense["dense_0"].values()) == (preset != "head")
        if name == "geometries":
            assert any(free["branch"]["conv_0"].values()) == (preset != "head")
            assert any(free["branch"]["conv_1"].values()) == (preset == "full")
    with pytest.raises(UserError, match=r"'papper' matches no .* the presets full, paper, head"):
        free_tree(params, "papper", tuple(presets))

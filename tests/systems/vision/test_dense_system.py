"""The dense system: whose gradients go where, what the losses mean, and Delta_m."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from mtl_jax.data.dense_files import SPECS
from mtl_jax.methods.ownership import owner_tree
from mtl_jax.methods.task_grads import objective, problem
from mtl_jax.metrics.base import accumulate, compute
from mtl_jax.metrics.multitask import delta_m
from mtl_jax.systems.vision import dense
from mtl_jax.systems.vision.delta_m import CITYSCAPES, NYUV2, DeltaM
from mtl_jax.systems.vision.dense import make_dense_system
from mtl_jax.systems.vision.dense_metrics import Depth, Normals, Segmentation
from mtl_jax.systems.vision.segnet import SegNetSmall

H, W, CLASSES = 8, 12, 5
ALL = ("segmentation", "depth", "normal")


def batch_of(seed: int, count: int = 4) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        "image": rng.random((count, H, W, 3), np.float32),
        "label": rng.integers(-1, CLASSES, (count, H, W)).astype(np.int32),
        "depth": rng.random((count, H, W, 1), np.float32) * (rng.random((count, H, W, 1)) > 0.2),
        "normal": rng.normal(size=(count, H, W, 3)).astype(np.float32),
    }


@pytest.fixture(scope="module")
def made() -> tuple:
    system, batch = make_dense_system(SegNetSmall((3, 4)), ALL, CLASSES), batch_of(0)
    params, state = jax.jit(system.init)(jax.random.key(0), batch)
    return system, batch, params, state


def all_losses(system, params, state, batch) -> list:
    z, _ = system.features(params, state, batch, None, True)
    sums = [system.task_loss(params, z, batch, t) for t in range(len(system.task_names))]
    return [total / weight for total, weight in sums]


def test_heads_belong_to_their_tasks_and_the_rest_is_shared(made) -> None:
    system, _, params, _ = made
    owners = owner_tree(params, system.owner, 3)
    assert set(jax.tree.leaves(owners["trunk"])) == {"shared"}
    for t, name in enumerate(ALL):
        assert set(jax.tree.leaves(owners["heads"][name])) == {t}
        kernel = params["heads"][name]["Conv_1"]["kernel"]
        assert kernel.shape[-1] == (CLASSES, 1, 3)[t]


def test_a_loss_moves_the_trunk_and_its_own_head_alone(made) -> None:
    system, batch, params, state = made
    jacobian = jax.jit(jax.jacrev(lambda p: all_losses(system, p, state, batch)))(params)
    for t, grads in enumerate(jacobian):
        for k, name in enumerate(ALL):
            moved = [float(np.abs(leaf).max()) for leaf in jax.tree.leaves(grads["heads"][name])]
            assert (min(moved) > 0) if k == t else (max(moved) == 0)
        assert max(float(np.abs(leaf).max()) for leaf in jax.tree.leaves(grads["trunk"])) > 0


def test_the_engine_finds_these_gradients(made) -> None:
    system, batch, params, state = made
    want = jax.jit(jax.jacrev(lambda p: all_losses(system, p, state, batch)))(params)

    def task_grads(params):
        bound = objective(
            params,
            lambda p, b: system.features(p, state, b, None, True),
            system.task_loss,
            3,
            system.owner,
        )
        assert bound.static_tasks
        return problem(bound, batch).task_grads(params)

    grads, losses, active, _ = jax.jit(task_grads)(params)
    assert np.asarray(active).all()
    values = jax.jit(lambda p: all_losses(system, p, state, batch))(params)
    np.testing.assert_allclose(losses, values, rtol=1e-5)
    for t, name in enumerate(ALL):
        shared = jax.tree.map(lambda leaf, t=t: leaf[t], grads.shared["trunk"])
        pairs = (shared, want[t]["trunk"]), (grads.heads["heads"][name], want[t]["heads"][name])
        for found, expected in pairs:
            for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
                np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)


def test_a_task_without_labels_weighs_nothing(made) -> None:
    system, batch, params, state = made
    empty = {"label": -1, "depth": 0, "normal": 0}
    without = {**batch, **{k: np.full_like(batch[k], v) for k, v in empty.items()}}
    z, _ = system.features(params, state, without, None, False)
    for t in range(3):
        total, weight = system.task_loss(params, z, without, t)
        assert (float(total), float(weight)) == (0, 0)


def test_metrics_of_parts_add_up_and_padding_does_not_count(made) -> None:
    system, batch, params, state = made
    metrics = jax.jit(system.metrics)
    whole = compute(accumulate(None, metrics(params, state, batch)))
    parts = None
    for rows in ([0, 1, 2], [3, 0, 1]):
        part = {name: field[rows] for name, field in batch.items()}
        mask = np.array([True, True, True]) if rows[0] == 0 else np.array([True, False, False])
        part["image"] = np.where(mask.reshape(-1, 1, 1, 1), part["image"], 7)
        parts = accumulate(parts, metrics(params, state, {**part, "mask": mask}))
    assert parts is not None
    found = compute(parts)
    assert found.keys() == whole.keys()
    assert {"segmentation/miou", "depth/loss", "normal/within_30", "delta_m"} <= whole.keys()
    for name, value in whole.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-4, err_msg=name)
    # The loss in evaluation is that of the training step at the same batch statistics.
    z, _ = system.features(params, state, batch, None, False)
    for t, name in enumerate(ALL):
        total, weight = system.task_loss(params, z, batch, t)
        np.testing.assert_allclose(whole[f"{name}/loss"], total / weight, rtol=1e-5)


def test_predictions_are_what_the_metrics_judge(made) -> None:
    system, batch, params, state = made
    said = system.predict(params, state, batch)
    values = compute(accumulate(None, system.metrics(params, state, batch)))
    known = batch["label"] >= 0
    accuracy = (np.asarray(said["segmentation"]) == batch["label"])[known].mean()
    np.testing.assert_allclose(values["segmentation/pixel_accuracy"], accuracy, rtol=1e-6)
    known = batch["depth"][..., 0] > 0
    error = np.abs(np.asarray(said["depth"]) - batch["depth"][..., 0])[known].mean()
    np.testing.assert_allclose(values["depth/absolute_error"], error, rtol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(said["normal"], axis=-1), 1, rtol=1e-4)


@pytest.mark.parametrize(("name", "tasks"), [("nyuv2", ALL), ("cityscapes", ALL[:2])])
def test_every_field_of_a_set_is_a_task(name: str, tasks: tuple[str, ...]) -> None:
    fields = ("label", *SPECS[name].channels)
    assert tuple(t for t in dense.TASKS if dense.TASKS[t].field in fields) == tasks


# Rows of the paper's tables (specs/fsmtl.md 3.7 and 3.8): the metrics and the Delta_m beside them.
ROWS = [
    (NYUV2, (0.3929, 0.6533, 0.5493, 0.2263, 28.15, 23.96, 0.2209, 0.4750, 0.6108), 5.59),
    (NYUV2, (0.4042, 0.6561, 0.5389, 0.2121, 25.03, 19.75, 0.2890, 0.5619, 0.6872), -4.77),
    (NYUV2, (0.4005, 0.6542, 0.5429, 0.2243, 27.38, 23.00, 0.2347, 0.4935, 0.6274), 3.14),
    (CITYSCAPES, (0.7663, 0.9376, 0.0124, 31.17), 1.87),
    (CITYSCAPES, (0.6884, 0.9154, 0.0309, 33.50), 44.14),
]


class _Fixed:
    """A metric state that is known already."""

    def __init__(self, values: dict[str, float]) -> None:
        self.compute = lambda: values


@pytest.mark.parametrize(("reference", "row", "want"), ROWS)
def test_delta_m_is_that_of_the_papers_tables(reference, row, want) -> None:
    values = dict(zip(reference, row, strict=True))
    states: dict[str, _Fixed] = {}
    for task in {name.split("/")[0] for name in reference}:
        own = {k.split("/")[1]: v for k, v in values.items() if k.startswith(f"{task}/")}
        states[task] = _Fixed(own)
    assert DeltaM(states).compute()[""] == pytest.approx(want, abs=0.1)


def test_delta_m_knows_which_metrics_are_better_high() -> None:
    """Every metric that the states compute is in the reference, by its own name."""
    states = {
        "segmentation": Segmentation(np.eye(3)),
        "depth": Depth(1.0, 1.0, 2),
        "normal": Normals(10.0, np.ones(3600)),
    }
    values = compute(states)
    assert values.keys() == NYUV2.keys()
    assert CITYSCAPES.keys() == {k for k in values if not k.startswith("normal")}
    high = ("segmentation/miou", "segmentation/pixel_accuracy")
    high += ("normal/within_11.25", "normal/within_22.5", "normal/within_30")
    want = delta_m(values, NYUV2, {name: name in high for name in values})
    assert DeltaM(states).compute()[""] == pytest.approx(want)

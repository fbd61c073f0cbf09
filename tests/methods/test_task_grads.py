"""Task gradients equal `jax.grad` of one task's loss, by any strategy and in micro-batches."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtl_jax.engine.step import bind
from mtl_jax.methods import ownership
from mtl_jax.methods.task_grads import objective_from_losses, pick_strategy, problem
from tests import toys


def _bound(name: str, **options: object) -> tuple:
    toy = toys.ALL[name]()
    params, state = toy.system.init(jax.random.key(0), toy.batch)
    batch = jax.tree.map(jnp.asarray, toy.batch)
    keys = jax.random.split(jax.random.key(1), toys.BATCH)
    return toy, params, bind(toy.system, params, state, batch, keys, **options)


def _reference(toy: toys.Toy, params: dict, t: int) -> tuple:
    """Loss t and its plain gradient over all parameters, with stacked rows cut by hand."""
    owners = ownership.owner_tree(params, toy.system.owner, len(toy.system.task_names))
    batch = jax.tree.map(jnp.asarray, toy.batch)

    def loss(params: dict) -> jax.Array:
        view = jax.tree.map(lambda who, p: p[t] if who == "stacked" else p, owners, params)
        z, _ = toy.system.features(params, {}, batch, None, True)
        total, weight = toy.system.task_loss(view, z, batch, t)
        return total / weight

    return jax.value_and_grad(loss)(params)


def _task_part(tree: object, owners: object, t: int) -> object:
    return jax.tree.map(lambda who, leaf: leaf if isinstance(who, int) else leaf[t], owners, tree)


@pytest.mark.parametrize("name", toys.ALL)
@pytest.mark.parametrize("strategy", ["vmap", "scan", "unroll"])
@pytest.mark.parametrize("microbatches", [1, 2])
def test_task_grads_are_the_gradients_of_the_task_losses(
    name: str, strategy: str, microbatches: int
) -> None:
    with jax.enable_x64(True):
        toy, params, bound = _bound(name, strategy=strategy, microbatches=microbatches)
        grads, losses, active, _ = bound.task_grads(params)
        assert bool(active.all())
        for t in range(bound.num_tasks):
            value, reference = _reference(toy, params, t)
            np.testing.assert_allclose(losses[t], value, rtol=1e-12)
            for who, full, shared, head in zip(
                jax.tree.leaves(bound.owners),
                jax.tree.leaves(reference),
                *(
                    jax.tree.leaves(part, is_leaf=lambda leaf: leaf is None)
                    for part in (grads.shared, grads.heads)
                ),
                strict=True,
            ):
                if who == "shared":
                    np.testing.assert_allclose(shared[t], full, atol=1e-12)
                elif who == "stacked":
                    np.testing.assert_allclose(head[t], full[t], atol=1e-12)
                    assert np.abs(np.delete(np.asarray(full), t, 0)).max() == 0
                elif who == t:
                    np.testing.assert_allclose(head, full, atol=1e-12)
                else:
                    assert np.abs(full).max() == 0


@pytest.mark.parametrize("name", toys.ALL)
@pytest.mark.parametrize("strategy", ["vmap", "scan", "unroll"])
@pytest.mark.parametrize("microbatches", [1, 4])
def test_grad_at_moves_every_task_to_its_own_point(
    name: str, strategy: str, microbatches: int
) -> None:
    with jax.enable_x64(True):
        toy, params, bound = _bound(name, strategy=strategy, microbatches=microbatches)
        shared = ownership.select(params, bound.owners, ownership.is_shared)
        heads = ownership.select(params, bound.owners, ownership.is_head)
        heads = jax.tree.map(lambda leaf: 1.1 * leaf, heads)
        offsets = 0.1 * jnp.arange(1.0, bound.num_tasks + 1)
        grads, losses = bound.grad_at(
            lambda move: jax.tree.map(lambda leaf: leaf + move, shared), offsets, heads
        )
        for t in range(bound.num_tasks):
            moved = jax.tree.map(lambda leaf: leaf + offsets[t], shared)  # noqa: B023
            value, reference = _reference(toy, ownership.merge(moved, heads), t)
            np.testing.assert_allclose(losses[t], value, rtol=1e-12)
            wanted = ownership.select(reference, bound.owners, ownership.is_shared)
            jax.tree.map(
                lambda a, b: np.testing.assert_allclose(a[t], b, atol=1e-12),  # noqa: B023
                grads.shared,
                wanted,
            )
        assert all(jnp.abs(leaf).max() > 0 for leaf in jax.tree.leaves(grads))


@pytest.mark.parametrize("name", toys.ALL)
@pytest.mark.parametrize("microbatches", [1, 2])
def test_weighted_grads_are_the_weighted_sum(name: str, microbatches: int) -> None:
    with jax.enable_x64(True):
        _, params, bound = _bound(name, microbatches=microbatches)

        def weigh(losses: jax.Array, active: jax.Array) -> tuple:
            del active
            return 1 / losses, "out"

        grads, losses, _, (weights, out), _ = bound.weighted_grads(params, weigh)
        assert out == "out"
        task_grads, _, _, _ = bound.task_grads(params)
        scaled = ownership.scale_tasks(task_grads, bound.owners, weights)
        wanted = ownership.merge(jax.tree.map(lambda a: a.sum(0), scaled.shared), scaled.heads)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-12), grads, wanted)
        np.testing.assert_allclose(weights, 1 / losses)


def test_a_task_without_labels_has_loss_zero_and_is_not_active() -> None:
    toy = toys.table()
    params, state = toy.system.init(jax.random.key(0), toy.batch)
    batch = {**toy.batch, "label_mask": toy.batch["label_mask"].copy()}
    batch["label_mask"][:, 1] = 0
    batch = jax.tree.map(jnp.asarray, batch)
    bound = bind(toy.system, params, state, batch, jax.random.split(jax.random.key(0), toys.BATCH))
    grads, losses, active, _ = bound.task_grads(params)
    assert active.tolist() == [True, False, True]
    assert losses[1] == 0
    assert all(jnp.abs(leaf[1]).max() == 0 for leaf in jax.tree.leaves(grads))
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(grads))


def test_objective_from_losses_agrees_with_the_two_function_form() -> None:
    toy, params, bound = _bound("stacked")
    batch = jax.tree.map(jnp.asarray, toy.batch)

    def losses(params: dict, batch: dict) -> jax.Array:
        z = jnp.tanh(batch["x"] @ params["trunk"]["w"])
        pred = jnp.einsum("bh,tho->bt", z, params["heads"]["w"])
        return jnp.mean(jnp.square(pred - batch["y"]), 0)

    other = problem(objective_from_losses(params, losses, 3, toy.system.owner), batch)
    for a, b in zip(bound.task_grads(params)[:2], other.task_grads(params)[:2], strict=True):
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-6), a, b)
    shared = ownership.select(params, bound.owners, ownership.is_shared)
    heads = ownership.select(params, bound.owners, ownership.is_head)
    for a, b in zip(
        *(
            p.grad_at(
                lambda m: jax.tree.map(lambda x: x * m, shared), jnp.array([1.0, 2.0, 3.0]), heads
            )
            for p in (bound, other)
        ),
        strict=True,
    ):
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-6), a, b)


def test_owner_must_be_known() -> None:
    params = {"a": jnp.ones((2, 3))}
    with pytest.raises(ValueError, match="needs 3 rows"):
        ownership.owner_tree(params, lambda path: "stacked", 3)
    for wrong in (3, -1, "head", True):
        with pytest.raises(ValueError, match="owner of a"):
            ownership.owner_tree(params, lambda path, wrong=wrong: wrong, 3)


def test_auto_strategy() -> None:
    assert pick_strategy("auto", 2, False, "cpu") == "unroll"
    assert pick_strategy("auto", 10, False, "cpu") == "scan"
    assert pick_strategy("auto", 10, False, "gpu") == "vmap"
    assert pick_strategy("auto", 10, True, "gpu") == "scan"
    assert pick_strategy("vmap", 10, True, "cpu") == "vmap"

"""Schedules at their ends, groups with their own rates, clipping and decay of the gradient."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mtl_jax.engine.optim import free_tree, make_optimizer, make_schedule
from mtl_jax.errors import UserError

OWNERS = {"trunk": "shared", "head": 1, "heads": "stacked"}
PARAMS = {"trunk": jnp.ones(3), "head": jnp.ones(2), "heads": jnp.ones((2, 2))}


def _step(tx: optax.GradientTransformation, grads: dict) -> dict:
    updates, _ = tx.update(grads, tx.init(PARAMS), PARAMS)
    return updates


@pytest.mark.parametrize(
    ("name", "ends"), [("constant", 1.0), ("cosine", 0.0), ("linear", 0.0), ("step", 0.25)]
)
def test_schedules(name: str, ends: float) -> None:
    schedule = make_schedule(name, 1.0, 100, step_every=50, step_factor=0.5)
    assert float(schedule(0)) == 1.0
    np.testing.assert_allclose(float(schedule(100)), ends, atol=1e-6)
    warm = make_schedule(name, 1.0, 100, warmup_steps=10, step_every=45)
    values = [float(warm(k)) for k in range(11)]
    assert 0 < values[0] < values[5] < values[10] == pytest.approx(1.0)


def test_heads_have_a_rate_of_their_own() -> None:
    tx = make_optimizer("sgd", lambda _: 0.1, lambda _: 0.01, OWNERS)
    updates = _step(tx, PARAMS)
    np.testing.assert_allclose(updates["trunk"], -0.1)
    np.testing.assert_allclose(updates["head"], -0.01)
    np.testing.assert_allclose(updates["heads"], -0.01)


def test_clipping_sees_the_norm_over_all_parameters() -> None:
    tx = make_optimizer("sgd", lambda _: 1.0, lambda _: 1.0, OWNERS, clip_norm=0.5)
    updates = _step(tx, jax.tree.map(lambda p: 10 * p, PARAMS))
    np.testing.assert_allclose(float(optax.tree.norm(updates)), 0.5, rtol=1e-6)


def test_weight_decay_is_coupled_for_adam_and_decoupled_for_adamw() -> None:
    zero = jax.tree.map(jnp.zeros_like, PARAMS)
    coupled = _step(
        make_optimizer("adam", lambda _: 0.1, lambda _: 0.1, OWNERS, weight_decay=0.5), zero
    )
    decoupled = _step(
        make_optimizer("adamw", lambda _: 0.1, lambda _: 0.1, OWNERS, weight_decay=0.5), zero
    )
    np.testing.assert_allclose(coupled["trunk"], -0.1, rtol=1e-4)  # Adam's unit step
    np.testing.assert_allclose(decoupled["trunk"], -0.05, rtol=1e-6)  # lr * decay * w


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd", "momentum", "lion"])
def test_every_rule_descends(name: str) -> None:
    tx = make_optimizer(name, lambda _: 0.05, lambda _: 0.05, OWNERS)
    params, state = PARAMS, tx.init(PARAMS)

    def loss(params: dict) -> jax.Array:
        return sum(jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(params))

    for _ in range(30):
        updates, state = tx.update(jax.grad(loss)(params), state, params)
        params = optax.apply_updates(params, updates)
    assert float(loss(params)) < 0.3 * float(loss(PARAMS))


def test_wrong_names_and_a_warm_up_as_long_as_the_run() -> None:
    with pytest.raises(UserError, match="known: constant, cosine"):
        make_schedule("cosin", 1.0, 10)
    with pytest.raises(UserError, match="known: adam"):
        make_optimizer("adamm", lambda _: 1.0, lambda _: 1.0, OWNERS)
    with pytest.raises(UserError, match="warmup_steps is 10, but the run has 10 steps"):
        make_schedule("cosine", 1.0, 10, warmup_steps=10)
    with pytest.raises(UserError, match="belong to the piecewise schedule, not to cosine"):
        make_schedule("cosine", 1.0, 10, boundaries=(3,), factors=(0.1,))


def test_piecewise_changes_at_its_boundaries() -> None:
    schedule = make_schedule("piecewise", 2.0, 100, boundaries=(10, 30), factors=(0.5, 0.1))
    values = [float(schedule(k)) for k in (0, 9, 10, 29, 30, 99)]
    np.testing.assert_allclose(values, [2, 2, 1, 1, 0.2, 0.2], rtol=1e-6)
    for boundaries, factors in (
        ((10,), ()),
        ((30, 10), (1.0, 1.0)),
        ((10, 10), (1.0, 1.0)),
        ((10,), (-1.0,)),
        ((10,), (float("nan"),)),
    ):
        with pytest.raises(UserError, match="rising steps"):
            make_schedule("piecewise", 1.0, 100, boundaries=boundaries, factors=factors)


def test_muon_moves_matrices_by_orthogonal_steps() -> None:
    params = {"w": jnp.ones((4, 3)), "b": jnp.ones(3)}
    owners = {"w": "shared", "b": "shared"}
    tx = make_optimizer("muon", lambda _: 1.0, lambda _: 1.0, owners)
    rng = np.random.default_rng(0)
    grads = {"w": jnp.asarray(rng.normal(size=(4, 3)), jnp.float32), "b": jnp.ones(3)}
    updates, _ = tx.update(grads, tx.init(params), params)
    sizes = np.linalg.svd(np.asarray(updates["w"]), compute_uv=False)
    assert sizes.max() / sizes.min() < 2  # of the gradient itself it is more than 3
    assert np.linalg.cond(np.asarray(grads["w"])) > 2
    vector = np.asarray(updates["b"])  # all else goes Adam's way, whose step ignores the scale
    assert (vector < 0).all()
    again, _ = tx.update({**grads, "b": 5 * grads["b"]}, tx.init(params), params)
    np.testing.assert_allclose(again["b"], vector, rtol=1e-4)


def test_muon_does_not_mix_the_rows_of_stacked_heads() -> None:
    """[T, P] looks like a matrix, but its rows belong to different tasks."""
    params = {"heads": jnp.ones((2, 3))}
    tx = make_optimizer("muon", lambda _: 1.0, lambda _: 1.0, {"heads": "stacked"})
    row = jnp.asarray([1.0, 2.0, 3.0])
    both, _ = tx.update({"heads": jnp.stack([row, 2 * row])}, tx.init(params), params)
    alone, _ = tx.update({"heads": jnp.stack([row, -row])}, tx.init(params), params)
    np.testing.assert_allclose(both["heads"][0], alone["heads"][0], rtol=1e-5)


def test_parameters_that_are_not_free_stay() -> None:
    params = {"a": {"w": jnp.ones(2), "b": jnp.ones(1)}, "c": {"w": jnp.ones(2)}}
    owners = jax.tree.map(lambda _: "shared", params)
    free = free_tree(params, "a/w, c/*")
    assert free == {"a": {"w": True, "b": False}, "c": {"w": True}}
    assert all(jax.tree.leaves(free_tree(params, "all")))
    with pytest.raises(UserError, match=r"'d/\*' matches no parameter; there are a/\*, c/\*"):
        free_tree(params, "a/w,d/*")
    tx = make_optimizer("adamw", lambda _: 0.1, lambda _: 0.1, owners, weight_decay=0.5, free=free)
    updates, _ = tx.update(params, tx.init(params), params)
    assert not np.asarray(updates["a"]["b"]).any()
    assert np.asarray(updates["a"]["w"]).all()

"""What the definitions of DualProj, ConFIG, GradVac and GradDrop promise, in float64."""

from __future__ import annotations

from collections.abc import Iterator

import jax
import numpy as np
import pytest

from mtl_jax.methods.config import config_weights
from mtl_jax.methods.dual_proj import dual_proj_weights
from mtl_jax.methods.grad_drop import drop_signs, grad_drop
from mtl_jax.methods.grad_vac import grad_vac_weights
from mtl_jax.methods.imtl_g import imtl_g_weights
from mtl_jax.methods.kept_weights import project
from mtl_jax.methods.pcgrad import pcgrad_weights
from tests.methods import gramians

# One size on each path of the solvers.
sizes = pytest.mark.parametrize("num_tasks", [3, 6])
dual = jax.jit(dual_proj_weights)
conflict_free = jax.jit(config_weights)
vaccinated = jax.jit(grad_vac_weights, static_argnames="beta")
projected = jax.jit(pcgrad_weights)


@pytest.fixture(autouse=True)
def _double() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


@sizes
def test_dual_proj_is_the_projection_on_the_dual_cone(num_tasks: int) -> None:
    """The optimality conditions: J d >= 0, z >= 0, and z.J d = 0."""
    mean = np.full(num_tasks, 1 / num_tasks)
    for family in gramians.FAMILIES:
        rows = gramians.rows(family, num_tasks)
        v = np.asarray(dual(rows @ rows.T, mean))
        gains = rows @ (v @ rows)
        assert gains.min() >= -1e-7, family
        assert (v >= mean - 1e-12).all(), family
        assert abs((v - mean) @ gains) < 1e-7 * max(1, np.abs(v).max()), family


def test_dual_proj_without_conflict_is_the_mean() -> None:
    rows = gramians.rows("aligned", 3)
    assert (rows @ rows.T).min() > 0
    np.testing.assert_allclose(dual(rows @ rows.T, np.full(3, 1 / 3)), 1 / 3, rtol=1e-9)


@sizes
def test_config_has_equal_cosines_and_the_sum_of_the_projections(num_tasks: int) -> None:
    for family in ("iid", "scales", "aligned", "conflict"):
        rows = gramians.rows(family, num_tasks)
        d = np.asarray(conflict_free(rows @ rows.T)) @ rows
        along = rows @ d / np.linalg.norm(d)
        cosines = along / np.linalg.norm(rows, axis=1)
        np.testing.assert_allclose(cosines, cosines.mean(), rtol=1e-6, err_msg=family)
        assert cosines.mean() > 0
        np.testing.assert_allclose(np.linalg.norm(d), along.sum(), rtol=1e-6, err_msg=family)


def test_config_is_along_imtl_g() -> None:
    rows = gramians.rows("iid", 3)
    theirs = np.asarray(jax.jit(imtl_g_weights)(rows @ rows.T))
    ours = np.asarray(conflict_free(rows @ rows.T))
    np.testing.assert_allclose(ours / ours.sum(), theirs, rtol=1e-9)


def test_config_of_dependent_gradients() -> None:
    """Opposite ones have no common direction; of duplicates the other two are left."""
    a, b = np.random.default_rng(0).normal(size=(2, 5))
    opposite = np.stack([a, -3 * a])
    np.testing.assert_allclose(conflict_free(opposite @ opposite.T), 0, atol=1e-9)
    rows = np.stack([a, a, b])
    d = np.asarray(conflict_free(rows @ rows.T)) @ rows
    cosines = rows @ d / np.linalg.norm(rows, axis=1)
    np.testing.assert_allclose(cosines, cosines.mean(), rtol=1e-6)
    assert cosines.mean() > 0


def _orders(num_tasks: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.stack([rng.permutation(num_tasks) for _ in range(num_tasks)])


def test_grad_vac_with_targets_of_zero_is_pcgrad() -> None:
    rows, orders = gramians.rows("conflict", 6), _orders(6)
    ours, targets = vaccinated(rows @ rows.T, np.zeros((6, 6)), orders, beta=0.5)
    want = projected(rows @ rows.T, orders)
    np.testing.assert_allclose(ours, want, rtol=1e-7)
    np.testing.assert_array_equal(np.diag(targets), 0)
    assert np.abs(targets).max() > 0


def test_grad_vac_raises_the_cosine_to_its_target() -> None:
    """Of two tasks: g_1 + x g_2 and g_2 + y g_1 have the target cosines with g_2 and g_1."""
    rows, targets = gramians.rows("iid", 2), np.array([[0.0, 0.7], [0.4, 0.0]])
    weights, moved = vaccinated(rows @ rows.T, targets, _orders(2), beta=0.5)
    (a, b), cosine = rows, rows[0] @ rows[1] / np.linalg.norm(rows, axis=1).prod()
    assert cosine < 0.4
    np.testing.assert_allclose(moved[0, 1], (0.7 + cosine) / 2)
    x, y = np.asarray(weights)[::-1] - 1
    for g, other, gain, target in ((a, b, x, 0.7), (b, a, y, 0.4)):
        v = g + gain * other
        np.testing.assert_allclose(
            v @ other / np.linalg.norm(v) / np.linalg.norm(other), target, rtol=1e-9
        )
    above = np.array([[0.0, cosine - 0.1], [cosine - 0.1, 0.0]])
    np.testing.assert_allclose(vaccinated(rows @ rows.T, above, _orders(2), beta=0.5)[0], 1)


def test_grad_vac_with_targets_of_one_is_finite() -> None:
    """The paper's formula divides by zero; a gradient grows a hundredfold at most."""
    rows = np.linalg.qr(np.random.default_rng(0).normal(size=(30, 6)))[0].T
    weights, _ = vaccinated(rows @ rows.T, np.ones((6, 6)), _orders(6), beta=0.5)
    length = np.linalg.norm(np.asarray(weights) @ rows)
    assert 10 < length < 6 * 100 * (1 + 1e-9)


def test_grad_drop_keeps_one_sign_and_is_unbiased_in_it() -> None:
    """Each coordinate is all that is positive or all that is negative, by the positive share."""
    rows, draws = gramians.rows("iid", 4), np.random.default_rng(1).uniform(size=(4000, 30))
    out = np.asarray(jax.jit(jax.vmap(drop_signs, (None, 0)))(rows, draws))
    above, below = np.maximum(rows, 0).sum(0), np.minimum(rows, 0).sum(0)
    picked = np.isclose(out, above[None, :])
    assert (picked | np.isclose(out, below[None, :])).all()
    share = (1 + rows.sum(0) / np.abs(rows).sum(0)) / 2
    np.testing.assert_allclose(picked.mean(0), share, atol=4 * np.sqrt(0.25 / 4000))


def test_grad_drop_with_a_full_leak_is_the_sum() -> None:
    rows, uniform = gramians.rows("iid", 4), np.random.default_rng(1).uniform(size=30)
    left = jax.jit(drop_signs, static_argnums=2)(rows, uniform, 1.0)
    np.testing.assert_allclose(left, rows.sum(0), rtol=1e-9, atol=1e-12)


def test_grad_drop_as_a_mean_of_leaking_gradients() -> None:
    rows = {"a": gramians.rows("iid", 4), "b": gramians.rows("scales", 4)}
    options = {"losses": np.ones(4), "active": np.arange(4) > 0, "key": jax.random.key(0)}
    total, mean = (
        jax.jit(grad_drop(leak=0.2, reduction=reduction).update)(rows, (), **options)[0]
        for reduction in ("sum", "mean")
    )
    for name, leaf in rows.items():
        np.testing.assert_allclose(mean[name], total[name] / 3, rtol=1e-9)
        above, below = np.maximum(leaf[1:], 0).sum(0), np.minimum(leaf[1:], 0).sum(0)
        one, other = (
            np.isclose(total[name], x) for x in (above + 0.2 * below, below + 0.2 * above)
        )
        assert (one | other).all()
        assert one.any()
        assert other.any()
    # A draw of its own for every leaf: else the signs of equal leaves would agree.
    same = {"a": rows["a"], "b": rows["a"]}
    out = jax.jit(grad_drop().update)(same, (), **options)[0]
    assert (np.asarray(out["a"]) != np.asarray(out["b"])).any()


def test_projection_on_the_simplex_is_the_nearest_point() -> None:
    """Optimality: (p - v).(x - p) >= 0 for every corner x, over the tasks that are there."""
    run = jax.jit(project)
    rng = np.random.default_rng(0)
    for scale in (1e-3, 1.0, 1e6):
        for _ in range(20):
            v, active = scale * rng.normal(size=5), rng.random(5) < 0.7
            if not active.any():
                continue
            p = np.asarray(run(v, active))
            assert not p[~active].any()
            assert (p >= 0).all()
            assert p.sum() == pytest.approx(1, rel=1e-9)
            corners = np.eye(5)[active]
            assert ((corners - p) @ (p - v)).min() >= -1e-9 * max(scale, 1)
    assert not np.asarray(run(np.ones(5), np.zeros(5, bool))).any()

"""What each method's definition promises, checked on its own output in float64."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtl_jax.methods.aligned_mtl import alignment
from mtl_jax.methods.cagrad import cagrad
from mtl_jax.methods.fairgrad import fairgrad
from mtl_jax.methods.imtl_g import imtl_g
from mtl_jax.methods.loss_weighting import dwa, famo, scale_invariant, uncertainty
from mtl_jax.methods.mgda import mgda
from mtl_jax.methods.nash_mtl import nash_mtl
from mtl_jax.methods.pcgrad import pcgrad, pcgrad_weights, random_orders
from mtl_jax.methods.upgrad import upgrad
from tests.methods import gramians

KEY = jax.random.key(11)
SIZES = (2, 3, 10)
REGULAR = ("iid", "scales", "aligned", "conflict", "near_duplicates")

sizes = pytest.mark.parametrize("num_tasks", SIZES)


@functools.cache
def _compiled(factory: Any, options: tuple) -> Any:
    return jax.jit(factory(**dict(options)).update)


def _run(rows: np.ndarray, factory: Any, **options: Any) -> tuple[np.ndarray, np.ndarray]:
    """Returns the direction [P] and the weights [T]."""
    # One width, so that all families share one compiled program.
    width = rows.shape[1]
    rows = np.pad(rows, ((0, 0), (0, max(4 * len(rows), 30) - width)))
    direction, _, info = _compiled(factory, tuple(options.items()))(
        jnp.asarray(rows),
        (),
        losses=jnp.ones(len(rows)),
        active=jnp.ones(len(rows), bool),
        key=KEY,
    )
    return np.asarray(direction)[:width], np.asarray(info.weights)


@pytest.fixture(autouse=True)
def _double() -> Any:
    with jax.enable_x64(True):
        yield


@sizes
def test_mgda_helps_no_task_less_than_its_length(num_tasks: int) -> None:
    """G w >= w.G w, with equality where w > 0."""
    for family in gramians.FAMILIES:
        rows = gramians.rows(family, num_tasks)
        direction, w = _run(rows, mgda)
        gains, square = rows @ direction, direction @ direction
        assert gains.min() >= square - 1e-9, family
        np.testing.assert_allclose(gains[w > 1e-9], square, atol=1e-9)
        assert w.sum() == pytest.approx(1), family


def test_mgda_of_two_tasks_in_closed_form() -> None:
    for seed in range(5):
        rows = np.random.default_rng(seed).normal(size=(2, 3)) * [[1], [1 + seed]]
        (a, b), (_, c) = rows @ rows.T
        first = np.clip((c - b) / (a + c - 2 * b), 0, 1)
        np.testing.assert_allclose(_run(rows, mgda)[1], [first, 1 - first], atol=1e-12)


@sizes
@pytest.mark.parametrize("c", [0.4, 2.0])
def test_cagrad_is_on_the_sphere_around_the_mean(num_tasks: int, c: float) -> None:
    for family in REGULAR:
        rows = gramians.rows(family, num_tasks)
        mean = rows.mean(0)
        direction, _ = _run(rows, cagrad, c=c, rescale=0)
        length = np.linalg.norm(direction - mean) / np.linalg.norm(mean)
        assert length == pytest.approx(c, rel=1e-6), family
        # The best worst case of the ball: no better point in a thousand random ones on the sphere.
        rng = np.random.default_rng(0)
        away = rng.normal(size=(1000, num_tasks)) @ rows
        away *= c * np.linalg.norm(mean) / np.linalg.norm(away, axis=1, keepdims=True)
        others = (rows @ (mean[:, None] + away.T)).min(0).max()
        assert (rows @ direction).min() >= others - 1e-9, family


def test_cagrad_without_radius_is_the_mean_and_its_scalings() -> None:
    rows = gramians.rows("iid", 3)
    np.testing.assert_allclose(_run(rows, cagrad, c=0.0)[0], rows.mean(0), rtol=1e-12)
    plain = _run(rows, cagrad, c=0.5, rescale=0)[0]
    np.testing.assert_allclose(_run(rows, cagrad, c=0.5, rescale=1)[0], plain / 1.25, rtol=1e-9)
    np.testing.assert_allclose(_run(rows, cagrad, c=0.5, rescale=2)[0], plain / 1.5, rtol=1e-9)


@sizes
def test_imtl_g_projects_equally(num_tasks: int) -> None:
    for family in ("iid", "scales", "aligned", "conflict"):
        rows = gramians.rows(family, num_tasks)
        direction, w = _run(rows, imtl_g)
        cosines = rows @ direction / np.linalg.norm(rows, axis=1)
        np.testing.assert_allclose(cosines, cosines.mean(), rtol=1e-6, err_msg=family)
        assert w.sum() == pytest.approx(1), family


def test_imtl_g_of_dependent_gradients() -> None:
    """Opposite unit gradients: weights 1/2 and no direction; the formula's inverse is singular."""
    g = np.random.default_rng(0).normal(size=5)
    direction, w = _run(np.stack([g, -3 * g]), imtl_g)
    np.testing.assert_allclose(direction, 0, atol=1e-12)
    assert np.isfinite(w).all()


@sizes
def test_nash_bargains(num_tasks: int) -> None:
    """G w = 1 / w and |d|^2 = T; clipped, a unit vector in the same direction."""
    for family in REGULAR:
        rows = gramians.rows(family, num_tasks)
        direction, w = _run(rows, nash_mtl, max_norm=0.0)
        np.testing.assert_allclose((rows @ direction) * w, 1, rtol=1e-6, err_msg=family)
        assert direction @ direction == pytest.approx(num_tasks, rel=1e-6), family
        clipped, _ = _run(rows, nash_mtl)
        np.testing.assert_allclose(clipped, direction / np.sqrt(num_tasks), rtol=1e-6, atol=1e-9)


@sizes
@pytest.mark.parametrize("alpha", [0.5, 2.0])
def test_fairgrad_shares(num_tasks: int, alpha: float) -> None:
    for family in REGULAR:
        rows = gramians.rows(family, num_tasks)
        direction, w = _run(rows, fairgrad, alpha=alpha, max_norm=0.0, reduction="mean")
        gains = (rows @ direction) ** alpha * w
        np.testing.assert_allclose(gains, 1, rtol=1e-5, err_msg=family)


def test_fairgrad_of_alpha_one_is_nash() -> None:
    rows = gramians.rows("iid", 3)
    nash, _ = _run(rows, nash_mtl, max_norm=0.0)
    mean, _ = _run(rows, fairgrad, alpha=1.0, max_norm=0.0, reduction="mean")
    np.testing.assert_allclose(mean, nash, rtol=1e-9)
    # The authors multiply by the number of tasks.
    summed, _ = _run(rows, fairgrad, alpha=1.0, max_norm=0.0)
    np.testing.assert_allclose(summed, 3 * nash, rtol=1e-9)


def test_fairgrad_is_clipped() -> None:
    rows = 1e-3 * gramians.rows("iid", 3)
    plain, _ = _run(rows, fairgrad, max_norm=0.0)
    clipped, _ = _run(rows, fairgrad, max_norm=0.5)
    assert np.linalg.norm(plain) > 1
    np.testing.assert_allclose(clipped, 0.5 * plain / np.linalg.norm(plain), rtol=1e-9)
    np.testing.assert_allclose(_run(rows, fairgrad, max_norm=1e3)[0], plain, rtol=1e-12)


@pytest.mark.parametrize("factory", [nash_mtl, fairgrad])
@sizes
def test_where_no_bargain_exists_the_direction_is_mgda_s(factory: Any, num_tasks: int) -> None:
    rows = gramians.rows("zero_min_norm", num_tasks)
    direction, w = _run(rows, factory, max_norm=0.0)
    np.testing.assert_allclose(direction, 0, atol=1e-6)
    assert (w >= 0).all()
    assert w.any()


@sizes
def test_upgrad_harms_nobody(num_tasks: int) -> None:
    for family in gramians.FAMILIES:
        rows = gramians.rows(family, num_tasks)
        direction, w = _run(rows, upgrad)
        assert (rows @ direction).min() >= -1e-7, family
        assert (w >= 1 / num_tasks - 1e-12).all(), family


@sizes
def test_upgrad_without_conflict_is_the_mean(num_tasks: int) -> None:
    rows = gramians.rows("aligned", num_tasks)
    assert (rows @ rows.T).min() > 0
    np.testing.assert_allclose(_run(rows, upgrad)[0], rows.mean(0), rtol=1e-9)
    if num_tasks == 2:
        np.testing.assert_allclose(_run(rows, upgrad, reduction="sum")[0], rows.sum(0), rtol=1e-9)


@sizes
@pytest.mark.parametrize("scale", ["min", "median", "rmse"])
def test_aligned_gradients_are_orthogonal_and_equally_long(num_tasks: int, scale: Any) -> None:
    for family in ("iid", "scales", "aligned"):
        rows = gramians.rows(family, num_tasks)
        values = np.linalg.eigvalsh(rows @ rows.T)
        level = {
            "min": values[0],
            "median": values[(num_tasks - 1) // 2],
            "rmse": values.mean(),
        }[scale]
        b = np.asarray(alignment(jnp.asarray(rows @ rows.T), scale))
        np.testing.assert_allclose(
            b @ rows @ rows.T @ b, level * np.eye(num_tasks), atol=1e-6 * level
        )


def test_aligned_drops_what_is_not_there() -> None:
    """Rank 2 of 4: level is the smallest eigenvalue of the two, B G B projects onto them."""
    rows = gramians.rows("half_rank", 4)
    values, vectors = np.linalg.eigh(rows @ rows.T)
    b = np.asarray(alignment(jnp.asarray(rows @ rows.T), "min"))
    want = values[2] * vectors[:, 2:] @ vectors[:, 2:].T
    np.testing.assert_allclose(b @ rows @ rows.T @ b, want, atol=1e-9)


def test_pcgrad_of_two_tasks_in_closed_form() -> None:
    for seed in range(6):
        a, b = np.random.default_rng(seed).normal(size=(2, 3))
        inner = min(a @ b, 0)
        want = a + b - inner / (b @ b) * b - inner / (a @ a) * a
        np.testing.assert_allclose(_run(np.stack([a, b]), pcgrad)[0], want, rtol=1e-9)
        mean = _run(np.stack([a, b]), pcgrad, reduction="mean")[0]
        np.testing.assert_allclose(mean, want / 2, rtol=1e-9)


def test_pcgrad_of_two_tasks_is_upgrad() -> None:
    for seed in range(6):
        rows = np.random.default_rng(seed).normal(size=(2, 3))
        want = _run(rows, upgrad, reduction="sum")[0]
        np.testing.assert_allclose(_run(rows, pcgrad)[0], want, atol=1e-9)


@pytest.mark.parametrize("num_tasks", [3, 6])
def test_pcgrad_is_projections_of_vectors(num_tasks: int) -> None:
    rows = gramians.rows("iid", num_tasks) @ np.random.default_rng(0).normal(size=(30, 4))
    orders = np.asarray(random_orders(KEY, num_tasks))
    want = 0
    for i, order in enumerate(orders):
        v = rows[i].copy()
        for j in order:
            if j != i:
                v -= min(v @ rows[j], 0) / (rows[j] @ rows[j]) * rows[j]
        want = want + v
    got = np.asarray(pcgrad_weights(jnp.asarray(rows @ rows.T), jnp.asarray(orders))) @ rows
    np.testing.assert_allclose(got, want, rtol=1e-9)
    assert np.abs(want - rows.sum(0)).max() > 1e-3  # there was conflict


def test_random_orders_are_uniform_permutations() -> None:
    orders = np.concatenate([random_orders(key, 3) for key in jax.random.split(KEY, 60)])
    assert (np.sort(orders, 1) == np.arange(3)).all()
    seen = {tuple(order): (orders == order).all(1).sum() for order in orders}
    assert len(seen) == 6
    assert min(seen.values()) > 15  # 30 expected of each


# Loss weightings.


def _weights(method: Any, losses: np.ndarray, state: Any = None) -> tuple[np.ndarray, Any]:
    state = method.init(len(losses)) if state is None else state
    active = jnp.ones(len(losses), bool)
    w, state = method.weights(jnp.asarray(losses), state, active=active, key=KEY)
    return np.asarray(w), state


def test_uncertainty_settles_at_the_log_of_the_losses() -> None:
    """s* = log L: the weights become 1 / (2 L)."""
    losses = np.array([0.5, 2.0, 7.0])
    method, state = uncertainty(lr=0.1), None
    for _ in range(150):
        w, state = _weights(method, losses, state)
    np.testing.assert_allclose(w, 0.5 / losses, rtol=1e-2)


def test_famo_weights_are_a_gradient_of_its_objective() -> None:
    """They are proportional to d/dL of sum z log L, and sum to 1."""
    losses = np.array([0.5, 2.0, 7.0])
    w, _ = _weights(famo(), losses)
    np.testing.assert_allclose(w, (1 / losses) / (1 / losses).sum(), rtol=1e-6)


def test_famo_turns_to_the_task_that_improves_least() -> None:
    method = famo(lr=0.1)
    state, active = method.init(2), jnp.ones(2, bool)
    assert method.after_step is not None
    for _ in range(10):
        state = method.after_step(
            state, jnp.array([1.0, 1.0]), jnp.array([0.5, 0.99]), active=active
        )
    w, _ = _weights(method, np.array([1.0, 1.0]), state)
    assert w[1] > 2 * w[0]


def test_dwa_compares_two_windows() -> None:
    method, state = dwa(temperature=2.0, window=2), None
    history = np.array([[4.0, 1], [2, 1], [2, 1], [1, 1.2]])
    for i, losses in enumerate(history):
        w, state = _weights(method, losses, state)
        if i < 3:
            np.testing.assert_allclose(w, 1)
    ratio = history[2:].mean(0) / history[:2].mean(0)
    np.testing.assert_allclose(w, 2 * np.exp(ratio / 2) / np.exp(ratio / 2).sum(), rtol=1e-6)


def test_scale_invariant_weights_do_not_see_units() -> None:
    losses = np.array([0.5, 2.0, 7.0])
    w, _ = _weights(scale_invariant(), losses)
    np.testing.assert_allclose(w * losses, 1, rtol=1e-6)

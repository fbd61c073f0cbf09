"""Where methods with a state settle on a problem that stays the same, in float64."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtl_jax.methods.base import Aggregator
from mtl_jax.methods.gradnorm import gradnorm_slope
from mtl_jax.methods.sdmgrad import sdmgrad_steps
from mtl_jax.methods.table import make
from tests.methods import gramians

KEY = jax.random.key(5)
LOSSES = np.array([0.5, 2.0, 7.0])


@pytest.fixture(autouse=True)
def _double() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


def _rows(conflict: float = 0.6) -> np.ndarray:
    """Three gradients whose shortest convex combination uses all of them."""
    rows = np.random.default_rng(3).normal(size=(3, 8))
    return (rows - conflict * rows.mean(0)) * np.array([[0.5], [1.0], [2.0]])


def _walk(method: Aggregator, rows: np.ndarray, losses: np.ndarray) -> tuple[np.ndarray, Any]:
    """Directions of the steps on `rows` [S, T, P] with `losses` [S, T], and the last state."""

    def step(state: Any, xs: Any) -> tuple[Any, Any]:
        active = jnp.ones(rows.shape[1], bool)
        direction, state, _ = method.update(xs[0], state, losses=xs[1], active=active, key=KEY)
        return state, direction

    start = method.init(rows[0, 0], rows.shape[1])
    state, out = jax.jit(lambda *xs: jax.lax.scan(step, start, xs))(rows, losses)
    return np.asarray(out), state


def _same(name: str, steps: int, losses: np.ndarray = LOSSES, **options: Any) -> tuple[Any, Any]:
    rows = np.broadcast_to(_rows(), (steps, 3, 8))
    out, state = _walk(make(name, **options), rows, np.broadcast_to(losses, (steps, 3)))  # pyrefly: ignore
    return out, state


def test_modo_and_moco_settle_at_the_shortest_combination() -> None:
    """MoDo of the gradients; MoCo, projected, of unit gradients times losses."""
    rows = _rows()
    want = gramians.min_norm(rows) @ rows
    out, _ = _same("modo", 2000, gamma=0.3, rho=0.0)
    np.testing.assert_allclose(out[-1], want, atol=1e-5)
    assert np.abs(out[0] - want).max() > 1e-2
    scaled = rows / np.linalg.norm(rows, axis=1, keepdims=True) * LOSSES[:, None]
    want = gramians.min_norm(scaled) @ scaled
    out, _ = _same("moco", 2000, simplex="projection", gamma=0.03, decay=0.0)
    np.testing.assert_allclose(out[-1], want, atol=1e-5)


def test_sdmgrad_settles_at_mgda_of_shifted_gradients() -> None:
    descend = jax.jit(sdmgrad_steps)
    for family in ("iid", "conflict"):
        rows = gramians.rows(family, 3)
        for lam in (0.0, 0.5):
            w = descend(rows @ rows.T, np.full(3, 1 / 3), lam, 0.2, 2000)
            want = gramians.min_norm(rows + lam * rows.mean(0))
            np.testing.assert_allclose(w, want, atol=1e-6)


def test_gradnorm_slope_is_that_of_its_objective() -> None:
    norms, rates = np.array([0.5, 1.0, 2.0]), np.array([0.8, 1.3, 0.9])

    def objective(x: Any) -> Any:
        lengths = 3 * jax.nn.softmax(x) * norms
        return jnp.abs(lengths - jax.lax.stop_gradient(lengths.mean() * rates**1.5)).sum()

    def ours(x: Any) -> Any:
        return gradnorm_slope(3 * jax.nn.softmax(x), norms, rates, 1.5, jnp.int32(3))

    both = jax.jit(lambda x: (ours(x), jax.grad(objective)(x)))
    for x in (np.zeros(3), np.array([0.3, -0.5, 0.1])):
        np.testing.assert_allclose(*both(x), rtol=1e-9)


def test_gradnorm_makes_gradients_of_level_tasks_equally_long() -> None:
    """And of a task whose loss has not fallen, a longer one."""
    norms = np.linalg.norm(_rows(), axis=1)
    _, state = _same("gradnorm", 400, lr=0.02)
    lengths = np.asarray(jax.nn.softmax(state.logits.values)) * norms
    np.testing.assert_allclose(lengths / lengths.mean(), 1, atol=0.05)
    losses = np.repeat(LOSSES[None], 400, 0)
    losses[1:, 1:] *= 0.5
    rows = np.broadcast_to(_rows(), (400, 3, 8))
    _, state = _walk(make("gradnorm", lr=0.02), rows, losses)  # pyrefly: ignore
    lengths = np.asarray(jax.nn.softmax(state.logits.values)) * norms
    np.testing.assert_allclose(lengths[0] / lengths[1], 2**1.5, rtol=0.1)


def test_imtl_settles_at_imtl_g_of_relative_gradients() -> None:
    """S = -log L, so that g_i exp(s_i) is the gradient of log L_i; as do IMTL-L's weights."""
    out, state = _same("imtl", 400, lr=0.05)
    np.testing.assert_allclose(np.exp(state.values), 1 / LOSSES, rtol=2e-2)
    scaled = _rows() / LOSSES[:, None]
    y = np.linalg.solve(scaled @ scaled.T, np.linalg.norm(scaled, axis=1))
    want = y / y.sum() @ scaled
    np.testing.assert_allclose(out[-1], want, atol=2e-2 * np.abs(want).max())
    np.testing.assert_allclose(_settled("imtl_l", lr=0.05), 1 / LOSSES, rtol=2e-2)


def _settled(name: str, **options: Any) -> np.ndarray:
    method, active = make(name, **options), jnp.ones(3, bool)

    def step(state: Any, _: Any) -> tuple[Any, Any]:
        w, state = method.weights(jnp.asarray(LOSSES), state, active=active, key=KEY)
        return state, w

    return np.asarray(jax.jit(lambda s: jax.lax.scan(step, s, None, 400)[1])(method.init(3))[-1])  # pyrefly: ignore


def test_db_mtl_does_not_see_the_units_of_a_loss() -> None:
    units = np.array([1e-3, 1.0, 1e3])
    base, _ = _same("db_mtl", 6)
    rows = np.broadcast_to(_rows() * units[:, None], (6, 3, 8))
    losses = np.broadcast_to(LOSSES * units, (6, 3))
    other, _ = _walk(make("db_mtl"), rows, losses)  # pyrefly: ignore
    np.testing.assert_allclose(other, base, rtol=1e-6)


def test_excess_mtl_turns_to_the_task_that_is_furthest_from_its_optimum() -> None:
    """Gradients of one task vanish, those of the others stay."""
    fading = np.repeat(_rows()[None], 30, 0)
    fading[:, 0] *= 0.5 ** np.arange(30)[:, None]
    _, state = _walk(make("excess_mtl", lr=0.5), fading, np.broadcast_to(LOSSES, (30, 3)))  # pyrefly: ignore
    w = np.asarray(jax.nn.softmax(state.logits))
    assert w[0] < 0.5 * min(w[1], w[2])

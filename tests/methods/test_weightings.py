"""One test for every loss weighting of the table: what holds for all, and what each promises."""

from __future__ import annotations

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtl_jax.methods.base import LossWeighting
from mtl_jax.methods.table import default_options, make
from tests.methods.cases import KEY, Case, cases

weightings = pytest.mark.parametrize("case", cases("weighting"), ids=str)


@functools.cache
def _weighting(case: Case) -> LossWeighting:
    return make(case.name, **dict(case.options))


@functools.cache
def _weigh(case: Case) -> Any:
    return jax.jit(_weighting(case).weights)


def _history(case: Case, losses: np.ndarray, active: np.ndarray) -> tuple[np.ndarray, Any]:
    """Weights [S, T] of S steps on `losses` [S, T] with the next row as the losses after a step."""
    method = _weighting(case)
    state, out = method.init(losses.shape[1]), []
    after = None if method.after_step is None else jax.jit(method.after_step)
    mask = jnp.asarray(active)
    for i, row in enumerate(losses):
        key = jax.random.fold_in(KEY, i)
        w, state = _weigh(case)(jnp.asarray(row, jnp.float32), state, active=mask, key=key)
        out.append(np.asarray(w, np.float64))
        if after is not None:
            later = jnp.asarray(losses[(i + 1) % len(losses)], jnp.float32)
            state = after(state, jnp.asarray(row, jnp.float32), later, active=mask)
    return np.stack(out), state


def _losses(steps: int = 8, num_tasks: int = 4) -> np.ndarray:
    rng = np.random.default_rng(5)
    decay = np.linspace(0.1, 0.4, num_tasks)[None, :]
    start = np.linspace(0.5, 3, num_tasks)[None, :]
    noise = rng.uniform(0.9, 1.1, (steps, num_tasks))
    return start * np.exp(-decay * np.arange(steps)[:, None]) * noise


@weightings
def test_weights_are_finite_and_positive(case: Case) -> None:
    for scale in (0.0, 1e-12, 1e-6, 1.0, 1e6, 1e12):
        w, state = _history(case, _losses() * scale, np.ones(4, bool))
        assert np.isfinite(w).all(), scale
        if case.name in ("tchebycheff", "group_dro"):  # may leave a task out, or all but
            np.testing.assert_allclose(w.sum(1), 1, rtol=1e-6)
            assert (w >= 0).all(), scale
        else:
            assert (w > 0).all(), scale
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state)), scale


@weightings
def test_weights_of_absent_tasks(case: Case) -> None:
    """Over several steps, what the task's losses say while it is absent does not matter."""
    losses = _losses(num_tasks=5)
    places = [4] if case.name == "random_loss_weighting" else [0, 2, 4]
    for place in places:
        kept = np.arange(5) != place
        w, state = _history(case, np.where(kept[None, :], losses, 1e3), kept)
        want, reduced = _history(case, losses[:, kept], np.ones(4, bool))
        np.testing.assert_allclose(w[:, kept], want, rtol=1e-5)
        assert not w[:, place].any()
        for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(reduced), strict=True):
            a = a[..., kept] if np.ndim(a) else a
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", ["uncertainty", "famo", "imtl_l"])
def test_a_task_that_is_absent_for_a_while_keeps_what_was_learned(name: str) -> None:
    """Its value and its moments stay as they were at its last step."""
    method = make(name)
    assert isinstance(method, LossWeighting)
    present = jnp.ones(3, bool)
    losses = jnp.asarray(_losses(4, 3), jnp.float32)

    def step(state: Any, i: int, active: Any) -> Any:
        _, state = method.weights(losses[i], state, active=active, key=KEY)
        if method.after_step is not None:
            after = losses[i] * jnp.array([0.9, 0.5, 0.6])
            state = method.after_step(state, losses[i], after, active=active)
        return state

    state = step(step(method.init(3), 0, present), 1, present)
    later = step(step(state, 2, present.at[1].set(False)), 3, present.at[1].set(False))
    for old, new in zip(jax.tree.leaves(state), jax.tree.leaves(later), strict=True):
        if np.ndim(old):
            assert old[1] == new[1] != 0
            assert (old[np.array([0, 2])] != new[np.array([0, 2])]).all()


@weightings
def test_weights_without_any_task(case: Case) -> None:
    w, state = _history(case, np.zeros((2, 3)), np.zeros(3, bool))
    assert not w.any()
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state))


@weightings
def test_weights_permute(case: Case) -> None:
    order, losses = np.array([2, 0, 3, 1]), _losses()
    w, _ = _history(case, losses, np.ones(4, bool))
    moved, _ = _history(case, losses[:, order], np.ones(4, bool))
    if case.name == "random_loss_weighting":
        assert np.abs(moved - w[:, order]).max() > 1e-3
    else:
        np.testing.assert_allclose(moved, w[:, order], rtol=1e-4)


@weightings
def test_weights_of_one_task_and_of_equal_tasks(case: Case) -> None:
    """What each method says of one number, which its definition gives in closed form."""
    level = 2.0
    single = {
        "linear_scalarization": 1.0,
        "uncertainty": 0.5 * math.exp(-dict(case.options).get("init", 0.0)),
        "random_loss_weighting": 1.0,
        "dwa": 1.0,
        "scale_invariant": 1 / level,
        "famo": 1.0,
        "imtl_l": 1.0,
        "gls": 1.0,
        "stch": 1 / level,
        "tchebycheff": 1.0,
        "group_dro": 1.0,
    }[case.name]
    w, _ = _history(case, np.full((1, 1), level), np.ones(1, bool))
    np.testing.assert_allclose(w, single, rtol=1e-6)
    w, _ = _history(case, np.full((1, 5), level), np.ones(5, bool))
    sum_to_one = ("random_loss_weighting", "famo", "gls", "tchebycheff", "group_dro")
    shared = case.name in sum_to_one or (
        case.name in ("linear_scalarization", "scale_invariant")
        and dict(default_options(case.name), **dict(case.options))["reduction"] == "mean"
    )
    np.testing.assert_allclose(w.sum(), single if shared else 5 * single, rtol=1e-5)


@weightings
def test_vmap_of_a_scan_of_weights_is_a_loop(case: Case) -> None:
    method = _weighting(case)
    traces = []

    def weigh(row: Any, state: Any, active: Any) -> Any:
        traces.append(1)
        w, state = method.weights(row, state, active=active, key=KEY)
        if method.after_step is not None:
            state = method.after_step(state, row, 0.9 * row, active=active)
        return w, state

    losses, compiled, active = (
        jnp.asarray(_losses(), jnp.float32),
        jax.jit(weigh),
        jnp.ones(4, bool),
    )
    direct, state = [], method.init(4)
    for i, row in enumerate(losses):
        w, state = compiled(row, state, active.at[1].set(i != 2))
        direct.append(w)
    assert len(traces) == 1

    def run(losses: Any) -> Any:
        def step(state: Any, xs: Any) -> Any:
            w, state = weigh(xs[0], state, active.at[1].set(xs[1] != 2))
            return state, w

        return jax.lax.scan(step, method.init(4), (losses, jnp.arange(len(losses))))[1]

    many = jax.jit(jax.vmap(run))(jnp.stack([losses, 2 * losses]))
    np.testing.assert_allclose(many[0], jnp.stack(direct), rtol=1e-5)

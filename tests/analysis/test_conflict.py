"""Cosines of task gradients and of flat parts where they are known."""

from __future__ import annotations

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtl_jax.analysis import conflict
from mtl_jax.analysis.subject import NotApplicable
from mtl_jax.methods.perturbation import Perturbation
from mtl_jax.methods.task_grads import objective_from_losses, problem


def test_cosines_of_quadratic_tasks():
    """In a ball of radius rho the flat part of a quadratic task is rho A g / |g|, with g = A w."""
    with jax.enable_x64(True):
        rng = np.random.default_rng(0)
        half = rng.normal(size=(3, 5, 5))
        a = np.einsum("tij,tkj->tik", half, half)
        w = rng.normal(size=5)

        def losses(params, batch):
            del batch
            return 0.5 * jnp.einsum("i,tij,j->t", params["w"], jnp.asarray(a), params["w"])

        params = {"w": jnp.asarray(w)}
        bound = problem(objective_from_losses(params, losses, 3), (jnp.zeros(1),))
        how = Perturbation(0.3, 0.3)
        g_g, h_h, g_h, known = jax.jit(lambda p: conflict.cosines(bound, p, how))(params)
        g = a @ w
        h = np.einsum("tij,tj->ti", a, g)
        unit_g = g / np.linalg.norm(g, axis=1, keepdims=True)
        unit_h = h / np.linalg.norm(h, axis=1, keepdims=True)
        np.testing.assert_allclose(g_g, unit_g @ unit_g.T, atol=1e-9)
        np.testing.assert_allclose(h_h, unit_h @ unit_h.T, atol=1e-9)
        np.testing.assert_allclose(g_h, (unit_g * unit_h).sum(1), atol=1e-9)
        assert known.all()


def test_linear_tasks_have_no_flat_part_and_a_constant_one_no_gradient():
    def losses(params, batch):
        del batch
        w = params["w"]
        return jnp.stack([w[0], -2 * w[0] + w[1], jnp.zeros(())])

    params = {"w": jnp.asarray([1.0, 1.0])}
    bound = problem(objective_from_losses(params, losses, 3), (jnp.zeros(1),))
    how = Perturbation(0.3, 0.3)
    g_g, _, g_h, known = jax.jit(lambda p: conflict.cosines(bound, p, how))(params)
    np.testing.assert_allclose(g_g[0, 1], -2 / np.sqrt(5), rtol=1e-6)
    np.testing.assert_array_equal(known, [[True, True, False], [False, False, False]])
    assert np.isfinite(g_h).all()


def test_shares_leave_out_what_is_not_there():
    cosines = np.full((4, 3, 3), np.nan)
    cosines[:, 0, 1] = [-0.5, 0.5, 0.1, -0.1]
    cosines[:2, 1, 2] = [-0.2, 0.3]
    pairs = conflict.pairs(cosines)
    assert pairs.shape == (4, 3)
    np.testing.assert_array_equal(conflict.share_below_zero(pairs), [0.5, np.nan, 0.5])
    assert conflict._row(pairs)[2] == "50.00 %"


@pytest.mark.parametrize("tasks", [("a",), ("a", "b")])
def test_there_is_no_conflict_without_two_tasks_that_share(tasks):
    system = SimpleNamespace(owner=lambda path: "stacked")
    run = SimpleNamespace(system=system, config=None)
    params = {"w": jnp.zeros((len(tasks), 2))}
    subject = SimpleNamespace(run=run, tasks=tasks, params=params)
    with pytest.raises(NotApplicable, match="one task" if len(tasks) == 1 else "share no"):
        conflict.measure(subject, [], Perturbation(1.0, 1.0))

"""The surrogate gap against perturbations written out by hand."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtl_jax.analysis import gap
from mtl_jax.analysis.subject import bind_host
from mtl_jax.config import FlatConfig
from mtl_jax.methods.perturbation import Perturbation
from tests import toys
from tests.analysis.test_hessian import AS_READ

RHOS = np.array([1e-4, 0.1, 0.5])


@pytest.mark.parametrize(("norm", "adaptive"), [("joint", True), ("separate", False)])
def test_the_gap_is_the_rise_at_the_hand_written_worst_point(norm, adaptive):
    with jax.enable_x64(True):
        system, batch = toys.heads(2)
        params, state = system.init(jax.random.key(0), batch)
        bound = bind_host(system, AS_READ, params, state, {}, batch)
        ball = Perturbation(1.0, 0.4, norm, adaptive)
        found = jax.jit(lambda p: gap.gaps(bound, p, jnp.asarray(RHOS), ball))(params)
        losses, rises, linear, active = (np.asarray(leaf) for leaf in found)
        assert active.all()
        evaluate = jax.jit(lambda p: bound.losses(p)[0])
        slopes = jax.jit(jax.jacrev(lambda p: bound.losses(p)[0]))(params)
        np.testing.assert_allclose(losses, evaluate(params), rtol=1e-12)
        for t in range(2):
            own = ("trunk", f"head{t}")
            w = {name: np.asarray(params[name]["w"]) for name in own}
            g = {name: np.asarray(slopes[name]["w"][t]) for name in own}
            scale = {name: np.abs(w[name]) if adaptive else np.ones_like(w[name]) for name in own}
            length = {name: np.linalg.norm(scale[name] * g[name]) for name in own}
            if norm == "joint":
                length = dict.fromkeys(own, np.hypot(*length.values()))
            for r, rho in enumerate(RHOS):
                moved, slope = dict(params), 0.0
                for name, share in zip(own, (1.0, 0.4), strict=True):
                    move = rho * share * scale[name] ** 2 * g[name] / length[name]
                    moved[name] = {"w": w[name] + move}
                    slope += (move * g[name]).sum()
                want = np.asarray(evaluate(moved))[t] - losses[t]
                np.testing.assert_allclose(rises[r, t], want, rtol=1e-6)
                np.testing.assert_allclose(linear[r, t], slope, rtol=1e-9)
        # Close by, the gradient is all there is.
        np.testing.assert_allclose(rises[0], linear[0], rtol=1e-2)


def test_a_task_without_labels_counts_as_absent_and_gives_no_nan():
    system, batch = toys.table(2)
    params, state = system.init(jax.random.key(0), batch)
    batch["label_mask"][:, 1] = 0
    bound = bind_host(system, AS_READ, params, state, {}, batch)
    rhos, ball = jnp.asarray(RHOS, jnp.float32), Perturbation(1.0, 1.0)
    _, rises, linear, active = jax.jit(lambda p: gap.gaps(bound, p, rhos, ball))(params)
    assert np.isfinite(rises).all()
    assert np.isfinite(linear).all()
    np.testing.assert_array_equal(active, [True, False])


def test_the_grid_goes_around_the_radius_of_training():
    assert gap.radii(2.0, True) == (0.2, 0.5, 1.0, 2.0, 3.0, 4.0)
    assert gap.radii(0.0, False) == gap.radii(0.05, False)
    ball = gap.unit_ball(FlatConfig(rho=0.5, rho_heads=0.1, norm="separate", adaptive=False))
    at = gap.at_radius(ball, 0.5)
    assert (at.rho_shared, at.norm, at.adaptive) == (0.5, "separate", False)
    assert at.rho_heads == pytest.approx(0.1)
    assert gap.unit_ball(FlatConfig(rho=0.0)).rho_heads == 1.0


def test_runs_are_measured_by_the_ball_of_the_one_with_flat_regions():
    erm, flat = FlatConfig(combine="erm"), FlatConfig(rho=0.3, adaptive=False)
    assert gap.common_ball([erm, flat]) == gap.common_ball([flat]) == (gap.unit_ball(flat), 0.3)
    assert gap.common_ball([erm])[1] == erm.rho
    ball, rho = gap.common_ball([erm, flat], "adaptive")
    assert (ball.adaptive, rho) == (True, 0.0)
    assert gap.common_ball([flat], "plain")[1] == 0.3

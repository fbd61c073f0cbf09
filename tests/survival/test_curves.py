"""Curves and scores against integrals of a curve on a fine mesh of times, in float64."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import simpson

from mtl_jax import survival as sv
from mtl_jax.errors import UserError
from tests.survival.reference import GRID, assert_finite, survival_curve

X = np.random.default_rng(0).normal(-0.5, 1.5, (12, 4))
# Fine between the edges, which it holds, so that Simpson's rule sees no kink.
PIECES = zip(GRID.edges[:-1], GRID.edges[1:], strict=True)
MESH = np.concatenate([np.linspace(a, b, 2001) for a, b in PIECES])


@functools.cache
def program(function, **options):
    return jax.jit(lambda x, *args: function(x, GRID, *args, **options))


def run(function, *args, x=X, **options) -> np.ndarray:
    """In float64; `args` are traced, `options` are not."""
    with jax.enable_x64(True):
        return np.asarray(program(function, **options)(x, *args))


def rmst_given(x, grid, lo, hi, given):
    return sv.rmst(x, grid, lo, hi, given=given)


def integral(values: np.ndarray, lo: float, hi: float) -> np.ndarray:
    """Of values [N, T] on the mesh, piece by piece between the edges; lo and hi on the mesh."""
    total = np.zeros(len(values))
    for k in range(GRID.bins):
        piece = slice(2001 * k, 2001 * (k + 1))
        inside = (MESH[piece] >= lo - 1e-9) & (MESH[piece] <= hi + 1e-9)
        if inside.sum() > 1:
            total += simpson(values[:, piece][:, inside], x=MESH[piece][inside])
    return total


CURVE = survival_curve(X, GRID, MESH)


def at(t: float) -> np.ndarray:
    return survival_curve(X, GRID, [t])


def test_at_the_edges():
    hazards = 1 / (1 + np.exp(-X))
    curve = run(lambda x, g: sv.survival(x))
    np.testing.assert_allclose(curve[:, 1:], np.cumprod(1 - hazards, 1), rtol=1e-12)
    np.testing.assert_allclose(-np.log(curve), run(lambda x, g: sv.cumulative_hazard(x)), 1e-9)
    mass = np.exp(run(lambda x, g: sv.log_pmf(x)))
    np.testing.assert_allclose(mass.sum(1), 1, rtol=1e-12)
    np.testing.assert_allclose(mass[:, :-1], -np.diff(curve), rtol=1e-9)
    back = run(lambda x, g: sv.log_pmf_hazards(sv.log_pmf(x)))
    np.testing.assert_allclose(back, X, rtol=1e-9, atol=1e-9)


def test_survival_at():
    times = np.array([0.0, 1.0, 1.7, 4.0, 6.3, 9.0, 50.0])
    shared = run(sv.survival_at, times)
    np.testing.assert_allclose(shared, survival_curve(X, GRID, times), rtol=1e-12)
    given = np.linspace(0, 8, 12)
    own = run(lambda x, g, t, a: sv.survival_at(x, g, t[:, None], given=a), given + 0.5, given)
    for i, a in enumerate(given):
        row = survival_curve(X[i : i + 1], GRID, [a + 0.5, a])[0]
        np.testing.assert_allclose(own[i, 0], row[0] / row[1], rtol=1e-12)
    later = run(sv.survival_at, 4.0, given=6.0)  # Known to be alive after that time.
    np.testing.assert_array_equal(later, np.ones(12))


@pytest.mark.parametrize(
    ("lo", "hi", "given"),
    [(1.0, 9.0, 0.0), (1.0, 5.5, 1.0), (2.5, 9.0, 1.0), (2.5, 7.25, 2.5), (2.0, 9.0, 4.75)],
)
def test_rmst(lo, hi, given):
    alive = max(given, 1.0)
    expected = integral(CURVE, max(lo, alive), hi) / at(alive)[:, 0]
    expected += max(alive - lo, 0)
    found = run(rmst_given, lo, hi, given)
    np.testing.assert_allclose(found, expected, rtol=1e-9)
    if lo == given:
        np.testing.assert_allclose(run(sv.expected_remaining, lo, hi), found, rtol=1e-14)
    if (lo, hi) == (1.0, 9.0):
        np.testing.assert_allclose(run(sv.rmst), found, rtol=1e-14)


def test_rmst_of_times_before_the_grid_and_of_rows():
    """S = 1 up to the first edge; arrays of times are cut at the last."""
    plain = run(rmst_given, 1.0, 9.0, 0.0)
    np.testing.assert_allclose(run(rmst_given, 0.0, 9.0, 0.0), plain + 1, rtol=1e-12)
    hi = np.linspace(2, 20, 12)
    rows = run(rmst_given, np.full(12, 1.0), hi, np.zeros(12))
    for i in (0, 5, 11):
        one = run(rmst_given, 1.0, min(hi[i], 9.0), 0.0)
        np.testing.assert_allclose(rows[i], one[i], rtol=1e-12)


@pytest.mark.parametrize(("hi", "given", "shift"), [(None, None, None), (7.25, 2.5, 0.5)])
def test_log_rmst(hi, given, shift):
    alive, end, added = given or 1.0, hi or 9.0, shift or 0.0
    inside = integral(CURVE / (MESH + added), alive, end) / at(alive)[:, 0]
    expected = np.log(alive + added) + inside
    np.testing.assert_allclose(run(sv.log_rmst, hi, given=given, shift=shift), expected, rtol=1e-9)


def test_log_rmst_from_zero_and_at_once():
    """Where all end at once: log(first edge + shift); shift is 1 from 0 on."""
    sure = np.full((1, 4), 60.0)
    assert run(sv.log_rmst, x=sure)[0] == pytest.approx(np.log(1.0) + 1 / 60, abs=1e-3)
    grid = GRID.from_zero()
    never = jax.jit(lambda x: sv.log_rmst(x, grid))(np.full(4, -60.0))
    assert float(never) == pytest.approx(np.log(10), rel=1e-6)
    with pytest.raises(UserError, match="shift 0"):
        sv.log_rmst(X, grid, shift=0.0)


def test_median():
    found = run(sv.median)
    curve = np.array([np.interp(t, MESH, row) for t, row in zip(found, CURVE, strict=True)])
    crosses = CURVE[:, -1] <= 0.5
    assert 2 < crosses.sum() < 12
    np.testing.assert_allclose(curve[crosses], 0.5, rtol=1e-6)
    assert np.all(np.isinf(found[~crosses]))
    np.testing.assert_array_equal(run(sv.restricted_median, hi=6.0), np.minimum(found, 6.0))
    later = run(sv.median, given=4.75, level=0.8)
    for i in np.flatnonzero(np.isfinite(later)):
        pair = survival_curve(X[i : i + 1], GRID, [later[i], 4.75])[0]
        assert pair[0] / pair[1] == pytest.approx(0.8, rel=1e-9)


def test_scores_by_name():
    x = np.stack([np.full(4, 0.5), np.full(4, -0.5), np.full(4, -2.0)])
    names = ("rmst", "log_rmst", "median", "survival@5", "cumulative_hazard")
    every = run(lambda x, g: jnp.stack([sv.score(n, x, g, given=1.5) for n in names]), x=x)
    assert every.shape == (5, 3)
    assert np.all(np.diff(every) > 0)
    hi = run(lambda x, g: sv.score("cumulative_hazard", x, g, hi=5.5))
    np.testing.assert_allclose(np.exp(hi), at(5.5)[:, 0], rtol=1e-12)
    short = run(lambda x, g: sv.score("rmst", x, g, lo=4.0, given=4.0))
    np.testing.assert_allclose(short, run(rmst_given, 4.0, 9.0, 4.0), rtol=1e-14)


@pytest.mark.parametrize("name", ["rmsd", "survival", "survival@", "survival@x", "survival@99", ""])
def test_unknown_scores(name):
    with pytest.raises(UserError, match="score") as error:
        sv.score(name, X, GRID)
    assert "\n" not in str(error.value)


def test_bad_windows():
    for call, says in [
        (lambda: sv.rmst(X, GRID, 0, 9.5), "beyond the grid"),
        (lambda: sv.rmst(X, GRID, 5, 4), "above hi"),
        (lambda: sv.median(X, GRID, level=1.0), "level 1"),
        (lambda: sv.survival_at(X[:, :3], GRID, 2.0), "4 bins"),
        (lambda: sv.rmst(X, GRID, given=np.zeros(3)), "times of rows"),
    ]:
        with pytest.raises(UserError, match=says):
            call()


def test_mean_curve_averages_survival():
    models = np.random.default_rng(5).normal(0, 2, (3, 12, 4))
    found = run(lambda x, g: sv.survival(sv.mean_curve(x)), x=models)
    each = run(lambda x, g: sv.survival(x), x=models)
    np.testing.assert_allclose(found, each.mean(0), rtol=1e-10)


def test_extremes_are_finite_with_gradients():
    signs = np.random.default_rng(1).choice([-80.0, 80.0, 0.0], (12, 4)).astype(np.float32)

    def total(x):
        parts = [sv.score(name, x, GRID, given=2.5) for name in ("rmst", "log_rmst", "median")]
        parts += [sv.survival_at(x, GRID, jnp.asarray([0.0, 3.0, 99.0])).sum(-1)]
        parts += [sv.survival(sv.mean_curve(jnp.stack([x, -x]))).sum(-1)]
        return sum(part.sum() for part in parts)

    assert_finite(jax.jit(jax.value_and_grad(total))(signs))


def test_gradients_of_scores():
    """Of all rows at once, since rows are apart; by central differences."""
    names = ("rmst", "log_rmst", "median", "survival@5", "cumulative_hazard")
    x = X - 0.5 * (X > 1)

    def every(x):
        return jnp.stack([sv.score(name, x, GRID, given=1.5) for name in names])

    with jax.enable_x64(True):
        value = jax.jit(every)
        jacobian = np.asarray(jax.jit(jax.jacrev(lambda x: every(x).sum(1)))(x))
        for k in range(4):
            move = 1e-6 * (np.arange(4) == k)[None, :]
            slope = (np.asarray(value(x + move)) - np.asarray(value(x - move))) / 2e-6
            np.testing.assert_allclose(jacobian[:, :, k], slope, rtol=1e-5, atol=1e-7)


def test_incidences():
    x = np.random.default_rng(4).normal(-1, 1.5, (12, 4, 3))
    total = run(lambda x, g: sv.survival(sv.all_causes(x)), x=x)
    found = run(lambda x, g: sv.cumulative_incidence(x), x=x)
    np.testing.assert_allclose(found.sum(-1) + total, 1, rtol=1e-12)
    assert np.all(np.diff(found, axis=1) >= 0)
    alive, chance = np.ones(12), np.exp(x) / (1 + np.exp(x).sum(-1, keepdims=True))
    for k in range(4):
        np.testing.assert_allclose(np.diff(found, axis=1)[:, k], alive[:, None] * chance[:, k])
        alive = alive * (1 - chance[:, k].sum(-1))
    at_edges = run(lambda x, g: sv.cumulative_incidence_at(x, g, jnp.asarray(g.edges)), x=x)
    np.testing.assert_allclose(at_edges, found, rtol=1e-12, atol=1e-15)
    one = run(lambda x, g: sv.cumulative_incidence_at(x, g, 3.3, given=2.2), x=x[..., :1])
    alone = run(lambda x, g: sv.survival_at(x, g, 3.3, given=2.2), x=x[..., 0])
    np.testing.assert_allclose(one[:, 0], 1 - alone, rtol=1e-12)

"""The three T x T solvers against float64 SciPy on all families, in both precisions."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize

from mtl_jax.methods.linalg import product, solve, spectral_bound
from mtl_jax.methods.newton import power_equation
from mtl_jax.methods.nonneg_qp import nonneg_qp
from mtl_jax.methods.simplex import min_norm_simplex
from tests.methods import gramians

SIZES = (1, 2, 3, 10, 40)
DTYPES = ("float32", "float64")
C = 0.4
# Excess over the optimum, beside the larger of the optimum and 0.1.
EXCESS = {"float32": 1e-6, "float64": 1e-9}
# Error of a direction, beside the larger of its length and 0.3 times the sum of |w_i g_i|. A
# singular Gram matrix knows lengths only to the root of its rounding error. There tasks may also
# cancel in two ways, one of small terms, and rounding decides, by machine, which is found: the sum
# is the larger of both.
DIRECTION = {"float32": 1e-5, "float64": 1e-9}
SINGULAR_DIRECTION = {"float32": 1e-3, "float64": 1e-7}
SINGULAR = ("half_rank", "near_duplicates", "zero_min_norm", "more_tasks_than_parameters")

sizes = pytest.mark.parametrize("num_tasks", SIZES)
dtypes = pytest.mark.parametrize("dtype", DTYPES)


def _gram(family: str, num_tasks: int, dtype: str, seed: int = 0) -> np.ndarray:
    jacobian = gramians.rows(family, num_tasks, seed)
    return (jacobian @ jacobian.T).astype(dtype)


def _families(num_tasks: int) -> list[str]:
    few = ("zero_min_norm",) if num_tasks == 1 else ()
    return [family for family in gramians.FAMILIES if family not in few]


def _bent(gram: jax.Array, active: jax.Array | None = None) -> jax.Array:
    """CAGrad's dual weights, with its linear term made from the Gram matrix."""
    mask = jnp.ones(len(gram)) if active is None else active
    mean = (mask / mask.sum()).astype(gram.dtype)
    inner = jnp.matmul(gram, mean)
    length = jnp.sqrt(jnp.maximum(jnp.vdot(mean, inner), 0))
    some = length > 1e-6 * jnp.sqrt(jnp.trace(gram))
    linear = jnp.where(some, inner / jnp.where(some, C * length, 1), 0)
    return min_norm_simplex(gram, linear, active=active)


def _in_cone(gram: jax.Array, active: jax.Array | None = None) -> jax.Array:
    mask = jnp.ones(len(gram)) if active is None else active
    preference = jnp.diag((mask / mask.sum()).astype(gram.dtype))
    z = jax.vmap(lambda p: nonneg_qp(gram, jnp.matmul(gram, p), active=active))(preference)
    return (preference + z).sum(0)


def _power(gram: jax.Array, active: jax.Array | None = None) -> jax.Array:
    return power_equation(gram, 2.0, active=active)[0]


SOLVERS = {"min_norm": min_norm_simplex, "bent": _bent, "in_cone": _in_cone, "power": _power}


@functools.cache
def _compiled(name: str, batched: bool = False) -> object:
    def solver(gram: jax.Array, active: jax.Array) -> jax.Array:
        return SOLVERS[name](gram, active=active)

    return jax.jit(jax.vmap(solver, (0, None)) if batched else solver)


def _solve(name: str, gram: np.ndarray, active: np.ndarray | None = None) -> np.ndarray:
    active = np.ones(len(gram), bool) if active is None else active
    return np.asarray(_compiled(name)(jnp.asarray(gram), jnp.asarray(active)), np.float64)


def _check(
    family: str, jacobian: np.ndarray, found: np.ndarray, best: np.ndarray, dtype: str
) -> None:
    """The directions agree; of several optimal weights another may have been found."""
    norms = np.linalg.norm(jacobian, axis=1)
    weights = (found, best) if family in SINGULAR else (best,)
    terms = max(np.abs(w) @ norms for w in weights)
    length = max(np.linalg.norm(jacobian.T @ best), 0.3 * terms)
    error = np.linalg.norm(jacobian.T @ (found - best)) / length
    bound = (SINGULAR_DIRECTION if family in SINGULAR else DIRECTION)[dtype]
    assert error <= bound, family


@sizes
@dtypes
def test_min_norm_point_is_nnls_s(num_tasks: int, dtype: str) -> None:
    with jax.enable_x64(dtype == "float64"):
        for family in _families(num_tasks):
            gram = _gram(family, num_tasks, dtype)
            jacobian = gramians.root(gram)
            w, best = _solve("min_norm", gram), gramians.min_norm(jacobian)
            assert (w >= 0).all(), family
            assert w.sum() == pytest.approx(1, abs=1e-5), family
            values = [np.sum((jacobian.T @ v) ** 2) for v in (w, best)]
            assert values[0] - values[1] <= EXCESS[dtype] * max(values[1], 0.1), family
            _check(family, jacobian, w, best, dtype)


@sizes
@dtypes
def test_bent_simplex_problem_is_exact(num_tasks: int, dtype: str) -> None:
    """CAGrad's dual, against shifted min-norm problems and (SLSQP) as a general convex program."""
    with jax.enable_x64(dtype == "float64"):
        for family in _families(num_tasks):
            if family == "zero_min_norm":
                continue  # the mean gradient is 0
            gram = _gram(family, num_tasks, dtype)
            jacobian = gramians.root(gram)
            mean = jacobian.mean(0)
            radius = C * np.linalg.norm(mean)

            def value(
                w: np.ndarray,
                jacobian: np.ndarray = jacobian,
                mean: np.ndarray = mean,
                radius: float = radius,
            ) -> float:
                return w @ (jacobian @ mean) + radius * np.linalg.norm(jacobian.T @ w)

            w = _solve("bent", gram)
            unit = np.sum(mean**2)
            tolerance = EXCESS[dtype] * max(unit, 0.1)
            assert (w >= 0).all(), family
            if num_tasks <= 3 or family in ("iid", "half_rank"):
                best = gramians.bent(jacobian, C)
                assert value(w) - value(best) <= tolerance, family
            if num_tasks <= 3 or (num_tasks <= 10 and family in ("iid", "half_rank")):
                slsqp = optimize.minimize(
                    value,
                    np.full(num_tasks, 1 / num_tasks),
                    method="SLSQP",
                    bounds=[(0, 1)] * num_tasks,
                    constraints={"type": "eq", "fun": lambda w: w.sum() - 1},
                    options={"ftol": 1e-12, "maxiter": 300},
                )
                assert value(w) - slsqp.fun <= tolerance, family


@sizes
@dtypes
def test_cone_projection_is_nnls_s(num_tasks: int, dtype: str) -> None:
    with jax.enable_x64(dtype == "float64"):
        preference = np.full(num_tasks, 1 / num_tasks)
        for family in _families(num_tasks):
            gram = _gram(family, num_tasks, dtype)
            jacobian = gramians.root(gram)
            w = _solve("in_cone", gram)
            assert (w >= preference - 1e-6).all(), family
            best = gramians.in_cone(jacobian, preference)
            _check(family, jacobian, w, best, dtype)


@sizes
@dtypes
@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0, 4.0])
def test_power_equation_holds(num_tasks: int, dtype: str, alpha: float) -> None:
    with jax.enable_x64(dtype == "float64"):
        solver = jax.jit(lambda g: power_equation(g, alpha))
        tolerance = {"float32": 1e-3, "float64": 1e-9}[dtype]
        for family in ("iid", "scales", "aligned", "conflict", "near_duplicates"):
            gram = _gram(family, num_tasks, dtype)
            w, residual = solver(jnp.asarray(gram))
            w, exact = np.asarray(w, np.float64), gram.astype(np.float64)
            assert (w > 0).all(), family
            assert np.abs(exact @ w * w ** (1 / alpha) - 1).max() <= tolerance, family
            assert residual <= tolerance, family


@pytest.mark.parametrize("num_tasks", [2, 3, 10])
def test_power_equation_is_least_squares_s(num_tasks: int) -> None:
    """The FairGrad authors' solver, from their starting point."""
    with jax.enable_x64(True):
        for family in ("iid", "aligned"):
            gram = _gram(family, num_tasks, "float64")
            theirs = optimize.least_squares(
                lambda w, gram=gram: gram @ w - w**-0.5,
                np.full(num_tasks, 1 / num_tasks),
                bounds=(1e-9, np.inf),
                xtol=1e-14,
                ftol=1e-14,
                gtol=1e-14,
            )
            np.testing.assert_allclose(_solve("power", gram), theirs.x, rtol=1e-5)


@dtypes
@pytest.mark.parametrize("num_tasks", [2, 3, 10])
def test_power_equation_without_solution_says_so(num_tasks: int, dtype: str) -> None:
    with jax.enable_x64(dtype == "float64"):
        gram = jnp.asarray(_gram("zero_min_norm", num_tasks, dtype))
        w, residual = jax.jit(power_equation)(gram)
        assert residual > 0.3
        assert jnp.isfinite(w).all()


@pytest.mark.parametrize("name", SOLVERS)
@pytest.mark.parametrize("num_tasks", [3, 10])
def test_vmap_changes_nothing(name: str, num_tasks: int) -> None:
    with jax.enable_x64(True):
        families = [f for f in gramians.FAMILIES if name != "power" or f in ("iid", "scales")]
        grams = jnp.stack([jnp.asarray(_gram(f, num_tasks, "float64")) for f in families])
        batched = _compiled(name, True)(grams, jnp.ones(num_tasks, bool))
        for family, gram, w in zip(families, grams, batched, strict=True):
            jacobian = gramians.root(np.asarray(gram))
            _check(family, jacobian, np.asarray(w), _solve(name, gram), "float64")


@pytest.mark.parametrize("name", SOLVERS)
@pytest.mark.parametrize("num_tasks", [3, 10])
@dtypes
def test_absent_tasks_are_as_if_not_listed(name: str, num_tasks: int, dtype: str) -> None:
    with jax.enable_x64(dtype == "float64"):
        active = np.arange(num_tasks) % 3 != 1
        for family in ("iid", "scales", "aligned", "conflict"):
            gram = _gram(family, num_tasks, dtype)
            w = _solve(name, gram, active)
            assert (w[~active] == 0).all(), family
            reduced = gram[np.ix_(active, active)]
            jacobian = gramians.root(reduced)
            _check(family, jacobian, w[active], _solve(name, reduced), dtype)


@pytest.mark.parametrize("name", SOLVERS)
@pytest.mark.parametrize("num_tasks", [2, 10])
@pytest.mark.parametrize("scale", [1e-16, 1e-6, 1e6, 1e16])
def test_nothing_depends_on_absolute_size(name: str, num_tasks: int, scale: float) -> None:
    gram = _gram("scales", num_tasks, "float32")
    w, scaled = _solve(name, gram), _solve(name, gram * np.float32(scale))
    if name == "power":  # G w = w ** (-1/2): w scales as the power -2/3
        scaled = scaled * scale ** (2 / 3)
    np.testing.assert_allclose(scaled, w, rtol=2e-3, atol=1e-6 * np.abs(w).max())


@pytest.mark.parametrize("name", SOLVERS)
@pytest.mark.parametrize("num_tasks", [3, 10])
def test_zero_and_broken_matrices_end(name: str, num_tasks: int) -> None:
    """All zero: weights without NaN. NaN inside: the loops stop, whatever they return."""
    zero = np.zeros((num_tasks, num_tasks), np.float32)
    assert np.isfinite(_solve(name, zero)).all()
    one_dead = _gram("iid", num_tasks, "float32")
    one_dead[0], one_dead[:, 0] = 0, 0
    assert np.isfinite(_solve(name, one_dead)).all()
    _solve(name, np.full_like(zero, np.nan))


def test_a_dead_task_stops_the_min_norm_point_only() -> None:
    gram = _gram("iid", 10, "float32")
    gram[3], gram[:, 3] = 0, 0
    np.testing.assert_allclose(_solve("min_norm", gram), np.eye(10)[3], atol=1e-7)
    w = _solve("power", gram)
    assert w[3] == 0
    kept = np.arange(10) != 3
    np.testing.assert_allclose(w[kept], _solve("power", gram[np.ix_(kept, kept)]), rtol=1e-4)


@pytest.mark.parametrize("num_tasks", [3, 10])
@pytest.mark.parametrize("negative", [False, True])
def test_a_dead_task_and_the_bent_problem(num_tasks: int, negative: bool) -> None:
    """With a row of length 0 the value 0 is attainable: taken unless the others reach less."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(num_tasks, 30)) + 1
    if negative:
        rows[1] = -rows[2:].sum(0) / 2  # this one alone opposes the mean
    rows[0] = 0
    rows = (rows / 5).astype(np.float32)
    mean = rows.mean(0)

    def value(w: np.ndarray) -> float:
        return w @ rows @ mean + C * np.linalg.norm(mean) * np.linalg.norm(w @ rows)

    w = _solve("bent", rows @ rows.T)
    assert (value(w) < -1e-3) == negative
    if negative:
        assert w[0] < 1e-6
        trials = rng.dirichlet(np.full(num_tasks - 1, 0.3), 500)
        assert value(w) <= min(value(np.append(0, trial)) for trial in trials) + 1e-6
    else:
        np.testing.assert_allclose(w, np.eye(num_tasks)[0], atol=1e-6)


@pytest.mark.parametrize("name", SOLVERS)
def test_128_tasks(name: str) -> None:
    gram = _gram("iid", 128, "float32")
    jacobian = gramians.root(gram)
    w = _solve(name, gram)
    at = gram @ w
    if name == "min_norm":
        assert at.min() >= (1 - 1e-3) * (w @ at)
    elif name == "in_cone":
        assert at.min() >= -1e-5
    elif name == "power":
        np.testing.assert_allclose(at, w**-0.5, rtol=1e-4)
    else:
        mean = jacobian.mean(0)
        d = mean + C * np.linalg.norm(mean) * (jacobian.T @ w) / np.linalg.norm(jacobian.T @ w)
        worst = (jacobian @ d).min()  # strong duality: the worst task gains the dual value
        dual = w @ (jacobian @ mean) + C * np.linalg.norm(mean) * np.linalg.norm(jacobian.T @ w)
        assert worst >= dual * (1 - 1e-3)


@pytest.mark.parametrize("size", [1, 2, 4, 5, 12])
def test_solve_and_product(size: int) -> None:
    """Both sides of the switch from written-out elimination to a library call."""
    rng = np.random.default_rng(size)
    half = rng.normal(size=(size, size))
    matrix, rhs = half @ half.T + np.eye(size), rng.normal(size=(size, 2))
    with jax.enable_x64(True):
        np.testing.assert_allclose(
            solve(jnp.asarray(matrix), jnp.asarray(rhs)), np.linalg.solve(matrix, rhs), rtol=1e-8
        )
        np.testing.assert_allclose(
            product(jnp.asarray(matrix), jnp.asarray(rhs[:, 0])), matrix @ rhs[:, 0], rtol=1e-12
        )


@pytest.mark.parametrize("family", gramians.FAMILIES)
def test_spectral_bound_bounds(family: str) -> None:
    gram = _gram(family, 10, "float32")
    largest = np.linalg.eigvalsh(gram.astype(np.float64)).max()
    assert largest <= float(spectral_bound(jnp.asarray(gram))) * (1 + 1e-6) <= 10 * largest

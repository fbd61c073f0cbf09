"""One test for every aggregator of the table: what holds for all, and what each promises."""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtl_jax.methods.base import Aggregator, Info
from mtl_jax.methods.gram import gram
from mtl_jax.methods.prenormalise import prenormalise
from mtl_jax.methods.table import make
from tests.methods.cases import KEY, Case, cases

WIDTH = 11
# float32 on the general path of the solvers (T = 4), float64 on the path for few tasks (T <= 3).

aggregators = pytest.mark.parametrize("case", cases("aggregator"), ids=str)
SOLVERS = [
    "mgda",
    "pcgrad",
    "cagrad",
    "imtl_g",
    "nash_mtl",
    "fairgrad",
    "upgrad",
    "aligned_mtl",
    "grad_vac",
    "sdmgrad",
]
# Where a compiled program more says nothing about an option.
DEFAULTS = [
    case
    for case in cases("aggregator")
    if case.how == "none" and (not case.options or "update_every" in str(case))
]


# Directions that are no weighted sum of the step's gradients.
NOT_A_SUM = ("grad_drop", "moco", "db_mtl")


@functools.cache
def _aggregator(case: Case) -> Aggregator:
    return prenormalise(make(case.name, **dict(case.options)), case.how)


def _stateful(case: Case) -> bool:
    return bool(jax.tree.leaves(_aggregator(case).init({"w": np.zeros(2, np.float32)}, 2)))


class _Counted(NamedTuple):
    call: Any
    traces: list[int]


@functools.cache
def _update(case: Case) -> _Counted:
    """The compiled update, shared by all tests of a row, and how often it was traced."""
    traces = []

    def update(*args: Any, **kwargs: Any) -> Any:
        traces.append(1)
        return _aggregator(case).update(*args, **kwargs)

    return _Counted(jax.jit(update), traces)


def _tree(jacobian: Any) -> dict[str, Any]:
    """A nested tree with a matrix, a vector and a scalar of each task."""
    j = jacobian
    return {"w": j[:, :6].reshape(-1, 2, 3), "deep": {"b": j[:, 6:10], "s": j[:, 10]}}


def _flat(direction: dict[str, Any]) -> np.ndarray:
    parts = (direction["w"], direction["deep"]["b"], direction["deep"]["s"])
    return np.concatenate([np.ravel(part) for part in parts]).astype(np.float64)


def _shared(dtype: Any) -> dict[str, Any]:
    return jax.tree.map(lambda leaf: np.asarray(leaf[0]), _tree(np.zeros((1, WIDTH), dtype)))


def _run(
    case: Case,
    jacobian: np.ndarray,
    losses: np.ndarray | None = None,
    active: np.ndarray | None = None,
    state: Any = None,
    key: Any = KEY,
) -> tuple[np.ndarray, Any, Info]:
    num_tasks = len(jacobian)
    losses = np.linspace(1, 2, num_tasks) if losses is None else losses
    active = np.ones(num_tasks, bool) if active is None else active
    if state is None:
        state = _aggregator(case).init(_shared(jacobian.dtype), num_tasks)
    direction, state, info = _update(case).call(
        _tree(jacobian),
        state,
        losses=np.asarray(losses, np.float32),
        active=active,
        key=key,
    )
    return _flat(direction), state, info


def _jacobian(num_tasks: int = 4, dtype: str = "float32", seed: int = 0) -> np.ndarray:
    """Conflicting rows of different lengths."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(num_tasks, WIDTH)) + 0.2
    return (rows * np.linspace(0.5, 2, num_tasks)[:, None]).astype(dtype)


def _stacks() -> dict[str, np.ndarray]:
    """T = 4 rows of every degenerate kind."""
    full = _jacobian()
    one, two = full[:1], full[1:2]
    return {
        "regular": full,
        "equal": np.repeat(one, 4, 0),
        "rank one": np.float32([[1], [2], [3], [0.5]]) * one,
        "rank two": np.float32([[1, 0], [0, 1], [1, 1], [2, -1]]) @ full[:2],
        "opposite": np.concatenate([one, -one, 2 * one, -one]),
        "pareto stationary": full - full.mean(0),
        "one zero": np.concatenate([0 * one, full[1:]]),
        "only one": np.concatenate([0 * full[1:], one]),
        "near duplicates": np.concatenate([one, one * np.float32(1 + 1e-6), two, two]),
        "scales": full * np.float32([[1e-4], [1e-1], [1e1], [1e4]]),
    }


@aggregators
def test_finite_at_every_scale_and_rank(case: Case) -> None:
    for scale in (0.0, 1e-12, 1e-6, 1.0, 1e6, 1e12):
        for name, rows in _stacks().items():
            direction, _, info = _run(case, rows * np.float32(scale))
            assert np.isfinite(direction).all(), (scale, name)
            if info.weights is not None:
                assert np.isfinite(info.weights).all(), (scale, name)
            if scale == 0:
                assert not direction.any(), name


@pytest.mark.parametrize("case", [c for c in cases("aggregator") if _stateful(c)], ids=str)
def test_finite_whatever_came_before(case: Case) -> None:
    """The state of any degenerate step is a fit start for any other; a zero step leaves it."""
    state = None
    for scale in (1.0, 1e-12, 1e12, 1e-6, 1.0):
        for name, rows in _stacks().items():
            direction, state, _ = _run(case, rows * np.float32(scale), state=state)
            assert np.isfinite(direction).all(), (scale, name)
            assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state)), (scale, name)
    direction, after, _ = _run(case, 0 * _jacobian(), state=state)
    assert not direction.any()
    jax.tree.map(np.testing.assert_array_equal, after, state)


@aggregators
def test_zero_losses_are_finite(case: Case) -> None:
    direction, state, _ = _run(case, _jacobian(), losses=np.zeros(4))
    assert np.isfinite(direction).all()
    assert np.isfinite(_run(case, _jacobian(seed=1), state=state)[0]).all()


@aggregators
def test_what_is_not_finite_is_seen(case: Case) -> None:
    """A NaN gradient must not be turned into a harmless direction."""
    rows = _jacobian()
    rows[1, 2] = np.nan
    assert not np.isfinite(_run(case, rows)[0]).any()


@aggregators
def test_structure_and_dtype_are_kept(case: Case) -> None:
    rows = _tree(_jacobian())
    rows["deep"]["b"] = rows["deep"]["b"].astype(jnp.bfloat16)
    method = _aggregator(case)
    shared = jax.tree.map(lambda leaf: leaf[0], rows)
    direction, _, info = jax.eval_shape(
        functools.partial(method.update, losses=jnp.ones(4), active=jnp.ones(4, bool), key=KEY),
        rows,
        method.init(shared, 4),
    )
    assert jax.tree.structure(direction) == jax.tree.structure(shared)
    for out, like in zip(jax.tree.leaves(direction), jax.tree.leaves(shared), strict=True):
        assert (out.shape, out.dtype) == (like.shape, like.dtype)
    if info.weights is not None:
        assert (info.weights.shape, info.weights.dtype) == ((4,), jnp.float32)
    assert (info.gram.shape, info.gram.dtype) == ((4, 4), jnp.float32)


@aggregators
def test_info_explains_the_direction(case: Case) -> None:
    rows = _jacobian()
    direction, _, info = _run(case, rows)
    assert np.linalg.norm(direction) > 0
    assert (info.weights is None) == (case.name in NOT_A_SUM)
    if info.weights is not None:
        np.testing.assert_allclose(info.weights @ rows, direction, atol=2e-5)
    np.testing.assert_allclose(info.gram, rows @ rows.T, rtol=1e-4, atol=1e-5)


@aggregators
def test_degree(case: Case) -> None:
    """direction(s J) = s ** degree direction(J); NaN: there is none, and the clip is felt."""
    with jax.enable_x64(True):
        rows, degree = _jacobian(3, "float64"), _aggregator(case).traits.degree
        base, _, _ = _run(case, rows)
        far = {scale: _run(case, rows * scale)[0] for scale in (1e-6, 1e6)}
        for scale, direction in far.items():
            if not math.isnan(degree):
                np.testing.assert_allclose(direction / scale**degree, base, rtol=1e-6)
        if math.isnan(degree):
            lengths = [np.linalg.norm(direction) for direction in far.values()]
            assert max(lengths) == pytest.approx(1)  # max_norm of the defaults
            assert min(lengths) < 0.5


@pytest.mark.parametrize(
    ("case", "num_tasks"),
    [
        pytest.param(case, num_tasks, id=f"{case}-T{num_tasks}")
        for num_tasks in (1, 2, 3)
        for case in (DEFAULTS if num_tasks == 1 else cases("aggregator"))
    ],
)
def test_equal_gradients(case: Case, num_tasks: int) -> None:
    with jax.enable_x64(True):
        g = _jacobian(1, "float64")[0]
        for norm in (0.25, 3.0):
            rows = np.repeat(g[None] * (norm / np.linalg.norm(g)), num_tasks, 0)
            direction, _, _ = _run(case, rows, losses=np.ones(num_tasks))
            want = _aggregator(case).traits.on_equal(num_tasks, norm) * rows[0]
            np.testing.assert_allclose(direction, want, rtol=1e-6)


@aggregators
def test_permuting_the_tasks(case: Case) -> None:
    with jax.enable_x64(True):
        rows, order = _jacobian(3, "float64"), np.array([2, 0, 1])
        losses = np.linspace(1, 2, 3)
        base, _, info = _run(case, rows, losses)
        other, _, moved = _run(case, rows[order], losses[order])
        if _aggregator(case).traits.symmetric:
            np.testing.assert_allclose(other, base, rtol=1e-6, atol=1e-9)
            if info.weights is not None:
                np.testing.assert_allclose(moved.weights, info.weights[order], rtol=1e-6, atol=1e-9)
        else:
            assert np.abs(other - base).max() > 1e-6  # the trait is not claimed for nothing


@aggregators
def test_an_absent_task_is_as_if_not_listed(case: Case) -> None:
    with jax.enable_x64(True):
        rows, losses = _jacobian(3, "float64"), np.linspace(1, 2, 3)
        # Weights that are drawn for a task by its number are compared where no number shifts.
        drawn = case.name == "random_gradient_weighting"
        for place in [2] if drawn else [0, 1, 2]:
            kept = np.arange(3) != place
            garbage = np.where(kept[:, None], rows, 1e3 * rows[::-1])
            out, state, info = _run(case, garbage, np.where(kept, losses, 7e3), kept)
            want, reduced, wanted = _run(case, rows[kept], losses[kept])
            np.testing.assert_allclose(out, want, rtol=1e-7, atol=1e-9)
            if info.weights is not None:
                np.testing.assert_allclose(info.weights[kept], wanted.weights, rtol=1e-7, atol=1e-9)
                assert info.weights[place] == 0
            for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(reduced), strict=True):
                for axis in range(a.ndim):  # a task axis is longer by the absent one
                    if a.shape[axis] != b.shape[axis]:
                        a = np.compress(kept, a, axis)
                np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-9)


@aggregators
def test_no_task_at_all(case: Case) -> None:
    start = _aggregator(case).init(_shared(np.float32), 4)
    direction, state, info = _run(case, _jacobian(), active=np.zeros(4, bool))
    assert not direction.any()
    assert info.weights is None or not info.weights.any()
    jax.tree.map(np.testing.assert_array_equal, state, start)


@aggregators
def test_a_tree_without_leaves(case: Case) -> None:
    """A model whose tasks share nothing."""
    method = _aggregator(case)
    for empty in ({}, {"head": None}):
        state = method.init(empty, 3)
        direction, after, _ = jax.eval_shape(
            functools.partial(method.update, losses=np.ones(3), active=np.ones(3, bool), key=KEY),
            empty,
            state,
        )
        assert jax.tree.structure(direction) == jax.tree.structure(empty)
        assert jax.tree.structure(after) == jax.tree.structure(state)


@aggregators
def test_new_values_do_not_recompile(case: Case) -> None:
    _, state, _ = _run(case, _jacobian())
    before = len(_update(case).traces)
    _run(case, 2 * _jacobian(seed=1), active=np.arange(4) > 0, state=state)
    assert len(_update(case).traces) == before


def _scan(case: Case, rows: Any, actives: Any) -> Any:
    """Directions of steps on `rows` [S, T, WIDTH] with `actives` [S, T]."""
    method, losses = _aggregator(case), jnp.linspace(1, 2, rows.shape[1])

    def step(state: Any, xs: Any) -> Any:
        out, state, _ = method.update(_tree(xs[0]), state, losses=losses, active=xs[1], key=KEY)
        return state, out

    start = method.init(_shared(np.float32), rows.shape[1])
    return jax.lax.scan(step, start, (rows, actives))[1]


ACTIVES = np.array([[1, 1, 1, 1], [0, 1, 1, 1], [1, 1, 0, 1]], bool)


@aggregators
def test_an_update_is_a_scan_body(case: Case) -> None:
    """The state keeps its structure, shapes and types, as a carry must; under vmap as well."""
    rows = np.zeros((2, 3, 4, WIDTH), np.float32)
    out = jax.eval_shape(jax.vmap(lambda j: _scan(case, j, ACTIVES)), rows)
    assert out["w"].shape == (2, 3, 2, 3)


# Those with control flow of their own, and one of each kind of state.
LOOPS = [c for c in DEFAULTS if c.name in SOLVERS or c.name in ("moco", "gradnorm")]


@pytest.mark.parametrize("case", LOOPS, ids=str)
def test_vmap_of_a_scan_is_a_loop(case: Case) -> None:
    """Three steps of two runs at once."""
    rows = np.stack([[_jacobian(seed=seed + 3 * run) for seed in range(3)] for run in range(2)])
    many = jax.jit(jax.vmap(lambda j: _scan(case, j, jnp.asarray(ACTIVES))))(rows)
    for run in range(2):
        state = None
        for i in range(3):
            want, state, _ = _run(case, rows[run, i], active=ACTIVES[i], state=state)
            got = _flat(jax.tree.map(lambda leaf, run=run, i=i: leaf[run, i], many))
            np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-4)


@aggregators
def test_linear_trait(case: Case) -> None:
    """direction(A + B) = direction(A) + direction(B) exactly for the methods that say so.

    From the state that a step left: the first weights of some methods do not see the gradients.
    """
    _, state, _ = _run(case, _jacobian(seed=2))
    a, b, both = (
        _run(case, rows, state=state)[0]
        for rows in (_jacobian(seed=0), _jacobian(seed=1), _jacobian(seed=0) + _jacobian(seed=1))
    )
    error = np.abs(both - (a + b)).max() / np.abs(a + b).max()
    assert (error < 1e-5) == _aggregator(case).traits.linear


@pytest.mark.parametrize("name", ["pcgrad", "grad_vac", "grad_drop", "random_gradient_weighting"])
def test_draws_differ_between_keys(name: str) -> None:
    case, rows = Case(name), _jacobian()
    outs = [_run(case, rows, key=key)[0] for key in jax.random.split(KEY, 8)]
    assert len({tuple(np.round(out, 5)) for out in outs}) > 2


def test_kept_nash_weights_follow_the_size_of_the_gradients() -> None:
    rows = _jacobian()
    case = Case("nash_mtl", (("update_every", 3), ("max_norm", 0.0)))
    first, state, _ = _run(case, rows)
    other = _jacobian(seed=1)
    kept, state, _ = _run(case, other * np.float32(100), state=state)
    size = np.linalg.norm(rows) / np.linalg.norm(100 * other)
    weights = np.linalg.lstsq(rows.T, first, rcond=None)[0]
    np.testing.assert_allclose(kept, 100 * size * weights @ other, rtol=1e-3)
    _, state, _ = _run(case, other, state=state)
    solved, state, _ = _run(case, other, state=state)  # the fourth step is due
    np.testing.assert_allclose(np.sum(solved**2), 4, rtol=1e-3)
    # Not due, but solved for anew: another set of tasks.
    _, _, info = _run(case, other, active=np.arange(4) < 3, state=state)
    np.testing.assert_allclose(np.sum((info.weights @ other) ** 2), 3, rtol=1e-3)


def test_prenormalised_rows() -> None:
    """The three divisors, and Info in terms of the gradients as they came."""
    rows, losses = _jacobian(), np.array([0.5, 1, 2, 4])
    norms = np.linalg.norm(rows, axis=1)
    base = Case("mgda")
    for how, divisor in (("l2", norms), ("loss", losses), ("loss+", losses * norms)):
        scaled = (rows / divisor[:, None]).astype(np.float32)
        want, _, inner = _run(base, scaled)
        got, _, info = _run(Case("mgda", (), how), rows, losses)
        np.testing.assert_allclose(got, want, atol=1e-5)
        np.testing.assert_allclose(info.weights, inner.weights / divisor, atol=1e-5)
    with pytest.raises(ValueError, match="how must be"):
        prenormalise(make("mgda"), "l1")  # pyrefly: ignore


def test_the_gram_matrix_is_in_float32_for_half_precision() -> None:
    rows = jnp.asarray(_jacobian(), jnp.bfloat16)
    assert gram(rows).dtype == jnp.float32

"""Fixed vectors from the published formulas (golden/make_*.py), in both precisions."""

from __future__ import annotations

import functools
import json
import pathlib
import runpy
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtl_jax.methods.grad_drop import drop_signs
from mtl_jax.methods.grad_vac import grad_vac_weights
from mtl_jax.methods.pcgrad import pcgrad_weights
from mtl_jax.methods.prenormalise import prenormalise
from mtl_jax.methods.table import make

FOLDER = pathlib.Path(__file__).parent / "golden"
CASES: list[dict[str, Any]] = json.loads((FOLDER / "golden.json").read_text())
DIRECTIONS = [case for case in CASES if "direction" in case]
TRACES = [case for case in CASES if "weights" in case]
WALKS: list[dict[str, Any]] = json.loads((FOLDER / "walks.json").read_text())
# SciPy's SLSQP, on the side of the formulas, is the less exact of the two.
TOLERANCE = {"float32": 2e-4, "float64": 2e-5}


def _name(case: dict[str, Any]) -> str:
    options = ",".join(
        f"{key}={value}"
        for key, value in case["options"].items()
        if key not in ("orders", "uniform")
    )
    size = f"-T{len(case['jacobian'])}" if "jacobian" in case else ""
    return f"{case['method']}({options}){size}"


_vaccinated = jax.jit(grad_vac_weights, static_argnames="beta")


@functools.cache
def _update(method: str, options: tuple) -> Any:
    name, _, how = method.partition("/")
    made = make(name, **dict(options))
    return jax.jit((prenormalise(made, how) if how else made).update)  # pyrefly: ignore


@pytest.mark.parametrize(
    ("case", "dtype"),
    [
        pytest.param(case, dtype, id=f"{_name(case)}-{dtype}")
        for case in DIRECTIONS
        for dtype in ("float32", "float64")
        if dtype == "float64" or len(case["jacobian"]) == 3
    ],
)
def test_direction(case: dict[str, Any], dtype: str) -> None:
    with jax.enable_x64(dtype == "float64"):
        rows = jnp.asarray(case["jacobian"], dtype)
        options = dict(case["options"])
        orders, uniform = options.pop("orders", None), options.pop("uniform", None)
        if uniform is not None:
            direction = drop_signs(rows, jnp.asarray(uniform, dtype), **options)
        elif orders is not None and len(rows) > 2:
            direction = pcgrad_weights(rows @ rows.T, jnp.asarray(orders)) @ rows
        else:
            direction, _, _ = _update(case["method"], tuple(options.items()))(
                rows,
                (),
                losses=jnp.ones(len(rows), jnp.float32),
                active=jnp.ones(len(rows), bool),
                key=jax.random.key(0),
            )
        want = np.asarray(case["direction"])
        error = np.abs(np.asarray(direction) - want).max() / np.abs(want).max()
        assert error < TOLERANCE[dtype]


@pytest.mark.parametrize("case", WALKS, ids=_name)
def test_walk(case: dict[str, Any]) -> None:
    """In float64, apart from the states that are kept in float32."""
    with jax.enable_x64(True):
        gradients, actives = np.asarray(case["gradients"]), np.asarray(case["active"])
        options = dict(case["options"])
        orders = options.pop("orders", None)
        num_tasks = gradients.shape[1]
        state = make(case["method"], **options).init(gradients[0, 0], num_tasks)  # pyrefly: ignore
        for rows, losses, active, want in zip(
            gradients, case["losses"], actives, case["directions"], strict=True
        ):
            if orders is not None:
                present = np.where(active[:, None], rows, 0)
                weights, state = _vaccinated(
                    present @ present.T, state, np.asarray(orders), active=active, **options
                )
                direction = weights @ rows
            else:
                direction, state, _ = _update(case["method"], tuple(options.items()))(
                    rows,
                    state,
                    losses=np.asarray(losses, np.float32),
                    active=active,
                    key=jax.random.key(0),
                )
            np.testing.assert_allclose(direction, want, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("case", TRACES, ids=_name)
def test_trace(case: dict[str, Any]) -> None:
    method = make(case["method"], **case["options"])
    losses, after = (jnp.asarray(case[key], jnp.float32) for key in ("losses", "after"))
    active = jnp.ones(losses.shape[1], bool)
    state = method.init(losses.shape[1])  # pyrefly: ignore
    for step, want in enumerate(case["weights"]):
        w, state = method.weights(losses[step], state, active=active, key=jax.random.key(0))
        np.testing.assert_allclose(w, want, rtol=2e-5)
        if method.after_step is not None:
            state = method.after_step(state, losses[step], after[step], active=active)


@pytest.mark.parametrize(("script", "old"), [("make_golden", CASES), ("make_walks", WALKS)])
def test_the_scripts_still_write_the_files(script: str, old: list[dict[str, Any]]) -> None:
    fresh = runpy.run_path(str(FOLDER / f"{script}.py"))["cases"]()
    assert len(fresh) == len(old)
    for new, kept in zip(fresh, old, strict=True):
        assert (new["method"], new["options"]) == (kept["method"], kept["options"])
        for key in ("direction", "weights", "directions"):
            if key in kept:
                np.testing.assert_allclose(new[key], kept[key], rtol=1e-4, atol=1e-5)

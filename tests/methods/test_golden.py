"""Fixed vectors from the published formulas (golden/make_golden.py), in both precisions."""

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

from mtl_jax.methods.pcgrad import pcgrad_weights
from mtl_jax.methods.prenormalise import prenormalise
from mtl_jax.methods.table import make

FOLDER = pathlib.Path(__file__).parent / "golden"
CASES: list[dict[str, Any]] = json.loads((FOLDER / "golden.json").read_text())
DIRECTIONS = [case for case in CASES if "direction" in case]
TRACES = [case for case in CASES if "weights" in case]
# SciPy's SLSQP, on the side of the formulas, is the less exact of the two.
TOLERANCE = {"float32": 2e-4, "float64": 2e-5}


def _name(case: dict[str, Any]) -> str:
    options = ",".join(
        f"{key}={value}" for key, value in case["options"].items() if key != "orders"
    )
    size = f"-T{len(case['jacobian'])}" if "jacobian" in case else ""
    return f"{case['method']}({options}){size}"


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
        orders = options.pop("orders", None)
        if orders is not None and len(rows) > 2:
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


def test_the_script_still_writes_the_file() -> None:
    fresh = runpy.run_path(str(FOLDER / "make_golden.py"))["cases"]()
    assert len(fresh) == len(CASES)
    for new, old in zip(fresh, CASES, strict=True):
        assert (new["method"], new["options"]) == (old["method"], old["options"])
        for key in ("direction", "weights"):
            if key in old:
                np.testing.assert_allclose(new[key], old[key], rtol=1e-4, atol=1e-5)

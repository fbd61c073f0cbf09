"""Benchmarks of methods: every row of the table can be timed, and weights are judged rightly."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import pytest

from benchmarks import method_step, readme_tables, side_jax_weights, solvers, timing
from benchmarks import versus_torchjd_weights as versus
from benchmarks.references import REFERENCES
from mtl_jax.errors import UserError
from mtl_jax.methods.pcgrad import random_orders
from mtl_jax.methods.table import METHODS


def test_methods_beside_ls(capsys: Any) -> None:
    chosen = ["linear_scalarization", "cagrad", "fs_upgrad"]
    rows = method_step.measure("mlp", 2, methods=chosen, batch_size=8, rounds=1, seconds=0.0)
    assert [row["method"] for row in rows] == chosen
    assert all(set(method_step.COLUMNS) <= set(row) for row in rows)
    plain, _, flat = rows
    assert (plain["over_ls"], plain["over_ls_memory"]) == (1.0, 1.0)
    assert flat["temp_mb"] > plain["temp_mb"]
    found = {"benchmark": "method_step", "environment": timing.environment(), "rows": rows}
    shown = readme_tables.method_step_table([found])
    assert "| method | MLP 512-512-512-50, T = 2 |" in shown
    assert "| `linear_scalarization` | 1.00 (1.00) |" in shown


def test_every_row_of_the_table_has_a_step() -> None:
    assert set(METHODS) < set(method_step.names())
    for name in method_step.names():
        assert method_step.make_method(name).init is not None


def test_an_unknown_method_is_one_line() -> None:
    with pytest.raises(UserError, match="'cagard'; did you mean 'cagrad'"):
        method_step.main(["--methods", "cagard"])
    with pytest.raises(UserError, match="'nash_mtl'"):
        versus.main(["--solvers", "nash_mtl"])


def test_errors_are_those_of_directions_at_equal_length() -> None:
    found = solvers.families(4)
    orders = np.asarray(random_orders(jax.random.key(0), 4))
    exact = [REFERENCES["upgrad"](grads, orders) for grads in found.values()]
    scaled = solvers.errors_of("upgrad", found, [7 * own for own in exact], orders)
    assert max(scaled.values()) < 1e-12
    other = [own + 0.1 * own.max() * np.eye(4)[0] for own in exact]
    turned = solvers.errors_of("upgrad", found, other, orders)
    assert min(turned.values()) > 1e-3
    nothing = solvers.errors_of("upgrad", found, [0 * own for own in exact], orders)
    assert nothing == pytest.approx(dict.fromkeys(found, 1.0))


def test_our_side_of_the_weights() -> None:
    side = side_jax_weights.Side()
    answer = side.prepare("mgda/3")
    assert set(answer["errors"]) == set(solvers.families(3))
    assert max(answer["errors"].values()) < 1e-3
    assert len(side.calls["mgda/3"]()) == answer["problems"]
    row = {"solver": "mgda", "tasks": 3, "jax_us": 10.0, "torchjd_us": 40.0, "ratio": 0.25}
    errors = {"jax_error": 1e-7, "jax_worst": 1e-6, "torchjd_error": 1e-3, "torchjd_worst": 0.2}
    absent = {"solver": "cagrad", "tasks": 3, "jax_us": 9.0, "absent": "ImportError: no cvxpy"}
    found = {"environment": timing.environment(), "rows": [{**row, **errors}, absent]}
    shown = readme_tables.versus_weights_table([found])
    assert "| mgda | 3 | 10 / 40 = 0.25 | 1e-07 (1e-06) | 1e-03 (2e-01) |" in shown
    assert "| cagrad | 3 | ImportError: no cvxpy |  |  |" in shown

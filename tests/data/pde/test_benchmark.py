"""The solver benchmark runs, counts what it times, and agrees with scikit-fem."""

import importlib.util

import numpy as np
import pytest

from benchmarks import pde_solvers
from mtl_jax.data.pde.darcy import Elements
from mtl_jax.data.pde.mesh import load_mesh

needs_skfem = pytest.mark.skipif(
    importlib.util.find_spec("skfem") is None, reason="needs scikit-fem"
)


def test_rows_of_darcy():
    rows = pde_solvers.measure_darcy("triangle", rounds=1, seconds=0)
    assert [row["part"] for row in rows[:2]] == ["sample", "assemble_solve"]
    for row in rows:
        assert row["problem"] == "darcy triangle"
        per_minute = 60_000 / row["median_ms"] * row["samples_a_call"]
        assert row["per_minute"] == pytest.approx(per_minute, rel=1e-2)
        assert row.get("difference", 0) < 1e-12
    assert rows[0]["samples_a_call"] == pde_solvers.SAMPLES


def test_rows_of_fisher(monkeypatch):
    monkeypatch.setattr(pde_solvers, "SAMPLES", 1)
    rows = pde_solvers.measure_fisher(rounds=1, seconds=0)
    assert len({row["problem"] for row in rows}) == len(rows) == 6


@needs_skfem
def test_scikit_fem_finds_the_same_solution():
    elements = Elements(load_mesh("pentagon"))
    k = np.exp(np.random.default_rng(0).normal(size=len(elements.area)))
    want = elements.solve(k, elements.load())
    found = pde_solvers.scikit_fem(elements, k)
    assert len(found) == 2
    for solve in found.values():
        np.testing.assert_allclose(solve(), want, rtol=1e-10, atol=1e-12)

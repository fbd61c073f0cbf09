"""How many problems a minute the generators of the operator sets solve, beside scikit-fem.

A call draws, solves and, for Darcy, interpolates: what a sample of a set costs. `assemble_solve`
is the part of a Darcy sample that a finite element library would do: matrix, factorisation,
solution, on the same mesh for the same coefficient. The scikit-fem rows are left out where it is
not installed (pip install scikit-fem): once with its own solver call, and once with its matrix in
the factorisation that this package uses.

    python -m benchmarks.pde_solvers          # about 20 seconds
    python -m benchmarks.pde_solvers --full   # every geometry
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.sparse.linalg import splu

from benchmarks import timing
from mtl_jax.data.pde import fisher
from mtl_jax.data.pde.darcy import Darcy, Elements, log_fields
from mtl_jax.data.pde.shapes import SHAPES, SOURCES
from mtl_jax.errors import run_command

COLUMNS = ("problem", "part", "solver", "per_minute", "median_ms", "cpu_ms", "over_ours")
SAMPLES = 20  # Of a Darcy call.
OURS = "mtl_jax"


def scikit_fem(elements: Elements, k: np.ndarray) -> dict[str, Callable[[], np.ndarray]]:
    """Assembling and solving with scikit-fem for `k` [E]; empty where it is not installed."""
    if importlib.util.find_spec("skfem") is None:
        return {}
    import skfem
    from skfem.helpers import dot, grad

    mesh = skfem.MeshTri(elements.mesh.points.T.copy(), elements.mesh.triangles.T.copy())
    basis = skfem.Basis(mesh, skfem.ElementTriP1())
    edge, inner = basis.get_dofs().flatten(), basis.complement_dofs(basis.get_dofs())
    load = skfem.LinearForm(lambda v, w: 1.0 * v).assemble(basis)
    form = skfem.BilinearForm(lambda u, v, w: w["k"] * dot(grad(u), grad(v)))
    at_points = np.broadcast_to(k[:, None], basis.dx.shape).copy()

    def own_solver() -> np.ndarray:
        return skfem.solve(*skfem.condense(form.assemble(basis, k=at_points), load, D=edge))

    def our_solver() -> np.ndarray:
        matrix = form.assemble(basis, k=at_points)[inner][:, inner].tocsc()
        symmetric = {"SymmetricMode": True}
        factor = splu(matrix, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options=symmetric)
        u = np.zeros(basis.N)
        u[inner] = factor.solve(load[inner])
        return u

    return {"scikit-fem": own_solver, "scikit-fem, same factorisation": our_solver}


def _rows(
    problem: str, part: str, timings: dict[str, timing.Timing], count: int
) -> list[dict[str, Any]]:
    return [
        {
            "problem": problem, "part": part, "solver": solver,
            "per_minute": round(60_000 * count / taken.median_ms),
            "samples_a_call": count, **taken.fields(),
            "over_ours": round(taken.over(timings[OURS]), 2),
        }
        for solver, taken in timings.items()
    ]  # fmt: skip


def measure_fisher(rounds: int = 5, seconds: float = 1.0) -> list[dict[str, Any]]:
    """Whole samples of each task in both settings."""
    rows = []
    for name, setting in fisher.SETTINGS.items():
        count = fisher.BLOCK if setting.solver == "strang" else SAMPLES
        for task in fisher.TASKS:

            def call(setting: Any = setting, task: str = task, count: int = count) -> None:
                fisher.make_samples(setting, task, range(count))

            taken = timing.paired({OURS: call}, rounds=rounds, seconds=seconds)
            rows += _rows(f"fisher {name}, {task}", "sample", taken, count)
    return rows


def measure_darcy(shape: str, rounds: int = 5, seconds: float = 1.0) -> list[dict[str, Any]]:
    """Whole samples of a geometry, and what a library would do of them."""
    problem = Darcy(SHAPES[shape])
    samples = {OURS: lambda: problem.solve(log_fields(shape, range(SAMPLES)))}
    rows = _rows(
        f"darcy {shape}",
        "sample",
        timing.paired(samples, rounds=rounds, seconds=seconds),
        SAMPLES,
    )
    elements = problem.elements
    middles = elements.mesh.points[elements.mesh.triangles].mean(axis=1)
    k = np.exp(np.sin(7 * middles[:, 0]) * np.cos(5 * middles[:, 1]))
    load = elements.load()
    calls = {OURS: lambda: elements.solve(k, load), **scikit_fem(elements, k)}
    answers = {name: call() for name, call in calls.items()}
    taken = timing.paired(calls, rounds=rounds, seconds=seconds)
    for row in _rows(f"darcy {shape}", "assemble_solve", taken, 1):
        difference = np.abs(answers[row["solver"]] - answers[OURS]).max() / answers[OURS].max()
        rows.append({**row, "points": len(load), "difference": float(f"{difference:.1e}")})
    return rows


def run(full: bool = False, rounds: int = 5, seconds: float = 1.0) -> list[dict[str, Any]]:
    """Runs everything and prints the rows."""
    rows = measure_fisher(rounds, seconds)
    for shape in SHAPES if full else SOURCES:
        rows += measure_darcy(shape, rounds, seconds)
    timing.show(rows, COLUMNS)
    return rows


def main(argv: list[str]) -> None:
    """The command."""
    timing.command("pde_solvers", run, argv, "every geometry")


if __name__ == "__main__":
    run_command(main)

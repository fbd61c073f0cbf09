"""What the weights of an aggregator cost, and how exact they are in float32.

Time: microseconds of one call [T, T] -> [T] on this device, median and worst over the families of
Gram matrices below. Error: |J^T (w - w*)| / |J^T w*| with w* from `references` (float64, from the
gradients J themselves); the float32 Gram matrix's own rounding is therefore in it.

    python -m benchmarks.solvers          # T = 2, 10, 40
    python -m benchmarks.solvers --full   # T = 2 .. 128
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import timing
from benchmarks.references import REFERENCES
from mtl_jax.errors import UserError, did_you_mean, run_command
from mtl_jax.layers.platform import cpu_compiler_options
from mtl_jax.methods.aligned_mtl import alignment
from mtl_jax.methods.cagrad import cagrad_weights
from mtl_jax.methods.fairgrad import fairgrad_weights
from mtl_jax.methods.imtl_g import imtl_g_weights
from mtl_jax.methods.mgda import mgda_weights
from mtl_jax.methods.nash_mtl import nash_weights
from mtl_jax.methods.pcgrad import pcgrad_weights, random_orders
from mtl_jax.methods.upgrad import upgrad_weights

Array = jax.Array
COLUMNS = (
    "solver", "tasks", "median_us", "worst_us", "median_error", "worst_error", "worst_family",
    "compile_seconds",
)  # fmt: skip
SIZES = {False: (2, 10, 40), True: (2, 3, 5, 10, 20, 40, 64, 128)}

SOLVERS: dict[str, Callable[[Array, Array], Array]] = {
    "mgda": lambda gram, orders: mgda_weights(gram),
    "upgrad": lambda gram, orders: upgrad_weights(gram, jnp.full(len(gram), 1 / len(gram))),
    "cagrad": lambda gram, orders: cagrad_weights(gram, 0.4),
    "nash_mtl": lambda gram, orders: nash_weights(gram),
    "fairgrad": lambda gram, orders: fairgrad_weights(gram, 2.0),
    "pcgrad": pcgrad_weights,
    "imtl_g": lambda gram, orders: imtl_g_weights(gram),
    "aligned_mtl": lambda gram, orders: alignment(gram).sum(1),
}


def families(num_tasks: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Gradients J [T, P] in float64, rows of mean squared length 1, of five kinds.

    iid: independent. scales: lengths over three decades. aligned: one direction and a tenth of
    noise. conflict: their mean is a hundredth of what it would be. rank: of rank T / 2, with a
    common direction of descent.
    """
    rng = np.random.default_rng((seed, num_tasks))
    size = 4 * num_tasks + 30
    iid = rng.normal(size=(num_tasks, size))
    half = max(1, num_tasks // 2)
    found = {
        "iid": iid,
        "scales": iid * 10 ** rng.uniform(-1.5, 1.5, (num_tasks, 1)),
        "aligned": rng.normal(size=size) + 0.1 * iid,
        "conflict": iid - 0.99 * iid.mean(0),
        "rank": np.abs(rng.normal(size=(num_tasks, half))) @ rng.normal(size=(half, size)),
    }
    return {name: j / np.sqrt((j * j).sum(1).mean()) for name, j in found.items()}


def error(grads: np.ndarray, weights: np.ndarray, exact: np.ndarray) -> float:
    """Distance of two directions J^T w, relative to the exact one."""
    wanted = exact @ grads
    return float(np.linalg.norm(weights @ grads - wanted) / np.linalg.norm(wanted))


def errors_of(
    solver: str,
    found: Mapping[str, np.ndarray],
    weights: Sequence[np.ndarray],
    orders: np.ndarray,
) -> dict[str, float]:
    """Errors by family of weights [T] each, at equal length of the two directions.

    A solver is judged by where it points: packages scale their directions differently.
    """
    errors = {}
    for (family, grads), own in zip(found.items(), weights, strict=True):
        exact = REFERENCES[solver](grads, orders)
        length = np.linalg.norm(own @ grads)
        scale = np.linalg.norm(exact @ grads) / length if length > 0 else 0.0
        errors[family] = error(grads, own * scale, exact)
    return errors


def measure(
    solver: str, num_tasks: int, *, rounds: int = 10, seconds: float = 0.3
) -> dict[str, Any]:
    """Times one solver on every family and compares it; a row with the fields of `COLUMNS`."""
    if solver not in SOLVERS:
        raise UserError(f"unknown solver {solver!r}; {did_you_mean(solver, SOLVERS)}")
    orders = random_orders(jax.random.key(0), num_tasks)
    example = jnp.eye(num_tasks, dtype=jnp.float32)
    began = time.perf_counter()
    lowered = jax.jit(SOLVERS[solver]).lower(example, orders)
    program = lowered.compile(compiler_options={**cpu_compiler_options()})
    seconds_to_compile = time.perf_counter() - began
    errors, calls = {}, {}
    for family, grads in families(num_tasks).items():
        gram = jnp.asarray(grads @ grads.T, jnp.float32)
        exact = REFERENCES[solver](grads, np.asarray(orders))
        weights = np.asarray(program(gram, orders), np.float64)
        errors[family] = error(grads, weights, exact)
        calls[family] = lambda gram=gram: program(gram, orders)
    taken = timing.paired(calls, rounds=rounds, seconds=seconds)
    times = [1e3 * one.median_ms for one in taken.values()]
    worst = max(errors, key=lambda family: errors[family])
    return {
        "solver": solver, "tasks": num_tasks,
        "median_us": round(float(np.median(times)), 1), "worst_us": round(max(times), 1),
        "median_error": float(f"{np.median(list(errors.values())):.2e}"),
        "worst_error": float(f"{errors[worst]:.2e}"), "worst_family": worst,
        "errors": {family: float(f"{value:.2e}") for family, value in errors.items()},
        "compile_seconds": round(seconds_to_compile, 2),
    }  # fmt: skip


def run(full: bool = False, solvers: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Runs the chosen solvers (all by default) and prints the rows."""
    rows = [
        measure(solver, num_tasks) for solver in solvers or SOLVERS for num_tasks in SIZES[full]
    ]
    timing.show(rows, COLUMNS)
    return rows


def main(argv: list[str]) -> None:
    """The command."""
    timing.command("solvers", run, argv, "T = 2 .. 128")


if __name__ == "__main__":
    run_command(main)

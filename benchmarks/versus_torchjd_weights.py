"""The weights of aggregators from Gram matrices, against TorchJD's, for up to 128 tasks.

The five families of `benchmarks.solvers`, float32, on the same cores; the sides take turns, see
`sides`. `ratio` is the median over rounds of our time over theirs: below 1 this package is faster.
Errors are those of the direction against float64 references (`benchmarks.references`). This package
compiles a solver once for each T; TorchJD runs it in eager torch, its quadratic programs in
quadprog and its CAGrad in cvxpy. Scalings differ by definition (TorchJD's CAGrad is not divided by
1 + c^2, its UPGrad has a regulariser of 1e-4), so directions are compared at equal length.

    python -m benchmarks.versus_torchjd_weights          # T = 2, 10, 40
    python -m benchmarks.versus_torchjd_weights --full   # T = 2 .. 128
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks import timing
from benchmarks.sides import Worker
from benchmarks.solvers import SIZES, SOLVERS
from mtl_jax.errors import Parser, UserError, did_you_mean, run_command

# Nash-MTL is not a weighting of Gram matrices there.
COMPARED = tuple(name for name in SOLVERS if name != "nash_mtl")
COLUMNS = (
    "solver", "tasks", "jax_us", "torchjd_us", "ratio", "jax_error", "torchjd_error",
    "jax_worst", "torchjd_worst", "absent",
)  # fmt: skip


def _summary(name: str, errors: dict[str, float]) -> dict[str, float]:
    if not errors:
        return {}
    values = list(errors.values())
    return {
        f"{name}_error": float(f"{np.median(values):.2e}"),
        f"{name}_worst": float(f"{max(values):.2e}"),
    }


def measure(
    ours: Worker, theirs: Worker, solver: str, num_tasks: int, *, rounds: int = 5
) -> dict[str, Any]:
    """Times one solver on both sides in turns; a row with the fields of `COLUMNS`."""
    call = f"{solver}/{num_tasks}"
    found = {
        "jax": ours.ask(do="prepare", what=call),
        "torchjd": theirs.ask(do="prepare", what=call),
    }
    row: dict[str, Any] = {"solver": solver, "tasks": num_tasks}
    timers = {"jax": ours.timer(call)}
    if "absent" in found["torchjd"]:
        row["absent"] = found["torchjd"]["absent"]
    else:
        timers["torchjd"] = theirs.timer(call)
    taken = timing.in_turns(timers, rounds=rounds, seconds=1.0)
    for name, times in taken.items():
        row[f"{name}_us"] = round(1e3 * times.median_ms / found[name]["problems"], 1)
        row |= _summary(name, found[name]["errors"])
    if "torchjd" in taken:
        row["ratio"] = round(taken["jax"].over(taken["torchjd"]), 4)
    return row


def run(full: bool = False, solvers: Sequence[str] = ()) -> tuple[list[dict[str, Any]], dict]:
    """Runs the chosen solvers; returns all rows and the environment with both sides' versions."""
    threads, rows = timing.cores(), []
    workers = Worker("jax_weights", threads), Worker("torch_weights", threads)
    try:
        found = [worker.ask(do="hello", threads=threads) for worker in workers]
        for worker in workers:
            worker.ask(do="build")
        for solver in solvers or COMPARED:
            new = [measure(*workers, solver, num_tasks) for num_tasks in SIZES[full]]
            timing.show(new, COLUMNS)
            rows += new
    finally:
        for worker in workers:
            worker.close()
    return rows, {**found[0], "torch": found[1], "threads": threads}


def main(argv: list[str]) -> None:
    """The command."""
    parser = Parser("python -m benchmarks.versus_torchjd_weights")
    parser.add_argument("--full", action="store_true", help="T = 2 .. 128")
    parser.add_argument("--solvers", default="", help=f"of {', '.join(COMPARED)}")
    args = parser.parse_args(argv)
    # This process computes nothing; it must not take an accelerator from anybody either.
    os.environ["JAX_PLATFORMS"] = "cpu"
    wanted = [name for name in args.solvers.split(",") if name]
    for name in wanted:
        if name not in COMPARED:
            raise UserError(f"--solvers: {name!r}; {did_you_mean(name, COMPARED)}")
    if warning := timing.busy():
        print(f"warning: {warning}")
    rows, environment = run(args.full, wanted)
    if not wanted:  # A part must not take the place of the whole.
        path = timing.write("versus_torchjd_weights", rows, environment, full=args.full)
        print(f"written: {path}")


if __name__ == "__main__":
    run_command(main)

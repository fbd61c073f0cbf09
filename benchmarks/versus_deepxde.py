"""This package against DeepXDE: training steps a second of the same DeepONet on the same samples.

The network of MT-DeepONet's 1-D problem (136,664 parameters: branch 68-128-128-300 with LayerNorm,
trunk 2-128-128-128-300, leaky ReLU of slope 0.2, no output bias), 200 samples at 1,280 query points
a step, Adam on the mean squared error. The sides take turns, see `sides`; each trains in its own
loop, 100 steps a turn, batches drawn and losses kept included. They start from the same parameters,
and a run ends before it times anything if their losses on the first batch differ.

Ours (`side_deeponet`) is timed three times: all samples as one task, which is what DeepXDE
computes; the three tasks apart, as `experiments/mt_deeponet/fisher_paper.py` trains; and on 256
points drawn anew each step, which is another computation. DeepXDE has no equivalent of that: its
`batch_size=(functions, points)` pairs the two lists of numbers instead of crossing them (1.15.0),
which fails where they differ in length.

DeepXDE 1.15.0 has `DeepONetCartesianProd` for four of its five backends: tensorflow,
tensorflow.compat.v1, pytorch and paddle; its jax backend has no DeepONet at all. CPU time a step on
one core of an Intel Xeon, without LayerNorm: tensorflow 8.9 ms, the same with XLA 9.8,
tensorflow.compat.v1 9.4, pytorch 11.3, paddle 13.3. So pytorch and tensorflow, the fastest, are
timed, the latter where it is installed.

    python -m benchmarks.versus_deepxde
    python -m benchmarks.versus_deepxde --backends pytorch
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any, NamedTuple

from benchmarks import timing
from benchmarks.side_deeponet import BATCH, VARIANTS
from benchmarks.sides import Worker
from benchmarks.timing import Timing
from mtl_jax.errors import Parser, UserError, did_you_mean, run_command

BACKENDS = {
    "pytorch": {"adam": "its own Adam", "fused": "torch's fused Adam"},
    "tensorflow": {"adam": "as it comes, without XLA", "xla": "with XLA"},
}
STEPS = 100
TOLERANCE = 1e-5
COLUMNS = (
    "library", "what", "tasks", "batch", "points", "ms", "min_ms", "cpu_ms", "steps_per_second",
    "points_per_second", "over_ours", "first_difference", "last_difference",
)  # fmt: skip


class Program(NamedTuple):
    """Something that is timed.

    Attributes:
      library: "mtl_jax", or DeepXDE's backend.
      what: the variant, or how the backend is used.
      found: what its side says of it.
    """

    library: str
    what: str
    found: Mapping[str, Any]


def check_same(reference: Program, other: Program) -> tuple[float, float]:
    """Returns how far losses on the first batch are apart, relatively: before and after updates.

    Raises:
      UserError: not the same network, or not the same loss.
    """
    ours, theirs = reference.found, other.found
    if ours["parameters"] != theirs["parameters"]:
        raise UserError(
            f"{other.library} has {theirs['parameters']} parameters, {reference.library}"
            f" {ours['parameters']}: not the same network"
        )
    pairs = list(zip(ours["losses"], theirs["losses"], strict=False))
    first, last = (abs(a / b - 1) for a, b in (pairs[0], pairs[-1]))
    if not first <= TOLERANCE:
        raise UserError(
            f"the first loss is {theirs['losses'][0]} in {other.library} ({other.what}) and"
            f" {ours['losses'][0]} in {reference.library}: not the same computation"
        )
    return first, last


def rows_of(
    programs: Sequence[Program], times: Sequence[Timing], batch_size: int
) -> list[dict[str, Any]]:
    """Returns a row for each program; `over_ours` is its time over that of the first one."""
    reference = programs[0]
    rows = []
    for program, taken in zip(programs, times, strict=True):
        is_ours = program.library == "mtl_jax"
        points = program.found["points"] if is_ours else reference.found["points"]
        row = {
            "library": program.library, "what": program.what,
            "tasks": program.found.get("tasks", 1), "batch": batch_size, "points": points,
            **{name.replace("median_", ""): value for name, value in taken.fields().items()},
            "steps_per_second": round(1e3 / taken.median_ms, 2),
            "points_per_second": round(1e3 / taken.median_ms * batch_size * points),
            "over_ours": round(taken.over(times[0]), 4),
        }  # fmt: skip
        if not is_ours:
            first, last = check_same(reference, program)
            row |= {"first_difference": float(f"{first:.2e}")}
            row |= {"last_difference": float(f"{last:.2e}")}
        rows.append(row)
    return rows


def measure(
    ours: Worker,
    others: Mapping[str, Worker],
    *,
    batch_size: int = BATCH,
    steps: int = STEPS,
    per_call: int = 50,
    samples: Sequence[int] | None = None,
    variants: Sequence[str] = tuple(VARIANTS),
    rounds: int = 7,
    seconds: float = 20.0,
) -> list[dict[str, Any]]:
    """Times our variants and what `BACKENDS` names of each backend in turns; see `rows_of`."""
    programs: list[Program] = []
    timers: dict[str, Any] = {}
    given = {} if samples is None else {"samples": list(samples)}
    with tempfile.TemporaryDirectory() as folder:
        size = {"folder": folder, "steps": steps, "batch_size": batch_size}
        ours.ask(do="build", per_call=per_call, **size, **given)
        for worker in others.values():  # after ours, which writes what they read
            worker.ask(do="build", **size)
        wanted = [("mtl_jax", ours, what) for what in variants]
        for backend, worker in others.items():
            wanted += [(backend, worker, what) for what in BACKENDS[backend]]
        for library, worker, what in wanted:
            programs.append(Program(library, what, worker.ask(do="prepare", what=what)))
            if library != "mtl_jax":
                check_same(programs[0], programs[-1])
            timers[f"{library}/{what}"] = worker.timer(what)
        taken = timing.in_turns(timers, rounds=rounds, seconds=seconds)
    a_step = [
        Timing(tuple((wall / steps, cpu / steps) for wall, cpu in found.samples))
        for found in taken.values()
    ]
    return rows_of(programs, a_step, batch_size)


def run(backends: Sequence[str]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Runs the comparison; returns all rows and the environment with all sides' versions."""
    threads = timing.cores()
    workers = {"mtl_jax": Worker("deeponet", threads)}
    try:
        workers |= {name: Worker(f"deepxde_{name}", threads) for name in backends}
        found = {name: side.ask(do="hello", threads=threads) for name, side in workers.items()}
        ours = workers.pop("mtl_jax")
        try:
            rows = measure(ours, workers)
        finally:
            ours.close()
    finally:
        for worker in workers.values():
            worker.close()
    environment = {**found.pop("mtl_jax"), "deepxde": found, "threads": threads}
    return rows, environment


def installed() -> list[str]:
    """The backends whose packages are there; pytorch in any case."""
    complete = find_spec("tensorflow") and find_spec("tensorflow_probability")
    return list(BACKENDS) if complete else ["pytorch"]


def main(argv: list[str]) -> None:
    """The command."""
    parser = Parser("python -m benchmarks.versus_deepxde")
    parser.add_argument(
        "--backends", default="", help=f"of {', '.join(BACKENDS)}; default: those installed"
    )
    args = parser.parse_args(argv)
    # This process computes nothing; it must not take an accelerator from anybody either.
    os.environ["JAX_PLATFORMS"] = "cpu"
    backends = [name for name in args.backends.split(",") if name] or installed()
    for name in backends:
        if name not in BACKENDS:
            raise UserError(f"unknown backend {name!r}; {did_you_mean(name, BACKENDS)}")
    if "tensorflow" not in backends:
        print("DeepXDE's tensorflow backend, its fastest on a CPU, is left out")
    if warning := timing.busy():
        print(f"warning: {warning}")
    rows, environment = run(backends)
    timing.show(rows, COLUMNS)
    print(f"written: {timing.write('versus_deepxde', rows, environment, full=True)}")


if __name__ == "__main__":
    run_command(main)

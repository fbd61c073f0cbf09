"""This package against Torch-RecHub: examples a second of SharedBottom, MMoE and PLE.

Two tasks over 16 columns of 10,000 ids, embeddings of 16 numbers, a bottom or experts of 128 and
64, four (shared) experts and in PLE one more of each task, towers of 32, no dropout, 4,096 examples
a step, Adam over everything. The sides take turns, see `sides`; each trains for an epoch of 20
steps a turn on the same random rows. `over_ours` is the time over that of this package's call of
the same kind, above 1 this package is faster: the median over rounds, between the quartiles
`over_ours_low` and `over_ours_high`.

  with a loader     ours: the loop of `mtl_jax.train`; theirs: `DataGenerator` and `MTLTrainer`
  without a loader  the step on batches in memory; theirs also without its trainer, by fused Adam

Torch-RecHub's MLPs, its gates too, have batch normalisation after every linear layer, which cannot
be switched off: it has that many parameters more. Each program is timed as it comes and with
identities in that place ("_plain"), which is the same network: from the same parameters the losses
on the first batch must then be equal, or the run ends before it times anything.

    python -m benchmarks.versus_rechub
    python -m benchmarks.versus_rechub --models mmoe --rounds 3
"""

from __future__ import annotations

import os
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks import timing
from benchmarks.sides import Worker
from benchmarks.timing import Timing
from benchmarks.versus_deepxde import Program, check_same
from mtl_jax.errors import Parser, UserError, did_you_mean, run_command

MODELS = {"shared_bottom": "SharedBottom", "mmoe": "MMoE", "ple": "PLE"}
OURS = {"loop": "the training loop", "batches": "the step"}
THEIRS = {
    "trainer": "its loader and trainer",
    "trainer_plain": "its loader and trainer, no batch normalisation",
    "batches": "its trainer on batches in memory",
    "batches_plain": "the same, no batch normalisation",
    "fused_plain": "the step alone, no batch normalisation, fused Adam",
}
BATCH, STEPS, FIELDS, SIZE = 4096, 20, 16, 10_000
COLUMNS = (
    "model", "library", "what", "parameters", "batch", "ms", "min_ms", "cpu_ms",
    "examples_per_second", "over_ours", "over_ours_low", "over_ours_high", "first_difference",
    "last_difference",
)  # fmt: skip


def same_kind(what: str) -> str:
    """Our call that one of theirs is compared with."""
    return "loop" if what.startswith("trainer") else "batches"


def spread(mine: Timing, other: Timing) -> tuple[float, float]:
    """Quartiles over the rounds of this time / the other's time."""
    pairs = zip(mine.samples, other.samples, strict=True)
    ratios = sorted(a[0] / b[0] for a, b in pairs)
    if len(ratios) < 2:
        return ratios[0], ratios[0]
    low, _, high = statistics.quantiles(ratios, n=4, method="inclusive")
    return low, high


def rows_of(
    model: str, programs: Sequence[Program], times: Sequence[Timing], batch_size: int
) -> list[dict[str, Any]]:
    """Returns a row for each program; times are of a step.

    Raises:
      UserError: a program that should compute what ours does and does not.
    """
    ours = {
        program.what: (program, taken)
        for program, taken in zip(programs, times, strict=True)
        if program.library == "mtl_jax"
    }
    rows = []
    for program, taken in zip(programs, times, strict=True):
        row: dict[str, Any] = {
            "model": model, "library": program.library, "what": program.what,
            "parameters": program.found["parameters"], "batch": batch_size,
            **{name.replace("median_", ""): value for name, value in taken.fields().items()},
            "examples_per_second": round(1e3 * batch_size / taken.median_ms),
        }  # fmt: skip
        if program.library != "mtl_jax":
            reference, its = ours[same_kind(program.what)]
            row["over_ours"] = round(taken.over(its), 4)
            low, high = spread(taken, its)
            row |= {"over_ours_low": round(low, 4), "over_ours_high": round(high, 4)}
            row["more_parameters"] = row["parameters"] - reference.found["parameters"]
            if program.what.endswith("_plain"):
                first, last = check_same(reference, program)
                row |= {"first_difference": float(f"{first:.2e}")}
                row |= {"last_difference": float(f"{last:.2e}")}
        rows.append(row)
    return rows


def measure(
    workers: Mapping[str, Worker],
    model: str,
    *,
    batch_size: int = BATCH,
    steps: int = STEPS,
    columns: int = FIELDS,
    size: int = SIZE,
    what: Sequence[str] = tuple(THEIRS),
    rounds: int = 5,
    seconds: float = 0.0,
) -> list[dict[str, Any]]:
    """Times one model on both sides in turns; see `rows_of`.

    Args:
      workers: "mtl_jax" and "torch_rechub", in this order.
      model: of `MODELS`.
      batch_size: B.
      steps: of an epoch, which is a call.
      columns: F.
      size: ids a column.
      what: of `THEIRS`.
      rounds: see `timing.in_turns`.
      seconds: likewise.
    """
    programs: list[Program] = []
    timers: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for worker in workers.values():  # ours writes what theirs reads
            worker.ask(
                do="build",
                folder=folder,
                model=model,
                batch_size=batch_size,
                steps=steps,
                columns=columns,
                size=size,
            )
        for library, calls in (("mtl_jax", tuple(OURS)), ("torch_rechub", what)):
            for call in calls:
                worker = workers[library]
                programs.append(Program(library, call, worker.ask(do="prepare", what=call)))
                if call.endswith("_plain"):
                    check_same(programs[0], programs[-1])
                timers[f"{library}/{call}"] = worker.timer(call)
        taken = timing.in_turns(timers, rounds=rounds, seconds=seconds)
    a_step = [
        Timing(tuple((wall / steps, cpu / steps) for wall, cpu in found.samples))
        for found in taken.values()
    ]
    return rows_of(model, programs, a_step, batch_size)


def run(
    models: Sequence[str], rounds: int = 5, **sizes: Any
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Runs the comparison; returns all rows and the environment with both sides' versions.

    Every model gets new processes.
    """
    threads, rows, environment = timing.cores(), [], {}
    for model in models:
        workers: dict[str, Worker] = {}
        try:
            for library, side in (("mtl_jax", "dtrn"), ("torch_rechub", "rechub")):
                workers[library] = Worker(side, threads)
            found = {name: w.ask(do="hello", threads=threads) for name, w in workers.items()}
            theirs = {"rechub": found["torch_rechub"], "threads": threads}
            environment = environment or {**found["mtl_jax"], **theirs}
            new = measure(workers, model, rounds=rounds, **sizes)
        finally:
            for worker in workers.values():
                worker.close()
        timing.show(new, COLUMNS)
        rows += new
    return rows, environment


def main(argv: list[str]) -> None:
    """The command."""
    parser = Parser("python -m benchmarks.versus_rechub")
    parser.add_argument("--models", default="", help=f"of {', '.join(MODELS)}; default: all")
    parser.add_argument("--rounds", type=int, default=5, help="turns of every program")
    args = parser.parse_args(argv)
    # This process computes nothing; it must not take an accelerator from anybody either.
    os.environ["JAX_PLATFORMS"] = "cpu"
    models = [name for name in args.models.split(",") if name] or list(MODELS)
    for name in models:
        if name not in MODELS:
            raise UserError(f"unknown model {name!r}; {did_you_mean(name, MODELS)}")
    if args.rounds < 1:
        raise UserError(f"--rounds is {args.rounds}; it must be 1 or more")
    if warning := timing.busy():
        print(f"warning: {warning}")
    rows, environment = run(models, args.rounds)
    full = list(models) == list(MODELS) and args.rounds >= 5
    print(f"written: {timing.write('versus_rechub', rows, environment, full=full)}")


if __name__ == "__main__":
    run_command(main)

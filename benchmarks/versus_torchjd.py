"""This package against torch and torchjd: same model, parameters and batch, in one run.

The sides take turns, see `sides`. Every call is one step up to its gradient, no optimiser:

  sum      gradient of the sum of the losses (linear scalarisation)
  tasks    gradients of every loss; in torch one forward pass and `autograd.grad` once a task
  pcgrad, upgrad, mgda    those, aggregated; in torch by torchjd's mtl_backward and jac_to_grad
  fs       flat regions around the mean: gradients, perturb, gradients again

Both sides start from the same parameters, and the norms of what they compute are compared:
`difference` is relative. See `side_torch` for how the torch side is written.

    python -m benchmarks.versus_torchjd          # T = 2
    python -m benchmarks.versus_torchjd --full   # also T = 10
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from typing import Any

from benchmarks import models, timing
from benchmarks.sides import Worker
from mtl_jax.errors import Parser, run_command

WHAT = ("sum", "tasks", "pcgrad", "upgrad", "mgda", "fs")
COLUMNS = (
    "model", "tasks", "batch", "what", "torch_format", "jax_ms", "torch_ms", "ratio",
    "jax_min_ms", "torch_min_ms", "jax_cpu_ms", "torch_cpu_ms", "difference",
)  # fmt: skip


def measure(
    jax_side: Worker,
    torch_side: Worker,
    model: str,
    num_tasks: int,
    batch_size: int,
    *,
    what: Sequence[str] = WHAT,
    rounds: int = 7,
    seconds: float = 4.0,
) -> list[dict[str, Any]]:
    """Times one model on both sides in turns, with the fields of `COLUMNS`.

    One row for each call and each memory format of torch's.

    `ratio` is JAX / torch, the median over the rounds: below 1 JAX is faster.
    """
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for side in (jax_side, torch_side):  # in this order: JAX writes what torch reads
            side.ask(
                do="build", model=model, num_tasks=num_tasks, batch_size=batch_size, folder=folder
            )
        for call in what:
            ours = jax_side.ask(do="prepare", what=call)
            theirs = torch_side.ask(do="prepare", what=call)
            timers = {"jax": jax_side.timer(call)}
            timers |= {form: torch_side.timer(f"{call}/{form}") for form in theirs["norms"]}
            taken = timing.in_turns(timers, rounds=rounds, seconds=seconds)
            mine = taken.pop("jax")
            for form, its in taken.items():
                rows.append(
                    {
                        "model": model, "tasks": num_tasks, "batch": batch_size, "what": call,
                        "torch_format": form,
                        **{f"jax_{k.replace('median_', '')}": v for k, v in mine.fields().items()},
                        **{f"torch_{k.replace('median_', '')}": v for k, v in its.fields().items()},
                        "ratio": round(mine.over(its), 4),
                        "difference": float(f"{abs(ours['norm'] / theirs['norms'][form] - 1):.2e}"),
                        "torchjd_options": theirs["options"][form],
                    }
                )  # fmt: skip
    return rows


def run(full: bool = False, wanted: Sequence[str] = ()) -> tuple[list[dict[str, Any]], dict]:
    """Runs every model; returns all rows and the environment with both sides' versions.

    Every model gets new processes: what an allocator does with 32 MB depends on what ran before.
    """
    threads, rows, environment = timing.cores(), [], {}
    for model in wanted or models.MODELS:
        for num_tasks in (2, 10) if full and model != "resnet18" else (2,):
            workers = Worker("jax", threads), Worker("torch", threads)
            try:
                found = [worker.ask(do="hello", threads=threads) for worker in workers]
                environment = environment or {**found[0], "torch": found[1], "threads": threads}
                size = models.find(model).cpu_batch
                new = measure(*workers, model, num_tasks, size, seconds=6.0 if full else 3.0)
            finally:
                for worker in workers:
                    worker.close()
            timing.show(new, COLUMNS)
            rows += new
    return rows, environment


def main(argv: list[str]) -> None:
    """The command."""
    parser = Parser("python -m benchmarks.versus_torchjd")
    parser.add_argument("--full", action="store_true", help="ten tasks too")
    parser.add_argument("--models", default="", help=f"of {', '.join(models.MODELS)}")
    args = parser.parse_args(argv)
    # This process computes nothing; it must not take an accelerator from anybody either.
    os.environ["JAX_PLATFORMS"] = "cpu"
    wanted = [name for name in args.models.split(",") if name]
    for name in wanted:
        models.find(name)
    if warning := timing.busy():
        print(f"warning: {warning}")
    rows, environment = run(args.full, wanted)
    print(f"written: {timing.write('versus_torchjd', rows, environment, full=args.full)}")


if __name__ == "__main__":
    run_command(main)

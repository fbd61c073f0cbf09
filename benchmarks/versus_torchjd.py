"""This package against torch and torchjd: same model, parameters and batch, in one run.

Each side is a process of its own on the CPU, with the same number of threads. They take turns:
while one is timed the other waits on a pipe, so neither steals the other's cores or shares its
allocator. Every call is one step up to its gradient, no optimiser:

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

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks import models, timing
from mtl_jax.errors import Parser, UserError, run_command

WHAT = ("sum", "tasks", "pcgrad", "upgrad", "mgda", "fs")
COLUMNS = (
    "model", "tasks", "batch", "what", "torch_format", "jax_ms", "torch_ms", "ratio",
    "jax_min_ms", "torch_min_ms", "jax_cpu_ms", "torch_cpu_ms", "difference",
)  # fmt: skip
SAMPLE_MS = 150.0
# Threads of the side that was timed last spin for a while before they sleep.
REST = 0.03


class Worker:
    """A process that builds one side's models and times its calls on request."""

    def __init__(self, side: str, threads: int):
        env = {**os.environ, "JAX_PLATFORMS": "cpu", "OMP_NUM_THREADS": str(threads)}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.versus_torchjd", "--side", side],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=env,
            cwd=Path(__file__).parents[1],
        )
        self.side = side

    def ask(self, **message: Any) -> dict[str, Any]:
        """Sends a request and waits for its answer.

        Raises:
          UserError: what the worker says is wrong, or that it died.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(message) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # its last words are still to be read
        line = self._process.stdout.readline()
        if not line:
            code = self._process.wait()
            raise UserError(
                f"the {self.side} side died with exit code {code}; see its output above"
            )
        answer = json.loads(line)
        if "error" in answer:
            raise UserError(answer["error"])
        return answer

    def timer(self, what: str) -> Callable[[], timing.Sample]:
        """Returns a function that times one call there."""

        def sample() -> timing.Sample:
            time.sleep(REST)
            wall, cpu = self.ask(do="time", what=what)["sample"]
            return wall, cpu

        return sample

    def close(self) -> None:
        """Ends the process."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process.wait(timeout=30)


def serve(side_name: str) -> None:
    """A worker's loop: one JSON request a line on stdin, one answer a line on stdout."""
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever else prints goes to stderr

    def reply(**answer: Any) -> None:
        replies.write(json.dumps(answer) + "\n")
        replies.flush()

    try:
        if side_name == "jax":
            from benchmarks.side_jax import Side
        else:
            from benchmarks.side_torch import Side
    except UserError as error:
        return reply(error=str(error))
    side: Any = None
    timers: dict[str, Any] = {}
    for line in sys.stdin:
        message = json.loads(line)
        do = message.pop("do")
        if do == "hello":
            reply(**_describe(side_name, message["threads"]))
        elif do == "build":
            side, timers = Side(**message), {}
            reply()
        elif do == "prepare":
            found = side.prepare(message["what"])
            for name, call in side.calls.items():
                if name not in timers:
                    timers[name] = timing.timer(call, SAMPLE_MS)
            reply(**found)
        else:
            reply(sample=timers[message["what"]]())
    return None


def _describe(side: str, threads: int) -> dict[str, Any]:
    """Versions of a side; sets torch's threads, as XLA takes all cores by itself."""
    if side == "jax":
        return timing.environment()
    import torch
    import torchjd

    torch.set_num_threads(threads)
    version = getattr(torchjd, "__version__", None)
    if version is None:
        from importlib.metadata import version as installed

        version = installed("torchjd")
    return {
        "torch": torch.__version__,
        "torchjd": version,
        "threads": torch.get_num_threads(),
    }


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
    parser.add_argument("--side", choices=("jax", "torch"), help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.side:
        return serve(args.side)
    # This process computes nothing; it must not take an accelerator from anybody either.
    os.environ["JAX_PLATFORMS"] = "cpu"
    wanted = [name for name in args.models.split(",") if name]
    for name in wanted:
        models.find(name)
    if warning := timing.busy():
        print(f"warning: {warning}")
    rows, environment = run(args.full, wanted)
    print(f"written: {timing.write('versus_torchjd', rows, environment, full=args.full)}")
    return None


if __name__ == "__main__":
    run_command(main)

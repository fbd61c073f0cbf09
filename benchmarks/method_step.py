"""What every method costs: its whole training step over that of plain summed losses (LS).

Every row of the table of methods, as it is without options, and flat regions around some of them.
A step is the loop's, host batch to new parameters, with Adam; LS and the method take turns, so that
`over_ls` is a ratio within rounds. `temp_mb` is the compiler's own report of the memory that a step
needs beside its arguments; `over_ls_memory` is its ratio to LS.

    python -m benchmarks.method_step          # MLP with 2, 10 and 40 tasks, LeNet with 2 and 10
    python -m benchmarks.method_step --full   # also LeNet with 40, and ResNet-18 with 2
    python -m benchmarks.method_step --methods cagrad,my_method
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Sequence
from typing import Any

import jax

from benchmarks import models, timing
from benchmarks.train_step import Stepper
from mtl_jax.config import FlatConfig, MethodConfig
from mtl_jax.errors import Parser, UserError, did_you_mean, run_command
from mtl_jax.methods.base import Method
from mtl_jax.methods.table import METHODS

FLAT = ("linear_scalarization", "cagrad", "upgrad")
PREFIX = "fs_"
CELLS = {
    False: (("mlp", 2), ("mlp", 10), ("mlp", 40), ("lenet_10_20", 2), ("lenet_10_20", 10)),
    True: (
        *(("mlp", tasks) for tasks in (2, 10, 40)),
        *(("lenet_10_20", tasks) for tasks in (2, 10, 40)),
        ("resnet18", 2),
    ),
}
COLUMNS = (
    "model", "tasks", "batch", "method", "median_ms", "min_ms", "cpu_ms", "over_ls",
    "temp_mb", "over_ls_memory", "compile_seconds",
)  # fmt: skip


def names() -> list[str]:
    """All that can be timed: the table, and flat regions around some of it."""
    return [*METHODS, *(PREFIX + name for name in FLAT)]


def make_method(name: str) -> Method:
    """Builds a row of the table; "fs_NAME" has flat regions of the usual radius around it."""
    if name in METHODS:
        return MethodConfig(name, flat=FlatConfig(combine="erm")).make()
    return MethodConfig(name.removeprefix(PREFIX), flat=FlatConfig()).make()


def measure(
    model: str,
    num_tasks: int,
    *,
    methods: Sequence[str],
    batch_size: int = 0,
    rounds: int = 3,
    seconds: float = 1.0,
) -> list[dict[str, Any]]:
    """Times methods on a model, each in turns with LS; one row each, with the fields of `COLUMNS`.

    A method that needs what this model or batch does not have is left out, and a line says so.
    """
    batch = batch_size or models.default_batch(model)
    system, data = models.build(model, num_tasks, batch)
    base = Stepper(system, data, make_method("linear_scalarization"))
    base()
    rows = []
    for name in methods:
        try:
            own = (
                base if name == "linear_scalarization" else Stepper(system, data, make_method(name))
            )
        except UserError as error:
            print(f"{name} is left out: {error}", file=sys.stderr, flush=True)
            continue
        times = timing.paired({"ls": base, "own": own}, rounds=rounds, seconds=seconds)
        step, least = own.step, max(base.step.temp_bytes(), 1)
        rows.append(
            {
                "model": model, "tasks": num_tasks, "batch": batch, "method": name,
                **times["own"].fields(),
                "over_ls": 1.0 if own is base else round(times["own"].over(times["ls"]), 3),
                "temp_mb": round(step.temp_bytes() / 2**20, 1),
                "over_ls_memory": round(step.temp_bytes() / least, 2),
                "compile_seconds": round(step.compile_seconds, 2),
            }
        )  # fmt: skip
        del own, step
        jax.clear_caches()
        gc.collect()
    return rows


def run(full: bool = False, methods: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Runs the chosen methods (all by default), prints as it goes, and returns all rows."""
    rows = []
    for model, num_tasks in CELLS[full]:
        new = measure(model, num_tasks, methods=methods or names())
        timing.show(new, COLUMNS)
        rows += new
    return rows


def main(argv: list[str]) -> None:
    """The command."""
    parser = Parser("python -m benchmarks.method_step")
    parser.add_argument("--full", action="store_true", help="LeNet with 40 tasks and ResNet-18 too")
    parser.add_argument("--methods", default="", help="only these, with commas; default: all")
    args = parser.parse_args(argv)
    chosen = [name for name in args.methods.split(",") if name]
    for name in chosen:
        if name not in names():
            raise UserError(f"--methods: {name!r}; {did_you_mean(name, names())}")
    if warning := timing.busy():
        print(f"warning: {warning}")
    before = timing.environment()
    timing.without_compile_cache()
    rows = run(args.full, chosen)
    if chosen:  # A part must not take the place of the whole.
        print("not written: a part only")
    else:
        print(f"written: {timing.write('method_step', rows, before, full=args.full)}")


if __name__ == "__main__":
    run_command(main)

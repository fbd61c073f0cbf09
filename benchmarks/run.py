"""All benchmarks of this device, and the README's table of all devices: `make bench`.

    python -m benchmarks.run                       # short form, about twenty minutes on two cores
    python -m benchmarks.run --full                # everything, more than an hour there
    python -m benchmarks.run --only solvers        # a part
    python -m benchmarks.run --table-only          # only write the README's table again

Writes `benchmarks/results/<benchmark>-<device>.json`. The comparisons with other libraries are
commands of their own, `python -m benchmarks.versus_torchjd`, `versus_torchjd_weights`,
`versus_deepxde` and `versus_rechub`, and so is `method_step`, every method beside LS. The table
takes whatever files are in that folder.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import (
    dispatch,
    dtrn_step,
    embedding_step,
    operator_step,
    pde_solvers,
    solvers,
    task_grads,
    timing,
    train_step,
)
from benchmarks.readme_tables import tables
from mtl_jax.errors import Parser, UserError, did_you_mean, run_command
from mtl_jax.reporting.markdown import write_between

README = Path(__file__).parents[1] / "README.md"
BEGIN, END = "<!-- bench:begin -->", "<!-- bench:end -->"
BENCHMARKS: dict[str, Callable[[bool], list[dict[str, Any]]]] = {
    "train_step": train_step.run,
    "task_grads": task_grads.run,
    "operator_step": operator_step.run,
    "embedding_step": embedding_step.run,
    "dtrn_step": dtrn_step.run,
    "pde_solvers": pde_solvers.run,
    "solvers": solvers.run,
    "dispatch": dispatch.run,
}


def main(argv: list[str]) -> None:
    """The command."""
    parser = Parser("python -m benchmarks.run")
    parser.add_argument("--full", action="store_true", help="every strategy and size")
    parser.add_argument("--only", default="", help=f"of {', '.join(BENCHMARKS)}")
    parser.add_argument("--table-only", action="store_true", help="run nothing")
    args = parser.parse_args(argv)
    chosen = [name for name in args.only.split(",") if name] or list(BENCHMARKS)
    for name in chosen:
        if name not in BENCHMARKS:
            raise UserError(f"unknown benchmark {name!r}; {did_you_mean(name, BENCHMARKS)}")
    if not args.table_only:
        timing.without_compile_cache()
        if warning := timing.busy():
            print(f"warning: {warning}")
        for name in chosen:
            began, before = time.perf_counter(), timing.environment()
            print(f"\n{name}", flush=True)
            rows = BENCHMARKS[name](args.full)
            path = timing.write(name, rows, before, full=args.full)
            print(f"{path.name}: {time.perf_counter() - began:.0f} s", flush=True)
    write_between(README, BEGIN, END, tables(timing.read_results()))
    print(f"the table in {README.name} is written")


if __name__ == "__main__":
    run_command(main)

"""What task-specific bottoms do: `make results-dtrn`.

Tables from cells of (config, seed) trained by the ordinary loop in a run folder of its own; a cell
that is done is not run again, so the study may be interrupted.

  variants      base, +TRM, +shared transformer, +TIM, DTRN under SharedBottom, MMoE and PLE
  single        a network for each task: what Delta_m is measured against
  conditioning  ways to condition the transformer, with parameters and time a step
  methods       aggregators and flat regions around DTRN
  tabular       Census-Income, bases only

Every variant has the same optimiser, steps and selection by the validation AUC; nothing is tuned
for one of them alone. Logs of your own enter by --tmall2014 and --kuairand.

    make results-dtrn                                             # hours on 2 cores
    make results-dtrn ARGS="--parts variants --seeds 1 --sets strong"
    make results-dtrn ARGS="--tmall2014 tmall2014_events.csv.xz --kuairand FOLDER"
    make results-dtrn ARGS=--table-only

Writes `experiments/dtrn/results/NAME.json`, a figure, and the tables between the README's markers.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from experiments.dtrn.study_cells import CELLS, SEEDS, Files
from experiments.dtrn.study_tables import differences, draw_gains, floors, tables
from experiments.study_runs import (
    DONE,
    Cell,
    check_flags,
    only_sets,
    read_cells,
    run_all,
    save_arrays,
    shortened,
    study_parser,
    train_cell,
)
from mtl_jax.engine.runfolder import write_json_atomic
from mtl_jax.engine.writers import read_metrics
from mtl_jax.errors import run_command
from mtl_jax.reporting.markdown import write_between
from mtl_jax.systems.dtrn.scores import scored

RESULTS = Path(__file__).parent / "results"
README = Path(__file__).parents[2] / "README.md"
BEGIN, END = "<!-- results:dtrn:begin -->", "<!-- results:dtrn:end -->"


def run_cell(root: Path, cell: Cell) -> None:
    """Trains one cell unless it is done; keeps its scores, and what it says of the test rows."""
    folder = root / cell.name
    if (folder / DONE).exists():
        return
    run, state, record = train_cell(cell, folder)
    found = scored(run, state, "test")
    save_arrays(folder, {"rows": found.rows, "logits": found.logits})
    steps = [r["values"]["step_ms"] for r in read_metrics(folder) if "step_ms" in r["values"]]
    record |= {"tasks": list(run.system.task_names), "step_ms": steps[-1] if steps else None}
    write_json_atomic(folder / DONE, record)


def _is_read(name: str) -> bool:
    """Whether a table reads a score."""
    if name == "best/validation/auc":
        return True
    return name.startswith("best/test/") and not name.endswith(("error_bound", "count"))


def main(argv: list[str]) -> None:
    """The command."""
    parser = study_parser("python -m experiments.dtrn.study", list(CELLS), SEEDS, "runs/study_dtrn")
    parser.add_argument("--tmall2014", default="", help="the contest's file of events")
    parser.add_argument("--kuairand", default="", help="a folder with KuaiRand's explicit rows")
    args = parser.parse_args(argv)
    chosen, files = check_flags(args, list(CELLS)), Files(args.tmall2014, args.kuairand)
    if not args.table_only:
        todo = [c for p in chosen for s in range(args.seeds) for c in CELLS[p](s, files)]
        run_all(run_cell, args.root, only_sets(todo, args.sets), args.jobs)
    cells = {name: shortened(cell, _is_read) for name, cell in read_cells(args.root).items()}
    found: dict[str, Any] = {
        "cells": cells,
        "differences": differences(args.root, cells),
        "floors": floors(args.root, cells),
    }
    RESULTS.mkdir(exist_ok=True)
    write_json_atomic(RESULTS / f"{args.name}.json", found)
    text = tables(found)
    if draw_gains(found, RESULTS / "gains.png"):
        text += "\n\n![What each part adds](experiments/dtrn/results/gains.png)"
    write_between(README, BEGIN, END, text)
    print(text)


if __name__ == "__main__":
    run_command(main)

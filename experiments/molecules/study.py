"""Eleven properties of QM9, ERM against flat regions (FS) for six methods: `make results-qm9`.

Cells of (configuration, seed) are trained by the ordinary loop in a run folder of its own; a cell
that is done is not run again, so the study may be interrupted.

  single    a network for each property: what Delta_m is measured against
  methods   LS, UW, CAGrad, Nash-MTL, UPGrad and FAMO, plain and with flat regions

The default is sized for two CPU cores: every 13th molecule, a small network, few epochs. That is
far from the end of training, and says how methods begin rather than where they end.

    make results-qm9                                    # more than an hour on 2 cores
    make results-qm9 ARGS="--parts methods --seeds 1"
    make results-qm9 ARGS=--scale=paper                 # all molecules, 300 epochs, for a GPU
    make results-qm9 ARGS=--table-only

Writes `experiments/molecules/results/NAME.json` and the table between the README's markers.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from experiments.molecules.study_cells import CELLS, SCALES, SEEDS
from experiments.molecules.study_tables import tables
from experiments.study_runs import (
    DONE,
    Cell,
    check_flags,
    only_sets,
    read_cells,
    run_all,
    shortened,
    study_parser,
    train_cell,
)
from mtl_jax.engine.runfolder import write_json_atomic
from mtl_jax.errors import UserError, did_you_mean, run_command
from mtl_jax.reporting.markdown import write_between
from mtl_jax.systems.molecules.builders import load

RESULTS = Path(__file__).parent / "results"
README = Path(__file__).parents[2] / "README.md"
BEGIN, END = "<!-- results:qm9:begin -->", "<!-- results:qm9:end -->"


def run_cell(root: Path, cell: Cell) -> None:
    """Trains one cell unless it is done, and keeps its scores and sizes."""
    folder = root / cell.name
    if (folder / DONE).exists():
        return
    run, _, record = train_cell(cell, folder)
    config: Any = cell.config
    found = load(config.data)
    record |= {
        "seed": config.seed,
        "set": config.data.name,
        "tasks": len(run.system.task_names),
        "steps": run.total_steps,
        "batch_size": config.train.batch_size,
        "molecules": {split: len(rows) for split, rows in found.splits.items()},
    }
    write_json_atomic(folder / DONE, record)


def _is_read(name: str) -> bool:
    """Whether a table reads a score."""
    return name.startswith("best/test/")


def main(argv: list[str]) -> None:
    """The command."""
    parts = list(CELLS)
    parser = study_parser("python -m experiments.molecules.study", parts, SEEDS, "runs/study_qm9")
    parser.add_argument("--scale", default=SCALES[0], help=f"of {', '.join(SCALES)}")
    args = parser.parse_args(argv)
    chosen = check_flags(args, parts)
    if args.scale not in SCALES:
        raise UserError(f"--scale is {args.scale!r}; {did_you_mean(args.scale, SCALES)}")
    if not args.table_only:
        todo = [c for s in range(args.seeds) for p in chosen for c in CELLS[p](args.scale, s)]
        run_all(run_cell, args.root, only_sets(todo, args.sets), args.jobs)
    cells = {name: shortened(cell, _is_read) for name, cell in read_cells(args.root).items()}
    text = tables(cells)
    RESULTS.mkdir(exist_ok=True)
    write_json_atomic(RESULTS / f"{args.name}.json", {"cells": cells})
    write_between(README, BEGIN, END, text)
    print(text)


if __name__ == "__main__":
    run_command(main)

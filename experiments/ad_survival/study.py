"""What each part of the survival networks does: `make results-ad-survival`.

Tables from cells of (config, seed) trained by the ordinary loop in a run folder of its own; a cell
that is done is not run again, so the study may be interrupted.

  sets      SUPPORT2, rhc, UnempDur, hdfail: two terms, one head, Cox's likelihood; beside Cox's
            model and random survival forests on the same rows
  inputs    generated creatives: kinds of input taken away, beside what the best possible
            prediction loses by it; the paper's protocol, and what the history's length alone says
  terms     two terms on one trunk, apart, one; penalty on disagreement, share of the short term
  weights   weights of rows by click rate, its transforms, and impressions
  methods   aggregators and flat regions on the two terms
  snap      Snap's political ads, three splits, with --snap FILE

Policies are those of the full network. Seed s of a real set is trained on its split s.

    make results-ad-survival                                      # hours on 2 cores
    make results-ad-survival ARGS="--parts sets --seeds 1"
    make results-ad-survival ARGS="--snap PoliticalAds.csv"
    make results-ad-survival ARGS=--table-only

Writes `experiments/ad_survival/results/NAME.json`, a figure, and the tables between the README's
markers.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from experiments.ad_survival.study_cells import CELLS, SEEDS, Files
from experiments.ad_survival.study_tables import best_possible, draw_inputs, tables
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
from mtl_jax.errors import run_command
from mtl_jax.metrics.survival import bootstrap_concordance, concordance
from mtl_jax.reporting.markdown import write_between
from mtl_jax.systems.ad_survival.builders import load
from mtl_jax.systems.ad_survival.decisions import policy_study
from mtl_jax.systems.ad_survival.scores import forecast, ranked, terms_of

RESULTS = Path(__file__).parent / "results"
README = Path(__file__).parents[2] / "README.md"
BEGIN, END = "<!-- results:ad-survival:begin -->", "<!-- results:ad-survival:end -->"
# Resamples of a test split, and how many rows make it one of the large: an interval over 20,000
# rows takes a minute a cell with 100.
REPLICATES, FEW, LARGE = 400, 100, 10_000
TOP = 0.75  # sales above this quantile are the top quarter


def run_cell(root: Path, cell: Cell) -> None:
    """Trains one cell unless it is done; keeps its scores and resamples of its concordances."""
    folder = root / cell.name
    if (folder / DONE).exists():
        return
    run, state, found = train_cell(cell, folder)
    drawn, found["concordance"], found["rows"] = resampled(run, state)
    save_arrays(folder, drawn)
    if cell.name.startswith("creatives-full-"):
        played = policy_study(run, state)
        found["policies"] = {
            name: {quantity: interval._asdict() for quantity, interval in row.items()}
            for name, row in played.table.items()
        }
        found["policy_note"] = played.note
    write_json_atomic(folder / DONE, found)


def resampled(
    run: Any, state: Any
) -> tuple[dict[str, np.ndarray], dict[str, float], dict[str, int]]:
    """Returns concordances of the test rows: [R] resamples, values and numbers of rows, by name.

    Names are TERM@L and, for the quarter of rows that sold the most, top/TERM@L, which is not
    resampled. Groups are drawn where the set has them, in the same order for every network on the
    same split, so that two cells' resamples can be compared one by one.
    """
    data, found = load(run.config.data), forecast(run, state, "test")
    drawn, values, rows = {}, {}, {}
    for m, day in enumerate(found.days):
        for term in terms_of(found, m):
            own, score = ranked(found, data, term, m, run.config.model.score)
            sold = data.value[own.rows]
            kept = {"": np.ones(len(own.rows), bool)}
            if np.ptp(sold) > 0:
                kept["top/"] = sold > np.quantile(sold, TOP)
            for subset, keep in kept.items():
                name = f"{subset}{term}@{day:g}"
                lives = own.time[keep], own.event[keep], -score[keep]
                values[name] = concordance(*lives, entry=own.entry[keep]).value
                rows[name] = int(keep.sum())
                if subset:
                    continue
                drawn[name] = bootstrap_concordance(
                    *lives[:2],
                    lives[2][None],
                    groups=data.group[own.rows],
                    entry=own.entry,
                    replicates=FEW if len(found.rows) > LARGE else REPLICATES,
                )[:, 0]
    return drawn, values, rows


def main(argv: list[str]) -> None:
    """The command."""
    name, parts = "python -m experiments.ad_survival.study", list(CELLS)
    parser = study_parser(name, parts, SEEDS, "runs/study_ad_survival")
    parser.add_argument("--snap", default="", help="Snap's CSV of political ads")
    args = parser.parse_args(argv)
    chosen, files = check_flags(args, parts), Files(args.snap)
    if not args.table_only:
        todo = {c.name: c for p in chosen for s in range(args.seeds) for c in CELLS[p](s, files)}
        run_all(run_cell, args.root, only_sets(list(todo.values()), args.sets), args.jobs)
    cells = read_cells(args.root)
    for name, cell in cells.items():
        with np.load(args.root / name / "cell.npz") as arrays:
            cell["drawn"] = {key: array.copy() for key, array in arrays.items()}
    found: dict[str, Any] = {"cells": cells, "best": best_possible(args.root, cells)}
    text = tables(found)
    RESULTS.mkdir(exist_ok=True)
    write_json_atomic(
        RESULTS / f"{args.name}.json",
        {**found, "cells": {name: _short(cell) for name, cell in cells.items()}},
    )
    if draw_inputs(found, RESULTS / "inputs.png"):
        text += "\n\n![What each input adds](experiments/ad_survival/results/inputs.png)"
    write_between(README, BEGIN, END, text)
    print(text)


def _short(cell: dict[str, Any]) -> dict[str, Any]:
    """A cell without what no table reads."""
    rest = {key: value for key, value in cell.items() if key != "drawn"}
    return shortened(rest, lambda name: name.startswith(("best/", "last/test/")))


if __name__ == "__main__":
    run_command(main)

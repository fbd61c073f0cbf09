"""How much the radius matters: FS-CAGrad over radii, adaptive and plain: `make sweep-fsmtl`.

The study (`study.py`) takes the authors' radius. This looks around it, on the same data, seeds and
budget, so that the study's cells (ERM, and the authors' radius) are cells of this one too. It also
says after how many epochs each side was best on validation: whether 40 epochs are too few or too
many for one of them.

    make sweep-fsmtl                                  # 18 more cells, under an hour on 2 cores
    make sweep-fsmtl ARGS="--seeds 1"
    make sweep-fsmtl ARGS=--table-only

Writes `experiments/fsmtl/results/sweep.json` and the table between the README's markers.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from experiments.fsmtl.study import (
    DATASETS,
    README,
    RESULTS,
    cell_config,
    paired_interval,
    read_cell,
    run_cell,
)
from mtl_jax.engine.runfolder import public_environment, read_json, write_json_atomic
from mtl_jax.errors import Parser, UserError, did_you_mean, run_command
from mtl_jax.reporting.markdown import write_between
from mtl_jax.systems.vision.config import Config

BEGIN, END = "<!-- results:fsmtl-sweep:begin -->", "<!-- results:fsmtl-sweep:end -->"
METHOD = "cagrad"
# (adaptive, rho); None is ERM. The authors' radius is (True, 2.0).
RADII: list[tuple[bool, float] | None] = [
    None,
    *((True, rho) for rho in (0.5, 1.0, 2.0, 4.0)),
    *((False, rho) for rho in (0.05, 0.1, 0.2)),
]


def sweep_config(dataset: str, radius: tuple[bool, float] | None, seed: int) -> Config:
    """The study's own cell where it has one, else that cell with another radius."""
    config = cell_config("cpu", dataset, METHOD, radius is not None, seed)
    if radius is None:
        return config
    adaptive, rho = radius
    flat = config.method.flat
    if (flat.adaptive, flat.rho) == (adaptive, rho):
        return config
    flat = dataclasses.replace(flat, adaptive=adaptive, rho=rho)
    return dataclasses.replace(
        config,
        name=f"{config.name}-{'adaptive' if adaptive else 'plain'}-{rho:g}",
        method=dataclasses.replace(config.method, flat=flat),
    )


def summarise(root: Path, datasets: list[str], seeds: range) -> dict[str, Any]:
    """Everything the table shows, from the cells that are done together with their ERM cell."""
    rows = []
    for dataset in datasets:
        for radius in RADII:
            erm, own, best = [], [], []
            for seed in seeds:
                names = [sweep_config(dataset, r, seed).name for r in (None, radius)]
                base, cell = (read_cell(root, name) for name in names)
                if base is None or cell is None:
                    continue
                erm.append(base["last"])
                own.append(cell)
                best.append(int(read_json(root / names[1] / "results.json")["best/step"]))
            if not own:
                continue
            last = np.stack([cell["last"] for cell in own])
            rows.append(
                {
                    "dataset": dataset,
                    "adaptive": radius and radius[0],
                    "rho": radius and radius[1],
                    "seeds": len(own),
                    "last": (100.0 * last.mean((1, 2))).tolist(),
                    "best": [100.0 * float(cell["best"].mean()) for cell in own],
                    "gain": paired_interval(np.stack(erm), last),
                    "best_step": best,
                }
            )
    return {"rows": rows, "environment": public_environment()}


def table(summary: dict[str, Any]) -> str:
    """The README's table."""
    if not summary["rows"]:
        return "No results yet: run `make sweep-fsmtl`."
    config = cell_config("cpu", "multi_mnist", METHOD, True, 0)
    steps = config.train.epochs
    lines = [
        "FS-CAGrad over radii, same cells otherwise as above: test accuracy in %, mean over seeds;"
        " the gain over ERM with its 95 % paired bootstrap interval (last epoch); and the epoch"
        f" that was best on validation, of {steps}, mean over seeds. Chosen on test data, the best"
        " row would be too good: it is shown to see how the radius acts, not to pick one.",
        "",
        "| data | radius | seeds | selected | last | gain (last) | best epoch |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in summary["rows"]:
        words = "ERM"
        if row["rho"] is not None:
            words = f"{'adaptive' if row['adaptive'] else 'plain'} {row['rho']:g}"
        gain, low, high = row["gain"]
        shown = "" if row["rho"] is None else f"{gain:+.2f} [{low:+.2f}, {high:+.2f}]"
        per_epoch = summary["steps_per_epoch"]
        lines.append(
            f"| {DATASETS[row['dataset']]} | {words} | {row['seeds']}"
            f" | {np.mean(row['best']):.2f} | {np.mean(row['last']):.2f} | {shown}"
            f" | {np.mean(row['best_step']) / per_epoch:.0f} |"
        )
    return "\n".join(lines)


def main(argv: list[str]) -> None:
    """The command."""
    parser = Parser("python -m experiments.fsmtl.sweep")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--datasets", default="multi_mnist", help=f"of {', '.join(DATASETS)}")
    parser.add_argument("--root", type=Path, default=Path("runs/study"))
    parser.add_argument("--table-only", action="store_true")
    args = parser.parse_args(argv)
    if args.seeds < 1:
        raise UserError(f"--seeds is {args.seeds}; it must be 1 or more")
    datasets = args.datasets.split(",")
    for name in datasets:
        if name not in DATASETS:
            raise UserError(f"unknown name {name!r}; {did_you_mean(name, DATASETS)}")
    root = args.root / "cpu"
    todo = [
        sweep_config(dataset, radius, seed)
        for seed in range(args.seeds)
        for dataset in datasets
        for radius in RADII
    ]
    if not args.table_only:
        for k, config in enumerate(todo):
            print(f"[{k + 1}/{len(todo)}] {config.name}", flush=True)
            run_cell(root, config)
    summary = summarise(root, datasets, range(args.seeds))
    if not summary["rows"]:
        raise UserError(f"no finished pair of cells in {root}; run without --table-only")
    RESULTS.mkdir(exist_ok=True)
    first = read_json(root / sweep_config(datasets[0], None, 0).name / "results.json")
    summary["steps_per_epoch"] = int(first["last/step"]) // todo[0].train.epochs
    write_json_atomic(RESULTS / "sweep.json", summary)
    write_between(README, BEGIN, END, table(summary))
    print(table(summary))


if __name__ == "__main__":
    run_command(main)

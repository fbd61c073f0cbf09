"""What sharing, masks, transfer and aggregators do: `make results-mt-deeponet`.

Seven parts, each a table, all from cells of (config, seed) trained by the ordinary loop in a run
folder of its own; a cell that is done is not run again, so the study may be interrupted.

  sharing      one network for all tasks against one for each, the same steps and samples a step
               of each task: the budget of a task is the same, the cost of the separate ones T-fold
  ablation     Darcy: without the mask channel, fields shown outside the geometry, the paper's loss
  transfer     Darcy on unseen geometries: zero-shot, the paper's trained set, full, heads, scratch
  samples      the same against the number of target samples
  aggregators  Fisher, 1,000 steps: aggregators, plain and with flat regions
  optimisers   Fisher with Adam beside the experiment's Muon
  plate        the heated plate, relative to the temperature and to what exceeds the air's; the
               same with LayerNorm in the branch

    make results-mt-deeponet                                     # hours on 2 cores
    make results-mt-deeponet ARGS="--parts sharing,transfer --seeds 1"
    make results-mt-deeponet ARGS=--table-only

Writes `experiments/mt_deeponet/results/cpu.json` and the tables between the README's markers.
"""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import Any

import numpy as np

from experiments.mt_deeponet import darcy_transfer, fisher, plate3d
from experiments.mt_deeponet.study_cells import (
    ABLATIONS,
    AGGREGATORS,
    CELLS,
    FAMILIES,
    PLATES,
    RADIUS,
    SAMPLES,
    STARTS,
    Cell,
    sharing,
    target_name,
)
from mtl_jax import run as runs
from mtl_jax.data.pde.shapes import SOURCES, TARGETS
from mtl_jax.engine import parallel
from mtl_jax.engine.runfolder import public_environment, read_json, write_json_atomic
from mtl_jax.errors import Parser, UserError, did_you_mean, run_command
from mtl_jax.reporting import figures
from mtl_jax.reporting.markdown import write_between
from mtl_jax.train import train

RESULTS = Path(__file__).parent / "results"
README = Path(__file__).parents[2] / "README.md"
BEGIN, END = "<!-- results:mt-deeponet:begin -->", "<!-- results:mt-deeponet:end -->"


def run_cell(root: Path, cell: Cell) -> None:
    """Trains one cell unless it is done, and keeps its scores in cell.json."""
    folder = root / cell.name
    if (folder / "cell.json").exists():
        return
    config = cell.config
    if cell.source:
        config = dataclasses.replace(config, init_from=str(root / cell.source))
    began = time.perf_counter()
    if cell.zero:
        run = runs.build(config)
        state = parallel.replicate(runs.warm_start(run, run.init()))
        values, _ = runs.evaluate(run, state, "test")
        scores = {f"best/test/{name}": value for name, value in values.items()}
        folder.mkdir(parents=True, exist_ok=True)
    else:
        scores = train(config, folder)
        run = runs.build(config)
    seconds = time.perf_counter() - began
    count = runs.parameter_count(run.init())
    write_json_atomic(
        folder / "cell.json", {"scores": scores, "seconds": seconds, "parameters": count}
    )


def read_cell(root: Path, name: str) -> dict[str, Any] | None:
    """The scores of a cell, or None if it has not been run."""
    path = root / name / "cell.json"
    return read_json(path) if path.exists() else None


def _over_seeds(root: Path, name: str, seeds: range) -> list[dict[str, Any]]:
    found = [read_cell(root, f"{name}-{seed}") for seed in seeds]
    return [cell for cell in found if cell is not None]


def _percent(cells: list[dict[str, Any]], metric: str = "rel_l2_mean") -> str:
    values = [100 * cell["scores"][f"best/test/{metric}"] for cell in cells]
    if not values:
        return ""
    if len(values) == 1:
        return f"{values[0]:.2f}"
    return f"{np.mean(values):.2f} +- {np.std(values, ddof=1):.2f}"


def _mean(cells: list[dict[str, Any]], key: str) -> float:
    return float(np.mean([cell[key] for cell in cells]))


def _lines(head: list[str], rows: list[list[str]]) -> list[str]:
    marks = ["---"] * len(head)
    return [f"| {' | '.join(row)} |" for row in (head, marks, *rows)] if rows else []


def sharing_table(root: Path, seeds: range) -> list[str]:
    """One network for all tasks against one for each."""
    rows = []
    for problem, tasks in (("fisher", FAMILIES), ("darcy", SOURCES)):
        together = _over_seeds(root, f"{problem}-all", seeds)
        alone = {task: _over_seeds(root, f"{problem}-{task}", seeds) for task in tasks}
        if together:
            own = [_percent(together, f"{task}/rel_l2_mean") for task in tasks]
            cost = f"{_mean(together, 'seconds'):.0f}"
            size = f"{_mean(together, 'parameters'):,.0f}"
            rows.append([problem, "one for all", str(len(together)), *own, cost, size])
        if all(alone.values()):
            own = [_percent(cells) for cells in alone.values()]
            cost = f"{sum(_mean(cells, 'seconds') for cells in alone.values()):.0f}"
            size = f"{sum(_mean(cells, 'parameters') for cells in alone.values()):,.0f}"
            count = min(map(len, alone.values()))
            rows.append([problem, "one for each", str(count), *own, cost, size])
    head = ["problem", "networks", "seeds", "task 1", "task 2", "task 3", "seconds", "parameters"]
    note = (
        "**Sharing.** Test error, mean relative L2 in %, mean over seeds +- standard deviation."
        f" Fisher: {', '.join(FAMILIES)}; Darcy: {', '.join(SOURCES)}."
        " The separate networks take as many steps with as many samples of their task a step;"
        " seconds and parameters are those of all three together, on a machine that did other"
        " things as well."
    )
    return [note, "", *_lines(head, rows)] if rows else []


def ablation_table(root: Path, seeds: range) -> list[str]:
    """Darcy with one thing changed."""
    rows = []
    names = {"all": "as in the experiment", **ABLATIONS}
    for word, words in names.items():
        cells = _over_seeds(root, f"darcy-{word}", seeds)
        if cells:
            own = [_percent(cells, f"{task}/rel_l2_mean") for task in SOURCES]
            rows.append([words, str(len(cells)), *own])
    note = "**Darcy, one thing changed.** Test error, mean relative L2 in %."
    return [note, "", *_lines(["change", "seeds", *SOURCES], rows)] if len(rows) > 1 else []


def _transfer_rows(
    root: Path, seeds: range, geometries: tuple[str, ...], sizes: tuple[int, ...]
) -> list[list[str]]:
    rows = []
    for geometry in geometries:
        for size in sizes:
            own = {
                start: _over_seeds(root, target_name(geometry, size, start), seeds)
                for start in STARTS
            }
            if any(own.values()):
                count = str(max(map(len, own.values())))
                rows.append([geometry, str(size), count, *map(_percent, own.values())])
    return rows


def transfer_table(root: Path, seeds: range) -> list[str]:
    """100 samples of each target geometry."""
    rows = _transfer_rows(root, seeds, tuple(TARGETS), (100,))
    steps = darcy_transfer.get_config().train.steps
    note = (
        "**Transfer.** Darcy on a geometry that the source network has not seen: test error, mean"
        f" relative L2 in %, after {steps} steps; what is trained stands above. The source is the"
        " network for three geometries of the same seed, and its scales are kept."
    )
    head = ["target", "samples", "seeds", *STARTS.values()]
    return [note, "", *_lines(head, rows)] if rows else []


def samples_table(root: Path, seeds: range) -> list[str]:
    """Targets against the number of samples."""
    sizes = tuple(size for size in SAMPLES if size != 100)
    rows = _transfer_rows(root, seeds, ("pentagon", "l_shape"), sizes)
    note = "**Transfer with fewer and with more samples.** As above."
    return (
        [note, "", *_lines(["target", "samples", "seeds", *STARTS.values()], rows)] if rows else []
    )


def aggregators_table(root: Path, seeds: range) -> list[str]:
    """Fisher with aggregators, plain and around flat regions."""
    rows = []
    for method, words in AGGREGATORS.items():
        for flat in ("erm", "fs"):
            cells = _over_seeds(root, f"fisher-{method}-{flat}", seeds)
            if cells:
                own = [_percent(cells, f"{task}/rel_l2_mean") for task in FAMILIES]
                name = f"FS-{words}" if flat == "fs" else words
                rows.append([name, str(len(cells)), *own, f"{_mean(cells, 'seconds'):.0f}"])
    note = (
        "**Aggregators.** Fisher, 1,000 steps of Muon; FS: plain joint radius"
        f" {RADIUS:g}. Test error, mean relative L2 in %."
    )
    return [note, "", *_lines(["method", "seeds", *FAMILIES, "seconds"], rows)] if rows else []


def optimisers_table(root: Path, seeds: range) -> list[str]:
    """Fisher by optimiser."""
    rows = []
    for word, words in (("all", "Muon"), ("adam", "Adam")):
        cells = _over_seeds(root, f"fisher-{word}", seeds)
        if cells:
            own = [_percent(cells), *(_percent(cells, f"{t}/rel_l2_mean") for t in FAMILIES)]
            rows.append([words, str(len(cells)), *own, f"{_mean(cells, 'seconds'):.0f}"])
    steps = fisher.get_config().train.steps
    note = f"**Optimisers.** Fisher, {steps:,} steps. Test error, mean relative L2 in %."
    head = ["optimiser", "seeds", "mean", *FAMILIES, "seconds"]
    return [note, "", *_lines(head, rows)] if len(rows) > 1 else []


def plate_table(root: Path, seeds: range) -> list[str]:
    """The heated plate."""
    names = ("rel_l2_mean", "rel_l2_global", "rel_l2_mean_excess", "rel_l2_global_excess")
    rows = []
    for word, words in PLATES.items():
        cells = _over_seeds(root, f"plate-{word}", seeds)
        if cells:
            own = [_percent(cells, name) for name in names]
            rows.append([words, str(len(cells)), *own, f"{_mean(cells, 'seconds'):.0f}"])
    steps = plate3d.get_config().train.steps
    note = (
        f"**Heated plate.** 24 designs, {steps:,} steps; error on 24 designs between them, mean"
        " over the numbers of holes, in %: relative to the temperature T, and to its excess over"
        " the air's, which is 65 % of the highest T. Mean over designs, and the ratio of the norms."
    )
    head = ["T, mean", "T, global", "T - T_air, mean", "T - T_air, global"]
    return [note, "", *_lines(["normalisation", "seeds", *head, "seconds"], rows)] if rows else []


def draw_transfer(root: Path, seeds: range, path: Path) -> bool:
    """Draws the error against the number of target samples; False where there are no two sizes.

    A dot is a run; a line joins those of a seed, so that it compares what is comparable.
    """
    shown: dict[str, dict[str, list[dict[int, float]]]] = {}
    for geometry in ("pentagon", "l_shape"):
        for start in STARTS:
            for seed in seeds:
                errors = {}
                for size in SAMPLES:
                    cell = read_cell(root, f"{target_name(geometry, size, start)}-{seed}")
                    if cell is not None:
                        errors[size] = 100 * cell["scores"]["best/test/rel_l2_mean"]
                if errors:
                    shown.setdefault(geometry, {}).setdefault(start, []).append(errors)
    lines = [line for starts in shown.values() for own in starts.values() for line in own]
    if not any(len(line) > 1 for line in lines):
        return False
    with figures.canvas(path, 1, len(shown), 2.9) as (_, axes):
        for ax, (geometry, starts) in zip(axes[0], shown.items(), strict=True):
            for colour, (start, own) in zip(figures.COLOURS, starts.items(), strict=False):
                for k, errors in enumerate(own):
                    label = None if k else STARTS[start]
                    ax.plot(
                        *zip(*errors.items(), strict=True), "o-", color=colour, ms=3, label=label
                    )
            figures.finish(
                ax, figures.pretty(geometry), "relative L2 error, %", "target samples", log=True
            )
            ax.set_xscale("log")
            ax.set_xticks(SAMPLES, [str(size) for size in SAMPLES])
            ax.minorticks_off()
        figures.legend(axes[0, -1])
    return True


def draw_sharing(root: Path, seeds: range, path: Path) -> bool:
    """Draws one network for all tasks beside one for each; False where one side is missing.

    Bars are means over seeds, dots are seeds.
    """
    pairs: dict[str, list[tuple[str, list[float], list[float]]]] = {}
    for problem, tasks in (("fisher", FAMILIES), ("darcy", SOURCES)):
        together = _over_seeds(root, f"{problem}-all", seeds)
        for task in tasks:
            alone = _over_seeds(root, f"{problem}-{task}", seeds)
            if together and alone:
                metric = f"best/test/{task}/rel_l2_mean"
                both = [100 * cell["scores"][metric] for cell in together]
                one = [100 * cell["scores"]["best/test/rel_l2_mean"] for cell in alone]
                pairs.setdefault(problem, []).append((task, both, one))
    if not pairs:
        return False
    with figures.canvas(path, 1, len(pairs), 2.7) as (_, axes):
        for ax, (problem, rows) in zip(axes[0], pairs.items(), strict=True):
            sides = {
                "one for all": [row[1] for row in rows],
                "one for each": [row[2] for row in rows],
            }
            for k, (words, values) in enumerate(sides.items()):
                places = [t + 0.4 * k - 0.2 for t in range(len(rows))]
                heights = [float(np.mean(errors)) for errors in values]
                ax.bar(places, heights, 0.38, color=figures.COLOURS[k], label=words)
                for place, errors in zip(places, values, strict=True):
                    ax.plot([place] * len(errors), errors, "o", color=figures.MEAN, ms=3)
            ax.set(title=problem, ylabel="relative L2 error, %")
            ax.set_ylim(top=1.3 * ax.get_ylim()[1])  # Room for the legend.
            ax.set_xticks(range(len(rows)), [row[0] for row in rows])
        figures.legend(axes[0, -1])
    return True


def in_words(root: Path, seeds: range) -> str:
    """What the cells say about sharing and transfer, counted; "" where there is nothing yet."""
    said = []
    less = many = 0
    for problem, tasks in (("fisher", FAMILIES), ("darcy", SOURCES)):
        for task in tasks:
            pairs = _paired(
                root, seeds, f"{problem}-all", f"{task}/rel_l2_mean", f"{problem}-{task}"
            )
            many += bool(pairs)
            less += bool(pairs) and all(shared < alone for shared, alone in pairs)
    if many:
        said.append(
            f"one network for all tasks errs less than one for each, in every seed, on {less} of"
            f" {many} tasks"
        )
    for start, words in (("full", "all"), ("paper", "the paper's set"), ("head", "the heads")):
        ratios = {}
        for geometry in TARGETS:
            tuned, scratch = (target_name(geometry, 100, how) for how in (start, ""))
            pairs = _paired(root, seeds, tuned, "rel_l2_mean", scratch)
            if pairs:
                ratios[geometry] = [own / other for own, other in pairs]
        if ratios:
            ahead = [geometry for geometry, own in ratios.items() if max(own) < 1]
            means = [float(np.mean(own)) for own in ratios.values()]
            said.append(
                f"training {words} of the source network from 100 samples errs"
                f" {min(means):.2f} to {max(means):.2f} times as much as from scratch, less in"
                f" every seed on {len(ahead)} of {len(ratios)} targets"
            )
    return f"In short: {'; '.join(said)}." if said else ""


def _paired(
    root: Path, seeds: range, first: str, metric: str, second: str
) -> list[tuple[float, float]]:
    """Errors of two cells, seed by seed: `metric` of the first, the mean of the second."""
    pairs = []
    for seed in seeds:
        one, two = (read_cell(root, f"{name}-{seed}") for name in (first, second))
        if one is not None and two is not None:
            own = one["scores"][f"best/test/{metric}"]
            pairs.append((own, two["scores"]["best/test/rel_l2_mean"]))
    return pairs


RELEASED = (
    "For orientation: the original authors' released weights, scored by us on data of ours made to"
    " match theirs, have a mean relative L2 of 1.3, 1.5 and 2.5 % on their three reaction terms,"
    " and 4.4, 4.4 and 7.5 % on square, disc and triangle at 100 x 100. Those are other data"
    " (nearly no diffusion), other sizes and other budgets than the rows below."
)


def tables(root: Path, seeds: range) -> str:
    """All tables of the README, as far as there are cells."""
    parts = [
        sharing_table(root, seeds),
        ablation_table(root, seeds),
        transfer_table(root, seeds),
        samples_table(root, seeds),
        aggregators_table(root, seeds),
        optimisers_table(root, seeds),
        plate_table(root, seeds),
    ]
    shown = ["\n".join(lines) for lines in parts if lines]
    if not shown:
        return "No results yet: run `make results-mt-deeponet`."
    return "\n\n".join([RELEASED, *shown, *filter(None, [in_words(root, seeds)])])


def main(argv: list[str]) -> None:
    """The command."""
    parser = Parser("python -m experiments.mt_deeponet.study")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--parts", default=",".join(CELLS), help=f"of {', '.join(CELLS)}")
    parser.add_argument("--root", type=Path, default=Path("runs/study_mt_deeponet"))
    parser.add_argument("--table-only", action="store_true")
    args = parser.parse_args(argv)
    if args.seeds < 1:
        raise UserError(f"--seeds is {args.seeds}; it must be 1 or more")
    chosen = args.parts.split(",")
    for name in chosen:
        if name not in CELLS:
            raise UserError(f"--parts: {name!r}; {did_you_mean(name, CELLS)}")
    if not args.table_only:
        todo = [cell for seed in range(args.seeds) for part in chosen for cell in CELLS[part](seed)]
        needed = {cell.source for cell in todo if cell.source} - {cell.name for cell in todo}
        first = [c for seed in range(args.seeds) for c in sharing(seed) if c.name in needed]
        todo = first + todo
        for k, cell in enumerate(todo):
            print(f"[{k + 1}/{len(todo)}] {cell.name}", flush=True)
            run_cell(args.root, cell)
    found = {path.parent.name: read_json(path) for path in sorted(args.root.glob("*/cell.json"))}
    if not found:
        raise UserError(f"no finished cell in {args.root}; run the study without --table-only")
    RESULTS.mkdir(exist_ok=True)
    write_json_atomic(RESULTS / "cpu.json", {"cells": found, "environment": public_environment()})
    text = tables(args.root, range(args.seeds))
    for name, draw in (("transfer", draw_transfer), ("sharing", draw_sharing)):
        if draw(args.root, range(args.seeds), RESULTS / f"{name}.png"):
            text += f"\n\n![{name}](experiments/mt_deeponet/results/{name}.png)"
    write_between(README, BEGIN, END, text)
    print(text)


if __name__ == "__main__":
    run_command(main)

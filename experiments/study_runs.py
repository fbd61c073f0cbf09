"""What studies share: cells that are trained one by one, so that a study may be interrupted."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import gc
import multiprocessing
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from mtl_jax import run as runs
from mtl_jax.config import ExperimentConfig, FlatConfig, MethodConfig
from mtl_jax.engine.runfolder import public_environment, read_json
from mtl_jax.engine.state import TrainState
from mtl_jax.errors import Parser, UserError, did_you_mean
from mtl_jax.run import Run
from mtl_jax.train import train

DONE = "cell.json"  # stands in the folder of a cell that is done


class Cell(NamedTuple):
    """One training run.

    Attributes:
      name: of its folder: set-configuration-seed.
      config: what to train.
    """

    name: str
    config: ExperimentConfig


RunCell = Callable[[Path, Cell], None]


def run_all(run_cell: RunCell, root: Path, todo: Sequence[Cell], jobs: int) -> None:
    """Runs the cells that are not done, `jobs` at a time; names those that fail and goes on.

    Args:
      run_cell: `run_cell(root, cell)`, a function of a module; it writes `DONE` last.
      root: folder of the cells.
      todo: the cells.
      jobs: how many at a time; 1 runs them in this process, and then an error ends it.
    """
    missing = [cell for cell in todo if not (root / cell.name / DONE).exists()]
    print(f"{len(todo)} cells, {len(todo) - len(missing)} done already", flush=True)
    if jobs == 1:
        for k, cell in enumerate(missing):
            print(f"[{k + 1}/{len(missing)}] {cell.name}", flush=True)
            run_cell(root, cell)
            # Compiled steps hold the data of their cell: half a gigabyte or more.
            jax.clear_caches()
            gc.collect()
        return
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(
        jobs, mp_context=context, max_tasks_per_child=1
    ) as pool:
        names = {pool.submit(_try, run_cell, root, cell): cell.name for cell in missing}
        for k, done in enumerate(concurrent.futures.as_completed(names)):
            print(f"[{k + 1}/{len(missing)}] {names[done]} {done.result()}", flush=True)


def _try(run_cell: RunCell, root: Path, cell: Cell) -> str:
    """Runs a cell in a process of its own; returns what went wrong, or nothing."""
    try:
        run_cell(root, cell)
    except BaseException:
        return traceback.format_exc(limit=-3)
    return ""


def train_cell(cell: Cell, folder: Path) -> tuple[Run, TrainState, dict[str, Any]]:
    """Trains a cell; returns the run, its best state, and what is recorded of every cell."""
    began = time.perf_counter()
    scores = train(cell.config, folder)
    seconds = time.perf_counter() - began
    run = runs.build(cell.config)
    state, step = runs.restore(run, folder, "best")
    return (
        run,
        state,
        {
            "scores": scores,
            "seconds": seconds,
            "best_step": step,
            "parameters": runs.parameter_count(run.init()),
            "environment": public_environment(),
        },
    )


def save_arrays(folder: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes cell.npz, whole or not at all."""
    temporary, named = folder / "cell.tmp.npz", dict[str, Any](arrays)
    np.savez_compressed(temporary, **named)
    temporary.replace(folder / "cell.npz")


def read_cells(root: Path) -> dict[str, dict[str, Any]]:
    """Returns what is recorded of the cells that are done, by name.

    Raises:
      UserError: there is none.
    """
    cells = {path.parent.name: read_json(path) for path in sorted(root.glob(f"*/{DONE}"))}
    if not cells:
        raise UserError(f"no finished cell in {root}; run the study without --table-only")
    return cells


def shortened(cell: Mapping[str, Any], keep: Callable[[str], bool]) -> dict[str, Any]:
    """Returns a cell with the scores that tables read, by name, and what matters of its machine."""
    scores = {name: value for name, value in cell["scores"].items() if keep(name)}
    machine = {key: cell["environment"][key] for key in ("device_kind", "packages", "git_commit")}
    return {**cell, "scores": scores, "environment": machine}


def stem_of(name: str) -> str:
    """The name of a cell without its seed."""
    return name.rpartition("-")[0]


def seeds_of(cells: Mapping[str, Mapping[str, Any]], stem: str) -> list[Mapping[str, Any]]:
    """Returns the cells of one configuration, seed by seed."""
    own = [name for name in cells if stem_of(name) == stem]
    return [cells[name] for name in sorted(own, key=lambda name: int(name.rpartition("-")[2]))]


def method_of(base: MethodConfig, aggregator: str, flat: bool, radius: float) -> MethodConfig:
    """Returns a base's method with another aggregator, plain or with flat regions of a radius."""
    regions = FlatConfig(rho=radius, adaptive=False) if flat else FlatConfig(combine="erm")
    return dataclasses.replace(base, aggregator=aggregator, flat=regions)


def study_parser(name: str, parts: Sequence[str], seeds: int, root: str) -> Parser:
    """Returns the flags that studies share: seeds, parts, sets, root, jobs, name, table-only."""
    parser = Parser(name)
    parser.add_argument("--seeds", type=int, default=seeds)
    parser.add_argument("--parts", default=",".join(parts), help=f"of {', '.join(parts)}")
    parser.add_argument("--sets", default="", help="only cells of these sets, with commas")
    parser.add_argument("--root", type=Path, default=Path(root))
    parser.add_argument("--jobs", type=int, default=1, help="cells at a time")
    parser.add_argument("--name", default="study", help="of the JSON file that is written")
    parser.add_argument("--table-only", action="store_true")
    return parser


def check_flags(args: Any, parts: Sequence[str]) -> list[str]:
    """Returns the parts that flags of `study_parser` name.

    Raises:
      UserError: a count below 1, an unknown part.
    """
    for name in ("seeds", "jobs"):
        if (value := getattr(args, name)) < 1:
            raise UserError(f"--{name} is {value}; it must be 1 or more")
    chosen = str(args.parts).split(",")
    for name in chosen:
        if name not in parts:
            raise UserError(f"--parts: {name!r}; {did_you_mean(name, parts)}")
    return chosen


def only_sets(todo: Sequence[Cell], sets: str) -> list[Cell]:
    """Returns the cells of the sets that are named with commas; all of them for "".

    Raises:
      UserError: a set without cells.
    """
    if not sets:
        return list(todo)
    known = {cell.name.partition("-")[0] for cell in todo}
    for name in sets.split(","):
        if name not in known:
            raise UserError(f"--sets: {name!r}; {did_you_mean(name, known)}")
    return [cell for cell in todo if cell.name.partition("-")[0] in sets.split(",")]

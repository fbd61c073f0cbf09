"""The cells of the comparison: set x method x seed, each trained in a run folder of its own."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import hashlib
import inspect
import json
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments.compare.sets import SETS
from experiments.study_runs import DONE, Cell
from mtl_jax import run as runs
from mtl_jax.config import ExperimentConfig, FlatConfig, MethodConfig, to_dict
from mtl_jax.engine.runfolder import public_environment, write_json_atomic
from mtl_jax.errors import UserError, did_you_mean
from mtl_jax.methods.table import METHODS
from mtl_jax.train import train

LS = "linear_scalarization"
SINGLE = "single.task"  # no name of a method has a dot
FLAT = ".flat"
ALIASES = {"ls": LS}


def methods_of(text: str, *, flat: bool = False) -> list[str]:
    """Returns the rows that `--methods a,b` asks for: LS, a, b and, if `flat`, each with `.flat`.

    Raises:
      UserError: a name that is no row of `mtl_jax/methods/table.py`; none at all.
    """
    names = [LS]
    for word in filter(None, (part.strip() for part in text.split(","))):
        name = ALIASES.get(word, word)
        if name not in METHODS:
            raise UserError(f"--methods: {word!r}; {did_you_mean(word, {*METHODS, *ALIASES})}")
        if name not in names:
            names.append(name)
    if not text.strip(" ,"):
        raise UserError("--methods is empty; give names with commas, as in cagrad,upgrad")
    return names + [f"{name}{FLAT}" for name in names] if flat else names


def sets_of(text: str) -> list[str]:
    """Returns the sets that `--sets a,b` names; all for "".

    Raises:
      UserError: an unknown name.
    """
    names = [part.strip() for part in text.split(",") if part.strip()] or list(SETS)
    for name in names:
        if name not in SETS:
            raise UserError(f"--sets: {name!r}; {did_you_mean(name, SETS)}")
    return list(dict.fromkeys(names))


def cell(name: str, row: str, seed: int) -> Cell:
    """Returns one cell.

    Args:
      name: of the set.
      row: a method of the table, perhaps with `.flat`, or `SINGLE`.
      seed: of the run.
    """
    config: Any = SETS[name].config()
    base = config.method
    if row == SINGLE:
        # The sum: every network has the gradient of its own loss, whatever the number of tasks.
        method = MethodConfig(LS, {"reduction": "sum"}, flat=FlatConfig(combine="erm"))
        config = SETS[name].single(config)
    elif row.endswith(FLAT):
        flat = dataclasses.replace(base.flat, combine="decompose")
        method = MethodConfig(row.removesuffix(FLAT), flat=flat)
    else:
        method = MethodConfig(row, flat=FlatConfig(combine="erm"))
    title = f"{name}-{row}-{seed}"
    return Cell(title, dataclasses.replace(config, name=title, seed=seed, method=method))


def fingerprint(config: ExperimentConfig) -> str:
    """Returns a digest of a config and of the file that its method is written in.

    Who goes on working at a method gets its cells trained anew.
    """
    digest = hashlib.sha256(json.dumps(to_dict(config), sort_keys=True).encode())
    source = inspect.getsourcefile(METHODS[config.method.aggregator].factory)
    if source is not None:
        digest.update(Path(source).read_bytes())
    return digest.hexdigest()


def read_cell(root: Path, one: Cell) -> dict[str, Any] | None:
    """Returns what is recorded of a cell; None unless it was trained as it would be now."""
    try:
        found = json.loads((root / one.name / DONE).read_text())
    except (OSError, ValueError):
        return None
    return found if found.get("fingerprint") == fingerprint(one.config) else None


def run_cell(root: Path, one: Cell) -> dict[str, Any]:
    """Trains a cell and records it; what an earlier one left in its folder is removed.

    A loss that is not finite is a result: the cell then has `error` in place of scores.
    """
    folder = root / one.name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    began = time.perf_counter()
    record: dict[str, Any] = {"scores": {}}
    with (
        open(folder / "log.txt", "w", encoding="utf-8") as log,
        contextlib.redirect_stdout(log),
    ):
        try:
            final = train(one.config, folder / "run")
        except UserError as error:
            if not str(error).startswith("loss not finite"):
                raise
            record["error"] = str(error)
        else:
            lead = "best/test/"
            record["scores"] = {
                name.removeprefix(lead): value
                for name, value in final.items()
                if name.startswith(lead)
            }
            record["best_step"] = final["best/step"]
    record["seconds"] = time.perf_counter() - began
    record["fingerprint"] = fingerprint(one.config)
    record["environment"] = public_environment()
    write_json_atomic(folder / DONE, record)
    return record


def run_cells(root: Path, todo: Sequence[Cell]) -> dict[str, dict[str, Any]]:
    """Trains the cells that are not done, and tells how long it will take; returns all records.

    Args:
      root: folder of the cells.
      todo: the cells; those of a set should be neighbours.
    """
    found: dict[str, dict[str, Any]] = {}
    for one in todo:
        if (record := read_cell(root, one)) is not None:
            found[one.name] = record
    missing = [one for one in todo if one.name not in found]
    print(f"{len(todo)} cells, {len(found)} done already", flush=True)
    previous = ""
    for k, one in enumerate(missing):
        own = _set_of(one.name)
        if own != previous:
            # Compiled steps hold the data of their cells.
            jax.clear_caches()
            gc.collect()
            previous = own
        record = found[one.name] = run_cell(root, one)
        left = seconds_left(found, [cell.name for cell in missing[k + 1 :]])
        print(
            f"[{k + 1}/{len(missing)}] {one.name}: {record.get('error', 'done')},"
            f" {record['seconds']:.1f} s; {_in_words(left)} left",
            flush=True,
        )
    return found


def seconds_left(found: Mapping[str, Mapping[str, Any]], missing: Sequence[str]) -> float:
    """Returns an estimate: of each cell the mean of its set so far, or of all sets."""
    by_set: dict[str, list[float]] = {}
    for name, record in found.items():
        by_set.setdefault(_set_of(name), []).append(record["seconds"])
    means = {name: float(np.mean(values)) for name, values in by_set.items()}
    overall = float(np.mean(list(means.values()))) if means else 0.0
    return sum(means.get(_set_of(name), overall) for name in missing)


def _set_of(name: str) -> str:
    return name.partition("-")[0]


def _in_words(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


def describe(name: str) -> dict[str, Any]:
    """Returns what the table says of a set: sizes, steps, parameters; it is built for that."""
    config = SETS[name].config()
    run = runs.build(config)
    rows = {
        split: int(sum(np.sum(host["mask"]) for host in run.data.eval_batches(split)))
        for split in run.data.splits
    }
    return {
        "tasks": list(run.system.task_names),
        "steps": run.total_steps,
        "batch_size": config.train.batch_size,
        "epochs": run.total_steps / run.data.steps_per_epoch,
        "rows_of_split": {"train": run.data.steps_per_epoch * config.train.batch_size, **rows},
        "parameters": runs.parameter_count(run.init()),
    }

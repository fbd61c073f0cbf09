"""What Cox regression and a random survival forest reach on the real survival sets.

Both are scikit-survival's, fitted on the training rows of a split and judged on its test rows: the
same rows as `mtl_jax` trains and tests on; validation rows served to choose the size of leaves only
(`TASKS`). Columns are made of the training rows (`design`). Reported is Harrell's concordance with
the percentile interval of 1000 resamples of test rows, and the difference of the two on the same
resamples. In sets with two terms it is also taken in each:

    overall   all test rows
    short     all test rows, censored at the border
    long      test rows that outlive the border

scikit-survival lives in an environment of its own: name its Python. Its concordance must be ours,
or the run ends. The file is written after every split; what it has of other sets and splits stays.
`seconds` are of the wall clock and say little where the machine is busy.

    python -m benchmarks.survival_references --peers PATH/bin/python
    python -m benchmarks.survival_references --peers PATH/bin/python --sets unempdur --splits random
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time as clock
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks import timing
from mtl_jax.data.lifetimes import MISSING, LifetimeSet
from mtl_jax.data.lifetimes_io import load_lifetimes
from mtl_jax.engine.runfolder import read_json, write_json_atomic
from mtl_jax.errors import Parser, UserError, did_you_mean, run_command
from mtl_jax.metrics.bootstrap import percentile_interval
from mtl_jax.metrics.survival import bootstrap_concordance, concordance

SPLITS = ("random", "random_1", "random_2")
RESULT = timing.RESULTS / "survival_references.json"
COLUMNS = ("set", "split", "term", "model", "rows", "events", "c", "low", "high", "seconds")


class Task(NamedTuple):
    """A set to judge.

    Attributes:
      border: day between short and long term; None for one term.
      leaf: least rows of a leaf of the forest.
    """

    border: float | None = None
    leaf: int = 3


COX = {"alpha": 1.0}
# low_memory: keeps the risk of a leaf and not its curves; the same risks.
FOREST = {"n_estimators": 100, "random_state": 0, "n_jobs": 1, "low_memory": True}
# Least rows of a leaf: of 3 (the default of scikit-survival), 15 and 50 what was best on validation
# rows of "random" of the default config (hdfail: by forests of 20 trees).
TASKS: Mapping[str, Task] = {
    "unempdur": Task(leaf=50),
    "rhc/default": Task(border=30.0, leaf=3),
    "rhc/no_model_scores": Task(border=30.0, leaf=3),
    "support2/default": Task(border=30.0, leaf=50),
    "support2/no_model_scores": Task(border=30.0, leaf=50),
    "support2/at_entry": Task(border=30.0, leaf=50),
    "hdfail/default": Task(leaf=15),
    "hdfail/at_entry": Task(leaf=15),
}


def design(found: LifetimeSet, train: np.ndarray) -> np.ndarray:
    """Returns columns [N, K] float64 for models that want numbers only.

    Numbers are read on their scale, unknown ones are the training median and have a column that
    says so; all are standardised on training rows. Categories have a column of 0 and 1 for every
    level, and for unknown, that some training row has. A column that is constant there is left out.
    """
    columns = []
    for number in found.numbers:
        values = number.values.astype(np.float64)
        values = np.log1p(values) if number.scale == "log" else values
        unknown = np.isnan(values)
        columns.append(np.where(unknown, np.nanmedian(values[train]), values))
        columns.append(unknown.astype(np.float64))
    count = len(columns)
    for category in found.categories:
        codes = range(MISSING, len(category.levels))
        columns += [(category.codes == code).astype(np.float64) for code in codes]
    matrix = np.stack(columns, axis=1)
    mean, spread = matrix[train].mean(axis=0), matrix[train].std(axis=0)
    kept = spread > 1e-9
    mean[count:], spread[count:] = 0, 1
    return ((matrix - mean[None]) / np.where(kept, spread, 1)[None])[:, kept]


def fit(python: str, data: Mapping[str, np.ndarray], options: Mapping[str, Any]) -> dict[str, Any]:
    """Has the other Python fit all models; returns its answer, with `risks` by model."""
    script = Path(__file__).with_name("side_survival_references.py")
    env = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        np.savez(folder / "data.npz", **data)  # type: ignore[arg-type]
        (folder / "options.json").write_text(json.dumps(options))
        command = [python, str(script), name]
        try:
            done = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
        except OSError as error:
            raise UserError(f"--peers {python}: {error.strerror}; name a Python") from None
        if done.returncode != 0:
            said = (done.stderr.strip().splitlines() or [f"code {done.returncode}"])[-1]
            raise UserError(f"--peers {python} failed ({said}); it needs scikit-survival")
        answer = json.loads(done.stdout.strip().splitlines()[-1])
        with np.load(folder / "risks.npz") as risks:
            return answer | {"risks": dict(risks)}


def terms(time: np.ndarray, event: np.ndarray, border: float | None) -> dict[str, tuple]:
    """Returns {term: (rows, time, event)}, times and events of those rows."""
    everyone = np.arange(len(time))
    found = {"overall": (everyone, time, event)}
    if border is not None:
        inside = event & (time <= border)
        found["short"] = (everyone, np.minimum(time, border), inside)
        late = np.flatnonzero(time > border)
        found["long"] = (late, time[late], event[late])
    return found


def judge(
    python: str, name: str, split: str, found: LifetimeSet, task: Task
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Fits and judges the models on one split; returns rows of the result, and versions."""
    train, test = found.splits[split]["train"], found.splits[split]["test"]
    x, time, event = design(found, train), found.time.astype(np.float64), found.event > 0
    data = {"train_x": x[train], "train_time": time[train], "train_event": event[train]}
    data |= {"test_x": x[test], "test_time": time[test], "test_event": event[test]}
    options = {"cox": COX, "rsf": {**FOREST, "min_samples_leaf": task.leaf}}
    answer = fit(python, data, options)
    rows: list[dict[str, Any]] = []
    for term, (chosen, term_time, term_event) in terms(
        time[test], event[test], task.border
    ).items():
        risks = np.stack([answer["risks"][model][chosen] for model in options])
        values = [concordance(term_time, term_event, risk).value for risk in risks]
        drawn = bootstrap_concordance(term_time, term_event, risks)
        shared = {"set": name, "split": split, "term": term, "rows": len(chosen)}
        shared |= {"events": int(term_event.sum()), "train_rows": len(train)}
        for m, model in enumerate(options):
            its = answer["models"][model]
            if term == "overall" and abs(values[m] - its["concordance"]) > 1e-9:
                raise UserError(
                    f"{name}, {split}: scikit-survival says {its['concordance']!r} of {model}, ours"
                    f" {values[m]!r}; they must agree, report this"
                )
            interval = percentile_interval(values[m], drawn[:, m], 0.95)
            details = {"seconds": round(its["seconds"], 1), "options": options[model]}
            rows.append(shared | {"model": model} | _numbers(interval) | details)
        gap = percentile_interval(values[1] - values[0], drawn[:, 1] - drawn[:, 0], 0.95)
        rows.append(shared | {"model": "rsf - cox"} | _numbers(gap))
    return rows, answer["versions"]


def _numbers(interval: Any) -> dict[str, float]:
    fields = {"c": interval.value, "low": interval.low, "high": interval.high}
    return {key: round(float(value), 5) for key, value in fields.items()}


def means(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns the mean and the least and greatest value over the splits of each measurement."""
    found: dict[tuple, list[float]] = {}
    for row in rows:
        found.setdefault((row["set"], row["term"], row["model"]), []).append(row["c"])
    return [
        {"set": name, "term": term, "model": model, "splits": len(values)}
        | {"c": round(float(np.mean(values)), 5), "least": min(values), "greatest": max(values)}
        for (name, term, model), values in found.items()
    ]


def main(argv: list[str]) -> None:
    """The command."""
    parser = Parser("python -m benchmarks.survival_references")
    parser.add_argument(
        "--peers", default=sys.executable, help="Python with scikit-survival; default: this one"
    )
    parser.add_argument("--sets", nargs="+", default=list(TASKS), help="default: all")
    parser.add_argument("--splits", nargs="+", default=list(SPLITS), help="default: three")
    parser.add_argument("--data-dir", default=None, help="where prepared sets are")
    parser.add_argument("--out", type=Path, default=RESULT, help="the file to write")
    args = parser.parse_args(argv)
    for name in args.sets:
        if name not in TASKS:
            raise UserError(f"--sets {name}; {did_you_mean(name, TASKS)}")
    environment = timing.environment()
    asked = {(name, split) for name in args.sets for split in args.splits}
    kept = read_json(args.out)["rows"] if args.out.exists() else []
    rows = [row for row in kept if (row["set"], row["split"]) not in asked]
    for name in args.sets:  # Every set and split is a cell; others of the file are kept.
        found = load_lifetimes(name, args.data_dir)
        for split in args.splits:
            if split not in found.splits:
                raise UserError(f"--splits {split}; {did_you_mean(split, found.splits)}")
            began = clock.perf_counter()
            new, versions = judge(args.peers, name, split, found, TASKS[name])
            timing.show(new, COLUMNS)
            print(f"{name} {split}: {clock.perf_counter() - began:.0f} s in all", flush=True)
            rows += new
            load = [round(value, 2) for value in os.getloadavg()]
            environment |= {"peers": versions, "load_average_after": load}
            done = {(row["set"], row["split"]) for row in rows}
            value = {
                "benchmark": "survival_references",
                "environment": environment,
                "full": all((name, split) in done for name in TASKS for split in SPLITS),
                "means": means(rows),
                "rows": rows,
            }
            args.out.parent.mkdir(parents=True, exist_ok=True)
            write_json_atomic(args.out, value)
    timing.show(means(rows), ("set", "term", "model", "splits", "c", "least", "greatest"))
    print(f"written: {args.out}")


if __name__ == "__main__":
    run_command(main)

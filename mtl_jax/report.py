"""Draws a run folder: `python -m mtl_jax.report --workdir DIR`.

It writes report.html, a page that needs no other file, and figures/*.png.

A finished run, an interrupted one and one that still trains are all drawn, as far as there is
something to draw; the page says what is missing.
"""

from __future__ import annotations

import argparse
import datetime
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from mtl_jax import config as configs
from mtl_jax import curves, landscape, page
from mtl_jax import run as runs
from mtl_jax.engine import parallel, runfolder
from mtl_jax.engine.state import TrainState
from mtl_jax.engine.writers import read_metrics
from mtl_jax.errors import UserError, run_command
from mtl_jax.facts import header, method_in_words
from mtl_jax.figures import Section, pretty

ORDER = ("accuracy", "nll", "brier", "ece")
NAMES = {"nll": "NLL (nats)", "brier": "Brier", "ece": "ECE"}


def write(workdir: str | Path, run: runs.Run | None = None) -> Path:
    """Draws a run folder and returns the path of its report.html.

    Args:
      workdir: the run folder.
      run: what it holds, where the caller has it already; else it is built from config.json.

    Raises:
      UserError: no run folder, a damaged file in it, or a report that cannot be written.
    """
    workdir = Path(workdir)
    saved = runfolder.read_json(workdir / "config.json")
    config = configs.from_dict(saved) if run is None else run.config
    starts = _read(workdir / "environment.json", [])
    results = _read(workdir / "results.json", None)
    folder = workdir / "figures"
    notes: list[str] = []

    run, states = _open(workdir, run, notes)
    tasks = run.system.task_names if run else _logged_tasks(workdir)
    settings = config.train
    log = curves.read(workdir, tasks, settings.log_every, settings.select, settings.select_mode)

    parts: list[Section | page.Table] = []
    total = run.total_steps if run else None
    if results is None or total not in (None, results.get("last/step")):
        notes.insert(0, _unfinished(log, total, results))
    if results is None:
        parts += _so_far(log)
    else:
        counts = _example_counts(run) if run else {}
        log = log._replace(selected=results.get("best/step", log.selected))
        parts += _results(results, tasks, counts, settings)
    drawn = curves.sections(log, settings.select.rpartition("/")[2], folder)
    parts += _take(drawn, "learning")
    if run and "best" in states:
        system = configs.system_module(config.system)
        parts += system.report(run, states["best"][0], folder)
    parts += _take(drawn, "gradients", "weights", "norms", "gap")
    if run and "last" in states:
        parts.append(_surface(run, *states["last"], folder))
    parts += _take(drawn, "time")
    parts.append(_configuration(config))

    facts = header(config, run, read_metrics(workdir), starts)
    html = page.render(
        config.name,
        f"{_tasks_in_words(tasks)}. {method_in_words(config)}.",
        facts,
        notes,
        parts,
        f"Written by mtl_jax from the run folder {workdir.resolve().name} on"
        f" {datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M} UTC.",
    )
    path = workdir / "report.html"
    runfolder.write_atomic(path, html)
    return path


def _read(path: Path, default: Any) -> Any:
    return runfolder.read_json(path) if path.exists() else default


def _open(
    workdir: Path, run: runs.Run | None, notes: list[str]
) -> tuple[runs.Run | None, dict[str, tuple[TrainState, int]]]:
    """Returns the run and the states of its checkpoints, as far as they are to be had."""
    states: dict[str, tuple[TrainState, int]] = {}
    if parallel.process_count() > 1:
        # Evaluating is a collective, and the other processes are not here.
        notes.append(
            "Several processes trained this run, so what needs the model is not drawn yet; run"
            " `python -m mtl_jax.report --workdir` on this folder on one machine."
        )
        return run, states
    try:
        run = runs.open_run(workdir) if run is None else run
        for which in ("best", "last"):
            states[which] = runs.restore(run, workdir, which, log=notes.append)
    except UserError as error:
        notes.append(f"What needs the model is not drawn: {error}.")
    return run, states


def _logged_tasks(workdir: Path) -> tuple[str, ...]:
    """The tasks by their training losses, for a run that cannot be built here."""
    for record in read_metrics(workdir):
        if record["kind"] == "train":
            return tuple(
                name[: -len("/loss")] for name in record["values"] if name.endswith("/loss")
            )
    return ()


def _tasks_in_words(tasks: Sequence[str]) -> str:
    """How many tasks, and which, the first of many."""
    names = [pretty(task) for task in tasks[:6]] + (["..."] if len(tasks) > 6 else [])
    return f"{len(tasks)} task{'s' if len(tasks) != 1 else ''}: {', '.join(names)}"


def _take(drawn: Mapping[str, Section], *names: str) -> list[Section]:
    return [drawn[name] for name in names if name in drawn]


def _unfinished(log: curves.Log, total: int | None, results: Mapping[str, Any] | None) -> str:
    """Says how far a run got."""
    done = max((int(series.steps[-1]) for series in log.series.values()), default=0)
    of = f" of {total:,}" if total else ""
    if results is not None:
        return (
            f"The results below are of step {results.get('last/step')}, the log reaches step"
            f" {done:,}{of}; the command below goes on."
        )
    if not done:
        return "This run has logged nothing yet. The command below starts it or goes on."
    return (
        f"This run has not finished: its log reaches step {done:,}{of}, and it has no final"
        " results. The command below goes on from the last checkpoint."
    )


def _example_counts(run: runs.Run) -> dict[str, int]:
    """Returns how many examples each evaluation split has."""
    return {
        split: sum(int(np.sum(host["mask"] != 0)) for host in run.data.eval_batches(split))
        for split in run.data.splits
    }


def _results(
    results: Mapping[str, float],
    tasks: Sequence[str],
    counts: Mapping[str, int],
    settings: configs.TrainConfig,
) -> list[page.Table]:
    """The tables of the selected and of the last checkpoint; one where they are the same."""
    order = "highest" if settings.select_mode == "max" else "lowest"
    rule = f"the {order} {settings.select} of all evaluations"
    if results.get("best/step") == results.get("last/step"):
        return [
            _result(results, tasks, "last", counts, "Result", f"{rule} and the last checkpoint")
        ]
    return [
        _result(results, tasks, "best", counts, "Result: selected checkpoint", rule),
        _result(results, tasks, "last", counts, "Result: last checkpoint", "the end of the run"),
    ]


def _result(
    results: Mapping[str, float],
    tasks: Sequence[str],
    which: str,
    counts: Mapping[str, int],
    title: str,
    rule: str,
) -> page.Table:
    """The table of one checkpoint: a row for each split and task, and for their mean."""
    mine = {
        key.removeprefix(f"{which}/"): v
        for key, v in results.items()
        if key.startswith(f"{which}/")
    }
    splits = sorted({key.split("/")[0] for key in mine if "/" in key})
    metrics = _metrics(key.split("/")[-1] for key in mine if "/" in key)
    rows = []
    for split in splits:
        for task in (*tasks, None):
            prefix = f"{split}/{task}/" if task else f"{split}/"
            cells = [_format(metric, mine.get(prefix + metric)) for metric in metrics]
            if any(cells) and (task or len(tasks) > 1):
                rows.append([f"{split}, {pretty(task or 'mean')}", *cells])
    sizes = ", ".join(f"{split} {counts[split]:,} examples" for split in splits if split in counts)
    text = f"Step {int(mine.get('step', 0)):,}, {rule}" + (f"; {sizes}." if sizes else ".")
    return page.Table(title, text, ["", *(_head(m) for m in metrics)], rows)


def _so_far(log: curves.Log) -> list[page.Table]:
    """The table of the last validation, and of the best one, of a run without results."""
    names = [name for name in log.series if name.startswith("validation/")]
    if not names:
        return []
    metrics = _metrics(name.split("/")[-1] for name in names)
    rows = []
    last = int(log.series[names[0]].steps[-1])
    shown = (
        {last: "best and last"} if log.selected == last else {log.selected: "best", last: "last"}
    )
    for step, label in shown.items():
        for task in (*log.tasks, None):
            prefix = f"validation/{task}/" if task else "validation/"
            cells = [_format(m, _at(log, prefix + m, step)) for m in metrics]
            if any(cells) and (task or len(log.tasks) > 1):
                rows.append([f"{label} (step {step}), {pretty(task or 'mean')}", *cells])
    text = (
        "Validation at the best and the last evaluation in the log; the run has no final results."
    )
    return [page.Table("Result so far", text, ["", *(_head(m) for m in metrics)], rows)]


def _at(log: curves.Log, name: str, step: int | None) -> float | None:
    series = log.series.get(name)
    found = np.flatnonzero(series.steps == step) if series is not None else []
    return float(series.values[found[-1]]) if series is not None and len(found) else None


def _metrics(names: Any) -> list[str]:
    """Metric names without repetition, the usual ones first."""
    seen = dict.fromkeys(names)
    return [name for name in ORDER if name in seen] + [name for name in seen if name not in ORDER]


def _head(metric: str) -> str:
    return NAMES.get(metric, pretty(metric))


def _format(metric: str, value: float | None) -> str:
    if value is None:
        return ""
    if not isinstance(value, int | float) or not math.isfinite(value):
        return "not finite"
    return f"{100 * value:.2f} %" if metric == "accuracy" else f"{value:.4f}"


def _surface(run: runs.Run, state: TrainState, step: int, folder: Path) -> Section:
    split = "validation" if "validation" in run.data.splits else run.data.splits[0]
    params, model_state = parallel.to_host((state.params, state.model_state))
    found = landscape.measure(run.system, run.data, params, model_state, split=split)
    point = f"the parameters of step {step:,}, the last checkpoint"
    path = folder / "loss_surface.png"
    return landscape.section(found, run.system.task_names, point, split, path)


def _configuration(config: configs.ExperimentConfig) -> page.Table:
    rows = [[f"`{key}`", f"{value}"] for key, value in configs.flatten(config).items()]
    return page.Table("Configuration", "As in config.json.", ["option", "value"], rows)


def _fail(message: str) -> NoReturn:
    raise UserError(message)


def main(argv: list[str]) -> None:
    """The command."""
    parser = argparse.ArgumentParser("python -m mtl_jax.report", allow_abbrev=False)
    parser.error = _fail  # type: ignore[method-assign]
    parser.add_argument("--workdir", required=True, help="run folder of mtl_jax.train")
    args = parser.parse_args(argv)
    print(write(args.workdir))


if __name__ == "__main__":
    run_command(main)

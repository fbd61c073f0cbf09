"""Draws a run folder: `python -m mtl_jax.report --workdir DIR`.

It writes report.html, a page that needs no other file, and figures/*.png.

A finished run, an interrupted one and one that still trains are all drawn, as far as there is
something to draw; the page says what is missing.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mtl_jax import config as configs
from mtl_jax import run as runs
from mtl_jax.analysis import saved as analyses
from mtl_jax.engine import parallel, runfolder
from mtl_jax.engine.state import TrainState
from mtl_jax.engine.writers import read_metrics
from mtl_jax.errors import Parser, UserError, run_command
from mtl_jax.reporting import curves, landscape, page, tables
from mtl_jax.reporting.facts import header, method_in_words
from mtl_jax.reporting.figures import Section, pretty


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
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder} cannot be made: {error.strerror}; mend or move it") from None
    notes: list[str] = []

    run, states = _open(workdir, run, notes)
    tasks = run.system.task_names if run else _logged_tasks(workdir)
    settings = config.train
    log = curves.read(workdir, tasks, settings.log_every, settings.select, settings.select_mode)

    parts: list[Section | page.Table] = []
    details: list[page.Table] = []
    total = run.total_steps if run else None
    if results is None or total not in (None, results.get("last/step")):
        notes.insert(0, _unfinished(log, total, results))
    if results is None:
        parts += tables.so_far(log)
    else:
        counts = _example_counts(run) if run and parallel.process_count() == 1 else {}
        log = log._replace(selected=results.get("best/step", log.selected))
        scores, details = tables.of_results(
            results, tasks, counts, settings.select, settings.select_mode
        )
        parts += scores
    drawn = curves.sections(log, settings.select.rpartition("/")[2], folder)
    parts += _take(drawn, "learning")
    if run and "best" in states:
        system = configs.system_module(config.system)
        parts += system.report(run, states["best"][0], folder)
    parts += _take(drawn, "gradients", "weights", "norms", "gap")
    if run and "last" in states:
        parts.append(_surface(run, *states["last"], folder))
    parts += analyses.sections(workdir)
    parts += _take(drawn, "time")
    parts += [*details, _configuration(config)]

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
    kind = dict if default is None else type(default)
    return runfolder.read_json(path, kind) if path.exists() else default


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
    more = [f"and {len(tasks) - 6} more"] if len(tasks) > 6 else []
    names = [pretty(task) for task in tasks[:6]] + more
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


def _surface(run: runs.Run, state: TrainState, step: int, folder: Path) -> Section:
    split = "validation" if "validation" in run.data.splits else run.data.splits[0]
    params, model_state = parallel.to_host(run.export((state.params, state.model_state)))
    found = landscape.measure(run.system, run.data, params, model_state, split=split)
    point = f"the parameters of step {step:,}, the last checkpoint"
    path = folder / "loss_surface.png"
    return landscape.section(found, run.system.task_names, point, split, path)


def _configuration(config: configs.ExperimentConfig) -> page.Table:
    rows = [[f"`{key}`", f"{value}"] for key, value in configs.flatten(config).items()]
    return page.Table("Configuration", "As in config.json.", ["option", "value"], rows)


def main(argv: list[str]) -> None:
    """The command."""
    parser = Parser("python -m mtl_jax.report", description=__doc__)
    parser.add_argument("--workdir", required=True, help="run folder of mtl_jax.train")
    args = parser.parse_args(argv)
    print(write(args.workdir))


if __name__ == "__main__":
    run_command(main)

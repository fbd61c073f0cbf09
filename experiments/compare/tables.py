"""What the comparison makes of its cells: means over seeds, Delta_m, mean ranks; table and figure.

Everything is computed from the records of the cells alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.compare.cells import FLAT, LS, SINGLE
from experiments.compare.sets import SETS
from mtl_jax.metrics.multitask import delta_m, mean_rank
from mtl_jax.reporting.figures import COLOURS, MEAN, canvas
from mtl_jax.reporting.markdown import table

Cells = Mapping[str, Mapping[str, Any]]


def task_scores(
    cells: Cells, name: str, row: str, tasks: Sequence[str], metric: str, seeds: Sequence[int]
) -> np.ndarray:
    """Returns a metric of each task [S, T] on the test split; NaN for a run that failed.

    Args:
      cells: records by name.
      name: of the set.
      row: the method.
      tasks: T names.
      metric: of a task.
      seeds: S seeds, each of which has a record.
    """
    values = np.full((len(seeds), len(tasks)), np.nan)
    for s, seed in enumerate(seeds):
        scores = cells[f"{name}-{row}-{seed}"]["scores"]
        if scores:
            values[s] = [scores[f"{task}/{metric}"] for task in tasks]
    return values


def summarise(
    cells: Cells,
    sets: Mapping[str, Mapping[str, Any]],
    rows: Sequence[str],
    seeds: Sequence[int],
) -> dict[str, Any]:
    """Returns everything that the table and the figure show; None stands for what is not a number.

    A set is left out, and listed as `unfinished`, unless every row and the single-task networks
    have a record of every seed.

    Delta_m of a run is against the mean over seeds of the single-task networks, task by task
    (`metrics.multitask.delta_m`); its mean over seeds is that of the mean scores. The rank of a row
    in a set is the mean of its ranks by the tasks' mean scores, equal scores sharing the average of
    their ranks and failed runs being last; single-task networks take no part. `mean_rank` and
    `delta_m` are means over sets, each of which counts the same.

    Args:
      cells: records by name.
      sets: what is to be said of each set (`cells.describe`), with its `tasks`.
      rows: the methods.
      seeds: of the runs.
    """
    shown: dict[str, Any] = {}
    unfinished = []
    for name, about in sets.items():
        wanted = [f"{name}-{row}-{seed}" for row in (SINGLE, *rows) for seed in seeds]
        if any(cell not in cells for cell in wanted):
            unfinished.append(name)
            continue
        shown[name] = {**about, **_of_set(cells, name, about["tasks"], rows, seeds)}
    overall: dict[str, Any] = {}
    for row in rows:
        own = [found["rows"][row] for found in shown.values()]
        if own:
            deltas = np.array([one["deltas"] for one in own], np.float64).mean(0)  # [S]
            overall[row] = {
                "mean_rank": float(np.mean([one["rank"] for one in own])),
                "delta_m": _number(deltas.mean()),
                "delta_m_std": _std(deltas),
            }
    return {
        "seeds": list(seeds),
        "sets": shown,
        "overall": overall,
        "unfinished": unfinished,
    }


def _of_set(
    cells: Cells, name: str, tasks: Sequence[str], rows: Sequence[str], seeds: Sequence[int]
) -> dict[str, Any]:
    spec = SETS[name]
    higher = dict.fromkeys(tasks, spec.higher)
    values = {
        row: task_scores(cells, name, row, tasks, spec.metric, seeds) for row in (SINGLE, *rows)
    }
    reference = dict(zip(tasks, values[SINGLE].mean(0).tolist(), strict=True))
    sound = all(np.isfinite(value) and value > 0 for value in reference.values())
    table_of_means = np.stack([values[row].mean(0) for row in rows])
    ranks = mean_rank(table_of_means, [spec.higher] * len(tasks))
    found: dict[str, Any] = {}
    for row, own in values.items():
        deltas = np.full(len(seeds), np.nan)
        if sound:
            for s, scores in enumerate(own.tolist()):
                deltas[s] = delta_m(dict(zip(tasks, scores, strict=True)), reference, higher)
        by_seed = own.mean(1)
        found[row] = {
            "by_seed": [_number(value) for value in by_seed],
            "mean": _number(by_seed.mean()),
            "std": _std(by_seed),
            "by_task": {
                task: _number(value) for task, value in zip(tasks, own.mean(0), strict=True)
            },
            "deltas": [_number(value) for value in deltas],
            "delta_m": _number(deltas.mean()),
            "delta_m_std": _std(deltas),
            "seconds": [float(cells[f"{name}-{row}-{seed}"]["seconds"]) for seed in seeds],
        }
        if row != SINGLE:
            found[row]["rank"] = float(ranks[list(rows).index(row)])
    return {
        "title": spec.title,
        "metric": spec.metric,
        "label": spec.label,
        "higher_is_better": spec.higher,
        "rows": found,
    }


def _number(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None


def _std(values: np.ndarray) -> float | None:
    return _number(np.std(values, ddof=1)) if len(values) > 1 else None


def row_title(row: str) -> str:
    """A row for people."""
    if row == SINGLE:
        return "single-task networks"
    base, flat = row.removesuffix(FLAT), row.endswith(FLAT)
    return ("LS" if base == LS else base) + (" + flat regions" if flat else "")


def markdown(summary: Mapping[str, Any]) -> str:
    """Returns the table with what has to be said about it."""
    sets, overall, seeds = summary["sets"], summary["overall"], summary["seeds"]
    left_out = ", ".join(summary["unfinished"])
    if not sets:
        return "No results yet: run `make compare`."
    arrows = {True: "higher is better", False: "lower is better"}
    scores = [f"{s['title']} {s['label']} ({arrows[s['higher_is_better']]})" for s in sets.values()]
    body = []
    for row in (SINGLE, *overall):
        ends = ["-", "-"]
        if row in overall:
            own = overall[row]
            delta = _shown(own["delta_m"], own["delta_m_std"], "+.2f")
            ends = [f"{own['mean_rank']:.2f}", delta]
        cells = [
            _shown(s["rows"][row]["mean"], s["rows"][row]["std"], ".4f") for s in sets.values()
        ]
        body.append([row_title(row), *cells, *ends])
    deltas = [
        [row_title(row)]
        + [
            _shown(s["rows"][row]["delta_m"], s["rows"][row]["delta_m_std"], "+.2f")
            for s in sets.values()
        ]
        + [f"{np.mean([s['rows'][row]['seconds'] for s in sets.values()]):.1f}"]
        for row in (SINGLE, *overall)
    ]
    about = [
        [
            s["title"],
            len(s["tasks"]),
            " / ".join(f"{count:,}" for count in s["rows_of_split"].values()),
            f"{s['steps']} of {s['batch_size']}",
            f"{s['epochs']:.2g}",
            f"{s['parameters']:,}",
        ]
        for s in sets.values()
    ]
    environment = summary["environment"]
    versions = ", ".join(f"{name} {v}" for name, v in environment["packages"].items() if v)
    count = f"{len(seeds)} seeds ({', '.join(map(str, seeds))})" if len(seeds) > 1 else "1 seed"
    text = [
        f"Test scores, mean over tasks; mean +- standard deviation over {count}. The checkpoint is"
        " the best on validation. Runs are short on purpose: differences within a standard"
        " deviation or two say nothing.",
        "",
        table(["method", *scores, "mean rank", "mean Delta_m %"], body),
        "",
        "Mean rank: over the tasks of a set, then over sets; among the rows but the single-task"
        " networks. Equal scores share the average of their ranks, and a run that failed is last."
        " It depends on which rows there are.",
        "",
        "Delta_m in %, the mean relative change of the tasks' scores against single-task networks"
        " of the same steps, batches and layers (a whole network for each task, trained side by"
        " side; one checkpoint for all). Lower is better:",
        "",
        table(
            ["method", *(s["title"] for s in sets.values()), "seconds a run, with compiling"],
            deltas,
        ),
        "",
        table(
            [
                "set",
                "tasks",
                "rows: train, in whole batches / validation / test",
                "steps",
                "epochs",
                "parameters of LS",
            ],
            about,
        ),
        "",
        f"Methods with their own default options. Device: {environment['device_count']} x"
        f" {environment['device_kind']}, {environment['cpu_count']} CPUs; Python"
        f" {environment['python']}, {versions}.",
    ]
    if left_out:
        text.append(f"Left out, for not all cells are done: {left_out}.")
    return "\n".join(text)


def _shown(value: float | None, std: float | None, how: str) -> str:
    if value is None:
        return "failed"
    if "+" in how and abs(value) < 0.005:
        value = 0.0  # no "-0.00"
    return f"{value:{how}}" + ("" if std is None else f" +- {std:{how.lstrip('+')}}")


def draw(summary: Mapping[str, Any], path: Path) -> None:
    """Draws Delta_m by set and method, with standard deviations over seeds."""
    sets, rows = summary["sets"], list(summary["overall"])
    width = 0.8 / max(len(rows), 1)
    with canvas(path, height=3.0) as (_, axes):
        ax = axes[0, 0]
        for k, row in enumerate(rows):
            own = [found["rows"][row] for found in sets.values()]
            at = np.arange(len(own)) + (k - (len(rows) - 1) / 2) * width
            ax.bar(
                at,
                [np.nan if one["delta_m"] is None else one["delta_m"] for one in own],
                width,
                yerr=[one["delta_m_std"] or 0 for one in own],
                color=COLOURS[k % len(COLOURS)],
                hatch="//" if row.endswith(FLAT) else None,
                ecolor=MEAN,
                label=row_title(row),
            )
        ax.axhline(0, color=MEAN, lw=0.9)
        ax.set_xticks(range(len(sets)), [found["title"] for found in sets.values()])
        ax.set_ylabel("Delta_m, % (lower is better)")
        ax.grid(visible=False, axis="x")
        ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))

"""The tables of a report: scores of the checkpoints, or of a run that is under way."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from mtl_jax.reporting.curves import Log
from mtl_jax.reporting.figures import pretty
from mtl_jax.reporting.page import Table

Scores = Mapping[str, float]
"""Values by "task/metric", and by "metric" for the mean over tasks or for all of them together."""

ORDER = ("accuracy", "nll", "brier", "ece")
NAMES = {"nll": "NLL (nats)", "brier": "Brier", "ece": "ECE", "miou": "mIoU"}
MANY = 12  # with more tasks, single ones go to a table of their own


def of_results(
    results: Scores,
    tasks: Sequence[str],
    counts: Mapping[str, int],
    select: str,
    mode: str,
) -> tuple[list[Table], list[Table]]:
    """Tabulates results.json.

    Args:
      results: its "best/..." and "last/..." scores.
      tasks: names of the tasks.
      counts: examples of each split, as far as they are known.
      select: the validation metric that picked the best checkpoint.
      mode: "max" or "min".

    Returns:
      The tables of the selected and of the last checkpoint, one where they are the same; and, for
      many tasks, a table of each of them.
    """
    rule = f"the {'highest' if mode == 'max' else 'lowest'} {select} of all evaluations"
    same = results.get("best/step") == results.get("last/step")
    kinds = [("best", "Result: selected checkpoint", rule), ("last", "Result: last checkpoint", "")]
    if same:
        kinds = [("last", "Result", f"{rule} and the last checkpoint")]
    tables, details = [], []
    for which, title, why in kinds:
        mine = _below(results, which)
        splits = sorted({name.split("/")[0] for name in mine if "/" in name})
        sizes = ", ".join(f"{s} {counts[s]:,} examples" for s in splits if s in counts)
        step = f"Step {int(mine.get('step', 0)):,}" + (f", {why}" if why else "")
        text = f"{step}; {sizes}." if sizes else f"{step}."
        groups = {split: _below(mine, split) for split in splits}
        few = len(tasks) <= MANY
        tables.append(scores(title, text, groups, tasks if few else ()))
        if not few and not details:
            details = [scores("Each task", text, groups, tasks)]
    return tables, details


def so_far(log: Log) -> list[Table]:
    """Tabulates the best and the last validation in the log; no table before the first one."""
    names = [name for name in log.series if name.startswith("validation/")]
    if not names:
        return []
    last = int(log.series[names[0]].steps[-1])
    steps = {log.selected: "best", last: "last"}
    if log.selected in (last, None):
        steps = {last: "last" if log.selected is None else "best and last"}
    groups = {}
    for step, label in steps.items():
        at = {name.removeprefix("validation/"): _at(log, name, step) for name in names}
        found = {name: value for name, value in at.items() if value is not None}
        groups[f"{label} (step {step})"] = found
    text = (
        "Validation at the best and the last evaluation in the log: the run has no final results."
    )
    tasks = log.tasks if len(log.tasks) <= MANY else ()
    return [scores("Result so far", text, groups, tasks)]


def scores(title: str, text: str, groups: Mapping[str, Scores], tasks: Sequence[str]) -> Table:
    """Tabulates scores of some groups (splits, or checkpoints).

    Where all tasks have the same metrics, a metric is a column and each task of each group a row;
    otherwise a group is a column and each metric of each task a row.

    Args:
      title: of the table.
      text: above it.
      groups: name to scores.
      tasks: names of the tasks to show; () for the mean over them alone.
    """
    kinds: list[str | None] = [*tasks, *([None] if len(tasks) != 1 else [])]
    metrics = {kind: _metrics(_own(groups.values(), kind)) for kind in kinds}
    if all(found == metrics[kinds[0]] for found in metrics.values()):
        rows = []
        for group, values in groups.items():
            for kind in kinds:
                cells = [_cell(values, kind, metric) for metric in metrics[kinds[0]]]
                rows.append([f"{group}, {pretty(kind or 'mean')}", *cells])
        return Table(title, text, ["", *(_head(metric) for metric in metrics[kinds[0]])], rows)
    rows = [
        [
            f"{pretty(kind or 'all')}: {_head(metric)}",
            *(_cell(v, kind, metric) for v in groups.values()),
        ]
        for kind in kinds
        for metric in metrics[kind]
    ]
    return Table(title, text, ["", *groups], rows)


def _below(values: Scores, prefix: str) -> dict[str, float]:
    """What stands under a prefix, without it."""
    start = f"{prefix}/"
    return {k.removeprefix(start): v for k, v in values.items() if k.startswith(start)}


def _own(groups: Iterable[Scores], kind: str | None) -> list[str]:
    """Names of the metrics of one task, or of those that belong to none."""
    names = [name for values in groups for name in values]
    if kind is None:
        return [name for name in names if "/" not in name and name != "step"]
    return [name.removeprefix(f"{kind}/") for name in names if name.startswith(f"{kind}/")]


def _metrics(names: Iterable[str]) -> list[str]:
    """Metric names without repetition, the usual ones first."""
    seen = dict.fromkeys(names)
    return [name for name in ORDER if name in seen] + [name for name in seen if name not in ORDER]


def _cell(values: Scores, kind: str | None, metric: str) -> str:
    return show(metric, values.get(f"{kind}/{metric}" if kind else metric))


def show(metric: str, value: float | None) -> str:
    """A score as text: accuracy in %, four decimals otherwise; "" for None."""
    if value is None:
        return ""
    if not math.isfinite(value):
        return "not finite"
    return f"{100 * value:.2f} %" if metric == "accuracy" else f"{value:.4f}"


def _head(metric: str) -> str:
    return NAMES.get(metric, pretty(metric))


def _at(log: Log, name: str, step: int | None) -> float | None:
    series = log.series[name]
    found = np.flatnonzero(series.steps == step)
    return float(series.values[found[-1]]) if len(found) else None

"""Figure of a table's run: how well each target is predicted."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mtl_jax.engine import parallel
from mtl_jax.reporting.figures import COLOURS, GREY, Section, canvas, pretty
from mtl_jax.systems.tabular.builders import load
from mtl_jax.systems.tabular.data import prepare

if TYPE_CHECKING:
    from mtl_jax.data.tabular_sets import TabularSet
    from mtl_jax.engine.state import TrainState
    from mtl_jax.run import Run


def report(run: Run, state: TrainState, figures_dir: Path) -> list[Section]:
    """Draws the test score of every target; returns its section of the report.

    Args:
      run: the run.
      state: of the checkpoint to look at, on the devices.
      figures_dir: where the PNG files go.
    """
    if parallel.process_count() > 1:
        return []
    # Imported late: `mtl_jax.run` stands above the systems.
    from mtl_jax import run as runs

    config: Any = run.config
    found = load(config.data)
    values, _ = runs.evaluate(run, state, "test")
    metric = "auc" if found.kind == "binary" else "rrmse"
    scores = [values[f"{task}/{metric}"] for task in found.task_names]
    floor = carried_forward(found)
    path = figures_dir / "targets.png"
    with canvas(path, height=0.9 + 0.22 * len(scores)) as (_, axes):
        ax, places = axes[0, 0], np.arange(len(scores))
        ax.barh(places, scores, color=COLOURS[0], height=0.6, label="model")
        if len(floor):
            ax.plot(floor, places, "|", color=GREY, markersize=12, mew=2, label="present value")
            ax.legend(loc="best")
        if metric == "auc":
            ax.set_xlim(min(0.5, *scores), 1)
        ax.set_yticks(places, [pretty(task) for task in found.task_names])
        ax.invert_yaxis()
        ax.set_xlabel("AUC" if metric == "auc" else "RRMSE (1: the training mean)")
    rows = len(found.splits["test"])
    text = f"Test split, {rows:,} rows."
    if metric == "auc":
        text += (
            f" Over all labels: micro-F1 {values['labels/micro_f1']:.4f}, Hamming loss"
            f" {values['labels/hamming_loss']:.4f}, a label being said above a probability of 1/2."
        )
    else:
        text += (
            " RRMSE is the root mean square error over that of predicting the training mean; its"
            f" mean over targets, aRRMSE, is {values['rrmse']:.4f}."
        )
    if len(floor):
        text += f" Grey: the present value as forecast, aRRMSE {floor.mean():.4f}."
    return [Section("Targets", text, [path])]


def carried_forward(found: TabularSet, split: str = "test") -> np.ndarray:
    """Returns the RRMSE [T] of the present value as forecast; [0] where there is none."""
    if not found.present:
        return np.zeros(0)
    rows = found.splits[split]
    now = found.inputs[rows][:, list(found.present)].astype(np.float64)
    labels = found.labels[rows].astype(np.float64)
    there = ~np.isnan(now) & ~np.isnan(labels)
    error = np.where(there, now - labels, 0)
    deviation = np.where(there, prepare(found, carry=False).columns["deviation"][rows], 0)
    return np.sqrt(np.square(error).sum(0) / np.square(deviation).sum(0))

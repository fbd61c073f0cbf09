"""Figures of molecular networks: the error of each property, predictions against the truth."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from mtl_jax.data.molecules import TARGETS
from mtl_jax.reporting.figures import COLOURS, GREY, MEAN, Section, canvas

if TYPE_CHECKING:
    from mtl_jax.engine.state import TrainState
    from mtl_jax.run import Run

COLUMNS = 4


class Predictions(NamedTuple):
    """Properties of a split's molecules, in the units in which errors are reported.

    Attributes:
      truth: [N, T].
      said: [N, T].
      std: [T], of the training molecules.
    """

    truth: np.ndarray
    said: np.ndarray
    std: np.ndarray


def report(run: Run, state: TrainState, figures_dir: Path) -> list[Section]:
    """Draws what is particular to molecules; returns its sections of the report.

    Args:
      run: the run.
      state: of the checkpoint to look at, on the devices.
      figures_dir: where the PNG files go.
    """
    split, tasks = "test", run.system.task_names
    found = predictions(run, state, split)
    count = len(found.truth)
    return [
        Section(
            "Error of each property",
            f"Mean absolute error on {split} ({count:,} molecules) of the selected checkpoint, in"
            " standard deviations of the training molecules, which is what the loss sees, and"
            " beside each bar in its own unit; dashed is the mean. U0, U, H and G are energies of"
            " atomisation.",
            [draw_errors(found, tasks, figures_dir / "errors.png")],
        ),
        Section(
            "Predictions",
            f"What the selected checkpoint says of each {split} molecule (up) against the truth"
            " (right), in the unit above the panel. The line is where both agree.",
            [draw_predictions(found, tasks, figures_dir / "predictions.png")],
        ),
    ]


def predictions(run: Run, state: TrainState, split: str) -> Predictions:
    """Predicts a split."""
    from mtl_jax import run as runs

    both = list(runs.predictions(run, state, split))
    known = {target.name: target for target in TARGETS}
    scale = np.array([known[name].scale for name in run.system.task_names])
    truth = np.concatenate([batch["target"] for batch, _ in both]) * scale[None]
    said = np.concatenate([out["target"] for _, out in both]) * scale[None]
    std = np.asarray(state.model_state["constants"]["std"], np.float64) * scale
    return Predictions(truth, said, std)


def draw_errors(found: Predictions, tasks: Sequence[str], path: Path) -> Path:
    """Draws a bar a property: mean absolute error in standard deviations."""
    known = {target.name: target for target in TARGETS}
    error = np.abs(found.said - found.truth).mean(0)
    shares = error / found.std
    with canvas(path, height=0.9 + 0.24 * len(tasks)) as (_, axes):
        ax = axes[0, 0]
        ax.barh(range(len(tasks)), shares, 0.65, color=COLOURS[0])
        for t, name in enumerate(tasks):
            shown = f" {error[t]:.3g} {known[name].reported}"
            ax.annotate(shown, (shares[t], t), fontsize=8, va="center")
        ax.axvline(shares.mean(), color=MEAN, linestyle="--", linewidth=1, zorder=0)
        ax.set_yticks(range(len(tasks)), list(tasks))
        ax.invert_yaxis()
        ax.set(xlabel="mean absolute error / standard deviation", xlim=(0, 1.25 * shares.max()))
    return path


def draw_predictions(found: Predictions, tasks: Sequence[str], path: Path) -> Path:
    """Draws a panel a property: a dot a molecule, prediction against truth."""
    known = {target.name: target for target in TARGETS}
    columns = min(COLUMNS, len(tasks))
    rows = -(-len(tasks) // columns)
    with canvas(path, rows, columns, 1.75 * rows + 0.2) as (_, axes):
        for ax in axes.flat[len(tasks) :]:
            ax.axis("off")
        for t, (name, ax) in enumerate(zip(tasks, axes.flat, strict=False)):
            ends = [min(found.truth[:, t].min(), found.said[:, t].min())]
            ends.append(max(found.truth[:, t].max(), found.said[:, t].max()))
            ax.plot(ends, ends, color=GREY, linewidth=0.8)
            ax.plot(
                found.truth[:, t],
                found.said[:, t],
                ".",
                color=COLOURS[0],
                ms=2,
                alpha=0.35,
                rasterized=True,
            )
            ax.set_title(f"{name}, {known[name].reported}", fontsize=8.5)
            ax.tick_params(labelsize=6)
            ax.locator_params(nbins=4)
    return path

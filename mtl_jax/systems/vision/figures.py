"""Figures of image classification: reliability diagrams, and examples with what the model says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from mtl_jax.metrics.classification import NUM_BINS, Calibration
from mtl_jax.reporting import figures
from mtl_jax.reporting.figures import COLOURS, MEAN, Section, pretty
from mtl_jax.reporting.reliability import draw_reliability

if TYPE_CHECKING:
    from mtl_jax.engine.state import TrainState
    from mtl_jax.run import Run

RIGHT, WRONG = 6, 12  # how many examples are shown
LIMIT = 4096  # examples looked at
PANELS = 6  # tasks drawn one by one
MAX_LINES = 3  # tasks spelled out below an image
MISTAKE = COLOURS[1]
# Fashion-MNIST's classes 0..9, shortened.
GARMENTS = ("T-shirt", "trouser", "pullover", "dress", "coat") + (
    ("sandal", "shirt", "sneaker", "bag", "boot")
)


class Predictions(NamedTuple):
    """Examples and what a model says of them.

    Attributes:
      image: [N, H, W, C].
      label: [N, T] int.
      known: [N, T] bool, False where a label is missing.
      probability: [N, T, classes].
    """

    image: np.ndarray
    label: np.ndarray
    known: np.ndarray
    probability: np.ndarray

    @property
    def said(self) -> np.ndarray:
        """The predicted classes [N, T]."""
        return self.probability.argmax(-1)

    @property
    def confidence(self) -> np.ndarray:
        """The probabilities [N, T] of the predicted classes."""
        return self.probability.max(-1)

    @property
    def wrong(self) -> np.ndarray:
        """Which predictions [N, T] are known to be wrong."""
        return self.known & (self.said != self.label)


def report(run: Run, state: TrainState, figures_dir: Path) -> list[Section]:
    """Draws what is particular to image classification; returns its sections of the report.

    Args:
      run: the run.
      state: of the checkpoint to look at, on the devices.
      figures_dir: where the PNG files go.
    """
    # Imported late: `mtl_jax.run` stands above the systems.
    from mtl_jax import run as runs

    split = "test" if "test" in run.data.splits else run.data.splits[-1]
    sections = []
    values, states = runs.evaluate(run, state, split)
    calibrations = {
        task: states[task].calibration
        for task in run.system.task_names
        if hasattr(states.get(task), "calibration")
    }
    if calibrations:
        sections.append(_reliability_section(calibrations, values, split, figures_dir))
    if run.system.predict is not None:
        found = predictions(run, state, split, LIMIT)
        if found is not None:
            names = class_names(getattr(run.config, "data").name, run.system.task_names)  # noqa: B009
            sections.append(_examples_section(found, names, split, figures_dir))
    return sections


def class_names(data: str, tasks: Sequence[str]) -> dict[str, Sequence[str]]:
    """Returns the names of each task's classes; () where they are numbers."""
    garments = data.split("/")[0] == "multi_fashion"
    return {task: GARMENTS if garments or task == "garment" else () for task in tasks}


def predictions(run: Run, state: TrainState, split: str, limit: int) -> Predictions | None:
    """Predicts the first `limit` examples of a split; None without class probabilities."""
    from mtl_jax import run as runs

    parts: list[Predictions] = []
    for batch, out in runs.predictions(run, state, split):
        if "probability" not in out or "image" not in batch:
            return None
        known = batch.get("label_mask", np.ones_like(batch["label"])) != 0
        whole = Predictions(batch["image"], batch["label"], known, out["probability"])
        rows = limit - sum(len(part.image) for part in parts)
        parts.append(Predictions(*(leaf[:rows] for leaf in whole)))
        if rows <= len(batch["image"]):
            break
    return Predictions(*(np.concatenate(leaves) for leaves in zip(*parts, strict=True)))


def _reliability_section(
    calibrations: Mapping[str, Calibration], values: Mapping[str, float], split: str, folder: Path
) -> Section:
    ece = {task: values[f"{task}/ece"] for task in calibrations}
    shown = list(calibrations)
    text = ""
    if len(shown) > PANELS:
        shown = sorted(shown, key=lambda task: -ece[task])[:PANELS]
        text = f" Of {len(calibrations)} tasks the {PANELS} with the largest error are drawn."
    path = draw_reliability(
        {task: calibrations[task] for task in shown}, ece, folder / "reliability.png"
    )
    count = int(max(np.asarray(c.count).sum() for c in calibrations.values()))
    return Section(
        "Reliability",
        f"Accuracy against confidence on {split} ({count:,} examples) of the selected checkpoint,"
        f" in {NUM_BINS} equal bins of the top-1 probability. A calibrated model has its bars on"
        " the diagonal; hatched is what is missing (over-confident) or in excess (under-confident)."
        " Below, how many examples fall into each bin, on a logarithmic scale. ECE is the mean"
        f" distance of accuracy and confidence, weighted by these counts.{text}",
        [path],
    )


def _examples_section(
    found: Predictions, names: Mapping[str, Sequence[str]], split: str, folder: Path
) -> Section:
    right, wrong = choose(found, RIGHT, WRONG)
    path = draw_examples(found, names, [*right, *wrong], folder / "examples.png")
    count, tasks = found.label.shape
    lines = f"The lines below an image are, in order: {', '.join(pretty(task) for task in names)}."
    if tasks > MAX_LINES:
        lines = (
            f"Of the {tasks} tasks at most the {MAX_LINES - 1} most confident mistakes are named."
        )
    mistakes = int(found.wrong.sum())
    return Section(
        "Examples",
        f"From the first {count:,} {split} examples, with what the selected checkpoint says of each"
        f" task and its probability: first {len(right)} with every task right, spread evenly over"
        f" the split, then the {len(wrong)} with the most confident mistakes of all {mistakes:,}"
        f" (of {count * tasks:,} predictions). A mistake is shown as label, arrow, prediction."
        f" {lines}",
        [path],
    )


def choose(found: Predictions, right: int, wrong: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the numbers of examples to show: with all tasks right, and most confidently wrong."""
    good = np.flatnonzero(~found.wrong.any(1) & found.known.any(1))
    if len(good) > right:
        good = good[np.linspace(0, len(good) - 1, right).astype(int)]
    sure = np.where(found.wrong, found.confidence, -1).max(1)
    order = np.argsort(-sure, kind="stable")[:wrong]
    return good, order[sure[order] >= 0]


def draw_examples(
    found: Predictions, names: Mapping[str, Sequence[str]], chosen: Sequence[int], path: Path
) -> Path:
    """Draws examples with a line below each for every task, mistakes in colour."""
    columns = 6
    rows = max(-(-len(chosen) // columns), 1)
    size = 7.0 / (6 + 5 * 0.08)  # inches a side
    text = 0.12 + 0.145 * min(found.label.shape[1], MAX_LINES)
    height = rows * (size + text)
    # Words need more room than digits.
    small = any(names.values()) or found.label.shape[1] > MAX_LINES
    # Placed by hand: what is written below an image must not change its size.
    with figures.canvas(path, rows, columns, height, placed=True) as (figure, axes):
        room = {"wspace": 0.08, "hspace": text / size, "bottom": text / height, "top": 1.0}
        figure.subplots_adjust(left=0.1 / 7.2, right=7.1 / 7.2, **room)
        for ax in axes.flat:
            ax.axis("off")
        for ax, n in zip(axes.flat, chosen, strict=False):
            image = found.image[n]
            grey = {"cmap": "gray", "vmin": 0, "vmax": 255} if image.shape[-1] == 1 else {}
            ax.imshow(np.clip(image, 0, 255).astype(np.uint8).squeeze(), **grey)
            for line, (said, mistake) in enumerate(_lines(found, names, n)):
                ax.text(
                    0.5,
                    -(0.04 + 0.145 * line) / size,
                    said,
                    transform=ax.transAxes,
                    ha="center",
                    va="top",
                    fontsize=6.5 if small else 8,
                    color=MISTAKE if mistake else MEAN,
                    weight="bold" if mistake and not small else "normal",
                )
    return path


def _lines(
    found: Predictions, names: Mapping[str, Sequence[str]], n: int
) -> list[tuple[str, bool]]:
    """Returns (text, whether it is a mistake) for each task, or for the worst of many, named."""
    tasks = found.label.shape[1]
    known = list(names.values())
    order = np.flatnonzero(found.known[n])
    if tasks > MAX_LINES:
        worst = np.where(found.wrong[n], found.confidence[n], -1)
        order = np.argsort(-worst, kind="stable")[: MAX_LINES - 1]
        order = order[worst[order] >= 0]
    lines = []
    for t in order:
        said, label = int(found.said[n, t]), int(found.label[n, t])
        task = known[t] if known[t] else [str(c) for c in range(found.probability.shape[-1])]
        mistake = bool(found.wrong[n, t])
        what = f"{task[label]} \u2192 {task[said]}" if mistake else task[said]
        what = f"{pretty(list(names)[t])}: {what}" if tasks > MAX_LINES else what
        percent = 100 * found.confidence[n, t]
        sure = ">99" if percent >= 99.5 else f"{percent:.0f}"
        lines.append((f"{what}  {sure} %", mistake))
    if tasks > MAX_LINES:
        right = int((found.known[n] & ~found.wrong[n]).sum())
        lines.append((f"{right} of {int(found.known[n].sum())} right", False))
    return lines

"""What a run logged, read back and drawn over its steps."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

from mtl_jax.engine.writers import read_metrics
from mtl_jax.reporting import figures
from mtl_jax.reporting.figures import COLOURS, GREY, MEAN, Section, Series

FLAT_PART = "flat part h (the gradient at the task's perturbed point minus g)"


class Log(NamedTuple):
    """The log of a run.

    Attributes:
      series: what was logged, by name.
      tasks: names of the tasks.
      window: steps a training record is a mean over.
      selected: step of the best evaluation by the config's rule; None before the first one.
    """

    series: Mapping[str, Series]
    tasks: tuple[str, ...]
    window: int
    selected: int | None

    def of(self, name: str, pattern: str = "{task}/{name}") -> dict[str, Series]:
        """Returns {task: series} of the tasks for which `name` was logged, in order."""
        found = {task: self.series.get(pattern.format(task=task, name=name)) for task in self.tasks}
        return {task: series for task, series in found.items() if series is not None}

    def over(self) -> str:
        """What a training point is, in words."""
        return f"means over windows of {self.window} steps" if self.window > 1 else "single steps"


def read(workdir: Path, tasks: tuple[str, ...], window: int, select: str, mode: str) -> Log:
    """Reads the log of a run folder; empty when nothing has been logged yet."""
    points: dict[str, list[tuple[int, float]]] = {}
    for record in read_metrics(workdir):
        for name, value in record["values"].items():
            points.setdefault(name, []).append((record["step"], value))
    series = {}
    for name, pairs in points.items():
        steps, values = zip(*pairs, strict=True)
        series[name] = Series(np.asarray(steps, np.int64), np.asarray(values, np.float64))
    selected = None
    if select in series and np.isfinite(series[select].values).any():
        steps, values = series[select]
        best = np.nanargmax(values) if mode == "max" else np.nanargmin(values)
        selected = int(steps[best])
    return Log(series, tasks, window, selected)


def sections(log: Log, metric: str, folder: Path) -> dict[str, Section]:
    """Draws all curves there is something of.

    Args:
      log: of the run.
      metric: evaluation metric drawn besides the loss, such as "accuracy".
      folder: where the PNG files go.

    Returns:
      Sections by name: learning, gradients, weights, norms, gap, time, as far as the run logged
      them.
    """
    drawn = {
        "learning": _learning(log, metric, folder),
        "gradients": _gradients(log, folder),
        "weights": _weights(log, folder),
        "norms": _norms(log, folder),
        "gap": _gap(log, folder),
        "time": _time(log, folder),
    }
    return {name: section for name, section in drawn.items() if section is not None}


class Panel(NamedTuple):
    """One axis: what goes on it, its title, label and scale."""

    draw: Callable[[Axes], Any]
    title: str
    ylabel: str
    log: bool = False
    legend: bool = True


def _figure(log: Log, panels: Sequence[Panel], path: Path) -> Path:
    with figures.canvas(path, 1, len(panels)) as (_, axes):
        for ax, panel in zip(axes[0], panels, strict=True):
            panel.draw(ax)
            figures.finish(ax, panel.title, panel.ylabel, log=panel.log)
            figures.mark_step(ax, log.selected)
            if panel.legend:
                figures.legend(ax)
    return path


def _learning(log: Log, metric: str, folder: Path) -> Section | None:
    train = log.of("loss")
    at_eval = "validation/{task}/{name}"
    validation = log.of("loss", at_eval) or log.of("nll", at_eval)
    chosen = log.of(metric, at_eval)
    overall = log.series.get(f"validation/{metric}")
    if not chosen and overall is not None:
        chosen = {"all tasks": overall}
    if not train and not validation and not chosen:
        return None

    def losses(ax: Axes) -> None:
        figures.per_task(ax, train, "-", ", train", lw=1.0)
        figures.per_task(ax, validation, "--", ", validation", marker="o")

    def scores(ax: Axes) -> None:
        figures.per_task(ax, chosen, "-", marker="o")
        if 1 < len(chosen) <= len(COLOURS):
            mean = figures.mean_over_tasks(chosen)
            ax.plot(mean.steps, mean.values, color=MEAN, lw=1, label="mean")
        if metric == "accuracy":
            ax.yaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))

    panels = []
    if train or validation:
        panels.append(
            Panel(losses, "Loss", "loss (nats)" if log.of("nll", at_eval) else "loss", True)
        )
    if chosen:
        panels.append(Panel(scores, f"Validation {figures.pretty(metric)}", figures.pretty(metric)))
    evaluations = (
        len(next(iter((chosen or validation).values())).steps) if chosen or validation else 0
    )
    text = (
        f"Training losses are {log.over()}, each taken before its update; validation is"
        f" scored on the whole split ({evaluations} evaluations). The dotted line marks the"
        " checkpoint selected on validation."
    )
    return Section("Learning curves", text, [_figure(log, panels, folder / "learning.png")])


def _gradients(log: Log, folder: Path) -> Section | None:
    cosine, conflict = log.series.get("cosine"), log.series.get("conflict")
    if cosine is None or conflict is None:
        return None

    def cosines(ax: Axes) -> None:
        ax.axhline(0, color=GREY, lw=0.8)
        ax.plot(*cosine, color=COLOURS[0])

    def conflicts(ax: Axes) -> None:
        ax.plot(*conflict, color=COLOURS[1])
        ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
        ax.set_ylim(-0.02, max(0.52, 1.05 * float(np.nanmax(conflict.values))))

    pairs = len(log.tasks) * (len(log.tasks) - 1) // 2
    panels = [
        Panel(cosines, "Cosine between task gradients", "cosine", legend=False),
        Panel(conflicts, "Conflict", "share of steps below 0", legend=False),
    ]
    last = max(1, len(cosine.values) // 4)
    text = (
        "Task gradients of the shared parameters, before aggregation:"
        f" {log.over()} and over {_pairs(pairs)}. A conflict is a negative inner product. Over the"
        f" last quarter of the run the cosine is {np.nanmean(cosine.values[-last:]):.3f} and"
        f" {100 * np.nanmean(conflict.values[-last:]):.0f} % of the steps are in conflict."
    )
    shown = [_figure(log, panels, folder / "conflict.png")]
    matrix = _matrices(log)
    if matrix:
        shown.append(draw_matrices(matrix, log.tasks, folder / "cosines.png"))
        text += (
            " The matrices are means over the first and over the last quarter of the run, of steps"
            " in which both tasks had labels."
        )
    return Section("Conflict between tasks", text, shown)


def _matrices(log: Log) -> dict[str, np.ndarray]:
    """Cosines [T, T] of each pair over two parts of the run; empty where pairs were not logged."""
    size = len(log.tasks)
    first, last = np.full((2, size, size), np.nan)
    for matrix in (first, last):
        np.fill_diagonal(matrix, 1)
    found = False
    for a, b in itertools.combinations(range(size), 2):
        series = log.series.get(f"cosine/{log.tasks[a]}/{log.tasks[b]}")
        if series is not None:
            found = True
            quarter = max(1, len(series.values) // 4)
            first[[a, b], [b, a]] = np.nanmean(series.values[:quarter])
            last[[a, b], [b, a]] = np.nanmean(series.values[-quarter:])
    return {"first quarter": first, "last quarter": last} if found else {}


def draw_matrices(matrices: Mapping[str, np.ndarray], tasks: Sequence[str], path: Path) -> Path:
    """Draws cosines [T, T] by title, with their values, on one scale from -1 to 1."""
    names = [figures.pretty(task) for task in tasks]
    with figures.canvas(path, 1, len(matrices), 3.1) as (figure, axes):
        for ax, (title, values) in zip(axes[0], matrices.items(), strict=True):
            ax.grid(False)
            image = ax.imshow(values, cmap="RdBu_r", vmin=-1, vmax=1)
            for (row, column), value in np.ndenumerate(values):
                if np.isfinite(value):
                    colour = "white" if abs(value) > 0.6 else "black"
                    place = {"ha": "center", "va": "center"}
                    ax.text(column, row, f"{value:.2f}", color=colour, fontsize=7, **place)
            ax.set(title=title)
            ax.set_xticks(range(len(names)), names, rotation=40, ha="right")
            ax.set_yticks(range(len(names)), names)
        figure.colorbar(image, ax=axes[0], label="cosine")
    return path


def _pairs(count: int) -> str:
    return "the one pair of tasks" if count == 1 else f"all {count} pairs of tasks"


def _weights(log: Log, folder: Path) -> Section | None:
    g = Quantity("weight", "Weights of the task gradients", "weight of g", "each task's gradient g")
    h = Quantity("flat_weight", "Weights of the flat parts", "weight of h", f"each {FLAT_PART}")
    text = "What the method multiplies {} by before it adds them up"
    return _quantities(log, folder, (g, h), "Weights of the method", text, "weights.png", False)


def _norms(log: Log, folder: Path) -> Section | None:
    g = Quantity("grad_norm", "Task gradients", "norm of g", "each task's gradient g")
    h = Quantity("flat_norm", "Flat parts", "norm of h", f"each {FLAT_PART}")
    text = "Euclidean norms, over the shared parameters, of {}"
    return _quantities(log, folder, (g, h), "Gradient norms", text, "norms.png", True)


class Quantity(NamedTuple):
    """Something logged of every task: its name there, on a panel, on its axis and in the text."""

    name: str
    title: str
    label: str
    words: str


def _quantities(
    log: Log,
    folder: Path,
    wanted: Sequence[Quantity],
    title: str,
    text: str,
    file: str,
    scale: bool,
) -> Section | None:
    """A panel for each quantity that was logged; `scale` allows a logarithmic axis."""
    panels, words = [], []
    for quantity in wanted:
        if series := log.of(quantity.name):
            draw = functools.partial(figures.per_task, series=series)
            panels.append(Panel(draw, quantity.title, quantity.label, scale))
            words.append(quantity.words)
    if not panels:
        return None
    said = f"{text.format(', and '.join(words))}; {log.over()}."
    return Section(title, said, [_figure(log, panels, folder / file)])


def _gap(log: Log, folder: Path) -> Section | None:
    gap, loss = log.of("gap"), log.of("loss")
    if not gap:
        return None

    def relative(ax: Axes) -> None:
        ratio = {
            task: Series(steps, values / loss[task].values) for task, (steps, values) in gap.items()
        }
        figures.per_task(ax, ratio)

    panels = [Panel(lambda ax: figures.per_task(ax, gap), "Surrogate gap", "loss rise", True)]
    if all(task in loss and len(loss[task].steps) == len(gap[task].steps) for task in gap):
        panels.append(Panel(relative, "Relative to the loss", "loss rise / loss", True))
    text = (
        "Loss at each task's perturbed point minus the loss at the parameters, on the same batch:"
        f" what the task would lose inside its ball; {log.over()}. A flat region has a small gap."
    )
    return Section("Surrogate gap", text, [_figure(log, panels, folder / "gap.png")])


def _time(log: Log, folder: Path) -> Section | None:
    pace = log.series.get("step_ms")
    if pace is None or not np.isfinite(pace.values).any():
        return None
    speed, compiling = log.series.get("examples_per_second"), log.series.get("compile_seconds")

    def draw(ax: Axes) -> None:
        ax.plot(*pace, color=COLOURS[0])
        ax.set_ylim(0, 1.3 * float(np.nanmax(pace.values)))

    text = f"A training step takes {pace.values[-1]:.3g} ms"
    if speed is not None:
        text += f", {speed.values[-1]:,.0f} examples/s"
    text += (
        ": the median of the steady steps since the process started, with data loading and without"
        " evaluations and checkpoints."
    )
    if compiling is not None and compiling.values[-1] > 0:
        text += f" Compiling the step took {compiling.values[-1]:.1f} s more, once."
    panel = Panel(draw, "Time of a training step", "ms per step, median so far", legend=False)
    return Section("Throughput", text, [_figure(log, [panel], folder / "time.png")])

"""Figures: one style for all of them, lines over tasks, and loss surfaces.

Figures are made without pyplot, so nothing here touches the backend or the open figures of a
notebook that imports this package. Colours are Okabe and Ito's, which stay apart for colour-blind
readers; beyond the length of the palette tasks are shown as a bundle with their mean.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MEAN = "#222222"
GREY = "#888888"
WIDTH = 7.2  # inches: the text width of the page
PLAIN = FuncFormatter(lambda value, _: f"{value:g}")
STYLE = {
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 9,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8,
    "legend.edgecolor": "none",
    "legend.framealpha": 0.85,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#E3E3E3",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "lines.linewidth": 1.4,
    "lines.markersize": 3.5,
}


class Section(NamedTuple):
    """A part of the report.

    Attributes:
      title: its heading.
      text: paragraphs, parted by empty lines, that say what is shown and from how much.
      figures: PNG files below the text.
    """

    title: str
    text: str
    figures: Sequence[Path] = ()


class Series(NamedTuple):
    """One logged quantity: `steps` [N] int64, rising, and `values` [N] float64."""

    steps: np.ndarray
    values: np.ndarray


@contextlib.contextmanager
def canvas(
    path: Path, rows: int = 1, columns: int = 1, height: float = 2.7, *, placed: bool = False
) -> Iterator[tuple[Figure, np.ndarray]]:
    """Gives an empty figure of page width in the common style, and writes it as PNG on the way out.

    Args:
      path: of the PNG file.
      rows: of axes.
      columns: of axes.
      height: of the figure, in inches.
      placed: the caller places the axes; else they make room for what is written around them.

    Yields:
      The figure and its axes [rows, columns].
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, height), layout=None if placed else "constrained")
        yield figure, figure.subplots(rows, columns, squeeze=False)
        path.parent.mkdir(parents=True, exist_ok=True)
        # Without the version of the library, so that equal figures are equal files.
        figure.savefig(path, dpi=150, metadata={"Software": None})


def pretty(name: str) -> str:
    """A name for people: "top_left" is "top left"."""
    return name.replace("_", " ")


def per_task(
    ax: Axes, series: Mapping[str, Series], style: str = "-", suffix: str = "", **kwargs: Any
) -> None:
    """Draws one line a task in its own colour; a grey bundle with its mean for many tasks.

    Args:
      ax: where.
      series: task name to what was logged of it, in the order of the tasks.
      style: of the lines.
      suffix: added to the names in the legend.
      kwargs: passed to `Axes.plot`.
    """
    if len(series) <= len(COLOURS):
        for colour, (task, (steps, values)) in zip(COLOURS, series.items(), strict=False):
            ax.plot(steps, values, style, color=colour, label=pretty(task) + suffix, **kwargs)
        return
    for i, (steps, values) in enumerate(series.values()):
        label = f"{len(series)} tasks{suffix}" if i == 0 else None
        ax.plot(steps, values, style, color=GREY, alpha=0.35, lw=0.7, label=label)
    mean = mean_over_tasks(series)
    ax.plot(mean.steps, mean.values, style, color=MEAN, label=f"mean{suffix}", **kwargs)


def mean_over_tasks(series: Mapping[str, Series]) -> Series:
    """Returns the mean over tasks at the steps that all of them have."""
    parts = list(series.values())
    steps = parts[0].steps
    for part in parts[1:]:
        steps = np.intersect1d(steps, part.steps)
    rows = [part.values[np.isin(part.steps, steps)] for part in parts]
    return Series(steps, np.mean(rows, axis=0))


def finish(ax: Axes, title: str, ylabel: str, xlabel: str = "step", *, log: bool = False) -> None:
    """Labels an axis; `log` asks for a logarithmic scale, taken where values span a factor of 8."""
    values = [np.asarray(line.get_ydata(), np.float64) for line in ax.get_lines()]
    for line, points in zip(ax.get_lines(), values, strict=True):
        if len(points) == 1:  # A line of one point is no line.
            line.set_marker("o")
    flat = np.concatenate(values) if values else np.zeros(0)
    flat = flat[np.isfinite(flat)]
    if log and flat.size and flat.min() > 0 and flat.max() > 8 * flat.min():
        ax.set_yscale("log")
        if flat.max() < 2e3 * flat.min():
            ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            ax.yaxis.set_minor_locator(NullLocator())
        ax.yaxis.set_major_formatter(PLAIN)
    ax.set(title=title, ylabel=ylabel, xlabel=xlabel)
    if xlabel.startswith("step"):
        ax.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
        ax.set_xlim(left=0)


def legend(ax: Axes, **kwargs: Any) -> None:
    """Adds a legend where it hides least."""
    ax.legend(**{"loc": "best", "handlelength": 2.2, **kwargs})


def mark_step(ax: Axes, step: int | None) -> None:
    """Marks the step of the selected checkpoint with a dotted line."""
    if step is not None:
        ax.axvline(step, color=MEAN, lw=0.9, ls=":")


def draw_surface(offsets: np.ndarray, losses: np.ndarray, names: Sequence[str], path: Path) -> Path:
    """Draws one contour map a task, and the slices along both directions below.

    Contours lie at round values, and the colours span a range that ends at round values, so that
    the maps of two runs mostly share them.

    Args:
      offsets: [N].
      losses: [N, N, T].
      names: T names.
      path: of the PNG file.
    """
    columns = min(max(len(names), 2), 3)
    rows = -(-len(names) // columns)
    seen = losses[np.isfinite(losses) & (losses > 0)]
    low, high = (seen.min(), seen.max()) if seen.size else (1.0, 1.0)
    # A loss of 1e-9 somewhere would drown the rest.
    low = max(low, 1e-4 * high)
    ends = _round_values((1, 3), low, high)
    lines = _round_values((1, 2, 5) if high > 30 * low else (1, 1.5, 2, 3, 4, 5, 7), low, high)
    with canvas(path, rows + 1, columns, 2.7 * rows + 2.4) as (figure, axes):
        maps = list(axes[:rows].flat)
        scale = LogNorm(ends[0], ends[-1])
        filled: Any = None
        for t, name in enumerate(names):
            filled = _contours(maps[t], offsets, losses[..., t], lines, scale)
            maps[t].set_title(name)
        for ax in maps[len(names) :]:
            ax.axis("off")
        bar = figure.colorbar(filled, ax=maps[: len(names)], label="loss", aspect=30)
        bar.set_ticks(list(ends))
        bar.ax.yaxis.set_major_formatter(PLAIN)
        bar.ax.minorticks_off()
        below = figure.add_subplot(axes[rows, 0].get_gridspec()[rows, :])
        for ax in axes[rows]:
            ax.remove()
        _slices(below, offsets, losses, names)
    return path


def _round_values(digits: Sequence[float], low: float, high: float) -> np.ndarray:
    """Returns consecutive values digit * 10**k, from the last one <= low to the first >= high."""
    decades = np.arange(np.floor(np.log10(low)) - 1, np.ceil(np.log10(high)) + 2)
    values = np.sort(np.outer(10.0**decades, digits).ravel())
    first = np.searchsorted(values, low * (1 + 1e-9), side="right") - 1
    last = max(np.searchsorted(values, high * (1 - 1e-9)), first + 1)
    return values[first : last + 1]


def _contours(
    ax: Axes, offsets: np.ndarray, losses: np.ndarray, levels: np.ndarray, scale: LogNorm
) -> Any:
    low, high = float(scale.vmin or 1), float(scale.vmax or 1)
    field = np.clip(np.nan_to_num(losses, nan=high), low, high).T
    filled = ax.contourf(
        offsets, offsets, field, np.geomspace(low, high, 49), norm=scale, cmap="cividis"
    )
    inside = levels[(levels > field.min()) & (levels < field.max())]
    if inside.size:
        lines = ax.contour(offsets, offsets, field, inside, colors="white", linewidths=0.7)
        ax.clabel(lines, fmt="%g", fontsize=7)
    ax.plot(0, 0, "+", color="white", ms=7, mew=1.4)
    ax.set(xlabel="direction 1", ylabel="direction 2", aspect="equal")
    ax.set(xticks=np.linspace(offsets[0], offsets[-1], 5))
    ax.set(yticks=np.linspace(offsets[0], offsets[-1], 5))
    ax.grid(False)
    return filled


def _slices(ax: Axes, offsets: np.ndarray, losses: np.ndarray, names: Sequence[str]) -> None:
    middle = len(offsets) // 2
    along = (losses[:, middle], losses[middle])
    for k, (style, values) in enumerate(zip(("-", "--"), along, strict=True)):
        series = {name: Series(offsets, values[:, t]) for t, name in enumerate(names)}
        per_task(ax, series, style, f", direction {k + 1}")
    finish(ax, "Slices through the middle", "loss", "distance, in filter norms", log=True)
    ax.set_xlim(offsets[0], offsets[-1])
    legend(ax)

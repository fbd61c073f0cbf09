"""Reliability diagrams: accuracy against confidence, with how many examples have it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullLocator

from mtl_jax.metrics.classification import Calibration, reliability
from mtl_jax.reporting import figures
from mtl_jax.reporting.figures import COLOURS, GREY, MEAN, pretty


def draw_reliability(
    calibrations: Mapping[str, Calibration], ece: Mapping[str, float], path: Path
) -> Path:
    """Draws a reliability diagram with its histogram for each task."""
    columns = min(max(len(calibrations), 2), 3)
    bands = -(-len(calibrations) // columns)
    most = max(float(np.max(np.asarray(c.count))) for c in calibrations.values())
    with figures.canvas(path, 2 * bands, columns, 3.9 * bands) as (_, axes):
        # The histogram is a third as high as the diagram.
        axes[0, 0].get_gridspec().set_height_ratios([3, 1.1] * bands)
        for ax in axes.flat:
            ax.axis("off")
        for i, (task, state) in enumerate(calibrations.items()):
            band, column = divmod(i, columns)
            top, bottom = axes[2 * band, column], axes[2 * band + 1, column]
            _diagram(top, bottom, state, COLOURS[i % len(COLOURS)], most, 8 - columns)
            top.set(title=pretty(task), ylabel="accuracy")
            text = f"ECE {ece[task]:.4f}"
            top.text(0.04, 0.93, text, transform=top.transAxes, va="top", weight="bold")
    return path


def _diagram(
    top: Axes, bottom: Axes, state: Calibration, colour: str, most: float, size: float
) -> None:
    """Draws one task: `most` is the largest count of any task, `size` the counts' font size."""
    table = reliability(state)
    width = table.upper - table.lower
    full = table.count > 0
    lower, width = table.lower[full], width[full]
    accuracy, confidence = table.accuracy[full], table.confidence[full]
    style: dict[str, Any] = {"width": width, "align": "edge", "linewidth": 0.6}
    top.bar(lower, accuracy, color=colour, edgecolor="white", **style)
    gap = np.abs(confidence - accuracy)
    low = np.minimum(confidence, accuracy)
    top.bar(lower, gap, bottom=low, fill=False, hatch="////", edgecolor=MEAN, **style)
    top.plot([0, 1], [0, 1], "--", color=GREY, lw=1)
    top.set(xlim=(0, 1), ylim=(0, 1), xticks=np.linspace(0, 1, 6))
    top.tick_params(labelbottom=False)
    for ax in (top, bottom):
        ax.axis("on")
    bars = bottom.bar(lower, table.count[full], color=GREY, edgecolor="white", **style)
    bottom.bar_label(bars, [f"{n:,.0f}" for n in table.count[full]], fontsize=size, padding=1)
    bottom.set(xlim=(0, 1), xticks=np.linspace(0, 1, 6), xlabel="confidence", ylabel="examples")
    bottom.set(yscale="log", ylim=(0.7, 6 * most))
    bottom.yaxis.set_major_locator(LogLocator(numticks=4))
    bottom.yaxis.set_minor_locator(NullLocator())
    bottom.yaxis.set_major_formatter(figures.PLAIN)

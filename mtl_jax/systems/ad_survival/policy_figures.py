"""Figures of what a model is worth: policies, agreement with operators, weekly calibration."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TypeVar

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

from mtl_jax.metrics.bootstrap import Interval
from mtl_jax.reporting.figures import COLOURS, MEAN, Section, canvas, legend, pretty
from mtl_jax.systems.ad_survival.agreement import Agreement, NextStops
from mtl_jax.systems.ad_survival.calibration import Stops
from mtl_jax.systems.ad_survival.policy_comparison import Frontier, Table

T = TypeVar("T")
_LINES = ("-", "--", ":")
_MARKS = "osD^vP*X<>"
_PERCENT = PercentFormatter(1.0, decimals=0)


def frontier_section(
    fronts: Mapping[str, Frontier], points: Mapping[str, Frontier], folder: Path, note: str = ""
) -> Section:
    """Draws sales lost and net value against the cost that stops free.

    Args:
      fronts: policies at many thresholds, by `pareto`.
      points: policies without a threshold, each a `Frontier` of one.
      folder: where the PNG file goes.
      note: appended to the text, such as what was tuned on which rows.
    """
    path = folder / "policy_frontier.png"
    with canvas(path, columns=2, height=3.3) as (figure, axes):
        for ax, field in zip(axes[0], ("value_lost", "net"), strict=True):
            for name, front, colour, line in _coloured(fronts):
                at = np.argsort(front.cost_freed, kind="stable")
                values = getattr(front, field)[at]
                ax.plot(front.cost_freed[at], values, line, color=colour, label=pretty(name))
            for k, (name, point) in enumerate(points.items()):
                mark = _MARKS[k % len(_MARKS)]
                where = point.cost_freed, getattr(point, field)
                ax.plot(*where, mark, color=MEAN, markersize=5, mfc="white", label=pretty(name))
            ax.set_xlabel("cost freed by stops")
            ax.xaxis.set_major_formatter(_PERCENT)
        axes[0, 0].set_title("Sales lost")
        axes[0, 0].yaxis.set_major_formatter(_PERCENT)
        axes[0, 1].set_title("Value less cost, a creative")
        handles, labels = axes[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=4)
    text = (
        "What a policy saves and loses as its threshold falls. Both shares are of what the"
        " creatives would have cost and sold, had nobody stopped them. Left, lower is better at"
        " the same freed cost; right, higher."
    )
    return Section("Policies: sales lost against cost freed", f"{text} {note}".strip(), [path])


def comparison_section(table: Table, folder: Path, note: str = "") -> Section:
    """Draws the intervals of what policies earn and lose.

    Args:
      table: by `compare`.
      folder: where the PNG file goes.
      note: appended to the text.
    """
    path = folder / "policy_comparison.png"
    wanted = {
        "net_value": ("Net value", "value less cost, a creative"),
        "value_lost": ("Sales lost", "share of those without stops"),
        "early_top_stops": ("Top creatives", "stopped early"),
    }
    shown = [key for key in wanted if all(key in row for row in table.values())]
    with canvas(path, columns=len(shown), height=1.2 + 0.24 * len(table)) as (_, axes):
        for ax, key in zip(axes[0], shown, strict=True):
            for k, row in enumerate(table.values()):
                _dot(ax, row[key], k)
            ax.set(title=wanted[key][0], xlabel=wanted[key][1])
            ax.set_ylim(len(table) - 0.5, -0.5)
            ax.set_yticks(range(len(table)), [])
            if key != "net_value":
                ax.xaxis.set_major_formatter(_PERCENT)
        axes[0, 0].set_yticks(range(len(table)), [pretty(name) for name in table])
    text = (
        "Each policy with its interval over campaigns. Top creatives are the quarter that would"
        " sell the most; early is before the oracle, which knows what each day is expected to earn."
    )
    return Section("Policies side by side", f"{text} {note}".strip(), [path])


def agreement_section(
    found: Mapping[str, Agreement],
    folder: Path,
    weeks: Mapping[str, NextStops] | None = None,
    note: str = "",
) -> Section:
    """Draws bars of the agreement with operators and, if given, precision by week.

    Args:
      found: {name of the risk: agreement}; all with the same landmark and horizon.
      folder: where the PNG file goes.
      weeks: {name: next stops}.
      note: appended to the text.
    """
    path = folder / "agreement.png"
    columns = 3 if weeks else 2
    colours = _colours(found, weeks or {})
    with canvas(path, columns=columns, height=2.9) as (_, axes):
        for ax, key in zip(axes[0], ("precision", "auc"), strict=False):
            for k, (name, one) in enumerate(found.items()):
                _bar(ax, getattr(one, key), k, colours[name])
            ax.set_xticks(range(len(found)), [pretty(n) for n in found], rotation=35, ha="right")
            ax.grid(False, axis="x")
        rate = next(iter(found.values())).base_rate.value
        axes[0, 0].set_title("Flags that are stopped")
        axes[0, 0].set_ylim(0, 1)
        axes[0, 0].yaxis.set_major_formatter(_PERCENT)
        axes[0, 0].axhline(rate, color=MEAN, lw=0.9, ls=":", label="by chance")
        legend(axes[0, 0], loc="upper right")
        axes[0, 1].set_title("AUC")
        lowest = np.nanmin([0.5, *(one.auc.low for one in found.values())])
        axes[0, 1].set_ylim(lowest, 1)
        if weeks:
            ax = axes[0, 2]
            for name, one in weeks.items():
                ax.plot(one.day, one.precision, color=colours[name], label=pretty(name))
            first = next(iter(weeks.values()))
            ax.plot(first.day, first.stopped, ":", color=MEAN, label="by chance")
            ax.set_title("Next in line, by week")
            ax.set_xlabel("first day of the week")
            ax.set_ylim(0, 1.35 * ax.get_ylim()[1])  # Room for the legend.
            ax.yaxis.set_major_formatter(_PERCENT)
            legend(ax, loc="upper right")
    text = "Left, of the creatives flagged, the share that the operator stopped by the horizon."
    if weeks:
        text += " Right, of those next in line at the start of a week, the share stopped within it."
    return Section("Agreement with operators", f"{text} {note}".strip(), [path])


def calibration_section(
    weeks: Mapping[str, Stops], risks: Mapping[str, Stops], folder: Path, note: str = ""
) -> Section:
    """Draws observed over expected stops by week, and both by groups of risk.

    Args:
      weeks: {name of the model: by `weekly_stops`}.
      risks: {name: by `stops_by_risk`}.
      folder: where the PNG file goes.
      note: appended to the text.
    """
    path = folder / "weekly_calibration.png"
    colours = _colours(weeks, risks)
    with canvas(path, columns=2, height=3.3) as (figure, axes):
        left, right = axes[0]
        for k, (name, stops) in enumerate(weeks.items()):
            at = stops.bin + 0.15 * float(np.diff(stops.bin[:2]).sum()) * k
            left.vlines(at, stops.low, stops.high, color=colours[name], lw=1.0, alpha=0.6)
            left.plot(at, stops.ratio, "o-", color=colours[name], label=pretty(name), lw=0.8)
        left.axhline(1, color=MEAN, lw=0.9, ls=":")
        left.set(title="Observed / expected stops", xlabel="first day of the week")
        seen = [s.ratio[np.isfinite(s.ratio)] for s in weeks.values()]
        highest = max((float(values.max()) for values in seen if len(values)), default=1.0)
        left.set_ylim(0, max(2.0, 1.15 * highest))  # Intervals of rare stops may leave it.
        for name, stops in risks.items():
            rows = np.maximum(stops.at_risk, 1)
            x, y = stops.expected / rows, stops.observed / rows
            ends = [end * x for end in (stops.low, stops.high)]
            right.vlines(x, *ends, color=colours[name], lw=1.0, alpha=0.6)
            label = None if name in weeks else pretty(name)
            right.plot(x, y, "o", color=colours[name], label=label)
        right.axline((0, 0), slope=1, color=MEAN, lw=0.9, ls=":")
        right.set(
            title="By groups of risk", xlabel="expected stops a row", ylabel="observed stops a row"
        )
        right.set_xlim(left=0)
        right.set_ylim(bottom=0)
        figure.legend(loc="outside lower center", ncols=4)
    text = (
        "Observed against expected stops, by week and in groups of like risk, with intervals; the"
        " dotted line is perfect calibration."
    )
    return Section("Calibration by week", f"{text} {note}".strip(), [path])


def _colours(*found: Mapping[str, object]) -> dict[str, str]:
    """A colour for each name of all panels."""
    names = dict.fromkeys(name for one in found for name in one)
    return {name: COLOURS[k % len(COLOURS)] for k, name in enumerate(names)}


def _coloured(found: Mapping[str, T]) -> Iterator[tuple[str, T, str, str]]:
    for k, (name, one) in enumerate(found.items()):
        line = _LINES[k // len(COLOURS) % len(_LINES)]
        yield name, one, COLOURS[k % len(COLOURS)], line


def _dot(ax: Axes, interval: Interval, at: float) -> None:
    ax.plot([interval.low, interval.high], [at, at], color=COLOURS[0], linewidth=2.5)
    ax.plot(interval.value, at, "o", color=COLOURS[0], markersize=4)


def _bar(ax: Axes, interval: Interval, at: int, colour: str) -> None:
    ax.bar(at, interval.value, color=colour, width=0.7)
    ax.plot([at, at], [interval.low, interval.high], color=MEAN, linewidth=1.6)

"""Figures of survival networks: concordance, curves, calibration, words, and what stops would earn.

The policy simulation is for generated creatives alone, of which it is known what they would have
earned had nobody stopped them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mtl_jax import survival
from mtl_jax.data.lifetimes import LifetimeSet
from mtl_jax.engine import parallel
from mtl_jax.metrics.survival import concordance_interval, kaplan_meier
from mtl_jax.reporting.figures import COLOURS, GREY, MEAN, Section, canvas, pretty
from mtl_jax.systems.ad_survival.agreement import agreement
from mtl_jax.systems.ad_survival.calibration import stops_by_risk, weekly_stops
from mtl_jax.systems.ad_survival.forecasting import daily_curves
from mtl_jax.systems.ad_survival.oracle_scores import oracle_values
from mtl_jax.systems.ad_survival.policy_figures import (
    agreement_section,
    calibration_section,
    comparison_section,
    frontier_section,
)
from mtl_jax.systems.ad_survival.scores import (
    Forecast,
    concordance_of,
    cut,
    forecast,
    ranked,
    terms_of,
)

if TYPE_CHECKING:
    from mtl_jax.engine.state import TrainState
    from mtl_jax.run import Run

REPLICATES = 200
WORDS = 12  # of a text that are listed
DAYS = 120


def report(run: Run, state: TrainState, figures_dir: Path) -> list[Section]:
    """Draws what is particular to survival; returns its sections of the report.

    Args:
      run: the run.
      state: of the checkpoint to look at, on the devices.
      figures_dir: where the PNG files go.
    """
    if parallel.process_count() > 1:
        return []
    from mtl_jax.systems.ad_survival.builders import load

    config: Any = run.config
    data, found = load(config.data), forecast(run, state, "test")
    sections = [
        _concordance_section(config, data, found, figures_dir),
        _curves_section(data, found, figures_dir),
    ]
    if data.unit == "day" and found.conditional:
        sections.append(_calibration_section(data, found, figures_dir))
        section = _agreement_section(data, found, figures_dir)
        sections += [section] if section else []
    for name, weights in found.looked.items():
        kind, _, text = name.partition("/")
        if kind == "attention":
            sections.append(_words_section(data, found, text, weights, figures_dir))
    if data.path.shape[1] and found.conditional and config.model.head != "cox":
        from mtl_jax.systems.ad_survival.decisions import policy_study

        study = policy_study(run, state)
        note = study.note
        sections.append(frontier_section(study.fronts, study.points, figures_dir, note))
        sections.append(comparison_section(study.table, figures_dir, note))
    return sections


def _groups(data: LifetimeSet, rows: np.ndarray) -> np.ndarray | None:
    return data.group[rows] if data.group_name else None


def _concordance_section(config: Any, data: LifetimeSet, found: Forecast, folder: Path) -> Section:
    rows, values = [], {}
    for m, day in enumerate(found.days):
        for term in terms_of(found, m):
            own, score = ranked(found, data, term, m, config.model.score)
            interval = concordance_interval(
                own.time,
                own.event,
                -score,
                entry=own.entry,
                groups=_groups(data, own.rows),
                replicates=REPLICATES,
            )
            values[f"{term}/c@{day:g}"] = concordance_of(own, score)
            rows.append((term, day, interval))
    best = oracle_values(config.data, data, found, values) if found.conditional else {}
    path = folder / "concordance.png"
    with canvas(path, height=0.9 + 0.3 * len(rows)) as (_, axes):
        ax = axes[0, 0]
        for k, (term, day, interval) in enumerate(rows):
            ax.plot([interval.low, interval.high], [k, k], color=COLOURS[0], linewidth=2.5)
            ax.plot(interval.value, k, "o", color=COLOURS[0], label="model" if k == 0 else None)
            oracle = best.get(f"{term}/oracle_c@{day:g}")
            if oracle is not None:
                label = "best possible" if k == 0 else None
                ax.plot(oracle, k, "*", color=COLOURS[1], markersize=8, label=label)
        ax.axvline(0.5, color=GREY, linewidth=1, linestyle=":")
        names = [f"{pretty(term)}, seen at {day:g}" for term, day, _ in rows]
        ax.set_yticks(range(len(rows)), names)
        ax.invert_yaxis()
        ax.set(xlabel="concordance", title="Concordance on test rows")
        ax.legend(loc="lower right", frameon=False)
    unit = f" {data.group_name}s" if data.group_name else " rows"
    text = (
        f"Harrell's concordance with 95 % intervals over{unit} ({REPLICATES} resamples), by term"
        f" and time of prediction in {data.unit}s, among the rows alive then."
    )
    if best:
        text += " Stars: the best that can be known of the same creatives at the same time."
    if not found.conditional:
        text += (
            "\n\nProtocol paper: rows that ended within the days of history are not left out, so"
            " that the length of the history tells who ended early. These numbers are no forecast."
            f" {_length_alone(data, found)}"
        )
    return Section("Concordance", text, [path])


def _length_alone(data: LifetimeSet, found: Forecast) -> str:
    """What the length of the history reaches without any network."""
    parts = []
    for m, term in enumerate(("short", "long")[: len(found.days)]):
        own = cut(data, found.rows, term, 0.0, found.horizon, False)
        score = np.minimum(data.time[own.rows], found.days[m])
        parts.append(f"{concordance_of(own, score):.3f} ({term})")
    return f"The length alone has concordance {' and '.join(parts)}."


def _curves_section(data: LifetimeSet, found: Forecast, folder: Path) -> Section:
    """Mean predicted curves of thirds of the rows, by risk, beside Kaplan-Meier's."""
    path, end = folder / "survival.png", int(found.grid.end)
    columns = min(len(found.days), 3) if found.conditional else 1
    at = np.linspace(found.grid.start, found.grid.end, 121)
    with canvas(path, columns=columns, height=3.0) as (_, axes):
        for m in range(columns):
            ax, day = axes[0, m], found.days[m] if found.conditional else 0.0
            own = cut(data, found.rows, "overall", day, found.horizon, found.conditional)
            logits = found.hazards[own.inside, m]
            curves = _curves_at(logits, found.grid, at, day)
            order = np.argsort(np.argsort(curves.mean(1), kind="stable"), kind="stable")
            third = order * 3 // max(len(order), 1)
            for k, name in enumerate(("high risk", "middle", "low risk")):
                mine = third == k
                if not mine.any():
                    continue
                colour = COLOURS[k]
                ax.plot(at, curves[mine].mean(0), color=colour, label=name)
                km = kaplan_meier(own.time[mine], own.event[mine], entry=own.entry[mine])
                band = np.concatenate([np.ones((1, 2)), km.interval().T])
                band = band[np.searchsorted(km.time, at, side="right")]
                ax.fill_between(at, *band.T, color=colour, alpha=0.2, linewidth=0)
                ax.step(at, km.at(at), where="post", color=colour, linewidth=0.9, linestyle="--")
            ax.set(title=f"Seen at {day:g}", xlabel=data.unit + "s", ylim=(0, 1.02))
            ax.set_xlim(day, end)
        axes[0, 0].set_ylabel("still running")
        axes[0, 0].legend(frameon=False)
    text = (
        "Test rows in thirds by predicted mean survival. Lines: mean of the predicted curves;"
        " dashes with 95 % bands: Kaplan-Meier of the same rows."
    )
    return Section("Survival curves", text, [path])


def _curves_at(logits: Any, grid: survival.Grid, at: np.ndarray, day: float) -> np.ndarray:
    """S(t) [n, len(at)] of rows alive at `day`."""
    given = max(day, grid.start)
    return np.asarray(survival.survival_at(logits, grid, np.maximum(at, day), given=given))


def _calibration_section(data: LifetimeSet, found: Forecast, folder: Path) -> Section:
    weeks, risks = {}, {}
    days = int(min(found.grid.end, DAYS))
    for m, day in enumerate(found.days):
        own = cut(data, found.rows, "overall", day, found.horizon)
        hazards = _daily_hazards(daily_curves(found.hazards[own.inside, m], found.grid, days))
        name, groups = f"seen at {day:g}", _groups(data, own.rows)
        options = {"entry": int(day), "groups": groups, "replicates": REPLICATES}
        weeks[name] = weekly_stops(np.ceil(own.time), own.event, hazards, **options)
        risks[name] = stops_by_risk(np.ceil(own.time), own.event, hazards, **options)
    return calibration_section(weeks, risks, folder)


def _daily_hazards(curves: np.ndarray) -> np.ndarray:
    """P(stop on day t | alive at its start) [n, D] of curves [n, D]."""
    before = np.concatenate([np.ones_like(curves[:, :1]), curves[:, :-1]], 1)
    return 1 - curves / np.maximum(before, 1e-12)


def _agreement_section(data: LifetimeSet, found: Forecast, folder: Path) -> Section | None:
    """Whether those that operators stop before the short term ends are flagged at a landmark."""
    inside = [m for m, day in enumerate(found.days) if 0 < day < found.horizon and not day % 1]
    if not inside or found.grid.end <= found.horizon:
        return None
    m = inside[-1]
    day, rows = found.days[m], found.rows
    given = _curves_at(found.hazards[:, m], found.grid, np.array([found.horizon - 1]), day)
    time, event = np.ceil(data.time[rows]), (data.event[rows] > 0).astype(np.int32)
    options = {
        "landmark": int(day),
        "horizon": int(found.horizon) - 1,
        "groups": _groups(data, rows),
        "replicates": REPLICATES,
    }
    risks: dict[str, np.ndarray] = {"model": 1 - given[:, 0]}
    names = list(data.history_names)
    if "clicks" in names and "impressions" in names:
        so_far = data.history[rows, : int(day)].sum(1)
        shown = so_far[:, names.index("impressions")]
        risks["click rate"] = -so_far[:, names.index("clicks")] / np.maximum(shown, 1)
    held: Mapping[str, Any] = {
        name: agreement(time, event, risk, **options) for name, risk in risks.items()
    }
    return agreement_section(held, folder)


def _words_section(
    data: LifetimeSet, found: Forecast, text: str, weights: np.ndarray, folder: Path
) -> Section:
    """Which words of a text the encoder attends to, against an equal share."""
    ids = next(own.words for own in data.texts if own.name == text)[found.rows]
    count = np.maximum((ids > 0).sum(1, keepdims=True), 1)
    real = ids > 0
    share = np.bincount(ids[real], (weights * count)[real], len(data.words))
    often = np.bincount(ids[real], minlength=len(data.words))
    enough = np.flatnonzero(often >= max(20, len(ids) // 200))
    ratio = share[enough] / np.maximum(often[enough], 1)
    order = enough[np.argsort(-ratio, kind="stable")]
    path = folder / f"attention_{text}.png"
    shown = order[:WORDS]
    values = share[shown] / np.maximum(often[shown], 1)
    with canvas(path, height=0.8 + 0.22 * max(len(shown), 1)) as (_, axes):
        ax = axes[0, 0]
        ax.barh(range(len(shown)), values, color=COLOURS[0])
        ax.set_yticks(range(len(shown)), [data.words[word] for word in shown])
        ax.axvline(1, color=MEAN, linewidth=1, linestyle=":")
        ax.invert_yaxis()
        ax.set(xlabel="attention, in equal shares", title=f"Words of the {text}")
    note = (
        f"Of words in {max(20, len(ids) // 200)} test rows or more, those that the pooling looks at"
        " most; 1 is what a word would get if all words of its text got the same."
    )
    return Section(f"Attention over the {text}", note, [path])

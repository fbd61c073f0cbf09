"""Figures of recommendation: AUC with intervals, what TRM and TIM look at, task conflict."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from mtl_jax.engine import parallel, rng
from mtl_jax.engine.step import bind
from mtl_jax.metrics.bootstrap import auc_interval
from mtl_jax.metrics.ranking import bayes_auc
from mtl_jax.reporting.figures import COLOURS, GREY, MEAN, Section, canvas, pretty
from mtl_jax.systems.dtrn.scores import Scored, scored

if TYPE_CHECKING:
    from mtl_jax.engine.state import TrainState
    from mtl_jax.run import Run

REPLICATES = 200
BATCHES = 8  # training batches over which gradients are compared
IN_CELL: dict[str, Any] = {"ha": "center", "va": "center", "size": 7}
PARTS = {"tables": "embeddings", "tim": "transformer", "top": "upper network"}


def report(run: Run, state: TrainState, figures_dir: Path) -> list[Section]:
    """Draws what is particular to recommendation; returns its sections of the report.

    Args:
      run: the run.
      state: of the checkpoint to look at, on the devices.
      figures_dir: where the PNG files go.
    """
    if parallel.process_count() > 1:
        return []
    from mtl_jax.systems.dtrn.builders import load

    config: Any = run.config
    found = load(config.data)
    floor = _floor(found)
    sections = [_auc_section(run, scored(run, state, "test"), floor, figures_dir)]
    looked = _looked(run, state)
    if "weights" in looked:
        names = [column.name for column in found.columns]
        names += [attribute.name for attribute in found.attributes]
        names += ["numbers"] if found.dense_names else []
        names += [f"history: {history.name}" for history in found.histories]
        names = names[: looked["weights"].shape[1]]
        sections.append(_weights_section(run, looked["weights"], names, figures_dir))
    if "attention" in looked and config.model.pool == "target":
        names = [history.name for history in found.histories]
        sections.append(_attention_section(run, looked["attention"], names, figures_dir))
    section = _conflict_section(run, state, figures_dir)
    return [*sections, section] if section else sections


def _floor(found: Any) -> Mapping[str, Mapping[str, float]]:
    from mtl_jax.data.recommendation.floors import smoothed_means_floor

    return smoothed_means_floor(found) if found.item else {}


def _auc_section(
    run: Run, found: Scored, floor: Mapping[str, Mapping[str, float]], folder: Path
) -> Section:
    tasks, path = run.system.task_names, folder / "auc.png"
    with canvas(path, height=0.9 + 0.42 * len(tasks)) as (_, axes):
        ax = axes[0, 0]
        for t, task in enumerate(tasks):
            interval = auc_interval(
                found.logits[:, t],
                found.labels[:, t],
                found.group,
                found.weights[:, t],
                replicates=REPLICATES,
            )
            ax.plot([interval.low, interval.high], [t, t], color=COLOURS[0], linewidth=2.5)
            ax.plot(interval.value, t, "o", color=COLOURS[0], label="model" if t == 0 else None)
            for (kind, values), marker in zip(floor.items(), "<>|", strict=False):
                label = kind if t == 0 else None
                ax.plot(values[task], t, marker, color=GREY, markersize=6, label=label)
            if found.truth.shape[1]:
                best = bayes_auc(found.truth[:, t], found.weights[:, t])
                label = "best possible" if t == 0 else None
                ax.plot(best, t, "*", color=COLOURS[1], markersize=8, label=label)
        ax.set_yticks(range(len(tasks)), [pretty(task) for task in tasks])
        ax.set_ylim(len(tasks) - 0.5, -0.5)
        ax.set_xlabel("AUC")
        ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    text = (
        f"AUC on the test split ({len(found.rows):,} rows), with 95 % intervals from"
        f" {REPLICATES} resamples of its {len(np.unique(found.group)):,} users."
    )
    if floor:
        text += " Grey: smoothed means of training labels, which need no model."
    return Section("Ranking", text, [path])


def _looked(run: Run, state: TrainState) -> dict[str, np.ndarray]:
    """Means over the test split of what TRM and TIM look at: [T, n], [T, S, L]."""
    from mtl_jax import run as runs

    sums: dict[str, np.ndarray] = {}
    counts: dict[str, Any] = {}
    for batch, out in runs.predictions(run, state, "test"):
        for name in ("weights", "attention"):
            if name not in out:
                continue
            values = out[name].astype(np.float64)
            if name == "attention":  # a place without an event is no place that was not looked at
                seen = (batch["history"] != 0)[:, None]
                counts[name] = counts.get(name, 0) + seen.sum(0)
            else:
                counts[name] = counts.get(name, 0) + len(values)
            sums[name] = sums.get(name, 0) + values.sum(0)
    return {name: total / np.maximum(counts[name], 1) for name, total in sums.items()}


def _weights_section(run: Run, weights: np.ndarray, names: list[str], folder: Path) -> Section:
    tasks, path = run.system.task_names, folder / "trm_weights.png"
    spread = max(float(np.abs(weights - 1).max()), 0.05)
    with canvas(path, height=1.5 + 0.32 * len(tasks)) as (figure, axes):
        ax = axes[0, 0]
        image = ax.imshow(weights, cmap="RdBu_r", vmin=1 - spread, vmax=1 + spread, aspect="auto")
        ax.set_xticks(range(len(names)), [pretty(n) for n in names], rotation=45, ha="right")
        ax.set_yticks(range(len(tasks)), [pretty(task) for task in tasks])
        ax.grid(False)
        if weights.size <= 80:
            for t, n in np.ndindex(*weights.shape):
                dark = abs(weights[t, n] - 1) > 0.6 * spread
                colour = "white" if dark else MEAN
                ax.text(
                    n, t, f"{weights[t, n]:.2f}", ha="center", va="center", color=colour, size=7
                )
        figure.colorbar(image, ax=ax, label="mean weight")
    text = (
        "What each task makes of each embedding: TRM's weights, averaged over the test split. They"
        " are all 1 before training."
    )
    return Section("Task-specific weights of the embeddings", text, [path])


def _attention_section(run: Run, attention: np.ndarray, names: list[str], folder: Path) -> Section:
    tasks, path = run.system.task_names, folder / "tim_attention.png"
    length = attention.shape[-1]
    with canvas(path, columns=len(names), height=2.6) as (_, axes):
        for s, name in enumerate(names):
            ax = axes[0, s]
            for t, task in enumerate(tasks):
                colour = COLOURS[t % len(COLOURS)]
                ax.plot(range(1, length + 1), attention[t, s, ::-1], "o-", color=colour, label=task)
            ax.set_title(pretty(name))
            ax.set_xlabel("events ago")
            ax.set_ylim(bottom=0)
        axes[0, 0].set_ylabel("attention")
        axes[0, -1].legend()
    text = (
        "How much the candidate attends to the events of each history, by their rank, averaged over"
        " the rows of the test split that have such an event. What is missing to 1 goes to the"
        " place that stands for nothing."
    )
    return Section("Attention over histories", text, [path])


def _conflict_section(run: Run, state: TrainState, folder: Path) -> Section | None:
    """Cosines of task gradients, by part of the network, at the checkpoint."""
    tasks = run.system.task_names
    if len(tasks) < 2:
        return None
    system, data = run.system, run.data

    def measure(params: Any, resident: Any, host: Any, key: Any) -> dict[str, Any]:
        size = jax.tree.leaves(host)[0].shape[0]
        keys = rng.example_keys(key, jnp.arange(size, dtype=jnp.int32))
        batch = data.assemble(resident, host, keys)
        grads, *_ = bind(system, params, state.model_state, batch, keys).task_grads(params)
        parts = {}
        for name, words in PARTS.items():
            leaves = jax.tree.leaves(grads.shared.get(name, {}))
            if leaves:
                flat = [leaf.reshape(len(tasks), -1) for leaf in leaves]
                parts[words] = sum(leaf @ leaf.T for leaf in flat)
        return parts

    compiled = jax.jit(measure)
    params = parallel.to_host(run.export(state.params)) if run.tables else state.params
    cosines: dict[str, list[np.ndarray]] = {}
    for number in range(min(BATCHES, data.steps_per_epoch)):
        host = data.train_batch(number)
        key = rng.key_for(run.config.seed, number, "report")
        for name, gram in compiled(params, data.resident, host, key).items():
            gram = np.asarray(gram, np.float64)
            norms = np.sqrt(np.maximum(np.diag(gram), 1e-30))
            cosines.setdefault(name, []).append(gram / np.outer(norms, norms))
    if not cosines:
        return None
    path = folder / "task_cosines.png"
    with canvas(path, columns=len(cosines), height=2.6) as (figure, axes):
        for ax, (name, found) in zip(axes[0], cosines.items(), strict=True):
            mean = np.mean(found, 0)
            ax.imshow(mean, cmap="RdBu_r", vmin=-1, vmax=1)
            ax.set_title(name)
            ax.grid(False)
            ax.set_xticks(range(len(tasks)), [pretty(t) for t in tasks], rotation=45, ha="right")
            ax.set_yticks(range(len(tasks)), [pretty(t) for t in tasks])
            if len(tasks) <= 6:
                for a, b in np.ndindex(*mean.shape):
                    colour = "white" if abs(mean[a, b]) > 0.6 else MEAN
                    ax.text(
                        b, a, f"{mean[a, b]:.2f}", ha="center", va="center", color=colour, size=7
                    )
        figure.colorbar(axes[0, 0].images[0], ax=list(axes[0]), label="cosine")
    text = (
        "Cosines of the task gradients in what the tasks share, the mean over"
        f" {len(found)} training batches at the selected checkpoint. Below 0 two tasks pull apart."
    )
    return Section("Task conflict", text, [path])

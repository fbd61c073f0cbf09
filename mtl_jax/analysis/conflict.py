"""Do the tasks pull apart? Cosines of task gradients and flat parts over training mini-batches.

Source: FS-MTL (arXiv 2211.13723), figure 3: the share of mini-batches with <g_1, g_2> < 0; and the
cosines between tasks (g_i against g_j) and within one (g_i against its flat part h_i = s_i - g_i).
Here at one checkpoint, with standard deviations over the mini-batches, and over training from what
the run logged.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

from mtl_jax.analysis import drawing
from mtl_jax.analysis.subject import (
    Log,
    NotApplicable,
    Subject,
    mean_over,
    on_batches,
    std_over,
    training_batches,
)
from mtl_jax.methods import gram, ownership
from mtl_jax.methods.base import Array, Problem, Tree
from mtl_jax.methods.ownership import owner_tree
from mtl_jax.methods.perturbation import Perturbation, perturbed_grads
from mtl_jax.reporting import curves, figures
from mtl_jax.reporting.figures import COLOURS, GREY, Section, Series, pretty
from mtl_jax.reporting.page import Table

MATRIX_TASKS = 10


class Conflict(NamedTuple):
    """Cosines over N mini-batches; NaN where a task has no labels or a gradient is zero.

    Attributes:
      gradients: [N, T, T] between g_i and g_j.
      flat: [N, T, T] between h_i and h_j.
      intra: [N, T] between g_i and h_i.
      logged: {"cosine", "conflict"} over training; empty where the run logged none.
    """

    gradients: np.ndarray
    flat: np.ndarray
    intra: np.ndarray
    logged: Mapping[str, Series]


def cosines(problem: Problem, params: Tree, how: Perturbation) -> tuple[Array, Array, Array, Array]:
    """Returns cosines of one batch over the shared parameters.

    Args:
      problem: the batch.
      params: the parameters.
      how: the perturbation behind the flat parts.

    Returns:
      (g_i with g_j [T, T], h_i with h_j [T, T], g_i with h_i [T], whether task i has labels and g_i
      and h_i are not zero [2, T]). 0 where a vector is zero.
    """
    grads, _, active, _ = problem.task_grads(params)
    moved, _ = perturbed_grads(problem, params, grads, how)
    flat = jax.tree.map(jnp.subtract, moved.shared, grads.shared)
    of_g, of_h = gram.gram(grads.shared), gram.gram(flat)
    cross = jnp.diag(gram.gram(grads.shared, flat))
    sizes = jnp.sqrt(jnp.diag(of_g) * jnp.diag(of_h))
    intra = jnp.where(sizes > 0, cross / jnp.where(sizes > 0, sizes, 1), 0)
    known = jnp.stack([active & (jnp.diag(of_g) > 0), active & (jnp.diag(of_h) > 0)])
    return gram.cosines(of_g), gram.cosines(of_h), intra, known


def measure(subject: Subject, hosts: Sequence[Tree], how: Perturbation) -> Conflict:
    """Evaluates the cosines of a checkpoint on host batches, one compiled call a batch.

    Raises:
      NotApplicable: one task, or tasks that share no parameters.
    """
    run, tasks = subject.run, subject.tasks
    owners = jax.tree.leaves(owner_tree(subject.params, run.system.owner, len(tasks)))
    if len(tasks) < 2 or not any(ownership.is_shared(who) for who in owners):
        why = "there is one task" if len(tasks) < 2 else "the tasks share no parameters"
        raise NotApplicable(f"{why}, so no two gradients can be in conflict")

    def one(problem: Problem, params: Tree) -> tuple[Array, ...]:
        return cosines(problem, params, how)

    parts = []
    for g, h, intra, (real_g, real_h) in on_batches(subject, one, hosts):
        parts.append(
            (
                np.where(np.outer(real_g, real_g) > 0, g, np.nan),
                np.where(np.outer(real_h, real_h) > 0, h, np.nan),
                np.where(real_g * real_h > 0, intra, np.nan),
            )
        )
    g, h, intra = (np.stack(leaves) for leaves in zip(*parts, strict=True))
    return Conflict(g, h, intra, {})


def of_subject(subject: Subject, how: Perturbation, batches: int, log: Log) -> Conflict:
    """Returns the conflict at a checkpoint, and what the run logged of it."""
    hosts = training_batches(subject.run.data, batches)
    log(f"{subject.label}: task gradients of {len(hosts)} training mini-batches")
    found, settings = measure(subject, hosts, how), subject.run.config.train
    logged = curves.read(
        subject.workdir, subject.tasks, settings.log_every, settings.select, settings.select_mode
    )
    series = {name: logged.series[name] for name in ("cosine", "conflict") if name in logged.series}
    return found._replace(logged=series)


def pairs(found: np.ndarray) -> np.ndarray:
    """Returns the cosines [N, T (T - 1) / 2] of all pairs of tasks."""
    rows, columns = np.triu_indices(found.shape[1], 1)
    return found[:, rows, columns]


def share_below_zero(found: np.ndarray) -> np.ndarray:
    """Returns the share of mini-batches in conflict [M] of cosines [N, M], of those that count."""
    return mean_over(np.where(np.isnan(found), np.nan, found < 0))


def as_json(found: Conflict, tasks: Sequence[str]) -> dict[str, Any]:
    """Means and standard deviations over mini-batches, pair by pair and task by task."""
    g, h = pairs(found.gradients), pairs(found.flat)
    names = [f"{a}/{b}" for a, b in itertools.combinations(tasks, 2)]

    def by_name(names: Sequence[str], values: np.ndarray) -> dict[str, dict[str, float]]:
        return {
            name: {"mean": mean, "std": std, "below_zero": share}
            for name, mean, std, share in zip(
                names, mean_over(values), std_over(values), share_below_zero(values), strict=True
            )
        }

    return {
        "batches": len(g),
        "conflict": mean_over(share_below_zero(g)),
        "inter_gradients": by_name(names, g),
        "inter_flat_parts": by_name(names, h),
        "intra": by_name(tasks, found.intra),
        "logged": {name: series._asdict() for name, series in found.logged.items()},
    }


def present(
    found: Mapping[str, Conflict], tasks: Sequence[str], folder: Path
) -> tuple[Section, Table]:
    """Draws the conflict of one run or two."""
    paths = [folder / "conflict.png"]
    logged = any(own.logged for own in found.values())
    with figures.canvas(paths[0], 1, 3 if logged else 1, 2.9) as (_, axes):
        _draw_cosines(axes[0, 0], found)
        for ax, name in zip(axes[0, 1:], ("cosine", "conflict"), strict=False):
            for k, (style, (label, own)) in enumerate(drawing.styled(found)):
                if name in own.logged:
                    ax.plot(*own.logged[name], style, color=COLOURS[k], label=label)
            title = {"cosine": "Mean cosine, training", "conflict": "Conflict, training"}[name]
            figures.finish(ax, title, {"cosine": "cosine", "conflict": "share below 0"}[name])
            if name == "conflict":
                ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
            if ax.get_legend_handles_labels()[0]:
                figures.legend(ax)
    if 2 < len(tasks) <= MATRIX_TASKS:
        matrices = {label: mean_over(own.gradients) for label, own in found.items()}
        paths.append(curves.draw_matrices(matrices, tasks, folder / "cosines.png"))
    count = len(next(iter(found.values())).intra)
    text = (
        f"Task gradients g of the shared parameters over {count} training mini-batches, and flat"
        " parts h, the gradient at a task's worst point minus g. Bars are standard deviations over"
        " mini-batches; a conflict is a negative inner product."
    )
    rows = []
    for label, own in found.items():
        for name, values in (
            ("inter-task, g_i with g_j", pairs(own.gradients)),
            ("inter-task, h_i with h_j", pairs(own.flat)),
        ):
            rows.append([name, label, *_row(values)])
        if len(tasks) <= MATRIX_TASKS:
            rows += [
                [f"intra-task, g with h, {pretty(task)}", label, *_row(own.intra[:, t : t + 1])]
                for t, task in enumerate(tasks)
            ]
        else:
            rows.append(["intra-task, g with h", label, *_row(own.intra)])
    head = ["", "run", "mean cosine", "std", "below 0"]
    title = "Conflict between tasks"
    return Section(title, text, paths), Table(title, text, head, rows)


def _row(values: np.ndarray) -> list[str]:
    """Mean, standard deviation over batches and share below zero of cosines [N, M]."""
    each = mean_over(values, 1)
    share = mean_over(share_below_zero(values))
    shown = drawing.number(float(mean_over(each))), drawing.number(float(std_over(each)))
    return [*shown, drawing.percent(float(share))]


def _draw_cosines(ax: Axes, found: Mapping[str, Conflict]) -> None:
    names = ["g$_i$, g$_j$", "h$_i$, h$_j$", "g$_i$, h$_i$"]
    width = 0.7 / len(found)
    for k, (label, own) in enumerate(found.items()):
        parts = (pairs(own.gradients), pairs(own.flat), own.intra)
        means = [mean_over(mean_over(part, 1)) for part in parts]
        spread = [std_over(mean_over(part, 1)) for part in parts]
        left = np.arange(3) + (k - (len(found) - 1) / 2) * width
        style = {"color": COLOURS[k], "label": label, "ecolor": GREY, "capsize": 2}
        ax.bar(left, means, width, yerr=spread, **style)
    ax.axhline(0, color=GREY, lw=0.8)
    ax.set_xticks(range(3), names)
    ax.set(title="Cosines, checkpoint", ylabel="cosine")
    if len(found) > 1:
        figures.legend(ax)

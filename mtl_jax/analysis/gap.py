"""The surrogate gap of each task: how far its loss rises at its own worst point nearby.

Source: FS-MTL (arXiv 2211.13723), equations 9-10 and figure 2: L_i(theta + eps_i, phi_i + eps_i) -
L_i(theta, phi_i), with eps_i from the same gradient and the same `Perturbation` as in training,
here for a grid of radii. Each batch has its own worst points, as in training.

A gap has two parts: what the gradient gives, <g_i, eps_i>, which vanishes where a task has
converged, and the rest, which is curvature. Both are reported: a model with a smaller gradient has
a smaller gap without being any flatter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax

from mtl_jax.analysis import drawing
from mtl_jax.analysis.subject import (
    Log,
    Subject,
    batches_of,
    examples_in,
    mean_over,
    on_batches,
    std_over,
)
from mtl_jax.config import FlatConfig
from mtl_jax.methods import ownership
from mtl_jax.methods.base import Array, Problem, TaskGrads, Tree
from mtl_jax.methods.perturbation import (
    Perturbation,
    perturbed_grads,
    scaled_grads,
    task_norms,
)
from mtl_jax.reporting import figures
from mtl_jax.reporting.figures import Section, Series, pretty
from mtl_jax.reporting.page import Table

FACTORS = (0.1, 0.25, 0.5, 1.0, 1.5, 2.0)


class Gaps(NamedTuple):
    """Gaps of one split; NaN where a batch has no labels of a task.

    Attributes:
      examples: in all batches.
      loss: [N, T] at the parameters, by batch.
      gap: [N, R, T] rise of the loss at the worst point, by batch and radius.
      linear: [N, R, T] the part of it that the gradient gives, <g, eps>.
    """

    examples: int
    loss: np.ndarray
    gap: np.ndarray
    linear: np.ndarray


def unit_ball(flat: FlatConfig) -> Perturbation:
    """Returns the perturbation of a config at radius 1 for the shared parameters.

    The radius of the heads keeps its ratio to that of the shared parameters.
    """
    heads = flat.rho if flat.rho_heads is None else flat.rho_heads
    ratio = heads / flat.rho if flat.rho > 0 else 1.0
    return Perturbation(1.0, ratio, flat.norm, flat.adaptive, flat.eta)


def common_ball(flats: Sequence[FlatConfig], kind: str = "auto") -> tuple[Perturbation, float]:
    """Returns (the perturbation at radius 1, the radius of training) by which runs are measured.

    All runs by the same one: that of the first that was trained in flat regions as FS-MTL defines
    them, else that of the first config. `kind` "adaptive" or "plain" overrules its metric; where
    that makes it another one, the radius of training says nothing and 0 is returned.
    """
    flat = next((flat for flat in flats if flat.combine not in ("erm", "samo")), flats[0])
    ball = unit_ball(flat)
    if kind == "auto" or ball.adaptive == (kind == "adaptive"):
        return ball, flat.rho
    return ball._replace(adaptive=kind == "adaptive"), 0.0


def radii(rho: float, adaptive: bool) -> tuple[float, ...]:
    """Returns the grid of radii around that of training, or around a usual one where it is 0."""
    centre = rho if rho > 0 else (2.0 if adaptive else 0.05)
    return tuple(float(f"{factor * centre:.6g}") for factor in FACTORS)


def at_radius(ball: Perturbation, rho: Any) -> Perturbation:
    """Returns a perturbation of radius 1 at radius `rho`, a number or a traced one."""
    return ball._replace(rho_shared=rho * ball.rho_shared, rho_heads=rho * ball.rho_heads)


def first_order(problem: Problem, params: Tree, grads: TaskGrads, ball: Perturbation) -> Array:
    """Returns <g_i, eps_i> [T] at radius 1: the slope of the gap at radius 0."""
    owners = problem.owners
    shared = ownership.select(params, owners, ownership.is_shared)
    heads = ownership.select(params, owners, ownership.is_head)
    scaled = scaled_grads(grads, shared, heads, ball)
    # <g, T^2 g> / |T g| is |T g| again.
    of_shared, of_heads = task_norms(scaled, owners, problem.num_tasks, "separate")
    if ball.norm == "separate":
        return ball.rho_shared * of_shared + ball.rho_heads * of_heads
    square = ball.rho_shared * of_shared**2 + ball.rho_heads * of_heads**2
    return square / (jnp.sqrt(of_shared**2 + of_heads**2) + ball.eps)


def gaps(
    problem: Problem, params: Tree, rhos: Array, ball: Perturbation
) -> tuple[Array, Array, Array, Array]:
    """Evaluates the gaps of one batch.

    Args:
      problem: the batch.
      params: the parameters.
      rhos: [R] radii.
      ball: the perturbation at radius 1.

    Returns:
      (loss [T], gap [R, T], linear part [R, T], active [T]).
    """
    grads, losses, active, _ = problem.task_grads(params)

    def rise(rho: Array) -> Array:
        return perturbed_grads(problem, params, grads, at_radius(ball, rho))[1] - losses

    slope = first_order(problem, params, grads, ball)
    return losses, lax.map(rise, rhos), rhos[:, None] * slope[None], active


def measure(
    subject: Subject, hosts: Sequence[Tree], rhos: Sequence[float], ball: Perturbation
) -> Gaps:
    """Evaluates the gaps of a checkpoint on host batches, one compiled call a batch."""

    def one(problem: Problem, params: Tree, rhos: Array) -> tuple[Array, ...]:
        return gaps(problem, params, rhos, ball)

    parts = []
    for loss, gap, linear, active in on_batches(subject, one, hosts, np.asarray(rhos, np.float32)):
        known = active > 0
        parts.append(tuple(np.where(known, leaf, np.nan) for leaf in (loss, gap, linear)))
    loss, gap, linear = (np.stack(leaves) for leaves in zip(*parts, strict=True))
    return Gaps(examples_in(hosts), loss, gap, linear)


def of_subject(
    subject: Subject,
    splits: Sequence[str],
    rhos: Sequence[float],
    ball: Perturbation,
    batches: int,
    seed: int,
    log: Log,
) -> dict[str, Gaps]:
    """Returns the gaps by split."""
    found = {}
    for split in splits:
        hosts = batches_of(subject, split, batches, seed, log)
        log(f"{subject.label}: surrogate gap at {len(rhos)} radii on {split}")
        found[split] = measure(subject, hosts, rhos, ball)
    return found


def as_json(found: Mapping[str, Gaps]) -> dict[str, Any]:
    """Means over the batches, and standard deviations between them, by split."""
    return {
        split: {
            "examples": gaps.examples,
            "batches": len(gaps.gap),
            "loss": mean_over(gaps.loss),
            "gap_mean": mean_over(gaps.gap),
            "gap_std": std_over(gaps.gap),
            "linear_mean": mean_over(gaps.linear),
        }
        for split, gaps in found.items()
    }


def present(
    found: Mapping[str, Mapping[str, Gaps]],
    tasks: Sequence[str],
    rhos: Sequence[float],
    ball: Perturbation,
    mark: float,
    folder: Path,
) -> tuple[Section, Table]:
    """Draws the gaps of one run or two.

    Args:
      found: by label of the run and by split.
      tasks: names of the tasks.
      rhos: [R].
      ball: at radius 1, for the words.
      mark: radius that the table shows, one of `rhos`.
      folder: where the figure goes.
    """
    splits = list(next(iter(found.values())))
    path, x = folder / "gap.png", np.asarray(rhos)
    with figures.canvas(path, 1, len(splits), 2.9) as (_, axes):
        for ax, split in zip(axes[0], splits, strict=True):
            for style, (label, by_split) in drawing.styled(found):
                mean = mean_over(by_split[split].gap)
                lines = {task: Series(x, mean[:, t]) for t, task in enumerate(tasks)}
                figures.per_task(ax, lines, style, drawing.suffix(label, found), marker="o")
            figures.finish(ax, f"Surrogate gap, {split}", "rise of the loss", "radius", log=True)
            figures.legend(ax)
    at, rows = list(rhos).index(mark), []
    for split in splits:
        for t, task in enumerate(tasks):
            for label, by_split in found.items():
                own = by_split[split]
                numbers = (
                    mean_over(own.loss)[t],
                    mean_over(own.gap)[at, t],
                    mean_over(own.linear)[at, t],
                    mean_over(own.gap - own.linear)[at, t],
                )
                rows.append([f"{split}, {pretty(task)}", label, *map(drawing.number, numbers)])
    gaps = next(iter(found.values()))
    counts = ", ".join(f"{gaps[s].examples:,} {s} examples" for s in splits)
    text = (
        "Rise of each task's loss at its own worst point, found by one gradient step on the same"
        f" batch as in training: {'adaptive' if ball.adaptive else 'plain'} ball, {ball.norm} norm;"
        f" mean over batches of {counts}. Evaluation mode."
    )
    head = ["", "run", "loss", f"gap at {mark:g}", "of it by the gradient", "by curvature"]
    return Section("Surrogate gap", text, [path]), Table("Surrogate gap", text, head, rows)

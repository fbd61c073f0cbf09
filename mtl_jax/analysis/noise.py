"""Robustness to noise in the weights: the metric of each task along random directions.

Source: the released scripts of FS-MTL (random unit directions over all weights, growing radius,
mean and standard deviation of the accuracy). Radii are lengths in weight space, not shares of a
model's own norm, so that two runs are moved equally far; directions follow from the seed and the
shapes, so two runs of one model are moved along the same ones. Heads move too; running batch
statistics and parameters that were not trained do not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.flatten_util import ravel_pytree

from mtl_jax.analysis import drawing
from mtl_jax.analysis.subject import (
    Log,
    Subject,
    batches_of,
    compiled,
    examples_in,
    mean_over,
    stack,
    std_over,
)
from mtl_jax.engine import parallel, rng
from mtl_jax.metrics.base import compute
from mtl_jax.reporting import figures
from mtl_jax.reporting.figures import COLOURS, Section, Series, pretty
from mtl_jax.reporting.page import Table
from mtl_jax.systems.base import Data, System

Array = jax.Array
Tree = Any

SHARES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0)
FAMILIAR = ("accuracy", "auc", "nll", "loss")


class Noise(NamedTuple):
    """Metrics along random directions on one split.

    Attributes:
      examples: behind each number.
      metric: its name.
      values: [directions, radii, T]; NaN for a task that does not have it.
    """

    examples: int
    metric: str
    values: np.ndarray


def norm_of(params: Tree, free: Tree) -> float:
    """Returns the Euclidean norm of the trained parameters."""
    leaves = jax.tree.leaves(jax.tree.map(lambda leaf, on: leaf if on else None, params, free))
    return float(jnp.sqrt(sum(jnp.sum(jnp.square(leaf)) for leaf in leaves)))


def unit_direction(key: Array, params: Tree, free: Tree) -> Tree:
    """Returns a uniformly random direction of norm 1 over the trained parameters.

    Args:
      key: what it follows from, with the shapes of the leaves.
      params: tree of arrays.
      free: tree of bool; False for leaves that stay.
    """
    # One draw for all leaves: each of its own would be compiled for itself, at a second a leaf.
    flat, unravel = ravel_pytree(params)
    drawn = unravel(jax.random.normal(key, flat.shape, flat.dtype))
    kept = jax.tree.map(lambda leaf, on: leaf * on, drawn, free)
    norm = jnp.sqrt(sum(jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(kept)))
    return jax.tree.map(lambda leaf: leaf / norm.astype(leaf.dtype), kept)


def along(
    system: System,
    data: Data,
    params: Tree,
    model_state: Tree,
    resident: Tree,
    hosts: Tree,
    direction: Tree,
    radii: Array,
) -> Tree:
    """Returns metric states with a leading axis [R], of the parameters + radius * direction.

    Sums over the batches `hosts` [N, B, ...] are taken on the device: a few thousand examples,
    whose float32 sums lose nothing that would show.
    """

    def states(params: Tree, host: Tree) -> Tree:
        return system.metrics(params, model_state, data.assemble(resident, host, None))

    def at(radius: Array) -> Tree:
        moved = jax.tree.map(lambda w, d: w + radius.astype(w.dtype) * d, params, direction)
        first = jax.tree.map(lambda leaf: leaf[0], hosts)
        shapes = jax.eval_shape(lambda: states(moved, first))
        zero = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)

        def add(total: Tree, host: Tree) -> tuple[Tree, None]:
            return jax.tree.map(jnp.add, total, states(moved, host)), None

        return lax.scan(add, zero, hosts)[0]

    return lax.map(at, radii)


def metric_name(values: Mapping[str, float], tasks: Sequence[str], wanted: str) -> str:
    """Returns `wanted` where each task has it, else the first familiar metric that each has.

    Else one that each task has, and at last `wanted` if any task has it.
    """
    own = [{n.partition("/")[2] for n in values if n.partition("/")[0] == task} for task in tasks]
    common = set.intersection(*own)
    for name in (wanted, *FAMILIAR, *sorted(common)):
        if name in common:
            return name
    return wanted


def measure(
    subject: Subject, hosts: Sequence[Tree], radii: Sequence[float], directions: int, seed: int
) -> Noise:
    """Evaluates a checkpoint along random directions; one compiled call a direction."""
    run, tasks = subject.run, subject.tasks

    def one(params: Tree, model_state: Tree, resident: Tree, hosts: Tree, key: Array) -> Tree:
        direction = unit_direction(key, params, subject.free)
        points = jnp.asarray(radii, jnp.float32)
        args = (run.system, run.data, params, model_state, resident, hosts, direction, points)
        return along(*args)

    fn, stacked = compiled(one), parallel.replicate(stack(hosts))
    wanted = run.config.train.select.rpartition("/")[2]
    values = np.full((directions, len(radii), len(tasks)), np.nan)
    for k in range(directions):
        key = rng.key_for(seed, k, "noise")
        states = fn(subject.params, subject.model_state, run.data.resident, stacked, key)
        states = parallel.to_host(states)
        for r in range(len(radii)):
            found = compute(jax.tree.map(lambda leaf, r=r: leaf[r], states))
            if k == r == 0:
                wanted = metric_name(found, tasks, wanted)
            values[k, r] = [found.get(f"{task}/{wanted}", np.nan) for task in tasks]
    return Noise(examples_in(hosts), wanted, values)


def of_subject(
    subject: Subject,
    splits: Sequence[str],
    radii: Sequence[float],
    directions: int,
    batches: int,
    seed: int,
    log: Log,
) -> dict[str, Noise]:
    """Returns what noise does to a checkpoint, by split."""
    found = {}
    for split in splits:
        hosts = batches_of(subject, split, batches, seed, log)
        log(f"{subject.label}: {directions} directions x {len(radii)} radii on {split}")
        found[split] = measure(subject, hosts, radii, directions, seed)
    return found


def as_json(found: Mapping[str, Noise]) -> dict[str, Any]:
    """Means and standard deviations over the directions, by split."""
    return {
        split: {
            "examples": noise.examples,
            "metric": noise.metric,
            "directions": len(noise.values),
            "mean": mean_over(noise.values),
            "std": std_over(noise.values),
        }
        for split, noise in found.items()
    }


def present(
    found: Mapping[str, Mapping[str, Noise]],
    tasks: Sequence[str],
    radii: Sequence[float],
    norms: Mapping[str, float],
    folder: Path,
) -> tuple[Section, Table]:
    """Draws the metric over the radius for one run or two.

    Args:
      found: by label of the run and by split.
      tasks: names of the tasks.
      radii: [R].
      norms: of the trained parameters, by label.
      folder: where the figure goes.
    """
    splits = list(next(iter(found.values())))
    path, x = folder / "noise.png", np.asarray(radii)
    metric = next(iter(found.values()))[splits[0]].metric
    with figures.canvas(path, 1, len(splits), 2.9) as (_, axes):
        for ax, split in zip(axes[0], splits, strict=True):
            for style, (label, by_split) in drawing.styled(found):
                values = by_split[split].values
                mean, std = mean_over(values), std_over(values)
                lines = {task: Series(x, mean[:, t]) for t, task in enumerate(tasks)}
                figures.per_task(ax, lines, style, drawing.suffix(label, found))
                if len(tasks) <= len(COLOURS) and np.isfinite(std).all():
                    for t in range(len(tasks)):
                        low, high = mean[:, t] - std[:, t], mean[:, t] + std[:, t]
                        ax.fill_between(x, low, high, color=COLOURS[t], alpha=0.15, lw=0)
            name = pretty(metric)
            figures.finish(ax, f"Noise in the weights, {split}", name, "length of the step")
            figures.legend(ax)
    last = len(radii) - 1
    at = sorted({max(last // 4, 1), max(last // 2, 1), last})
    rows = []
    for split in splits:
        for t, task in enumerate(tasks):
            for label, by_split in found.items():
                mean, std = (f(by_split[split].values)[:, t] for f in (mean_over, std_over))
                cells = [f"{drawing.number(mean[r])} ± {drawing.number(std[r])}" for r in at]
                rows.append([f"{split}, {pretty(task)}", label, drawing.number(mean[0]), *cells])
    one = next(iter(found.values()))
    lengths = ", ".join(f"{label} {norm:.3g}" for label, norm in norms.items())
    text = (
        f"{pretty(metric).capitalize()} of each task when all trained weights move along"
        f" {len(one[splits[0]].values)} random unit directions, mean and standard deviation over"
        f" directions; {', '.join(f'{one[s].examples:,} {s} examples' for s in splits)}. Norm of"
        f" the weights: {lengths}."
    )
    head = ["", "run", f"{metric} at 0", *[f"at {x[r]:.3g}" for r in at]]
    title = "Noise in the weights"
    return Section(title, text, [path]), Table(title, text, head, rows)

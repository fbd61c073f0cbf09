"""The task losses on a plane of random, filter-normalised directions through a point.

Source: Li et al., "Visualizing the Loss Landscape of Neural Nets", NeurIPS 2018, section 4: a
Gaussian direction in which every filter is rescaled to the norm of that filter of the model, so
that neither the scale of the weights nor that of a layer decides how sharp a minimum looks.
Different on purpose: the directions come from a fixed seed, not from the run's, and so are the
same for every run of a model: two surfaces may be laid side by side.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from mtl_jax.engine import parallel, rng
from mtl_jax.layers.platform import cpu_compiler_options
from mtl_jax.methods.ownership import STACKED, Owner, owner_tree
from mtl_jax.methods.task_grads import objective, problem
from mtl_jax.reporting.figures import COLOURS, Section, draw_surface, pretty
from mtl_jax.systems.base import Data, System

Array = jax.Array
Tree = Any

SIZES = (21, 15, 11, 7, 5)
# What two CPU cores do in about 15 s; an accelerator always draws the largest grid.
CPU_FLOPS = 2.5e12
# Numbers in the batch of all points: 256 images of 64 x 64 x 3, or a dozen of 288 x 384 x 3.
MAX_NUMBERS = 1 << 22


class Landscape(NamedTuple):
    """Losses around a point.

    Attributes:
      offsets: [N] steps along each direction, in norms of the filters; the middle one is 0.
      losses: [N, N, T] loss of task t at point + offsets[i] * first + offsets[j] * second.
      examples: on how many examples each loss is a mean.
    """

    offsets: np.ndarray
    losses: np.ndarray
    examples: int

    @property
    def centre(self) -> np.ndarray:
        """The [T] losses at the point itself."""
        middle = len(self.offsets) // 2
        return self.losses[middle, middle]

    def rise(self, radius: float) -> np.ndarray:
        """Returns the [T] mean rise of the loss over the grid points within `radius`."""
        far = np.hypot(*np.meshgrid(self.offsets, self.offsets, indexing="ij"))
        near = (far > 0) & (far <= radius + 1e-6)
        return (self.losses[near] - self.centre).mean(0)


def filter_normalise(direction: Tree, params: Tree, owners: Tree) -> Tree:
    """Returns `direction` with every filter rescaled to the norm of that filter in `params`.

    A filter is what makes one output: all of a kernel [..., out] at one index of its last axis,
    for convolutions and dense layers alike; in a stacked leaf [T, ..., out] also at one task.
    Vectors (biases, and scale and shift of normalisation layers) do not move, as in the code of
    Li et al., whose normalisation has no meaning for them.
    """

    def one(who: Owner, d: Array, w: Array) -> Array:
        lead = 1 if who == STACKED else 0
        if w.ndim < lead + 2:
            return jnp.zeros_like(w)
        axes = tuple(range(lead, w.ndim - 1))
        norm = jnp.sqrt(jnp.sum(jnp.square(w), axes, keepdims=True))
        length = jnp.sqrt(jnp.sum(jnp.square(d), axes, keepdims=True))
        return d * (norm / jnp.where(length > 0, length, 1))

    return jax.tree.map(one, owners, direction, params)


def random_direction(key: Array, params: Tree, owners: Tree) -> Tree:
    """Returns a filter-normalised Gaussian direction like `params`."""
    leaves, structure = jax.tree.flatten(params)
    draws = [
        jax.random.normal(jax.random.fold_in(key, i), leaf.shape, leaf.dtype)
        for i, leaf in enumerate(leaves)
    ]
    return filter_normalise(jax.tree.unflatten(structure, draws), params, owners)


def first_examples(data: Data, split: str, count: int) -> tuple[Tree, int]:
    """Returns (the first `count` examples of a split as one batch on the host, how many).

    Fewer where the split is smaller, or where they would hold more than `MAX_NUMBERS`. Rows that
    only pad a batch are left out.
    """
    parts, left = [], count
    for host in data.eval_batches(split):
        if not parts:
            whole = jax.eval_shape(lambda r, h: data.assemble(r, h, None), data.resident, host)
            numbers = sum(leaf.size for leaf in jax.tree.leaves(whole)) // len(host["mask"])
            count = left = min(count, max(MAX_NUMBERS // max(numbers, 1), 1))
        rows = np.flatnonzero(np.asarray(host["mask"]))[:left]
        parts.append(jax.tree.map(lambda leaf, rows=rows: np.asarray(leaf)[rows], host))
        left -= len(rows)
        if left <= 0:
            break
    host = jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)
    assembled = jax.jit(data.assemble, static_argnums=2)(data.resident, host, None)
    return parallel.to_host(assembled), count - left


def loss_surface(
    system: System,
    params: Tree,
    model_state: Tree,
    batch: Tree,
    directions: tuple[Tree, Tree],
    offsets: np.ndarray,
) -> np.ndarray:
    """Evaluates all task losses on a grid: one compiled loop, a forward pass a point.

    Args:
      system: the model, called as in evaluation (no dropout; running batch statistics, which stay
        those of the point itself, as in the code of Li et al.).
      params: the point.
      model_state: of the point.
      batch: an assembled batch.
      directions: two trees like `params`.
      offsets: [N] steps along each.

    Returns:
      [N, N, T] float64.
    """
    evaluate = _evaluator(system, params, batch)

    def sweep(points: Array, *args: Tree) -> Array:
        return lax.map(lambda point: evaluate(point, *args), points)

    points = np.asarray(list(itertools.product(offsets, offsets)), np.float32)
    options = cpu_compiler_options()
    losses = jax.jit(sweep, compiler_options=options)(
        points, params, model_state, batch, *directions
    )
    return np.asarray(losses, np.float64).reshape(len(offsets), len(offsets), -1)


def _evaluator(system: System, params: Tree, batch: Tree) -> Any:
    """Returns `f(point [2], params, model_state, batch, first, second) -> losses [T]`."""
    num_tasks = len(system.task_names)
    size = jax.tree.leaves(batch)[0].shape[0]

    def evaluate(
        point: Array, params: Tree, model_state: Tree, batch: Tree, first: Tree, second: Tree
    ) -> Array:
        keys = rng.example_keys(rng.key_for(0, 0, "landscape"), jnp.arange(size))

        def features(params: Tree, both: tuple) -> tuple[Tree, Tree]:
            return system.features(params, model_state, *both, False)

        def task_loss(params_t: Tree, z: Tree, both: tuple, t: Any) -> tuple[Array, Array]:
            return system.task_loss(params_t, z, both[0], t)

        def move(w: Array, d: Array, e: Array) -> Array:
            return w + point[0].astype(w.dtype) * d + point[1].astype(w.dtype) * e

        model = objective(params, features, task_loss, num_tasks, system.owner)
        moved = jax.tree.map(move, params, first, second)
        return problem(model, (batch, keys)).losses(moved)[0]

    return evaluate


def grid_size(flops: float, on_cpu: bool) -> int:
    """Returns how many points a side the grid gets, from the floating-point operations of one.

    A rule of the model and not of the clock, so that the same run is always drawn on the same
    grid.
    """
    fitting = (n for n in SIZES if not on_cpu or n * n * flops <= CPU_FLOPS)
    return next(fitting, SIZES[-1])


def measure(
    system: System,
    data: Data,
    params: Tree,
    model_state: Tree,
    *,
    split: str = "validation",
    examples: int = 256,
    reach: float = 1.0,
    size: int | None = None,
) -> Landscape:
    """Evaluates the losses around a point, on the first examples of a split.

    Args:
      system: the model.
      data: its data.
      params: the point; on the host, or on one device.
      model_state: of the point.
      split: whose examples.
      examples: how many, at most; fewer of large examples, and of large models on a CPU.
      reach: the largest step along each direction; 1 moves each filter by its own norm.
      size: points a side, odd; None to let `grid_size` choose.
    """
    batch, count = first_examples(data, split, examples)
    owners = owner_tree(params, system.owner, len(system.task_names))
    draw = jax.jit(lambda params, key: random_direction(key, params, owners))
    first, second = (draw(params, rng.key_for(0, k, "landscape")) for k in (0, 1))
    if size is None:
        evaluate = _evaluator(system, params, batch)
        lowered = jax.jit(evaluate).lower(
            np.zeros(2, np.float32), params, model_state, batch, first, second
        )
        flops = float((lowered.cost_analysis() or {}).get("flops", 0.0))
        on_cpu = jax.default_backend() == "cpu"
        size = grid_size(flops, on_cpu)
        if on_cpu and size * size * flops > CPU_FLOPS:  # The smallest grid is still too much.
            count = max(int(count * CPU_FLOPS / (size * size * flops)), 1)
            batch = jax.tree.map(lambda leaf: leaf[:count], batch)
    offsets = np.linspace(-reach, reach, size)
    offsets[size // 2] = 0.0
    losses = loss_surface(system, params, model_state, batch, (first, second), offsets)
    return Landscape(offsets, losses, count)


def section(found: Landscape, tasks: Sequence[str], point: str, split: str, path: Path) -> Section:
    """Draws a landscape; returns its section of the report.

    Args:
      found: what `measure` returned.
      tasks: names of the tasks.
      point: what the middle is, in words.
      split: whose examples.
      path: of the PNG file.
    """
    n, reach = len(found.offsets), found.offsets[-1]
    names = [pretty(task) for task in tasks]
    losses, rises = found.losses, [found.rise(reach / 2), found.rise(reach)]
    text = ""
    if len(tasks) > len(COLOURS):
        names, losses = [f"mean of {len(tasks)} tasks"], losses.mean(-1, keepdims=True)
        rises = [rise.mean(keepdims=True) for rise in rises]
    for radius, rise in zip((reach / 2, reach), rises, strict=True):
        each = ", ".join(f"{name} {value:.3g}" for name, value in zip(names, rise, strict=True))
        text += f" Mean rise of the loss within {radius:g}: {each}."
    return Section(
        "Loss surface",
        f"Loss of each task around {point}, along two random filter-normalised directions (Li et"
        f" al. 2018): {n} x {n} points, each over the first {found.examples:,} {split} examples."
        " One unit moves every filter by its own norm; biases and normalisation layers stay."
        " Directions and examples are the same for every run of a model, and contours lie at round"
        f" values, so runs can be compared.{text}",
        [draw_surface(found.offsets, losses, names, path)],
    )

"""The worst point of each task near the parameters, and its gradients there (FS-MTL, eqs. 9-12)."""

from __future__ import annotations

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from mtl_jax.methods import gram, ownership
from mtl_jax.methods.base import Array, Problem, TaskGrads, Tree

Norm = Literal["separate", "joint"]


class Perturbation(NamedTuple):
    """How far and in which metric each task's worst point lies.

    Attributes:
      rho_shared: radius for the shared parameters.
      rho_heads: radius for the task's own head.
      norm: "separate": shared and head gradients are normalised apart (the paper, eq. 9);
        "joint": by the norm over both (the released Multi-MNIST code; with T = 1 this is SAM).
      adaptive: scale-invariant radius (ASAM): eps = rho T^2 g / |T g| with T = |w| + eta.
      eta: added to |w| when adaptive (0 in the released code; 0.01 in the ASAM authors' code).
      eps: added to the norms, so that a zero gradient gives a zero perturbation.
    """

    rho_shared: float
    rho_heads: float
    norm: Norm = "joint"
    adaptive: bool = False
    eta: float = 0.0
    eps: float = 1e-12


def _metric(leaf: Array, how: Perturbation) -> Array | float:
    return jnp.abs(leaf) + how.eta if how.adaptive else 1.0


def in_metric(params: Tree, grads: Tree, how: Perturbation) -> Tree:
    """Returns T g, whose norm is that of the perturbation; the leaves broadcast."""
    return jax.tree.map(lambda p, g: _metric(p, how) * g, params, grads)


def move(leaf: Array, grad: Array, size: Array | float, how: Perturbation) -> Array:
    """Returns the parameter `size` * T^2 g away."""
    return leaf + size * jnp.square(_metric(leaf, how)) * grad


def task_norms(grads: TaskGrads, owners: Tree, num_tasks: int, norm: Norm) -> tuple[Array, Array]:
    """Returns each task's gradient norms: [T] for the shared parameters and [T] for the heads.

    "joint": both are the norm over shared parameters and head together.
    """
    shared_sq = gram.squared_norms(grads.shared, num_tasks)
    heads_sq = ownership.head_squared_norms(grads.heads, owners, num_tasks)
    if norm == "joint":
        shared_sq = heads_sq = shared_sq + heads_sq
    return jnp.sqrt(shared_sq), jnp.sqrt(heads_sq)


def scaled_grads(grads: TaskGrads, shared: Tree, heads: Tree, how: Perturbation) -> TaskGrads:
    """Returns T g of every task, for the shared parameters and for the heads."""
    rows = jax.tree.map(lambda p: p[None], shared)  # against the task axis of the gradients
    return TaskGrads(in_metric(rows, grads.shared, how), in_metric(heads, grads.heads, how))


def step_sizes(
    grads: TaskGrads, shared: Tree, heads: Tree, owners: Tree, num_tasks: int, how: Perturbation
) -> tuple[Array, Array]:
    """Returns rho / |T g| for the shared parameters [T] and for the heads [T]."""
    scaled = scaled_grads(grads, shared, heads, how)
    of_shared, of_heads = task_norms(scaled, owners, num_tasks, how.norm)
    return how.rho_shared / (of_shared + how.eps), how.rho_heads / (of_heads + how.eps)


def moved_heads(heads: Tree, grads: Tree, owners: Tree, sizes: Array, how: Perturbation) -> Tree:
    """Returns the heads, each `sizes` [T] * T^2 g of its own task away."""
    scaled = ownership.scale_heads(grads, owners, sizes)
    return jax.tree.map(lambda p, g: move(p, g, 1.0, how), heads, scaled)


def perturbed_grads(
    problem: Problem, params: Tree, grads: TaskGrads, how: Perturbation
) -> tuple[TaskGrads, Array]:
    """Returns every task's gradients (s, r) and loss [T] at its own worst point.

    Args:
      problem: of the rows on which they are computed.
      params: the parameters.
      grads: the task gradients that say where the worst points lie.
      how: see `Perturbation`.
    """
    owners, num_tasks = problem.owners, problem.num_tasks
    shared = ownership.select(params, owners, ownership.is_shared)
    heads = ownership.select(params, owners, ownership.is_head)
    at_shared, at_heads = step_sizes(grads, shared, heads, owners, num_tasks, how)

    def point(task: tuple[Tree, Array]) -> Tree:
        grad, size = task
        return jax.tree.map(lambda p, g: move(p, g, size.astype(p.dtype), how), shared, grad)

    moved = moved_heads(heads, grads.heads, owners, at_heads, how)
    return problem.grad_at(point, (grads.shared, at_shared), moved)

"""Per-task sharpness-aware perturbations around any aggregator or loss weighting (FS-MTL).

Source: "Improving Multi-task Learning via Seeking Task-based Flat Regions", arXiv 2211.13723,
equations 6-16 and algorithm 1. For task i with loss L_i(theta, phi_i), shared theta, own head
phi_i and gradients g_i, q_i:

1. the worst points nearby: theta + rho_shared g_i / |g_i| and phi_i + rho_heads q_i / |q_i|;
2. the gradients there, s_i and r_i; the flat part of the shared one is h_i = s_i - g_i;
3. theta moves along agg(g_1..g_T) + agg(h_1..h_T), phi_i along r_i.

Deliberate choices where the paper and its released code leave room:

* one clean pass owns the model state (batch statistics); the perturbed passes drop theirs;
* both passes see the same dropout key, so h_i is a true finite difference;
* h_i is formed explicitly, in the parameters' dtype, and never as a difference of Gram matrices;
* for aggregators that are not of degree 1 (Nash-MTL, FairGrad) agg(h) has a length that has
  nothing to do with rho; `flat_scale="match"` gives it the length of the mean of the h_i;
* a loss weighting uses the same weights for g and h, so that "decompose" equals "direct".
"""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp

from mtl_jax.methods import gram, ownership
from mtl_jax.methods.base import (
    Aggregator,
    Array,
    Info,
    LossWeighting,
    Method,
    Problem,
    TaskGrads,
    Tree,
    Update,
)

Norm = Literal["separate", "joint"]
Combine = Literal["erm", "direct", "decompose", "second", "each"]
FlatScale = Literal["auto", "native", "match"]


class FlatState(NamedTuple):
    """State of `flat_regions`: one copy of the base method's state for each use of it.

    Attributes:
      grads: for agg(g), or for the weights of a loss weighting.
      flat: for agg(h).
      pairs: for aggregating {agg(g), agg(h)} or the T pairs {g_i, h_i}.
    """

    grads: Tree
    flat: Tree
    pairs: Tree


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


def step_sizes(
    grads: TaskGrads, shared: Tree, heads: Tree, owners: Tree, num_tasks: int, how: Perturbation
) -> tuple[Array, Array]:
    """Returns rho / |T g| for the shared parameters [T] and for the heads [T]."""

    def scaled(params: Tree, tree: Tree) -> Tree:
        return jax.tree.map(lambda p, g: _metric(p, how) * g, params, tree)

    rows = jax.tree.map(lambda p: p[None], shared)  # against the task axis of the gradients
    shared_sq = gram.squared_norms(scaled(rows, grads.shared), num_tasks)
    heads_sq = ownership.head_squared_norms(scaled(heads, grads.heads), owners, num_tasks)
    if how.norm == "joint":
        shared_sq = heads_sq = shared_sq + heads_sq
    return (
        how.rho_shared / (jnp.sqrt(shared_sq) + how.eps),
        how.rho_heads / (jnp.sqrt(heads_sq) + how.eps),
    )


def perturbed_grads(
    problem: Problem, params: Tree, grads: TaskGrads, how: Perturbation
) -> tuple[TaskGrads, Array]:
    """Returns every task's gradients (s, r) and loss [T] at its own worst point (eqs. 9-12)."""
    owners, num_tasks = problem.owners, problem.num_tasks
    shared = ownership.select(params, owners, ownership.is_shared)
    heads = ownership.select(params, owners, ownership.is_head)
    at_shared, at_heads = step_sizes(grads, shared, heads, owners, num_tasks, how)

    def move(leaf: Array, grad: Array, size: Array | float) -> Array:
        return leaf + size * jnp.square(_metric(leaf, how)) * grad

    def point(task: tuple[Tree, Array]) -> Tree:
        grad, size = task
        return jax.tree.map(lambda p, g: move(p, g, size.astype(p.dtype)), shared, grad)

    scaled = ownership.scale_heads(grads.heads, owners, at_heads)
    moved = jax.tree.map(lambda p, g: move(p, g, 1.0), heads, scaled)
    return problem.grad_at(point, (grads.shared, at_shared), moved)


def flat_regions(
    base: Aggregator | LossWeighting,
    rho: float = 0.05,
    rho_heads: float | None = None,
    *,
    norm: Norm = "joint",
    adaptive: bool = False,
    eta: float = 0.0,
    eps: float = 1e-12,
    combine: Combine = "decompose",
    flat_scale: FlatScale = "auto",
) -> Method:
    """Wraps `base` in per-task flat-region seeking.

    Args:
      base: any aggregator or loss weighting.
      rho: radius for the shared parameters; about ten times larger when `adaptive`.
      rho_heads: radius for the heads; None for the same.
      norm: see `Perturbation`.
      adaptive: see `Perturbation`.
      eta: see `Perturbation`.
      eps: see `Perturbation`.
      combine: "erm" agg(g), nothing perturbed; "direct" agg(s); "decompose" agg(g) + agg(h), the
        paper's method; "second" agg({agg(g), agg(h)}); "each" agg over i of agg({g_i, h_i}).
      flat_scale: "native" takes agg(h) as it comes; "match" gives it the length of mean(h);
        "auto" matches only for aggregators whose degree is not 1. Used by "decompose" and "second".

    Returns:
      A `Method`.

    Raises:
      ValueError: a negative radius, an unknown option, or "second" / "each" around a loss
        weighting, which has no aggregation to apply twice.
    """
    rho_heads = rho if rho_heads is None else rho_heads
    for name, value in (("rho", rho), ("rho_heads", rho_heads), ("eta", eta), ("eps", eps)):
        if not value >= 0:
            raise ValueError(f"{name} must be non-negative, found {value}")
    for name, value, known in (
        ("norm", norm, get_args(Norm)),
        ("combine", combine, get_args(Combine)),
        ("flat_scale", flat_scale, get_args(FlatScale)),
    ):
        if value not in known:
            raise ValueError(f"{name} must be one of {', '.join(known)}; found {value!r}")
    how = Perturbation(rho, rho_heads, norm, adaptive, eta, eps)
    if isinstance(base, LossWeighting):
        if combine in ("second", "each"):
            raise ValueError(f"combine={combine!r} needs an aggregator; a loss weighting has none")
        return _around_weighting(base, how, combine)
    match = flat_scale == "match" or (flat_scale == "auto" and base.traits.degree != 1)
    return _around_aggregator(base, how, combine, match)


def _around_weighting(base: LossWeighting, how: Perturbation, combine: Combine) -> Method:
    """Weights come from the clean losses; the direction is sum_i w_i s_i, the heads' w_i r_i."""
    if combine == "erm":
        return as_method(base)

    def init(params: Tree, owners: Tree, num_tasks: int) -> Tree:
        del params, owners
        return base.init(num_tasks)

    def update(problem: Problem, params: Tree, state: Tree, key: Array) -> Update:
        grads, losses, active, aux = problem.task_grads(params)
        weights, state = base.weights(losses, state, active=active, key=key)
        moved, moved_losses = perturbed_grads(problem, params, grads, how)
        scaled = ownership.scale_heads(moved.heads, problem.owners, weights)
        flat = jax.tree.map(jnp.subtract, moved.shared, grads.shared)
        info = Info(weights, gram.gram(grads.shared), weights, gram.gram(flat), moved_losses)
        direction = ownership.merge(gram.combine(moved.shared, weights), scaled)
        return Update(direction, state, losses, active, aux, info)

    return Method(init, update, base.after_step)


def _around_aggregator(
    base: Aggregator, how: Perturbation, combine: Combine, match: bool
) -> Method:
    if combine == "erm":
        return as_method(base)

    def init(params: Tree, owners: Tree, num_tasks: int) -> FlatState:
        shared = ownership.select(params, owners, ownership.is_shared)
        pair = base.init(shared, 2)
        if combine == "each":
            pair = jax.tree.map(lambda leaf: jnp.stack([jnp.asarray(leaf)] * num_tasks), pair)
        return FlatState(base.init(shared, num_tasks), base.init(shared, num_tasks), pair)

    def both(first: Tree, second: Tree, axis: int) -> Tree:
        return jax.tree.map(lambda a, b: jnp.stack([a, b], axis), first, second)

    def update(problem: Problem, params: Tree, state: FlatState, key: Array) -> Update:
        grads, losses, active, aux = problem.task_grads(params)
        moved, moved_losses = perturbed_grads(problem, params, grads, how)
        g, s = grads.shared, moved.shared
        flat = jax.tree.map(jnp.subtract, s, g)
        at_g, at_h, at_pair = state
        keys = jax.random.split(key, 3)
        two_active, ones = jnp.repeat(active.any(), 2), jnp.ones(2, losses.dtype)

        def aggregate(rows: Tree, part: Tree, key: Array) -> tuple[Tree, Tree, Info]:
            return base.update(rows, part, losses=losses, active=active, key=key)

        if combine == "direct":
            direction, at_g, info = aggregate(s, at_g, keys[0])
            h_info = Info(info.weights, _gram_or_none(flat))
            info = info._replace(gram=_gram_or_none(g))
        elif combine == "each":

            def one(pair: Tree, part: Tree, on: Array, key: Array) -> tuple[Tree, Tree]:
                out, part, _ = base.update(
                    pair, part, losses=ones, active=jnp.repeat(on, 2), key=key
                )
                return out, part

            pair_keys = jax.random.split(keys[2], problem.num_tasks)
            rows, at_pair = jax.vmap(one)(both(g, flat, 1), at_pair, active, pair_keys)
            direction, at_g, info = aggregate(rows, at_g, keys[0])
            info = info._replace(gram=_gram_or_none(g))
            h_info = Info(info.weights, _gram_or_none(flat))
        else:
            from_g, at_g, info = aggregate(g, at_g, keys[0])
            from_h, at_h, h_info = aggregate(flat, at_h, keys[1])
            if match:
                from_h = _with_length_of(from_h, flat, active)
            if combine == "decompose":
                direction = jax.tree.map(jnp.add, from_g, from_h)
            else:
                direction, at_pair, _ = base.update(
                    both(from_g, from_h, 0), at_pair, losses=ones, active=two_active, key=keys[2]
                )
        info = info._replace(
            flat_weights=h_info.weights, flat_gram=h_info.gram, perturbed_losses=moved_losses
        )
        out = ownership.merge(direction, moved.heads)
        return Update(out, FlatState(at_g, at_h, at_pair), losses, active, aux, info)

    return Method(init, update)


def _gram_or_none(rows: Tree) -> Array | None:
    return gram.gram(rows) if jax.tree.leaves(rows) else None


def _with_length_of(direction: Tree, rows: Tree, active: Array) -> Tree:
    """Returns `direction` [tree like one row] with the length of the mean active row."""
    share = active / jnp.maximum(active.sum(), 1)
    wanted = gram.squared_norms(jax.tree.map(lambda a: a[None], gram.combine(rows, share)), 1)
    length = gram.squared_norms(jax.tree.map(lambda a: a[None], direction), 1)
    factor = jnp.sqrt(jnp.where(length > 0, wanted / jnp.where(length > 0, length, 1), 0))[0]
    return jax.tree.map(lambda a: (factor * a).astype(a.dtype), direction)


def as_method(base: Aggregator | LossWeighting) -> Method:
    """Makes a `Method` of an aggregator or a loss weighting, without perturbations."""
    if isinstance(base, LossWeighting):

        def init_weighting(params: Tree, owners: Tree, num_tasks: int) -> Tree:
            del params, owners
            return base.init(num_tasks)

        def weigh(problem: Problem, params: Tree, state: Tree, key: Array) -> Update:
            def from_losses(losses: Array, active: Array) -> tuple[Array, Tree]:
                return base.weights(losses, state, active=active, key=key)

            grads, losses, active, (weights, new_state), aux = problem.weighted_grads(
                params, from_losses
            )
            return Update(grads, new_state, losses, active, aux, Info(weights))

        return Method(init_weighting, weigh, base.after_step)

    def init(params: Tree, owners: Tree, num_tasks: int) -> Tree:
        shared = ownership.select(params, owners, ownership.is_shared)
        return base.init(shared, num_tasks)

    def update(problem: Problem, params: Tree, state: Tree, key: Array) -> Update:
        grads, losses, active, aux = problem.task_grads(params)
        # The same key as the first aggregation of flat_regions: rho = 0 is the base method.
        direction, state, info = base.update(
            grads.shared, state, losses=losses, active=active, key=jax.random.split(key, 3)[0]
        )
        return Update(ownership.merge(direction, grads.heads), state, losses, active, aux, info)

    return Method(init, update)

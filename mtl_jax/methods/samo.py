"""SAMO: worst points from the mean gradient and forward passes only (Ban et al.)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

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
from mtl_jax.methods.flat_regions import as_method
from mtl_jax.methods.perturbation import (
    Perturbation,
    in_metric,
    move,
    moved_heads,
    task_norms,
)


def samo(
    base: Aggregator | LossWeighting,
    rho: float = 1e-3,
    beta: float = 0.5,
    zo_eps: float = 0.01,
    adaptive: bool = False,
) -> Method:
    """Wraps `base` in SAMO: joint global and local perturbations.

    With the mean loss's gradient m for the shared parameters, and for task i noise u_i and
    c_i = (L_i(theta + zo_eps u_i) - L_i(theta - zo_eps u_i)) / (2 zo_eps), so that c_i u_i
    estimates the task gradient:

    1. v_i = (1 - beta) m + beta |m| c_i u_i / |c_i u_i|, both norms taken tensor by tensor;
    2. the worst points are theta + rho v_i / |v_i|, by the norm over all shared parameters, and
       phi_i + rho q_i / |q_i| for the heads;
    3. the shared parameters move along agg(s_1..s_T), the gradients there, and heads along r_i.

    Source: Ban, Subramani and Ji, "SAMO: A Lightweight Sharpness-Aware Approach for Multi-Task
    Optimization with Joint Global-Local Perturbation", ICCV 2025, arXiv 2507.07883, as its released
    code has it; the 1 - beta of that code is alpha in the paper. Our choices:

    * the noise passes run as the clean pass does, with batch statistics and the same dropout keys;
      the released code runs them with the running statistics. None of them moves the statistics;
    * no noise where m is exactly 0: on frozen parameters, and on rows of embedding tables that
      the batch does not read, which would otherwise take most of it. So tables may be updated row
      by row;
    * c_i = 0 leaves (1 - beta) m, where the released code divides by 0; so does a tensor without
      gradient;
    * the mean is over the tasks with labels in the batch;
    * around a loss weighting, the weights come from the clean losses, and the directions are
      sum_i w_i s_i and w_i r_i. The clipping of some of the authors' aggregators is not part of it.

    Cost in steps of an aggregator alone (one forward, T backward, a backward pass being two
    forward passes, heads cheap): (3 + 5T) / (1 + 2T), which is 2.6 for T = 2 and 2.5 for many:
    the mean's forward and backward, 2T forward for the noise, T forward and backward. Beside one
    backward pass for all tasks it is (3 + 5T) / 3. `flat_regions` costs less, (1 + 5T) / (1 + 2T):
    its clean pass shares one forward pass among all tasks, which the noise cannot. What SAMO saves
    is memory, one set of task gradients in place of two. Micro-batches add one forward pass.

    `Info.gram` is that of the s_i: the clean task gradients are never computed.

    Args:
      base: any aggregator or loss weighting.
      rho: radius, for the shared parameters and for each head.
      beta: share of the local perturbation, in [0, 1].
      zo_eps: step of the finite differences, > 0.
      adaptive: scale-invariant radius (ASAM), see `Perturbation`; with eta = 0.

    Returns:
      A `Method`, with the state of `base`.

    Raises:
      ValueError: an option out of range.
    """
    if not rho >= 0:
        raise ValueError(f"rho must be non-negative, found {rho}")
    if not 0 <= beta <= 1:
        raise ValueError(f"beta must be in [0, 1], found {beta}")
    if not zo_eps > 0:
        raise ValueError(f"zo_eps must be positive, found {zo_eps}")
    how = Perturbation(rho, rho, "separate", adaptive)
    plain = as_method(base)

    def update(problem: Problem, params: Tree, state: Tree, key: Array) -> Update:
        # The keys of the base are those that `as_method` gives it: rho = 0 is the base method.
        base_key, noise_key, _ = jax.random.split(key, 3)
        owners, num_tasks = problem.owners, problem.num_tasks
        shared = ownership.select(params, owners, ownership.is_shared)
        heads = ownership.select(params, owners, ownership.is_head)
        mean, losses, active, _, aux = problem.weighted_grads(params, _equal)
        of_shared = ownership.select(mean, owners, ownership.is_shared)
        of_heads = ownership.select(mean, owners, ownership.is_head)

        def beside(task: tuple[Array, Array]) -> Tree:
            task_key, size = task
            noise = _noise(task_key, of_shared)
            return jax.tree.map(lambda p, u: p + size.astype(p.dtype) * u, shared, noise)

        keys = jax.random.split(noise_key, num_tasks)
        step = jnp.full(num_tasks, zo_eps, losses.dtype)
        rise = problem.losses_at(beside, (keys, step), heads)
        rise = rise - problem.losses_at(beside, (keys, -step), heads)

        def worst(task: tuple[Array, Array]) -> Tree:
            task_key, sign = task
            noise = _noise(task_key, of_shared)
            mixed = jax.tree.map(
                lambda m, u: _mix(m, sign.astype(m.dtype) * u, beta), of_shared, noise
            )
            lengths = jax.tree.map(lambda a: a[None], in_metric(shared, mixed, how))
            size = how.rho_shared / (jnp.sqrt(gram.squared_norms(lengths, 1))[0] + how.eps)
            return jax.tree.map(lambda p, v: move(p, v, size.astype(p.dtype), how), shared, mixed)

        nothing = jax.tree.map(lambda leaf: None, of_shared)
        scaled = TaskGrads(nothing, in_metric(heads, of_heads, how))
        lengths = task_norms(scaled, owners, num_tasks, how.norm)[1]
        moved = moved_heads(heads, of_heads, owners, how.rho_heads / (lengths + how.eps), how)
        grads, after = problem.grad_at(worst, (keys, jnp.sign(rise)), moved)
        if isinstance(base, LossWeighting):
            weights, state = base.weights(losses, state, active=active, key=key)
            direction = gram.combine(grads.shared, weights)
            out = ownership.scale_heads(grads.heads, owners, weights)
            info = Info(weights)
        else:
            direction, state, info = base.update(
                grads.shared, state, losses=losses, active=active, key=base_key
            )
            out = grads.heads
        merged = ownership.merge(direction, out)
        return Update(merged, state, losses, active, aux, info._replace(perturbed_losses=after))

    return Method(plain.init, update, plain.after_step)


def _equal(losses: Array, active: Array) -> tuple[Array, tuple]:
    """Weights [T] of the mean over the tasks that are there."""
    return (active / jnp.maximum(active.sum(), 1)).astype(losses.dtype), ()


def _noise(key: Array, mean: Tree) -> Tree:
    """Returns standard normal numbers in a tree like `mean`, 0 where that is exactly 0.

    One draw for all leaves: a draw for each would be most of the program.
    """
    leaves, structure = jax.tree.flatten(mean)
    ends = np.cumsum([leaf.size for leaf in leaves])
    dtype = jnp.result_type(jnp.float32, *(leaf.dtype for leaf in leaves))
    draws = jax.random.normal(key, (sum(leaf.size for leaf in leaves),), dtype)
    parts = [
        jnp.where(leaf != 0, draws[end - leaf.size : end].reshape(leaf.shape), 0).astype(leaf.dtype)
        for leaf, end in zip(leaves, ends, strict=True)
    ]
    return jax.tree.unflatten(structure, parts)


def _mix(mean: Array, local: Array, beta: float) -> Array:
    """Returns (1 - beta) m + beta |m| z / |z| of one tensor; without the second term for z = 0."""
    global_sq, local_sq = (gram.squared_norms(leaf[None], 1)[0] for leaf in (mean, local))
    ratio = jnp.sqrt(global_sq / jnp.where(local_sq > 0, local_sq, 1))
    return (1 - beta) * mean + (beta * ratio).astype(mean.dtype) * local

"""The flat parts h_i of a step, and ways to have them for less: seldom, or from fewer rows.

Every `every`-th step runs the perturbed pass; the steps between take the flat parts of the last
one, as LookSAM does (Liu et al., "Towards Efficient and Scalable Sharpness-Aware Minimization",
arXiv 2203.02714, algorithm 1). Differences from LookSAM, all deliberate:

* a flat part is kept for every task, that of the shared parameters and that of its head, so that
  every way to combine them stays possible and a task that is absent can be left out;
* it is the whole s_i - g_i, where LookSAM keeps what is orthogonal to g;
* in a step between, h_i is multiplied by min(1, |g_i| now / |g_i| then). LookSAM gives its part
  the length alpha |g| now: no alpha is needed here. As h_i is rho times the Hessian times a unit
  vector, its length does not grow with that of g_i; hence the 1, without which one tiny gradient
  in a step with a perturbed pass would make the flat part of the next one huge.

The perturbed pass may see a leading share `rows` of the batch only, as in ESAM (Du et al.,
"Efficient Sharpness-aware Minimization for Improved Training of Neural Networks", arXiv
2110.03141, section 3.2). ESAM chooses the rows by how much their loss rises, and takes the
gradient there as the step; here they are the first ones, and h_i is a finite difference on these
rows: both of its gradients, and the worst point between them, are theirs. g_i is that of all.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from mtl_jax.methods import gram, ownership
from mtl_jax.methods.base import Array, Problem, TaskGrads, Tree
from mtl_jax.methods.perturbation import Perturbation, perturbed_grads, task_norms


class Kept(NamedTuple):
    """Flat parts of the last perturbed pass; all zeros before the first.

    Attributes:
      age: int32, steps since that pass; the next step runs one where it is 0.
      shared: tree like the shared parameters [T, ...], h_i.
      heads: tree like the heads, r_i - q_i.
      shared_norms: [T] norms of the task gradients g_i of that step.
      heads_norms: [T] norms of the heads' gradients q_i of that step.
      present: [T] bool, the tasks that have a flat part.
      gaps: [T] losses at the worst points minus losses.
    """

    age: Array
    shared: Tree
    heads: Tree
    shared_norms: Array
    heads_norms: Array
    present: Array
    gaps: Array


class FlatPass(NamedTuple):
    """What a step has to go by.

    Attributes:
      grads: the clean task gradients (g, q).
      losses: [T]; active: [T]; aux: of the clean pass.
      perturbed: tree like the shared parameters [T, ...], s_i = g_i + h_i.
      flat: tree like the shared parameters [T, ...], h_i.
      heads: tree like the heads, what they take, r_i.
      perturbed_losses: [T].
      present: [T] bool, the tasks that have a flat part; the h_i of others are 0, and must be left
        out of aggregations, as absent tasks are.
    """

    grads: TaskGrads
    losses: Array
    active: Array
    aux: Tree
    perturbed: Tree
    flat: Tree
    heads: Tree
    perturbed_losses: Array
    present: Array


class FlatSource(NamedTuple):
    """Where flat parts come from.

    Attributes:
      how: see `Perturbation`.
      every: the perturbed pass runs in every so-manieth step, the first one included.
      rows: share of the rows that it sees.
      synced: whether the gradients that say where the worst points lie are those of all devices.
    """

    how: Perturbation
    every: int = 1
    rows: float = 1.0
    synced: bool = True

    def init(self, params: Tree, owners: Tree, num_tasks: int) -> Tree:
        """Returns the state before the first step: `Kept`, or () when nothing is kept."""
        if self.every == 1:
            return ()
        shared = ownership.select(params, owners, ownership.is_shared)
        heads = ownership.select(params, owners, ownership.is_head)
        leaves = jax.tree.leaves(params)
        dtype = jnp.result_type(jnp.float32, *(a.dtype for a in leaves))
        # An array of its own for each: a training step is donated the state, and takes none twice.
        norms, heads_norms, gaps = (jnp.zeros(num_tasks, dtype) for _ in range(3))
        return Kept(
            age=jnp.zeros((), jnp.int32),
            shared=jax.tree.map(lambda a: jnp.zeros((num_tasks, *a.shape), a.dtype), shared),
            heads=jax.tree.map(jnp.zeros_like, heads),
            shared_norms=norms,
            heads_norms=heads_norms,
            present=jnp.zeros(num_tasks, bool),
            gaps=gaps,
        )

    def step(self, problem: Problem, params: Tree, kept: Tree) -> tuple[FlatPass, Tree]:
        """Returns what this step has to go by, and the next state."""
        grads, losses, active, aux, lead = problem.grads_with_lead(params, self.rows, self.synced)

        def perturbed() -> tuple:
            worst, clean, before, present = lead()
            part = problem.leading(self.rows)
            moved, after = perturbed_grads(part, params, worst, self.how)
            return clean, before, present, moved, after

        if self.every == 1:
            clean, before, present, moved, after = perturbed()
            flat = jax.tree.map(jnp.subtract, moved.shared, clean.shared)
            if self.rows == 1:
                out = FlatPass(
                    grads, losses, active, aux, moved.shared, flat, moved.heads, after, active
                )
                return out, kept
            heads = jax.tree.map(jnp.subtract, moved.heads, clean.heads)
            gaps = after - before
        else:
            norms = task_norms(grads, problem.owners, problem.num_tasks, self.how.norm)

            def fresh() -> Kept:
                clean, before, present, moved, after = perturbed()
                dtype = kept.gaps.dtype
                return Kept(
                    kept.age,
                    jax.tree.map(jnp.subtract, moved.shared, clean.shared),
                    jax.tree.map(jnp.subtract, moved.heads, clean.heads),
                    norms[0].astype(dtype),
                    norms[1].astype(dtype),
                    present,
                    (after - before).astype(dtype),
                )

            kept = lax.cond(kept.age == 0, fresh, lambda: kept)
            present = kept.present & active
            flat, heads = _again(problem.owners, norms, kept)
            gaps = jnp.where(present, kept.gaps, 0)
            kept = kept._replace(age=(kept.age + 1) % self.every)
        out = FlatPass(
            grads,
            losses,
            active,
            aux,
            jax.tree.map(jnp.add, grads.shared, flat),
            flat,
            jax.tree.map(jnp.add, grads.heads, heads),
            losses + gaps.astype(losses.dtype),
            present,
        )
        return out, kept


def _again(owners: Tree, norms: tuple[Array, Array], kept: Kept) -> tuple[Tree, Tree]:
    """Returns the kept flat parts at the lengths that they have beside gradients of `norms`."""

    def factors(now: Array, then: Array) -> Array:
        shrunk = jnp.minimum(now / jnp.where(then > 0, then, 1), 1)
        # In the step of the pass itself the factor is 1 also where the gradient is 0.
        return jnp.where(kept.age == 0, 1, jnp.where(then > 0, shrunk, 0))

    flat = gram.scale_rows(kept.shared, factors(norms[0], kept.shared_norms))
    heads = ownership.scale_heads(kept.heads, owners, factors(norms[1], kept.heads_norms))
    return flat, heads

"""One batch as a multi-task `Problem`: losses, weighted gradients, gradients task by task.

A model is given as two functions, so that what tasks share is computed once:

    features(params, batch) -> (z, aux)             a pytree of float arrays, and the model state
    task_loss(params_t, z, batch, t) -> (loss_sum, weight)

The loss of task t is sum(loss_sum) / sum(weight) over micro-batches and devices. `params_t` is
the parameter tree in which every stacked leaf has been cut to row t.

First pass: one forward of `features`, then T cotangents through its one pullback. At T points
of their own (`grad_at`) nothing is shared: T forward and T backward passes. Both walk over the
tasks by one of three strategies that agree to rounding:

* "vmap": all tasks at once: T times the memory of a backward pass, one kernel launch an op;
* "scan": one after the other in a loop: compile time and memory do not depend on T;
* "unroll": one after the other, written out: lets XLA overlap tasks, compile time grows with T.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from mtl_jax.errors import UserError
from mtl_jax.methods import ownership
from mtl_jax.methods.base import Array, Problem, Shards, Spread, TaskGrads, Tree
from mtl_jax.methods.gram import scale_rows
from mtl_jax.methods.ownership import Owner

Strategy = Literal["auto", "vmap", "scan", "unroll"]


class Objective(NamedTuple):
    """A multi-task model as functions of (params, batch).

    Attributes:
      num_tasks: T.
      owners: tree like the parameters, see `ownership`.
      features: `features(params, batch) -> (z, aux)`; z holds float arrays only.
      task_loss: `task_loss(params_t, z, batch, t) -> (loss_sum, weight)`.
      static_tasks: True when `task_loss` needs t as a Python int (heads of different kinds).
    """

    num_tasks: int
    owners: Tree
    features: Callable[[Tree, Tree], tuple[Tree, Tree]]
    task_loss: Callable[[Tree, Tree, Tree, Any], tuple[Array, Array]]
    static_tasks: bool = False


def objective(
    params: Tree,
    features: Callable,
    task_loss: Callable,
    num_tasks: int,
    owner: Callable[[tuple[str, ...]], Owner] = ownership.all_shared,
) -> Objective:
    """Builds an `Objective`; heads owned by an int make `t` static."""
    owners = ownership.owner_tree(params, owner, num_tasks)
    static = any(ownership.is_single(who) for who in jax.tree.leaves(owners))
    return Objective(num_tasks, owners, features, task_loss, static)


def objective_from_losses(
    params: Tree,
    losses: Callable[[Tree, Tree], Array],
    num_tasks: int,
    owner: Callable[[tuple[str, ...]], Owner] = ownership.all_shared,
) -> Objective:
    """Builds an `Objective` from `losses(params, batch) -> [T]` mean losses.

    For loops that have such a function already. It costs more than the two-function form: at the
    perturbed points of flat regions every task computes the heads of all tasks.
    """

    def features(params: Tree, batch: Tree) -> tuple[Tree, Tree]:
        return losses(params, batch), ()

    def task_loss(params_t: Tree, z: Array, batch: Tree, t: Any) -> tuple[Array, Array]:
        del params_t, batch
        return z[t], jnp.ones((), z.dtype)

    owners = ownership.owner_tree(params, owner, num_tasks)
    return Objective(num_tasks, owners, features, task_loss)


def pick_strategy(strategy: Strategy, num_tasks: int, static_tasks: bool, backend: str) -> str:
    """Resolves "auto".

    CPU (measured, benchmarks/task_grads.py): written out up to three tasks, a loop beyond;
    batched convolutions of vmap are up to twice slower there. Accelerators: vmap, except for
    heads of different kinds, which vmap would compute T times.
    """
    if strategy != "auto":
        return strategy
    if backend != "cpu" and not static_tasks:
        return "vmap"
    return "unroll" if num_tasks <= 3 else "scan"


def _over_tasks(
    one: Callable, rows: Tree, num_tasks: int, strategy: str, zeros: Tree
) -> tuple[Any, Any]:
    """Calls `one(t, row_t) -> (stack, total)` for every task.

    Returns (the stacks with a leading task axis, the sum of the totals). `zeros` is a total of
    nothing.
    """
    if strategy == "unroll":
        outs = [one(t, jax.tree.map(lambda row, t=t: row[t], rows)) for t in range(num_tasks)]
        stacks = jax.tree.map(lambda *leaves: jnp.stack(leaves), *[out[0] for out in outs])
        return stacks, jax.tree.map(lambda *leaves: sum(leaves), *[out[1] for out in outs])
    if strategy == "vmap":
        stacks, totals = jax.vmap(one)(jnp.arange(num_tasks), rows)
        return stacks, jax.tree.map(lambda leaf: leaf.sum(0), totals)

    def body(carry: Tree, xs: tuple) -> tuple[Tree, Tree]:
        stack, total = one(*xs)
        return jax.tree.map(jnp.add, carry, total), stack

    total, stacks = lax.scan(body, zeros, (jnp.arange(num_tasks), rows))
    return stacks, total


def _accumulate(fn: Callable[[Tree], tuple[Tree, Tree]], batch: Tree, microbatches: int) -> tuple:
    """Sums the first output of `fn(batch)` over micro-batches and averages the second.

    With more than one micro-batch the leaves of `batch` are [microbatches, ...]. The average is
    for batch statistics: all micro-batches start from the same ones, so that they move once a
    step.
    """
    if microbatches == 1:
        return fn(batch)
    out, aux = jax.eval_shape(fn, jax.tree.map(lambda leaf: leaf[0], batch))
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), (out, aux))

    def body(carry: Tree, micro: Tree) -> tuple[Tree, None]:
        return jax.tree.map(jnp.add, carry, fn(micro)), None

    (out, aux), _ = lax.scan(body, zeros, batch)
    return out, jax.tree.map(lambda leaf: leaf / microbatches, aux)


def _in_columns(grads: Tree, num_tasks: int, multiple: int) -> Array:
    """Returns stacked gradients [T, ...] as one array [T, P], P rounded up to a multiple."""
    leaves = [leaf.reshape(num_tasks, -1) for leaf in jax.tree.leaves(grads)]
    flat = jnp.concatenate(leaves, axis=1)
    return jnp.pad(flat, ((0, 0), (0, -flat.shape[1] % multiple)))


def _out_of_columns(flat: Array, like: Tree) -> Tree:
    """Returns [P] or more numbers as a tree of the shapes and dtypes of `like`."""
    leaves, structure = jax.tree.flatten(like)
    parts, start = [], 0
    for leaf in leaves:
        own = flat[start : start + leaf.size]
        parts.append(own.reshape(leaf.shape).astype(leaf.dtype))
        start += leaf.size
    return jax.tree.unflatten(structure, parts)


def _leading_rows(batch: Tree, share: float, microbatches: int) -> tuple[Tree, int]:
    """Returns the leading share of a batch and how many micro-batches that is.

    Without micro-batches the number of rows is rounded up.

    Raises:
      UserError: leaves of different lengths, or a share that cuts a micro-batch.
    """
    if microbatches > 1:
        count = _leading_count(share, microbatches)
        return jax.tree.map(lambda leaf: leaf[0] if count == 1 else leaf[:count], batch), count
    sizes = sorted({leaf.shape[0] if leaf.ndim else 0 for leaf in jax.tree.leaves(batch)})
    if len(sizes) != 1:
        raise UserError(
            f"rows is {share}, but the arrays of a batch have {' and '.join(map(str, sizes))} rows;"
            " a share needs the same number in all of them, so set rows to 1"
        )
    count = math.ceil(share * sizes[0] - 1e-6)
    return jax.tree.map(lambda leaf: leaf[:count], batch), 1


def _leading_count(share: float, microbatches: int) -> int:
    """Returns the number of micro-batches that a share is."""
    count = round(share * microbatches)
    if count < 1 or abs(share * microbatches - count) > 1e-6:
        raise UserError(
            f"rows is {share} with {microbatches} micro-batches; it takes whole ones, so give a"
            f" multiple of 1/{microbatches}"
        )
    return count


def problem(
    objective: Objective,
    batch: Tree,
    *,
    strategy: Strategy = "auto",
    microbatches: int = 1,
    psum: Callable[[Tree], Tree] = lambda tree: tree,
    spread: Spread | None = None,
) -> Problem:
    """Binds an objective to one batch.

    Args:
      objective: the model.
      batch: whatever the model's functions take; with `microbatches` > 1 every leaf has a leading
        axis of that length, and gradients are accumulated before anything is aggregated.
      strategy: how to walk over the tasks, see the module.
      microbatches: number of micro-batches. Flat regions sweep them twice; flat parts of fewer
        rows, the leading ones only.
      psum: sums a tree over devices; the identity on one device.
      spread: over the same devices, for `task_shards`; None for one device.

    Returns:
      The `Problem`; its losses and gradients are the same on every device.
    """
    num_tasks, owners = objective.num_tasks, objective.owners
    how = pick_strategy(strategy, num_tasks, objective.static_tasks, jax.default_backend())
    only_heads = functools.partial(ownership.select, owners=owners, keep=ownership.is_head)
    only_shared = functools.partial(ownership.select, owners=owners, keep=ownership.is_shared)
    only_rows = functools.partial(ownership.select, owners=owners, keep=ownership.is_stacked)
    only_single = functools.partial(ownership.select, owners=owners, keep=ownership.is_single)

    def task_loss(params_t: Tree, z: Tree, micro: Tree, t: Any) -> tuple[Array, Array]:
        if isinstance(t, int) or not objective.static_tasks:
            return objective.task_loss(params_t, z, micro, t)
        branches = [
            functools.partial(lambda p, z, m, k: objective.task_loss(p, z, m, k), k=k)
            for k in range(num_tasks)
        ]
        return lax.switch(t, branches, params_t, z, micro)

    def loss_sums(params: Tree, micro: Tree) -> tuple[Array, tuple[Array, Tree]]:
        """All [T] loss sums, their weights and the model state: one forward pass."""
        z, aux = objective.features(params, micro)
        rest = ownership.merge(only_shared(params), only_single(params))

        def one(t: Any, row: Tree) -> tuple[tuple[Array, Array], tuple]:
            return task_loss(ownership.merge(rest, row), z, micro, t), ()

        at_once = "unroll" if objective.static_tasks else "vmap"
        (sums, weights), _ = _over_tasks(one, only_rows(params), num_tasks, at_once, ())
        return sums, (weights, aux)

    def normalise(sums: Array, weights: Array) -> tuple[Array, Array, Array]:
        """Global sums to mean losses [T], active [T] and 1 / weight [T] (0 where absent)."""
        active = weights > 0
        inverse = jnp.where(active, 1 / jnp.where(active, weights, 1), 0)
        return sums * inverse, active, inverse

    def losses(params: Tree) -> tuple[Array, Array, Tree]:
        def forward(micro: Tree) -> tuple[Tree, Tree]:
            sums, (weights, aux) = loss_sums(params, micro)
            return (sums, weights), aux

        totals, aux = _accumulate(forward, batch, microbatches)
        means, active, _ = normalise(*psum(totals))
        return means, active, aux

    def weighted_grads(params: Tree, weigh: Callable) -> tuple:
        if microbatches == 1:
            forward = functools.partial(loss_sums, micro=batch)
            sums, pull, (weights, aux) = jax.vjp(forward, params, has_aux=True)
            means, active, inverse = normalise(*psum((sums, weights)))
            task_weights, out = weigh(means, active)
            (grads,) = pull((task_weights * inverse).astype(sums.dtype))
            return psum(grads), means, active, (task_weights, out), aux

        # The weights may depend on all micro-batches' losses: a forward sweep comes first.
        def forward(micro: Tree) -> tuple[Tree, Tree]:
            sums, (weights, aux) = loss_sums(params, micro)
            return (sums, weights), aux

        totals, aux = _accumulate(forward, batch, microbatches)
        means, active, inverse = normalise(*psum(totals))
        task_weights, out = weigh(means, active)

        def backward(micro: Tree) -> tuple[Tree, tuple]:
            sums, pull, _ = jax.vjp(lambda p: loss_sums(p, micro), params, has_aux=True)
            return pull((task_weights * inverse).astype(sums.dtype))[0], ()

        grads, _ = _accumulate(backward, batch, microbatches)
        return psum(grads), means, active, (task_weights, out), aux

    def gather(stacks: tuple, totals: Tree) -> tuple[TaskGrads, Array, Array]:
        """Loop outputs to unnormalised task gradients, loss sums and weights."""
        shared, rows, sums, weights = stacks
        heads = ownership.add(rows, totals)
        return TaskGrads(shared, heads), sums, weights

    def finish(grads: TaskGrads, sums: Array, weights: Array) -> tuple[TaskGrads, Array, Array]:
        grads, sums, weights = psum((grads, sums, weights))
        means, active, inverse = normalise(sums, weights)
        return ownership.scale_tasks(grads, owners, inverse), means, active

    def clean_sweep(params: Tree) -> Callable[[Tree], tuple[tuple, Tree]]:
        """Returns `sweep(micro) -> (unnormalised task gradients, loss sums, weights), aux`."""
        rest = ownership.merge(only_shared(params), only_single(params))
        zeros = jax.tree.map(jnp.zeros_like, only_heads(params))

        def sweep(micro: Tree) -> tuple[tuple, Tree]:
            z, pull, aux = jax.vjp(lambda p: objective.features(p, micro), params, has_aux=True)

            def one(t: Any, row: Tree) -> tuple[tuple, Tree]:
                def head(params_t: Tree, z: Tree) -> tuple[Array, Array]:
                    return task_loss(params_t, z, micro, t)

                view = ownership.merge(rest, row)
                (loss, weight), (direct, at_z) = jax.value_and_grad(
                    head, argnums=(0, 1), has_aux=True
                )(view, z)
                (through,) = pull(at_z)
                shared = jax.tree.map(jnp.add, only_shared(direct), only_shared(through))
                single = jax.tree.map(jnp.add, only_single(direct), only_single(through))
                total = ownership.merge(single, only_rows(through))
                return (shared, only_rows(direct), loss, weight), total

            return gather(*_over_tasks(one, only_rows(params), num_tasks, how, zeros)), aux

        return sweep

    def task_grads(params: Tree) -> tuple[TaskGrads, Array, Array, Tree]:
        totals, aux = _accumulate(clean_sweep(params), batch, microbatches)
        grads, means, active = finish(*totals)
        return grads, means, active, aux

    def task_shards(params: Tree) -> tuple[Shards, Array, Array, Tree]:
        over = Spread() if spread is None else spread
        (grads, sums, weights), aux = _accumulate(clean_sweep(params), batch, microbatches)
        heads, sums, weights = psum((grads.heads, sums, weights))
        means, active, inverse = normalise(sums, weights)
        columns = _in_columns(grads.shared, num_tasks, over.devices)
        rows = scale_rows(over.sum_to_owners(columns), inverse)

        def whole(part: Array) -> Tree:
            return _out_of_columns(over.all_gather(part), only_shared(params))

        heads = ownership.scale_heads(heads, owners, inverse)
        return Shards(rows, heads, psum, whole), means, active, aux

    def grads_with_lead(params: Tree, share: float, synced: bool) -> tuple:
        sweep = clean_sweep(params)

        def split(totals: tuple, finished: tuple) -> tuple:
            if synced:
                return finished[0], *finished
            grads, sums, weights = totals
            return ownership.scale_tasks(grads, owners, normalise(sums, weights)[2]), *finished

        if share == 1 or microbatches == 1:
            totals, aux = _accumulate(sweep, batch, microbatches)
            done = finish(*totals)
            if share == 1:
                return *done, aux, lambda: split(totals, done)
            return *done, aux, lambda: leading(share).grads_with_lead(params, 1.0, synced)[-1]()

        def marked(micro: tuple) -> tuple[tuple, Tree]:
            out, aux = sweep(micro[0])
            return (out, jax.tree.map(lambda leaf: jnp.where(micro[1], leaf, 0), out)), aux

        leads = jnp.arange(microbatches) < _leading_count(share, microbatches)
        (totals, first), aux = _accumulate(marked, (batch, leads), microbatches)
        return *finish(*totals), aux, lambda: split(first, finish(*first))

    def own_loss(t: Any, shared: Tree, row: Tree, heads: Tree, micro: Tree) -> tuple[Array, Array]:
        """The loss sum of task t and its weight at a point of its own."""
        z, _ = objective.features(ownership.merge(shared, heads), micro)
        return task_loss(ownership.merge(shared, row, only_single(heads)), z, micro, t)

    def grad_at(point: Callable[[Tree], Tree], moves: Tree, heads: Tree) -> tuple:
        rows = only_rows(heads)
        zeros = jax.tree.map(jnp.zeros_like, heads)

        def sweep(micro: Tree) -> tuple[tuple, tuple]:
            def one(t: Any, move_and_row: tuple) -> tuple[tuple, Tree]:
                move, row = move_and_row
                loss = functools.partial(own_loss, t, micro=micro)
                (value, weight), (shared, own, rest) = jax.value_and_grad(
                    loss, argnums=(0, 1, 2), has_aux=True
                )(point(move), row, heads)
                return (shared, own, value, weight), rest

            return gather(*_over_tasks(one, (moves, rows), num_tasks, how, zeros)), ()

        totals, _ = _accumulate(sweep, batch, microbatches)
        grads, means, _ = finish(*totals)
        return grads, means

    def losses_at(point: Callable[[Tree], Tree], moves: Tree, heads: Tree) -> Array:
        def sweep(micro: Tree) -> tuple[tuple, tuple]:
            def one(t: Any, move_and_row: tuple) -> tuple[tuple, tuple]:
                move, row = move_and_row
                return own_loss(t, point(move), row, heads, micro), ()

            totals, _ = _over_tasks(one, (moves, only_rows(heads)), num_tasks, how, ())
            return totals, ()

        totals, _ = _accumulate(sweep, batch, microbatches)
        return normalise(*psum(totals))[0]

    def leading(share: float) -> Problem:
        if share == 1:
            return whole
        rows, count = _leading_rows(batch, share, microbatches)
        return problem(
            objective, rows, strategy=strategy, microbatches=count, psum=psum, spread=spread
        )

    whole = Problem(
        num_tasks=num_tasks,
        owners=owners,
        losses=losses,
        weighted_grads=weighted_grads,
        task_grads=task_grads,
        grad_at=grad_at,
        losses_at=losses_at,
        leading=leading,
        grads_with_lead=grads_with_lead,
        task_shards=task_shards,
    )
    return whole

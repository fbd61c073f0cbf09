"""The largest eigenvalue of each task's Hessian, in the shared parameters or with its own head.

Products with the Hessian are reverse over reverse, grad of <grad L, v>: a forward derivative does
not pass through the hand-written gradients of this package's layers. They are sums over batches,
so that the memory is that of one batch, and each computes the head of its own task only.

Where flat regions work the eigenvalue is smaller. It is not invariant to a rescaling of the
weights (Dinh et al. 2017, arXiv 1703.04933): between runs of one model it says something, between
models nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.flatten_util import ravel_pytree

from mtl_jax.analysis import drawing
from mtl_jax.analysis.lanczos import Top, make_step, top_eigenpair
from mtl_jax.analysis.subject import (
    Log,
    NotApplicable,
    Subject,
    batches_of,
    evaluation_keys,
    examples_in,
    stack,
)
from mtl_jax.engine import parallel, rng
from mtl_jax.methods import ownership
from mtl_jax.methods.ownership import SHARED, STACKED, Owner, owner_tree
from mtl_jax.reporting import figures
from mtl_jax.reporting.figures import COLOURS, Section, pretty
from mtl_jax.reporting.page import Table
from mtl_jax.systems.base import Data, System

Array = jax.Array
Tree = Any

SCOPES = {"shared": "shared parameters", "own": "shared parameters and own head"}


class Sharpness(NamedTuple):
    """What was found of one run.

    Attributes:
      examples: behind each Hessian.
      split: whose examples.
      top: by scope and by task; a task without labels is left out, and so is a scope that says
        nothing new: of models without shared parameters or without heads.
    """

    examples: int
    split: str
    top: dict[str, dict[str, Top]]


def task_mask(params: Tree, owners: Tree, free: Tree, t: int, scope: str) -> Tree:
    """Returns which parameters the Hessian of task `t` is about: 1 or 0, to multiply a tree by.

    Leaves are numbers, or [T, 1, ...] for stacked parameters.

    Args:
      params: the parameters.
      owners: who owns each.
      free: which of them are trained.
      t: the task.
      scope: "shared", or "own" for the task's own head as well.
    """

    def one(who: Owner, is_free: bool, leaf: Array) -> np.ndarray:
        own = scope == "own" and is_free
        if who == STACKED:
            row = (np.arange(leaf.shape[0]) == t) & own
            return row.reshape(-1, *(1,) * (leaf.ndim - 1)).astype(leaf.dtype)
        return np.asarray(is_free if who == SHARED else own and who == t, leaf.dtype)

    return jax.tree.map(one, owners, free, params)


def task_loss_sum(
    system: System, owners: Tree, params: Tree, model_state: Tree, batch: Tree, t: Array
) -> tuple[Array, Array]:
    """Returns the (loss sum, weight) of task `t`, traced, in evaluation mode; one head is run."""
    keys = evaluation_keys(jax.tree.leaves(batch)[0].shape[0])
    z, _ = system.features(params, model_state, batch, keys, False)

    def of_task(t: Any, params: Tree) -> tuple[Array, Array]:
        view = jax.tree.map(lambda who, leaf: leaf[t] if who == STACKED else leaf, owners, params)
        return system.task_loss(view, z, batch, t)

    if not any(ownership.is_single(who) for who in jax.tree.leaves(owners)):
        return of_task(t, params)
    # Heads of different kinds need the task as a number.
    branches = [lambda params, k=k: of_task(k, params) for k in range(len(system.task_names))]
    return lax.switch(t, branches, params)


def hessian_product(system: System, data: Data, owners: Tree) -> Callable[..., Array]:
    """Returns `product(v [P], params, model_state, resident, hosts, mask, t) -> [P]`.

    It multiplies by the Hessian of task t's mean loss over all examples of `hosts` [N, B, ...],
    cut to the parameters of `mask`; P counts all parameters, in the order of `ravel_pytree`.
    """

    def product(
        v: Array, params: Tree, model_state: Tree, resident: Tree, hosts: Tree, mask: Tree, t: Array
    ) -> Array:
        flat, unravel = ravel_pytree(params)
        cut = jax.tree.map(jnp.multiply, unravel(v), mask)

        def one(total: Tree, host: Tree) -> tuple[Tree, None]:
            batch = data.assemble(resident, host, None)

            def loss(params: Tree) -> tuple[Array, Array]:
                return task_loss_sum(system, owners, params, model_state, batch, t)

            def slope(params: Tree) -> tuple[Array, Array]:
                grad, weight = jax.grad(loss, has_aux=True)(params)
                parts = jax.tree.map(lambda g, d: jnp.sum(g * d), grad, cut)
                return jnp.sum(jnp.stack(jax.tree.leaves(parts))), weight

            return jax.tree.map(jnp.add, total, jax.grad(slope, has_aux=True)(params)), None

        weight = jax.eval_shape(
            lambda: task_loss_sum(
                system,
                owners,
                params,
                model_state,
                data.assemble(resident, jax.tree.map(lambda leaf: leaf[0], hosts), None),
                t,
            )[1]
        )
        zero = (jax.tree.map(jnp.zeros_like, params), jnp.zeros((), weight.dtype))
        (found, total), _ = lax.scan(one, zero, hosts)
        found = jax.tree.map(jnp.multiply, found, mask)
        # NaN for a task without labels: it has no Hessian.
        return (ravel_pytree(found)[0] / total).astype(flat.dtype)

    return product


def measure(
    subject: Subject,
    hosts: Sequence[Tree],
    scopes: Sequence[str],
    seed: int,
    *,
    products: int = 40,
    tolerance: float = 5e-3,
    log: Log = lambda line: None,
) -> dict[str, dict[str, Top]]:
    """Finds the largest eigenvalues, by scope and by task.

    Args:
      subject: the checkpoint.
      hosts: batches of one shape.
      scopes: of `SCOPES`.
      seed: of the first vectors.
      products: how many Hessian-vector products each may take.
      tolerance: see `lanczos.top_eigenpair`.
      log: told of each.

    Raises:
      NotApplicable: a system in which nothing of a scope is trained.
    """
    run, tasks = subject.run, subject.tasks
    owners = owner_tree(subject.params, run.system.owner, len(tasks))
    step = make_step(hessian_product(run.system, run.data, owners))
    stacked, found = parallel.replicate(stack(hosts)), {}
    for scope in scopes:
        found[scope] = {}
        for t, task in enumerate(tasks):
            mask = task_mask(subject.params, owners, subject.free, t, scope)
            own = scope == "own"
            mine = [
                bool(leaf.any())
                for who, leaf in zip(jax.tree.leaves(owners), jax.tree.leaves(mask), strict=True)
                if ownership.is_head(who) == own
            ]
            if not any(mine):
                continue
            start = start_vector(subject.params, mask, rng.key_for(seed, t, "lanczos"))
            args = (subject.params, subject.model_state, run.data.resident, stacked, mask)
            top = top_eigenpair(
                step, start, (*args, np.int32(t)), products=products, tolerance=tolerance
            )
            if np.isfinite(top.value):
                found[scope][task] = top
            log(
                f"{subject.label}: {task}, {SCOPES[scope]}: {top.value:.5g}, residual"
                f" {top.residual:.2g} after {top.products} products"
            )
    found = {scope: by_task for scope, by_task in found.items() if by_task}
    if not found:
        raise NotApplicable("no task has labels and trained parameters here")
    return found


@jax.jit
def start_vector(params: Tree, mask: Tree, key: Array) -> Array:
    """Returns a Gaussian vector [P] over the parameters of `mask`."""
    flat, unravel = ravel_pytree(params)
    draw = jax.random.normal(key, flat.shape, flat.dtype)
    return ravel_pytree(jax.tree.map(jnp.multiply, unravel(draw), mask))[0]


def of_subject(
    subject: Subject, split: str, batches: int, seed: int, products: int, log: Log
) -> Sharpness:
    """Returns the sharpness of a checkpoint on batches of a split."""
    hosts = batches_of(subject, split, batches, seed, log)
    log(f"{subject.label}: Hessian over {examples_in(hosts):,} {split} examples")
    found = measure(subject, hosts, tuple(SCOPES), seed, products=products, log=log)
    return Sharpness(examples_in(hosts), split, found)


def as_json(found: Sharpness) -> dict[str, Any]:
    """The eigenvalues with their residuals, without the vectors."""
    top = {
        scope: {
            task: {
                "value": own.value,
                "residual": own.residual,
                "converged": own.converged,
                "products": own.products,
                "values": own.values,
                "residuals": own.residuals,
            }
            for task, own in by_task.items()
        }
        for scope, by_task in found.top.items()
    }
    return {"examples": found.examples, "split": found.split, "top": top}


def present(
    found: Mapping[str, Sharpness], tasks: Sequence[str], folder: Path
) -> tuple[Section, Table]:
    """Draws eigenvalues and their convergence for one run or two."""
    one = next(iter(found.values()))
    scopes = list(one.top)
    path, colours = folder / "hessian.png", dict(zip(tasks, _colours(tasks), strict=True))
    with figures.canvas(path, 1, 2, 2.9) as (_, axes):
        bars, curve = axes[0]
        groups = [(scope, label) for scope in scopes for label in found]
        for place, (scope, label) in enumerate(groups):
            by_task = found[label].top.get(scope, {})
            width = 0.8 / max(len(tasks), 1)
            for t, task in enumerate(tasks):
                if task in by_task:
                    left = place - 0.4 + (t + 0.5) * width
                    name = pretty(task) if place == 0 and len(tasks) <= len(COLOURS) else None
                    bars.bar(left, by_task[task].value, width, color=colours[task], label=name)
        names = [SCOPES[s].replace(" and ", "\nand ") for s, _ in groups]
        if len(found) > 1:
            short = {"shared": "shared", "own": "with head"}
            names = [f"{label}\n{short[scope]}" for scope, label in groups]
        bars.set_xticks(range(len(groups)), names, fontsize=7)
        bars.set(title="Largest eigenvalue of the Hessian", ylabel="eigenvalue")
        if len(tasks) <= len(COLOURS):
            figures.legend(bars)
        for style, (_, own) in drawing.styled(found):
            for task, top in own.top.get(scopes[0], {}).items():
                size = np.maximum(np.abs(top.values), np.finfo(float).tiny)
                x = np.arange(1, 1 + len(top.values))
                curve.semilogy(x, top.residuals / size, style, color=colours[task])
        curve.set(title="Convergence", xlabel="Hessian-vector products")
        curve.set(ylabel="residual / eigenvalue")
    text = (
        f"Largest eigenvalue of each task's Hessian over {one.examples:,} {one.split} examples in"
        " evaluation mode, by Lanczos iteration; the residual |Hv - value v| of the unit vector v"
        f" comes from a product of its own. Convergence is that of the {SCOPES[scopes[0]]}."
    )
    rows = [
        [f"{SCOPES[scope]}, {pretty(task)}", label, f"{top.value:.5g}", f"{top.residual:.1g}"]
        + [str(top.products), "yes" if top.converged else "no"]
        for scope in scopes
        for task in tasks
        for label, own in found.items()
        for top in [own.top.get(scope, {}).get(task)]
        if top is not None
    ]
    head = ["", "run", "eigenvalue", "residual", "products", "converged"]
    title = "Curvature"
    return Section(title, text, [path]), Table(title, text, head, rows)


def _colours(tasks: Sequence[str]) -> list[str]:
    if len(tasks) > len(COLOURS):
        return [figures.GREY] * len(tasks)
    return list(COLOURS[: len(tasks)])

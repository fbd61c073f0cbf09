"""Which task a parameter belongs to, and the three parts of a parameter tree.

Every leaf has an owner:

* "shared": it can change the loss of more than one task. Its task gradients are aggregated.
* k, an int: only loss k depends on it. It takes its own gradient.
* "stacked": axis 0 has length T and row t belongs to task t: T equal heads in one array.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from mtl_jax.methods.base import Array, TaskGrads, Tree
from mtl_jax.methods.gram import scale_rows, squared_norms

SHARED = "shared"
STACKED = "stacked"
Owner = str | int


def all_shared(path: tuple[str, ...]) -> Owner:
    """The owner function of a model without heads."""
    del path
    return SHARED


def owner_tree(params: Tree, owner: Callable[[tuple[str, ...]], Owner], num_tasks: int) -> Tree:
    """Returns a tree like `params` with the owner of each leaf.

    Args:
      params: the parameter tree.
      owner: `owner(path)`; the path is the tuple of names from the root to the leaf.
      num_tasks: T.

    Raises:
      ValueError: an owner that is none of the three kinds, or a stacked leaf without T rows.
    """

    def one(path: tuple, leaf: Array) -> Owner:
        names = tuple(
            str(getattr(p, "key", getattr(p, "name", getattr(p, "idx", p)))) for p in path
        )
        who = owner(names)
        where = "/".join(names)
        if who == STACKED and (leaf.ndim == 0 or leaf.shape[0] != num_tasks):
            raise ValueError(
                f"stacked parameter {where} has shape {leaf.shape}, needs {num_tasks} rows"
            )
        is_task = isinstance(who, int) and not isinstance(who, bool) and 0 <= who < num_tasks
        if who not in (SHARED, STACKED) and not is_task:
            raise ValueError(
                f"owner of {where} is {who!r}; it must be 'shared', 'stacked' or a task in"
                f" 0..{num_tasks - 1}"
            )
        return who

    return jax.tree_util.tree_map_with_path(one, params)


def select(tree: Tree, owners: Tree, keep: Callable[[Owner], bool]) -> Tree:
    """Returns `tree` with None at the leaves whose owner is not kept."""
    return jax.tree.map(lambda who, leaf: leaf if keep(who) else None, owners, tree)


def is_shared(who: Owner) -> bool:
    """Whether a leaf is aggregated over the tasks."""
    return who == SHARED


def is_stacked(who: Owner) -> bool:
    """Whether a leaf holds one row a task."""
    return who == STACKED


def is_single(who: Owner) -> bool:
    """Whether a leaf belongs to one task as a whole."""
    return isinstance(who, int)


def is_head(who: Owner) -> bool:
    """Whether a leaf, or each of its rows, belongs to one task."""
    return not is_shared(who)


def merge(*parts: Tree) -> Tree:
    """Puts parts of one tree together again: at each leaf the one that is not None."""

    def one(*leaves: Array | None) -> Array | None:
        return next((leaf for leaf in leaves if leaf is not None), None)

    return jax.tree.map(one, *parts, is_leaf=lambda leaf: leaf is None)


def add(a: Tree, b: Tree) -> Tree:
    """Adds two trees in which None counts as zero."""

    def one(x: Array | None, y: Array | None) -> Array | None:
        if x is None or y is None:
            return y if x is None else x
        return x + y

    return jax.tree.map(one, a, b, is_leaf=lambda leaf: leaf is None)


def _per_head(heads: Tree, owners: Tree, single: Callable, stacked: Callable) -> Tree:
    """Maps over the head leaves: `single(leaf, k)` or `stacked(leaf)`; None stays None."""

    def one(who: Owner, leaf: Array | None) -> Array | None:
        if leaf is None:
            return None
        return stacked(leaf) if who == STACKED else single(leaf, who)

    return jax.tree.map(one, owners, heads)


def scale_tasks(grads: TaskGrads, owners: Tree, factors: Array) -> TaskGrads:
    """Returns `grads` with everything of task t multiplied by factors[t]."""
    return TaskGrads(scale_rows(grads.shared, factors), scale_heads(grads.heads, owners, factors))


def scale_heads(heads: Tree, owners: Tree, factors: Array) -> Tree:
    """Returns `heads` with the leaves and rows of task t multiplied by factors[t]."""
    return _per_head(
        heads,
        owners,
        single=lambda leaf, k: leaf * factors[k].astype(leaf.dtype),
        stacked=lambda leaf: scale_rows(leaf, factors),
    )


def head_squared_norms(heads: Tree, owners: Tree, num_tasks: int) -> Array:
    """Returns the [T] squared norms of each task's own head gradients."""

    def single(leaf: Array, k: int) -> Array:
        return squared_norms(leaf[None], 1) * (jnp.arange(num_tasks) == k)

    rows = _per_head(
        heads, owners, single=single, stacked=lambda leaf: squared_norms(leaf, num_tasks)
    )
    return sum(jax.tree.leaves(rows), start=jnp.zeros(num_tasks, jnp.float32))

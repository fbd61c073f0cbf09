"""Embedding tables that are updated row by row: a step whose cost does not depend on their size.

A system names the tables and the ids of a batch (`System.table_ids`). Before anything is
differentiated the step

1. gathers the ids of all devices, and finds which of them are distinct: K at most;
2. reads those rows [K, D] and puts them in the table's place, and the positions of the ids among
   them into `batch["slots"]`, where `layers.embedding.lookup` finds them.

To methods the rows are an ordinary parameter, so that task gradients are [T, K, D] on touched rows
only; the engine's sum over devices makes them global. After that a row rule (`row_rules`) moves
the rows and its state of them, and both are written back in place.

Distinct ids without sorting: every id writes the position of its first occurrence into a scratch
array [V] and reads it again. What an earlier step left there is never read, so it is not reset.
Minimum and not "last write wins", whose winner may differ between devices. On two cores this takes
1 ms for 123,000 ids where a sort takes 35 (V = 1e6).

Two backends: "replicated", every device has the table; "sharded", row r lives on device r % P
alone (`parallel.deal`), and its owner reads it for all and writes it. Either way devices exchange
ids, rows and gradients of rows: nothing of length V.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mtl_jax.engine import parallel
from mtl_jax.engine.optim import path_name
from mtl_jax.engine.row_rules import RowRule
from mtl_jax.errors import UserError
from mtl_jax.layers.embedding import PAD
from mtl_jax.methods.ownership import STACKED, owner_tree
from mtl_jax.systems.base import System

Array = jax.Array
Tree = Any
TableBackend = Literal["replicated", "sharded"]


class Tables(NamedTuple):
    """Which tables are updated row by row, and how.

    Attributes:
      rules: the row rule of each table.
      sizes: V of each.
      capacity: most distinct ids of a table in a batch; 0 for as many as there are ids. Fewer
        save memory and time, but a batch with more stops the run.
      backend: where the rows live, see the module.
      clip_norm: global norm over rows and all other parameters to clip to; 0 for no clipping. The
        dense optimiser sees the other parameters only, and could not.
    """

    rules: Mapping[str, RowRule]
    sizes: Mapping[str, int]
    capacity: int = 0
    backend: TableBackend = "replicated"
    clip_norm: float = 0.0

    @property
    def names(self) -> tuple[str, ...]:
        """The tables, in alphabetical order."""
        return tuple(sorted(self.rules))


class Rows(NamedTuple):
    """The distinct rows of a table that a batch touches.

    Attributes:
      at: [K] where they are in this device's part of the table; beyond its end for slots without
        a row and for rows of other devices, all different.
      scratch: the scratch array after the search.
      slots: for each use the positions of its ids among the K; K or more for padding.
      count: int32, how many rows there are; more than K when some found no slot.
    """

    at: Array
    scratch: Array
    slots: dict[str, Array]
    count: Array


def plan(
    system: System,
    params: Tree,
    ids: Tree,
    rule: RowRule,
    *,
    min_rows: int = 20_000,
    capacity: int = 0,
    backend: TableBackend = "replicated",
    clip_norm: float = 0.0,
) -> Tables | None:
    """Picks the tables to update row by row; None where none is large enough.

    Args:
      system: the model.
      params: its parameters, or their shapes.
      ids: what `system.table_ids` returns, or its shapes.
      rule: the optimiser of the rows.
      min_rows: smaller tables stay ordinary parameters; a dense update is as fast up to about
        20,000 rows.
      capacity: see `Tables`.
      backend: see `Tables`.
      clip_norm: see `Tables`.

    Raises:
      UserError: an unknown backend, or a negative number.
      ValueError: a system whose ids and tables do not fit.
    """
    if backend not in ("replicated", "sharded"):
        raise UserError(f"unknown table backend {backend!r}; known: replicated, sharded")
    for what, value in (("capacity", capacity), ("smallest size", min_rows)):
        if value < 0:
            raise UserError(f"the {what} of tables is {value}; it must be 0 or more")
    found = params.get("tables", {})
    owners = owner_tree(params, system.owner, len(system.task_names)).get("tables", {})
    for name in ids:
        if name not in found or found[name].ndim != 2 or owners[name] == STACKED:
            raise ValueError(f"table_ids names {name!r}, but params['tables'] has no [V, D] of it")
    sizes = {name: found[name].shape[0] for name in ids if found[name].shape[0] >= min_rows}
    if not sizes:
        return None
    return Tables(dict.fromkeys(sizes, rule), sizes, capacity, backend, clip_norm)


def check_method(
    init: Callable[[Tree, Tree, int], Tree],
    params: Tree,
    owners: Tree,
    num_tasks: int,
    tables: Tables,
) -> None:
    """Raises a `UserError` for a method whose state has the size of the parameters.

    The rows of a table are other ones in every step, so such a state would be mixed up.
    """

    def shapes(more: int) -> list[tuple[int, ...]]:
        def longer(path: tuple, leaf: Any) -> jax.ShapeDtypeStruct:
            added = more if _name(path) in tables.rules else 0
            shape = (leaf.shape[0] + added, *leaf.shape[1:]) if added else leaf.shape
            return jax.ShapeDtypeStruct(shape, leaf.dtype)

        like = jax.tree_util.tree_map_with_path(longer, params)
        state = jax.eval_shape(lambda tree: init(tree, owners, num_tasks), like)
        return [leaf.shape for leaf in jax.tree.leaves(state)]

    if shapes(0) != shapes(1):
        raise UserError(
            "this method keeps a state for every parameter, which tables updated row by row cannot"
            f" have ({', '.join(tables.names)}); choose another method, or dense table updates"
        )


def cut(tables: Tables | None, tree: Tree) -> Tree:
    """Returns a tree like the parameters without the tables that are updated row by row."""
    if tables is None:
        return tree
    kept = {name: leaf for name, leaf in tree["tables"].items() if name not in tables.rules}
    return {**tree, "tables": kept}


def put(tables: Tables, tree: Tree, leaves: Mapping[str, Array]) -> Tree:
    """Returns a tree like the parameters with other leaves for those tables."""
    return {**tree, "tables": {**tree["tables"], **{name: leaves[name] for name in tables.rules}}}


def init_state(tables: Tables, params: Tree) -> dict[str, dict[str, Any]]:
    """Returns the state of every table: that of its rule, and the scratch array."""
    return {
        name: {
            "rule": rule.init(params["tables"][name]),
            "scratch": jnp.zeros(tables.sizes[name], jnp.int32),
        }
        for name, rule in tables.rules.items()
    }


# -------------------------------------------------------------- within a step


def ids_of(system: System, batch: Tree) -> dict[str, dict[str, Array]]:
    """Returns the system's `table_ids` of a batch; {} for a system without tables."""
    return {} if system.table_ids is None else system.table_ids(batch)


def find(tables: Tables, name: str, uses: Mapping[str, Array], scratch: Array) -> Rows:
    """Finds the distinct ids of all uses of a table, over all devices.

    Args:
      tables: the plan.
      name: of the table.
      uses: int ids [B, ...] of this device's examples, by use.
      scratch: int32, as long as this device's part of the table.
    """
    size = tables.sizes[name]
    flat = jnp.concatenate([ids.reshape(-1) for ids in uses.values()]).astype(jnp.int32)
    ids = parallel.all_gather(jnp.where((flat > PAD) & (flat < size), flat, size))
    count = ids.shape[0]
    each = jnp.arange(count, dtype=jnp.int32)
    at = _locate(tables, name, ids, scratch.shape[0])
    scratch = scratch.at[at].set(count, mode="drop").at[at].min(each, mode="drop")
    first = scratch.at[at].get(mode="fill", fill_value=count)
    if tables.backend == "sharded":
        first = parallel.pmin(first)
    is_first = first == each
    slots, rows = first, jnp.where(is_first, ids, size)
    if 0 < tables.capacity < count:
        rank = jnp.cumsum(is_first, dtype=jnp.int32) - 1
        room = tables.capacity
        slots = rank.at[first].get(mode="fill", fill_value=room)
        target = jnp.where(is_first, rank, room + each)
        rows = jnp.full(room, size, jnp.int32)
        rows = rows.at[target].set(ids, mode="drop", unique_indices=True)
    own, start = parallel.own_part(slots), 0
    by_use = {}
    for use, shape in ((use, ids.shape) for use, ids in uses.items()):
        end = start + int(np.prod(shape))
        by_use[use], start = own[start:end].reshape(shape), end
    at = _locate(tables, name, rows, scratch.shape[0])
    return Rows(at, scratch, by_use, jnp.sum(is_first, dtype=jnp.int32))


def _locate(tables: Tables, name: str, ids: Array, length: int) -> Array:
    """Returns where rows are in this device's part of a table, `length` or more for elsewhere.

    Those are all different: XLA may rely on unique indices even for what is dropped.
    """
    elsewhere = length + jnp.arange(ids.shape[0], dtype=jnp.int32)
    here = ids < tables.sizes[name]
    if tables.backend == "replicated":
        return jnp.where(here, ids, elsewhere)
    device, devices = parallel.position()
    return jnp.where(here & (ids % devices == device), ids // devices, elsewhere)


def _read(leaf: Array, at: Array) -> Array:
    return leaf.at[at].get(mode="fill", fill_value=0)


def _write(leaf: Array, at: Array, rows: Array) -> Array:
    return leaf.at[at].set(rows, mode="drop", unique_indices=True)


def _meet(tables: Tables, rows: Array) -> Array:
    """Every device's own rows, zero elsewhere, to all rows on all devices."""
    return parallel.psum(rows) if tables.backend == "sharded" else rows


def touch(
    tables: Tables, params: Tree, state: Mapping[str, Any], wanted: Mapping[str, Any]
) -> tuple[Tree, dict[str, Rows]]:
    """Returns the parameters with touched rows in the tables' places, and where they are from.

    Args:
      tables: the plan.
      params: the parameters as the devices hold them.
      state: of `init_state`.
      wanted: what `System.table_ids` returns for this device's batch.
    """
    rows = {name: find(tables, name, wanted[name], state[name]["scratch"]) for name in tables.names}
    leaves = {
        name: _meet(tables, _read(params["tables"][name], own.at)) for name, own in rows.items()
    }
    return put(tables, params, leaves), rows


def update(
    tables: Tables,
    leaves: Mapping[str, Array],
    state: Mapping[str, Any],
    rows: Mapping[str, Rows],
    before: Mapping[str, Array],
    grads: Mapping[str, Array],
    step: Array,
    free: Mapping[str, bool] | None = None,
) -> tuple[dict[str, Array], dict[str, Any], dict[str, Array]]:
    """Moves the touched rows and writes them, and the rule's state of them, in place.

    Args:
      tables: the plan.
      leaves: the tables as the devices hold them.
      state: of `init_state`.
      rows: of `touch`.
      before: the rows [K, D] that `touch` read.
      grads: their gradients.
      step: number of updates done.
      free: False for tables that stay as they are; None for none.

    Returns:
      (tables, state, rows [K, D] as this device moved them: those of others are only right after
      `after_update`).
    """
    new_leaves, new_state, moved = {}, {}, {}
    for name, rule in tables.rules.items():
        own, at, old = rows[name], rows[name].at, state[name]["rule"]
        new_leaves[name], moved[name], new = leaves[name], before[name], old
        if free is None or free[name]:
            part = {key: _read(leaf, at) for key, leaf in old.items()}
            moved[name], part = rule.update(before[name], grads[name], part, step)
            new = {key: _write(leaf, at, part[key]) for key, leaf in old.items()}
            new_leaves[name] = _write(leaves[name], at, moved[name])
        new_state[name] = {"rule": new, "scratch": own.scratch}
    return new_leaves, new_state, moved


def after_update(
    tables: Tables, rows: Mapping[str, Rows], leaves: Mapping[str, Array], moved: Mapping
) -> dict[str, Array]:
    """Returns the rows [K, D] after `update`, all of them on every device.

    A device of the sharded backend moves the rows of others with a state that is not theirs.
    """

    def one(name: str) -> Array:
        here = rows[name].at < leaves[name].shape[0]
        return _meet(tables, jnp.where(here[:, None], moved[name], 0))

    return {name: one(name) for name in tables.names}


def clip(tables: Tables, grads: Tree) -> Tree:
    """Clips the global norm of all gradients, rows included."""
    if not tables.clip_norm:
        return grads
    return optax.clip_by_global_norm(tables.clip_norm).update(grads, optax.EmptyState())[0]


def read_for_evaluation(
    tables: Tables, params: Tree, wanted: Mapping[str, Any]
) -> tuple[Tree, dict[str, dict[str, Array]]]:
    """Returns (parameters, slots) of this device's examples where no device has all rows.

    A row for every id, padding and repeated ids included, so that nothing can overflow.
    """
    leaves, slots = {}, {}
    for name in tables.names:
        size, table = tables.sizes[name], params["tables"][name]
        uses = wanted[name]
        flat = jnp.concatenate([ids.reshape(-1) for ids in uses.values()]).astype(jnp.int32)
        ids = parallel.all_gather(jnp.where((flat > PAD) & (flat < size), flat, size))
        at = _locate(tables, name, ids, table.shape[0])
        leaves[name] = parallel.sum_to_owners(_read(table, at))
        slots[name], start = {}, 0
        for use, own in uses.items():
            each = start + jnp.arange(own.size, dtype=jnp.int32).reshape(own.shape)
            slots[name][use], start = each, start + own.size
    return put(tables, params, leaves), slots


# -------------------------------------------------------------- on the host


def check_capacity(tables: Tables | None, counts: np.ndarray, step: int) -> None:
    """Raises a `UserError` if a batch touched more rows than there was room for.

    Args:
      tables: the plan; None does nothing.
      counts: the step's metric `table_rows`, one number a table in alphabetical order.
      step: for the message.
    """
    if tables is None or not tables.capacity:
        return
    for name, count in zip(tables.names, np.asarray(counts), strict=True):
        if count > tables.capacity:
            raise UserError(
                f"the batch of step {step} has {int(count)} distinct ids of the table {name}, but"
                f" config.optim.tables.capacity is {tables.capacity}; give more, or 0 for as many"
                " as needed"
            )


def is_dealt(tables: Tables | None) -> Callable[[Tree], Tree] | None:
    """Returns the marks for `parallel.DataParallel`: rows split over devices; None for none."""
    if tables is None or tables.backend == "replicated":
        return None
    names = tables.names

    def marks(tree: Tree) -> Tree:
        return jax.tree_util.tree_map_with_path(lambda path, _: _name(path) in names, tree)

    return marks


def _name(path: tuple) -> str:
    """The table that a leaf of a state belongs to, "" for none.

    That is what follows "tables" at the top of the parameters or of the optimiser's state, which
    may be a part of a state, or of a tuple.
    """
    names = path_name(path).split("/")
    if names[0] in ("params", "opt_state") or names[0].isdecimal():
        names = names[1:]
    return names[1] if len(names) > 1 and names[0] == "tables" else ""


def place(tables: Tables | None, state: Tree) -> Tree:
    """Places a state of host arrays on the devices. The source must not be used afterwards."""
    dealt = is_dealt(tables)
    if dealt is None:
        return parallel.replicate(state)
    flat, structure = jax.tree.flatten(state)
    marks = jax.tree.leaves(dealt(state))
    plain = parallel.replicate([leaf for leaf, yes in zip(flat, marks, strict=True) if not yes])
    rest = iter(plain)
    placed = [
        parallel.deal(leaf) if yes else next(rest) for leaf, yes in zip(flat, marks, strict=True)
    ]
    return jax.tree.unflatten(structure, placed)


def export(tables: Tables | None, state: Tree) -> Tree:
    """Returns a state with whole tables [V, ...] on the host: what is kept in checkpoints.

    It does not depend on the number of devices nor on the backend: `place` puts it on any. Leaves
    that are not split over devices are returned as they are. All processes must call it.
    """
    dealt = is_dealt(tables)
    if tables is None or dealt is None:
        return state

    def one(path: tuple, leaf: Array, yes: bool) -> Any:
        return parallel.collect(leaf, tables.sizes[_name(path)]) if yes else leaf

    return jax.tree_util.tree_map_with_path(one, state, dealt(state))

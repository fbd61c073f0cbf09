"""The training and the evaluation step: pure functions of (state, resident data, host batch)."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from mtl_jax.engine import parallel, rng
from mtl_jax.engine import tables as row_tables
from mtl_jax.engine.state import TrainState
from mtl_jax.engine.tables import Tables
from mtl_jax.methods import gram
from mtl_jax.methods.base import Info, Method, Problem, Spread
from mtl_jax.methods.ownership import owner_tree
from mtl_jax.methods.task_grads import Strategy, objective, problem
from mtl_jax.systems.base import Data, System

Array = jax.Array
Tree = Any
Precision = Literal["float32", "bfloat16"]


def init_shapes(system: System, data: Data) -> tuple[Tree, Tree]:
    """Returns the shapes of the parameters and of the system's `table_ids`; nothing is computed."""

    def init(resident: Tree, host: Tree) -> tuple[Tree, Tree]:
        batch = data.assemble(resident, host, None)
        return system.init(rng.key_for(0, 0, "init"), batch)[0], row_tables.ids_of(system, batch)

    return jax.eval_shape(init, data.resident, data.train_batch(0))


def init_state(
    system: System,
    data: Data,
    method: Method,
    make_tx: Callable[[Tree, Tree], Any],
    seed: int,
    *,
    tables: Tables | None = None,
) -> tuple[TrainState, optax.GradientTransformation]:
    """Returns the state before the first step, on the host's default device, and the optimiser.

    Args:
      system: the model.
      data: its data; one batch of the training split gives the shapes.
      method: the multi-task method.
      make_tx: `make_tx(params, owners) -> optimiser`; the optimiser will see the parameters without
        `tables`.
      seed: of the run.
      tables: those that are updated row by row. Whole ones: `tables.place` deals them out.

    Raises:
      UserError: a method that cannot do with `tables`.
    """
    host = data.train_batch(0)

    def init(resident: Tree, host: Tree) -> tuple[Tree, Tree]:
        batch = data.assemble(resident, host, None)
        return system.init(rng.key_for(seed, 0, "init"), batch)

    params, model_state = jax.jit(init)(data.resident, host)
    owners = owner_tree(params, system.owner, len(system.task_names))
    tx = make_tx(params, owners)
    if tables is not None:
        row_tables.check_method(method.init, params, owners, len(system.task_names), tables)
    method_state = method.init(params, owners, len(system.task_names))
    step = jnp.zeros((), jnp.int32)
    opt_state = tx.init(row_tables.cut(tables, params))
    if tables is not None:
        opt_state = {"dense": opt_state, "tables": row_tables.init_state(tables, params)}
    return TrainState(step, params, opt_state, model_state, method_state), tx


def bind(
    system: System,
    params: Tree,
    model_state: Tree,
    batch: Tree,
    keys: Array,
    *,
    strategy: Strategy = "auto",
    microbatches: int = 1,
    free: Tree = None,
    precision: Precision = "float32",
) -> Problem:
    """Binds a system to one batch; losses and gradients are global over the devices.

    Parameters where `free` (a tree of bool) is False count as constants: they have no part in
    gradients, Grams and perturbations. None for no such parameters.

    With `precision` bfloat16 the system is handed float32 parameters in bfloat16, rows of tables
    included, and computes in it (`layers.precision`); the derivative of the cast makes gradients
    float32 again. So all that methods see is float32: points, gradients, losses. Only parameters
    are cast. Of a batch a system alone knows what enters the network and what is a target, a count
    or a time, for which eight bits are too few.
    """

    def given(params: Tree) -> Tree:
        return _in_precision(_held(params, free), precision)

    def features(params: Tree, micro: tuple) -> tuple[Tree, Tree]:
        return system.features(given(params), model_state, micro[0], micro[1], True)

    def task_loss(params_t: Tree, z: Tree, micro: tuple, t: Any) -> tuple[Array, Array]:
        return system.task_loss(given(params_t), z, micro[0], t)

    def split(leaf: Array) -> Array:
        rows = leaf.shape[0] // microbatches  # not -1, which no empty leaf [B, 0] allows
        return leaf.reshape(microbatches, rows, *leaf.shape[1:])

    both = (batch, keys) if microbatches == 1 else jax.tree.map(split, (batch, keys))
    return problem(
        objective(params, features, task_loss, len(system.task_names), system.owner),
        both,
        strategy=strategy,
        microbatches=microbatches,
        psum=parallel.psum,
        spread=Spread(
            parallel.position()[1],
            functools.partial(parallel.sum_to_owners, axis=1),
            parallel.all_gather,
        ),
    )


def _held(params: Tree, free: Tree) -> Tree:
    """Returns parameters through which no gradient goes where `free` is False."""
    if free is None:
        return params
    return jax.tree.map(
        lambda leaf, is_free: leaf if is_free else lax.stop_gradient(leaf), params, free
    )


def _in_precision(params: Tree, precision: Precision) -> Tree:
    """Returns parameters as the network gets them: float32 ones in the dtype of the computation."""
    if precision == "float32":
        return params
    return jax.tree.map(
        lambda leaf: leaf.astype(precision) if leaf.dtype == jnp.float32 else leaf, params
    )


def make_train_step(
    system: System,
    data: Data,
    method: Method,
    tx: optax.GradientTransformation,
    *,
    seed: int,
    strategy: Strategy = "auto",
    microbatches: int = 1,
    free: Tree = None,
    precision: Precision = "float32",
    tables: Tables | None = None,
) -> Callable[[TrainState, Tree, Tree], tuple[TrainState, dict[str, Array]]]:
    """Returns `step(state, resident, host) -> (state, metrics)`.

    Keys follow from (seed, state.step). Per-example keys follow from the position in the global
    batch, so that 1 device, 8 devices and several processes are the same run. `precision` is that
    of the network, see `bind`; parameters, the optimiser, the method and the system's `regulariser`
    stay as they are.

    The metrics are: `losses` [T] before the update, `active` [T], `grad_norm`, and where the method
    computes them `weights` [T], `cosines` [T, T], `task_grad_norms` [T], those of the flat parts
    `flat_weights` [T] and `flat_norms` [T], and `perturbed_losses` [T].

    With `tables` also `table_rows`, how many distinct rows of each (alphabetically) the batch
    touches: give it to `tables.check_capacity`. The losses are NaN where there were too many. The
    system's `regulariser` sees the touched rows in the tables' places, once each.
    """

    def step(state: TrainState, resident: Tree, host: Tree) -> tuple[TrainState, dict[str, Array]]:
        local = jax.tree.leaves(host)[0].shape[0]
        index = parallel.example_index(local)
        data_keys = rng.example_keys(rng.key_for(seed, state.step, "data"), index)
        keys = rng.example_keys(rng.key_for(seed, state.step, "train"), index)
        batch = data.assemble(resident, host, data_keys)
        params, rows = state.params, {}
        if tables is not None:
            ids = row_tables.ids_of(system, batch)
            params, rows = row_tables.touch(tables, params, state.opt_state["tables"], ids)
            batch = {**batch, "slots": {name: own.slots for name, own in rows.items()}}
        bound = bind(
            system,
            params,
            state.model_state,
            batch,
            keys,
            strategy=strategy,
            microbatches=microbatches,
            free=free,
            precision=precision,
        )
        update = method.update(
            bound, params, state.method_state, rng.key_for(seed, state.step, "method")
        )
        grads = update.grads
        if system.regulariser is not None:
            added = jax.grad(lambda p: system.regulariser(_held(p, free)))(params)
            grads = jax.tree.map(jnp.add, grads, added)
        if tables is None:
            updates, opt_state = tx.update(grads, state.opt_state, params)
            params = point = optax.apply_updates(params, updates)
        else:
            grads = row_tables.clip(tables, grads)
            params, opt_state, point = _apply(tx, tables, state, params, rows, grads, free)
        method_state = update.state
        if method.after_step is not None:
            after, _, _ = bound.losses(point)
            method_state = method.after_step(
                method_state, update.losses, after, active=update.active
            )
        new = TrainState(
            step=state.step + 1,
            params=params,
            opt_state=opt_state,
            model_state=_mean_state(update.aux, state.model_state),
            method_state=method_state,
        )
        metrics = {
            "losses": update.losses,
            "active": update.active,
            "grad_norm": optax.tree.norm(grads),
            **_describe(update.info),
        }
        if tables is not None:
            counts = jnp.stack([rows[name].count for name in tables.names])
            room = tables.capacity or np.iinfo(np.int32).max
            metrics["losses"] = jnp.where((counts > room).any(), jnp.nan, update.losses)
            metrics["table_rows"] = counts
        return new, metrics

    return step


def _apply(
    tx: optax.GradientTransformation,
    tables: Tables,
    state: TrainState,
    at: Tree,
    rows: dict[str, row_tables.Rows],
    grads: Tree,
    free: Tree,
) -> tuple[Tree, Tree, Tree]:
    """Updates the parameters where some tables are updated row by row.

    `at` and `grads` have the touched rows in those tables' places. Returns (parameters, optimiser
    state, parameters with touched rows in the tables' places).
    """
    dense = row_tables.cut(tables, at)
    updates, opt_state = tx.update(row_tables.cut(tables, grads), state.opt_state["dense"], dense)
    dense = optax.apply_updates(dense, updates)
    leaves, row_state, moved = row_tables.update(
        tables,
        state.params["tables"],
        state.opt_state["tables"],
        rows,
        at["tables"],
        grads["tables"],
        state.step,
        None if free is None else free["tables"],
    )
    # Computed only where a method asks for the loss after the step; else XLA drops it.
    point = row_tables.put(tables, dense, row_tables.after_update(tables, rows, leaves, moved))
    params = row_tables.put(tables, dense, leaves)
    return params, {"dense": opt_state, "tables": row_state}, point


def repeat(step: Callable, count: int) -> Callable:
    """Returns `many(state, resident, hosts) -> (state, metrics)`: `count` steps in one call.

    The device goes from one step to the next by itself, so that a step of a fraction of a
    millisecond does not wait for the host. Leaves of `hosts` are [B, count, ...], see
    `stack_batches`; metrics lead with an axis [count].
    """

    def many(state: TrainState, resident: Tree, hosts: Tree) -> tuple[TrainState, Tree]:
        by_step = jax.tree.map(lambda leaf: jnp.moveaxis(leaf, 1, 0), hosts)
        return lax.scan(lambda state, host: step(state, resident, host), state, by_step)

    return many


def stack_batches(batches: Sequence[Tree]) -> Tree:
    """Stacks the host batches of consecutive steps, [B, ...] each, to [B, count, ...]."""
    return jax.tree.map(lambda *leaves: np.stack(leaves, 1), *batches)


def _mean_state(moved: Tree, before: Tree) -> Tree:
    """Averages over the devices; equal already where batch statistics are synced.

    `constants` are taken from the state before the step: the mean of equal numbers, over devices
    or micro-batches, may differ from them in the last bit, and they would drift.
    """
    if not isinstance(moved, dict) or "constants" not in moved:
        return parallel.pmean(moved)
    moving = {name: leaf for name, leaf in moved.items() if name != "constants"}
    return {**parallel.pmean(moving), "constants": before["constants"]}


def _describe(info: Info) -> dict[str, Array]:
    out = {}
    if info.weights is not None:
        out["weights"] = info.weights
    if info.flat_weights is not None:
        out["flat_weights"] = info.flat_weights
    if info.gram is not None:
        out["cosines"] = gram.cosines(info.gram)
        out["task_grad_norms"] = jnp.sqrt(jnp.diag(info.gram))
    if info.flat_gram is not None:
        out["flat_norms"] = jnp.sqrt(jnp.diag(info.flat_gram))
    if info.perturbed_losses is not None:
        out["perturbed_losses"] = info.perturbed_losses
    return out


def make_eval_step(
    system: System, data: Data, tables: Tables | None = None
) -> Callable[[tuple[Tree, Tree], Tree, Tree], tuple[tuple, dict[str, Tree]]]:
    """Returns `step((params, model_state), resident, host) -> ((), metric states)`.

    Metric states are sums over all devices' examples. Evaluated are the parameters as they are
    kept, in float32, whatever precision they are trained in.
    """

    def step(carry: tuple[Tree, Tree], resident: Tree, host: Tree) -> tuple[tuple, dict[str, Tree]]:
        params, model_state = carry
        batch = data.assemble(resident, host, None)
        if tables is not None and tables.backend == "sharded":
            ids = row_tables.ids_of(system, batch)
            params, slots = row_tables.read_for_evaluation(tables, params, ids)
            batch = {**batch, "slots": slots}
        return (), parallel.psum(system.metrics(params, model_state, batch))

    return step

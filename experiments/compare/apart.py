"""A network for each task, of any system: what Delta_m is measured against."""

from __future__ import annotations

from typing import Any

import jax

from mtl_jax.methods.ownership import STACKED, is_stacked, owner_tree
from mtl_jax.systems.base import System

Array = jax.Array
Tree = Any


def apart(system: System) -> System:
    """Returns T whole networks of a system, trained side by side; network t has the loss of task t.

    Each is drawn with a key of its own. Heads of other tasks come along and are never trained.
    Dropout, where there is any, is by the keys of the batch.

    Args:
      system: a model without running statistics and without tables updated by row. Constants in
        its model state are the same for all networks.

    Raises:
      ValueError: when it is initialised, for a model with other state.
    """
    tasks = system.task_names
    num_tasks = len(tasks)

    def init(key: Array, batch: Tree) -> tuple[Tree, Tree]:
        keys = jax.random.split(key, num_tasks)
        params = jax.vmap(lambda k: system.init(k, batch)[0])(keys)
        state = system.init(key, batch)[1]
        if set(state) - {"constants"}:
            raise ValueError(f"networks with state {sorted(state)} cannot be trained side by side")
        return {"apart": params}, state

    def features(
        params: Tree, model_state: Tree, batch: Tree, keys: Array | None, train: bool
    ) -> tuple[Tree, Tree]:
        del params, batch, keys, train
        return model_state, model_state

    def task_loss(params_t: Tree, z: Tree, batch: Tree, t: Any) -> tuple[Array, Array]:
        own, state, keys = params_t["apart"], z, batch.get("keys")
        z, _ = system.features(own, state, batch, keys, keys is not None)
        owners = owner_tree(own, system.owner, num_tasks)
        cut = jax.tree.map(lambda who, leaf: leaf[t] if is_stacked(who) else leaf, owners, own)
        return system.task_loss(cut, z, batch, t)

    def metrics(params: Tree, model_state: Tree, batch: Tree) -> dict[str, Tree]:
        # Of all tasks by every network: one program for all networks is quicker to compile.
        every = jax.vmap(lambda own: system.metrics(own, model_state, batch))(params["apart"])
        return {
            task: jax.tree.map(lambda leaf, t=t: leaf[t], every[task])
            for t, task in enumerate(tasks)
        }

    return System(tasks, init, features, task_loss, lambda path: STACKED, metrics)

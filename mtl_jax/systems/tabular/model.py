"""T heads on one MLP, or T networks side by side, with their losses.

Parameters, shared:

    trunk    dense layers that all tasks read
    heads    rows [T, ...]: hidden layers and the output of a task

Parameters, single:

    apart    rows [T, ...]: trunk and head of each task
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mtl_jax.data.tabular_sets import Kind
from mtl_jax.layers.nets import dense, init_dense, init_mlp, mlp
from mtl_jax.layers.precision import like, wide
from mtl_jax.metrics.base import unstack
from mtl_jax.metrics.binary import binary_scores
from mtl_jax.systems.base import System
from mtl_jax.systems.tabular.config import Top
from mtl_jax.systems.tabular.metrics import label_counts, target_error

Array = jax.Array
Tree = Any


def make_system(
    kind: Kind,
    task_names: Sequence[str],
    widths: Sequence[int],
    tower: Sequence[int],
    rate: float,
    scale: np.ndarray,
    top: Top = "shared",
) -> System:
    """Returns the system of a table.

    A batch has `x` [B, F], `target` and `label_mask` [B, T] and, for regression, `deviation` and
    `offset` [B, T] (see `data.prepare`), in training `keys` [B], and in evaluation may have `mask`
    [B] (0 for padding rows). The loss of a task is the mean, over its labelled rows, of the binary
    cross-entropy, or of the squared error of the scaled target.

    Args:
      kind: "binary" or "regression".
      task_names: T names.
      widths: hidden widths of the trunk.
      tower: hidden widths of a head.
      rate: of dropout, after every hidden layer.
      scale: [T], the unit of each output, for predictions and errors.
      top: "shared", or "single" for a network for each task.
    """
    num_tasks = len(task_names)
    stack = "heads" if top == "shared" else "apart"

    def init_trunk(key: Array, inputs: int) -> Tree:
        return init_mlp(key, inputs, widths)

    def init_head(key: Array, inputs: int) -> Tree:
        first, last = jax.random.split(key)
        return {
            "tower": init_mlp(first, inputs, tower),
            "out": init_dense(last, tower[-1] if tower else inputs, 1),
        }

    def init(key: Array, batch: Tree) -> tuple[Tree, Tree]:
        inputs = batch["x"].shape[-1]
        features = widths[-1] if widths else inputs
        trunk_key, head_key = jax.random.split(key)
        heads = jax.vmap(lambda k: init_head(k, features))(jax.random.split(head_key, num_tasks))
        if top == "shared":
            return {"trunk": init_trunk(trunk_key, inputs), "heads": heads}, {}
        trunks = jax.vmap(lambda k: init_trunk(k, inputs))(jax.random.split(trunk_key, num_tasks))
        return {"apart": {"trunk": trunks, "head": heads}}, {}

    def shared_part(trunk: Tree, x: Array, keys: Array | None) -> Array:
        return mlp(trunk, like(x, trunk) if widths else x, keys, rate)

    def own_part(head: Tree, z: Array, keys: Array | None) -> Array:
        hidden = mlp(head["tower"], like(z, head), keys, rate, site=len(widths))
        return wide(dense(head["out"], hidden)[..., 0])

    def features(
        params: Tree, model_state: Tree, batch: Tree, keys: Array | None, train: bool
    ) -> tuple[Tree, Tree]:
        if top == "single":
            return (), model_state
        return shared_part(params["trunk"], batch["x"], keys if train else None), model_state

    def output(params_t: Tree, z: Tree, batch: Tree, keys: Array | None) -> Array:
        """Outputs [B] of the task whose rows are cut out in `params_t`."""
        if top == "single":
            own = params_t["apart"]
            return own_part(own["head"], shared_part(own["trunk"], batch["x"], keys), keys)
        return own_part(params_t["heads"], z, keys)

    def task_loss(params_t: Tree, z: Tree, batch: Tree, t: Any) -> tuple[Array, Array]:
        found = output(params_t, z, batch, batch.get("keys"))
        target, weight = batch["target"][:, t], batch["label_mask"][:, t]
        if kind == "binary":
            loss = jax.nn.softplus(jnp.where(target == 1, -found, found))
        else:
            loss = jnp.square(found - target)
        return jnp.sum(jnp.where(weight > 0, loss, 0)), jnp.sum(weight)

    def owner(path: tuple[str, ...]) -> str:
        return "stacked" if path[0] == stack else "shared"

    def everything(params: Tree, batch: Tree) -> Array:
        """Outputs [T, B] of all tasks."""
        z, _ = features(params, {}, batch, None, False)
        return jax.vmap(lambda rows: output({**params, stack: rows}, z, batch, None))(params[stack])

    def metrics(params: Tree, model_state: Tree, batch: Tree) -> dict[str, Tree]:
        del model_state
        found, target = everything(params, batch), batch["target"].T
        counted = (batch["label_mask"] * jnp.asarray(batch.get("mask", 1)).reshape(-1, 1)).T != 0
        if kind == "binary":
            scores = unstack(jax.vmap(binary_scores)(found, target, counted), task_names)
            return {**scores, "labels": label_counts(found.T, target.T, counted.T)}
        error = (found - target) * jnp.asarray(scale)[:, None]
        states = jax.vmap(target_error)(error, batch["deviation"].T, counted)
        return unstack(states, task_names)

    def predict(params: Tree, model_state: Tree, batch: Tree) -> Tree:
        """Logits and probabilities, or predictions in the targets' units; all [B, T]."""
        del model_state
        found = everything(params, batch).T
        if kind == "binary":
            return {"logit": found, "probability": jax.nn.sigmoid(found)}
        return {"value": found * jnp.asarray(scale)[None] + batch["offset"]}

    return System(tuple(task_names), init, features, task_loss, owner, metrics, predict)

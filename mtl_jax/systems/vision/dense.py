"""Dense prediction, a map a task on one trunk: NYUv2 (3 tasks) and CityScapes (2 tasks)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from mtl_jax.layers.precision import like, wide
from mtl_jax.methods.ownership import Owner
from mtl_jax.metrics.base import Mean
from mtl_jax.systems.base import System
from mtl_jax.systems.vision import dense_losses, dense_metrics
from mtl_jax.systems.vision.delta_m import DeltaM
from mtl_jax.systems.vision.segnet import DenseHead

Array = jax.Array
Tree = Any


class DenseTask(NamedTuple):
    """What one task predicts at every pixel.

    Attributes:
      field: of the batch that holds its labels.
      outputs: channels of its head; 0 for one a class.
      loss: `loss(prediction, labels, mask) -> (sum, weight)`.
      metric: `metric(prediction, labels, mask) -> metric state`.
      predict: what the head's output says, [B, H, W, ...].
    """

    field: str
    outputs: int
    loss: Callable[..., tuple[Array, Array]]
    metric: Callable[..., Any]
    predict: Callable[[Array], Array]


TASKS = {
    "segmentation": DenseTask(
        "label",
        0,
        dense_losses.segmentation_nll,
        dense_metrics.segmentation,
        lambda logits: jnp.argmax(logits, -1),
    ),
    "depth": DenseTask(
        "depth", 1, dense_losses.depth_l1, dense_metrics.depth, lambda depth: depth[..., 0]
    ),
    "normal": DenseTask(
        "normal",
        3,
        dense_losses.normals_cosine,
        dense_metrics.normals,
        dense_losses.unit_vectors,
    ),
}


def make_dense_system(trunk: nn.Module, task_names: tuple[str, ...], num_classes: int) -> System:
    """Returns the system of one trunk and a `DenseHead` a task, of which each is its task's own.

    A batch has `image` [B, H, W, 3] float and the labels of its tasks: `label` [B, H, W] int (-1:
    no class), `depth` [B, H, W, 1] (0: not measured), `normal` [B, H, W, 3] (0: not measured); in
    evaluation also `mask` [B], 0 for padding rows. The loss of a task is a mean over all labelled
    pixels of the step, over all devices; the authors' code means over those of its one device.

    Metrics, besides those of `dense_metrics`: `<task>/loss`, and `delta_m` of the paper.

    Args:
      trunk: module `trunk(x, train) -> [B, H, W, D]`.
      task_names: of `TASKS`.
      num_classes: of the segmentation.
    """
    tasks = [TASKS[name] for name in task_names]
    heads = [DenseHead(task.outputs or num_classes) for task in tasks]

    def apply(params: Tree, model_state: Tree, batch: Tree, train: bool) -> tuple[Array, Tree]:
        variables = {"params": params["trunk"], **model_state}
        mutable = list(model_state) if train else []
        image = like(batch["image"], params["trunk"])
        z, moved = trunk.apply(variables, image, train, mutable=mutable)
        return jnp.asarray(z), {**model_state, **moved}

    def init(key: Array, batch: Tree) -> tuple[Tree, Tree]:
        trunk_key, *head_keys = jax.random.split(key, 1 + len(tasks))
        first = {"image": batch["image"][:1]}
        model_state = dict(trunk.init(trunk_key, first["image"], False))
        params = {"trunk": model_state.pop("params")}
        z, _ = apply(params, model_state, first, False)
        own = {
            name: head.init(k, z)["params"]
            for name, head, k in zip(task_names, heads, head_keys, strict=True)
        }
        return {**params, "heads": own}, model_state

    def features(
        params: Tree, model_state: Tree, batch: Tree, keys: Array, train: bool
    ) -> tuple[Array, Tree]:
        del keys  # nothing random in the trunk
        return apply(params, model_state, batch, train)

    def output(params: Tree, z: Array, t: int) -> Array:
        return wide(jnp.asarray(heads[t].apply({"params": params["heads"][task_names[t]]}, z)))

    def task_loss(params_t: Tree, z: Array, batch: Tree, t: int) -> tuple[Array, Array]:
        task = tasks[t]
        return task.loss(output(params_t, z, t), batch[task.field], batch.get("mask"))

    def owner(path: tuple[str, ...]) -> Owner:
        return task_names.index(path[1]) if path[0] == "heads" else "shared"

    def predict(params: Tree, model_state: Tree, batch: Tree) -> Tree:
        """Class [B, H, W] int32, depth [B, H, W] and unit normal [B, H, W, 3], by task."""
        z, _ = apply(params, model_state, batch, False)
        return {
            name: task.predict(output(params, z, t))
            for t, (name, task) in enumerate(zip(task_names, tasks, strict=True))
        }

    def metrics(params: Tree, model_state: Tree, batch: Tree) -> dict[str, Tree]:
        z, _ = apply(params, model_state, batch, False)
        mask = batch.get("mask")
        states: dict[str, Tree] = {}
        losses: dict[str, Tree] = {}
        for t, (name, task) in enumerate(zip(task_names, tasks, strict=True)):
            said, labels = output(params, z, t), batch[task.field]
            states[name] = task.metric(said, labels, mask)
            losses[f"{name}/loss"] = Mean(*task.loss(said, labels, mask))
        return {**states, **losses, "delta_m": DeltaM(dict(states))}

    return System(task_names, init, features, task_loss, owner, metrics, predict)

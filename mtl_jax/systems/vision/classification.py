"""T classification heads on one image trunk: Multi-MNIST and its family, CelebA."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from mtl_jax.layers.precision import like
from mtl_jax.metrics.base import unstack
from mtl_jax.metrics.classification import classification
from mtl_jax.systems.base import System
from mtl_jax.systems.vision.heads import init_stacked

Array = jax.Array
Tree = Any


def unit_range(images: Array) -> Array:
    """Returns images of 0..255 as float32 in 0..1."""
    return images.astype(jnp.float32) / 255.0


def make_system(
    trunk: nn.Module,
    head: nn.Module,
    task_names: tuple[str, ...],
    to_input: Callable[[Array], Array] = unit_range,
) -> System:
    """Returns the system of one trunk and T equal, stacked heads with cross-entropy losses.

    A batch has `image` [B, H, W, C] (uint8, or float in 0..255), `label` [B, T] int, and may have
    `label_mask` [B, T] (0 where a label is missing) and `mask` [B] (0 for padding rows).

    Args:
      trunk: module `trunk(x, train) -> [B, D]`.
      head: module `head(z) -> [B, classes]`.
      task_names: one name a task.
      to_input: what the trunk sees of `image`.
    """
    num_tasks = len(task_names)

    def apply(params: Tree, model_state: Tree, batch: Tree, train: bool) -> tuple[Array, Tree]:
        x = like(to_input(batch["image"]), params["trunk"])
        variables = {"params": params["trunk"], **model_state}
        z, moved = trunk.apply(variables, x, train, mutable=list(model_state) if train else [])
        return jnp.asarray(z), {**model_state, **moved}

    def init(key: Array, batch: Tree) -> tuple[Tree, Tree]:
        trunk_key, head_key = jax.random.split(key)
        x = to_input(batch["image"][:2])
        model_state = dict(trunk.init(trunk_key, x, False))
        params = model_state.pop("params")
        z, _ = apply({"trunk": params}, model_state, {"image": batch["image"][:2]}, False)
        return {"trunk": params, "heads": init_stacked(head, head_key, z, num_tasks)}, model_state

    def features(
        params: Tree, model_state: Tree, batch: Tree, keys: Array, train: bool
    ) -> tuple[Array, Tree]:
        del keys  # nothing random in these trunks
        return apply(params, model_state, batch, train)

    def task_loss(params_t: Tree, z: Array, batch: Tree, t: Any) -> tuple[Array, Array]:
        logits = jnp.asarray(head.apply({"params": params_t["heads"]}, z), jnp.float32)
        nll = optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"][:, t])
        if "label_mask" not in batch:
            return jnp.sum(nll), jnp.asarray(nll.shape[0], jnp.float32)
        weight = batch["label_mask"][:, t].astype(jnp.float32)
        return jnp.sum(jnp.where(weight > 0, nll * weight, 0)), jnp.sum(weight)

    def owner(path: tuple[str, ...]) -> str:
        return "stacked" if path[0] == "heads" else "shared"

    def all_logits(params: Tree, model_state: Tree, batch: Tree) -> Array:
        z, _ = apply(params, model_state, batch, False)
        return jax.vmap(lambda row: jnp.asarray(head.apply({"params": row}, z)))(params["heads"])

    def predict(params: Tree, model_state: Tree, batch: Tree) -> Tree:
        """Class probabilities [B, T, classes]."""
        logits = all_logits(params, model_state, batch)
        return {"probability": jnp.moveaxis(jax.nn.softmax(logits, axis=-1), 0, 1)}

    def metrics(params: Tree, model_state: Tree, batch: Tree) -> dict[str, Tree]:
        logits = all_logits(params, model_state, batch)
        masks = jnp.broadcast_to(
            jnp.asarray(batch.get("mask", 1)).reshape(-1, 1) != 0, batch["label"].shape
        )
        if "label_mask" in batch:
            masks &= batch["label_mask"] != 0
        # One program for all tasks: 40 copies of it take minutes to compile.
        return unstack(jax.vmap(classification)(logits, batch["label"].T, masks.T), task_names)

    return System(task_names, init, features, task_loss, owner, metrics, predict)

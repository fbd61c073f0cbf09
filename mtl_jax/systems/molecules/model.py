"""The molecular network as a system: one trunk, an equal head for each property.

Losses are of properties standardised by the training molecules, so that eleven units meet on one
scale; mean and deviation are part of the model state, and a checkpoint holds them.
"""

from __future__ import annotations

from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from mtl_jax.data.molecules import TARGETS, MoleculeSet
from mtl_jax.layers.precision import like, wide
from mtl_jax.metrics.base import Mean, mean
from mtl_jax.systems.base import System

Array = jax.Array
Tree = Any
Loss = Literal["l1", "huber", "mse"]


def fit_scales(found: MoleculeSet) -> dict[str, np.ndarray]:
    """Returns `mean` and `std` [T] float32 of the training molecules; a constant has std 1."""
    own = found.targets[found.splits["train"]].astype(np.float64)
    std = own.std(0)
    scales = {"mean": own.mean(0), "std": np.where(std > 0, std, 1.0)}
    return {name: value.astype(np.float32) for name, value in scales.items()}


def error_loss(kind: Loss, error: Array) -> Array:
    """Returns the loss of each standardised error.

    l1: |e|. huber: e^2 / 2 where |e| < 1, else |e| - 1/2. mse: e^2.
    """
    if kind == "mse":
        return jnp.square(error)
    size = jnp.abs(error)
    if kind == "l1":
        return size
    near = jnp.minimum(size, 1.0)
    return 0.5 * jnp.square(near) + (size - near)


def make_system(
    trunk: nn.Module,
    head: nn.Module,
    task_names: tuple[str, ...],
    scales: dict[str, np.ndarray],
    loss: Loss = "l1",
) -> System:
    """Returns the system of one trunk and T equal, stacked heads.

    A batch has `charges` [B, A], `positions` [B, A, 3] in Angstrom, `target` [B, T] in the units of
    `data.molecules.TARGETS`, and may have `mask` [B] (0 for rows of padding).

    Metrics of a task: the mean absolute error in the literature's unit, whose name has the unit in
    it (so that no mean over units is taken), and `std_mae`, the same over the standard deviation of
    the training molecules.

    Args:
      trunk: module `trunk(charges, positions) -> [B, D]`.
      head: module `head(z) -> [B]`.
      task_names: of the T properties, names of `TARGETS`.
      scales: of `fit_scales`; the model state's copy is the one that counts.
      loss: see `error_loss`.
    """
    num_tasks = len(task_names)
    known = {target.name: target for target in TARGETS}

    def trunk_of(params: Tree, batch: Tree) -> Array:
        z = trunk.apply({"params": params["trunk"]}, batch["charges"], batch["positions"])
        return jnp.asarray(z)

    def head_of(params: Tree, z: Array) -> Array:
        return wide(jnp.asarray(head.apply({"params": params}, like(z, params))))

    def init(key: Array, batch: Tree) -> tuple[Tree, Tree]:
        trunk_key, head_key = jax.random.split(key)
        two = [batch[name][:2] for name in ("charges", "positions")]
        params = {"trunk": trunk.init(trunk_key, *two)["params"]}
        z = trunk_of(params, {"charges": two[0], "positions": two[1]})
        keys = jax.random.split(head_key, num_tasks)
        params["heads"] = jax.vmap(lambda k: head.init(k, z)["params"])(keys)
        return params, {"constants": jax.tree.map(jnp.asarray, scales)}

    def features(
        params: Tree, state: Tree, batch: Tree, keys: Array, train: bool
    ) -> tuple[Tree, Tree]:
        del keys, train  # nothing random, no statistics
        return {"molecule": trunk_of(params, batch), **state["constants"]}, state

    def task_loss(params_t: Tree, z: Tree, batch: Tree, t: Any) -> tuple[Array, Array]:
        truth = (batch["target"][:, t] - z["mean"][t]) / z["std"][t]
        error = (head_of(params_t["heads"], z["molecule"]) - truth).astype(jnp.float32)
        if "mask" not in batch:
            return jnp.sum(error_loss(loss, error)), jnp.asarray(error.shape[0], jnp.float32)
        real = batch["mask"] != 0
        losses = error_loss(loss, jnp.where(real, error, 0.0))
        return jnp.sum(losses), jnp.sum(real, dtype=jnp.float32)

    def owner(path: tuple[str, ...]) -> str:
        return "stacked" if path[0] == "heads" else "shared"

    def solve(params: Tree, state: Tree, batch: Tree) -> Array:
        """Properties [B, T] in their own units."""
        z = trunk_of(params, batch)
        out = jax.vmap(lambda row: head_of(row, z))(params["heads"])
        scale = state["constants"]
        return out.T * scale["std"][None] + scale["mean"][None]

    def metrics(params: Tree, state: Tree, batch: Tree) -> dict[str, Tree]:
        error = jnp.abs(solve(params, state, batch) - batch["target"])
        real = batch["mask"] != 0 if "mask" in batch else jnp.ones(error.shape[0], bool)
        std = state["constants"]["std"]

        def of_task(t: int, name: str) -> dict[str, Mean]:
            found = known[name]
            return {
                found.metric: mean(error[:, t] * found.scale, real),
                "std_mae": mean(error[:, t] / std[t], real),
            }

        return {name: of_task(t, name) for t, name in enumerate(task_names)}

    def predict(params: Tree, state: Tree, batch: Tree) -> Tree:
        """Properties [B, T], in the units of `TARGETS`."""
        return {"target": solve(params, state, batch)}

    return System(task_names, init, features, task_loss, owner, metrics, predict)

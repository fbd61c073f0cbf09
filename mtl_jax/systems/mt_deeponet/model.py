"""The multi-task DeepONet as a system: every task goes through one branch and one trunk.

Tasks are families of problems: forms of a source term, geometries, designs. They reach the network
through the branch's input alone, so all parameters are shared; `film` adds a scale and a shift of
the latent product for each task.

What is computed once and what per task decides the cost of per-task gradients. The trunk sees the
query points only: it is evaluated once, and T cotangents go through it. The branch sees the
samples, of which every task has its own: in a stratified batch, where sample i belongs to task
i mod T, task t evaluates it on its own rows, so that all T branch gradients together cost as much
as one. Where a batch is mixed, or the branch normalises over the batch or drops units, the
branch is evaluated once for all, and T cotangents go through it as well.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from mtl_jax.data.operators import OperatorSet
from mtl_jax.layers.precision import like, narrow
from mtl_jax.metrics.base import unstack
from mtl_jax.metrics.operators import operator_error
from mtl_jax.systems.base import System
from mtl_jax.systems.mt_deeponet import normaliser
from mtl_jax.systems.mt_deeponet.data import points_of_step
from mtl_jax.systems.mt_deeponet.losses import Loss, loss_sum

Array = jax.Array
Tree = Any


class Networks(NamedTuple):
    """The parts of a DeepONet.

    Attributes:
      branch: `branch(x, train, keys) -> [B, p]`.
      trunk: `trunk(y, train) -> [..., p]`.
      image: whether the branch reads [B, H, W, channels] images; else vectors.
      mask_channel: whether an image has the geometry's mask as a second channel.
      mask_input: whether a field in the layout of the query points is put to its mean outside
        the geometry.
      film: whether each task has a scale [p] of the products and a shift.
      warp: `warp(params [B, P], y [n, d]) -> [B, n, d']`: coordinates as each sample's geometry
        sees them, in place of scaled ones; then the trunk is evaluated for every sample.
    """

    branch: nn.Module
    trunk: nn.Module
    image: bool
    mask_channel: bool = True
    mask_input: bool = True
    film: bool = False
    warp: Callable[[Array, Array], Array] | None = None


def make_system(
    found: OperatorSet,
    networks: Networks,
    scales: dict[str, Any],
    *,
    loss: Loss = "relative_l2",
    stratified: bool = True,
    shared_branch: bool = False,
    points_per_step: int = 0,
    seed: int = 0,
    branch_l2: float = 0.0,
    grid_points: int | None = None,
) -> System:
    """Returns the system of one set of problems.

    A batch has `params` [B, P], `field` [B, ...], `solution` [B, n] in its own unit, `size` [B],
    the root mean square of that over all points inside, drawn or not, `inside` [B, n] bool, `task`
    [B], `coords` [B, n, d] for query points of each sample's own, and `image_mask`, like the field,
    where that is an image or has the layout of the query points. A training batch also has `step`
    [B], the number of its step; one of evaluation, on all query points and in no order, `edge`
    [B, n] bool and `mask` [B] (0 for rows of padding). For `predict` there may be `query` [n, d],
    other points, which all samples share.

    Args:
      found: the set; its coordinates and masks become constants of the program.
      networks: the parts.
      scales: what `normaliser.fit` gives; the model state's copy is the one that counts.
      loss: see `losses`.
      stratified: sample i of a training batch belongs to task i mod T.
      shared_branch: evaluate the branch once for the whole batch (see above).
      points_per_step: n > 0 trains on n query points, drawn anew for every step and shared by the
        batch; 0 for all.
      seed: of that draw.
      branch_l2: coefficient of the sum of squares of the branch's kernels.
      grid_points: size of the grid that the N points are part of, for grid_mse; None for N.
    """
    num_tasks, points = len(found.task_names), found.masks.shape[1]
    coords = None if found.pointwise else jnp.asarray(found.coords)
    share = (grid_points or points) / points

    def branch_input(scales: Tree, batch: Tree) -> Array:
        numbers, field = normaliser.inputs(scales, batch["params"], batch["field"])
        if networks.mask_input and "image_mask" in batch:
            field = jnp.where(batch["image_mask"], field, 0)
        if not networks.image:
            flat = field.reshape(field.shape[0], math.prod(field.shape[1:]))
            return jnp.concatenate([numbers, flat], 1)
        layers = [field]
        if networks.mask_channel:
            layers.append(batch["image_mask"].astype(field.dtype))
        return jnp.stack(layers, -1)

    def run_branch(
        params: Tree, state: Tree, batch: Tree, keys: Array | None, train: bool
    ) -> tuple[Array, Tree]:
        return _apply(
            networks.branch,
            params["branch"],
            state["branch"],
            like(branch_input(state["constants"], batch), params["branch"]),
            train,
            keys,
        )

    def seen(scales: Tree, params: Array, y: Array) -> Array:
        """Coordinates [n, d'] or [B, n, d'] as the trunk reads them."""
        if networks.warp is not None:
            return networks.warp(params, y)
        return normaliser.coordinates(scales, y)

    def run_trunk(
        params: Tree, state: Tree, batch: Tree, index: Array | None, train: bool
    ) -> tuple[Array, Tree]:
        """Basis functions [n, p] at the points `index`, or [B, n, p] at points of their own."""
        y = batch.get("query", coords)
        if y is None:
            y = batch["coords"]
        elif index is not None:
            y = y[index]
        y = seen(state["constants"], batch["params"], y)
        own = params["trunk"]
        return _apply(networks.trunk, own, state["trunk"], y, train, narrow(own))

    def product(film: Tree, coefficients: Array, basis: Array) -> Array:
        """Normalised solutions [b, n]; `film` is that of one task, or has a row a sample."""
        if film is not None:
            scale = film["scale"].reshape(-1, coefficients.shape[1])
            coefficients = coefficients * (1 + scale)
        # The sum over p is the solution itself: all bits of it.
        exact = jnp.promote_types(coefficients.dtype, jnp.float32)
        if basis.ndim == 3:
            out = jnp.einsum("bp,bnp->bn", coefficients, basis, preferred_element_type=exact)
        else:
            out = jnp.matmul(coefficients, basis.T, preferred_element_type=exact)
        return out if film is None else out + film["shift"].reshape(-1, 1)

    def init(key: Array, batch: Tree) -> tuple[Tree, Tree]:
        branch_key, trunk_key = jax.random.split(key)
        constants = jax.tree.map(jnp.asarray, scales)
        x = branch_input(constants, jax.tree.map(lambda leaf: leaf[:2], batch))
        y = coords[:2] if coords is not None else batch["coords"][0, :2]
        y = seen(constants, batch["params"][:2], y)
        branch = dict(networks.branch.init(branch_key, x))
        trunk = dict(networks.trunk.init(trunk_key, y))
        params = {"branch": branch.pop("params"), "trunk": trunk.pop("params")}
        if networks.film:
            basis, _ = _apply(networks.trunk, params["trunk"], trunk, y, False)
            params["film"] = {
                "scale": jnp.zeros((num_tasks, basis.shape[-1])),
                "shift": jnp.zeros((num_tasks,)),
            }
        return params, {"branch": branch, "trunk": trunk, "constants": constants}

    def features(
        params: Tree, state: Tree, batch: Tree, keys: Array, train: bool
    ) -> tuple[Tree, Tree]:
        index = None
        if points_per_step and "step" in batch:
            index = points_of_step(seed, batch["step"][0], points, points_per_step)
        basis, trunk_state = run_trunk(params, state, batch, index, train)
        scales = state["constants"]
        mean, std = scales["solution_mean"], scales["solution_std"]
        if index is not None and mean.shape[0] > 1:
            mean, std = mean[index], std[index]
        z = {"basis": basis, "mean": mean, "std": std, "constants": scales}
        state = {**state, "trunk": trunk_state}
        if shared_branch:
            z["coefficients"], branch_state = run_branch(params, state, batch, keys, train)
            state = {**state, "branch": branch_state}
        return z, state

    def task_loss(params_t: Tree, z: Tree, batch: Tree, t: Any) -> tuple[Array, Array]:
        ordered = stratified and "step" in batch
        rows = _rows_of(t, num_tasks) if ordered else (lambda leaf: leaf)
        part = {name: rows(leaf) for name, leaf in batch.items()}
        weight = (part["task"] == t).astype(jnp.float32)
        if "mask" in part:
            weight *= part["mask"].astype(jnp.float32)
        if shared_branch:
            coefficients = rows(z["coefficients"])
        else:
            state = {"branch": {}, "constants": z["constants"]}
            coefficients, _ = run_branch(params_t, state, part, None, True)
        basis = rows(z["basis"]) if z["basis"].ndim == 3 else z["basis"]
        mean, std = z["mean"], z["std"]
        return loss_sum(
            loss,
            product(params_t.get("film"), coefficients, basis),
            (part["solution"] - mean[None]) / std[None],
            std,
            part["inside"],
            part["size"],
            weight,
            share * part["inside"].shape[1],
        )

    def solve(params: Tree, state: Tree, batch: Tree) -> Array:
        """Solutions [B, N] in their own unit."""
        coefficients, _ = run_branch(params, state, batch, None, False)
        basis, _ = run_trunk(params, state, batch, None, False)
        film = params.get("film")
        if film is not None:
            film = jax.tree.map(lambda leaf: leaf[batch["task"]], film)
        out = product(film, coefficients, basis)
        mean, std = (state["constants"][name] for name in ("solution_mean", "solution_std"))
        return out * std[None] + mean[None]

    def metrics(params: Tree, state: Tree, batch: Tree) -> dict[str, Tree]:
        solution = solve(params, state, batch)
        real = batch["mask"] != 0 if "mask" in batch else jnp.ones(solution.shape[0], bool)

        def of_task(t: Array) -> Tree:
            counted = real & (batch["task"] == t)
            return operator_error(
                solution,
                batch["solution"],
                batch["inside"],
                batch["edge"],
                counted,
                found.background,
            )

        return unstack(jax.vmap(of_task)(jnp.arange(num_tasks)), found.task_names)

    def predict(params: Tree, state: Tree, batch: Tree) -> Tree:
        """Solutions [B, N], NaN outside the geometry."""
        return {"solution": jnp.where(batch["inside"], solve(params, state, batch), jnp.nan)}

    def regulariser(params: Tree) -> Array:
        squares = jax.tree_util.tree_map_with_path(
            lambda path, leaf: jnp.sum(jnp.square(leaf)) * (path[-1].key == "kernel"),
            params["branch"],
        )
        return branch_l2 * jnp.sum(jnp.stack(jax.tree.leaves(squares)))

    def owner(path: tuple[str, ...]) -> str:
        return "stacked" if path[0] == "film" else "shared"

    return System(
        found.task_names,
        init,
        features,
        task_loss,
        owner,
        metrics,
        predict,
        regulariser if branch_l2 else None,
    )


def _rows_of(t: Any, num_tasks: int) -> Any:
    """Returns a function that cuts [B, ...] to the rows [B / T, ...] of task t."""

    def rows(leaf: Array) -> Array:
        return leaf.reshape(leaf.shape[0] // num_tasks, num_tasks, *leaf.shape[1:])[:, t]

    return rows


def _apply(
    module: nn.Module, params: Tree, state: Tree, x: Array, train: bool, *keys: Any
) -> tuple[Array, Tree]:
    """Applies a network; returns its output and its state, moved in training."""
    variables = {"params": params, **state}
    mutable = list(state) if train else []
    out, moved = module.apply(variables, x, train, *keys, mutable=mutable)
    return jnp.asarray(out), {**state, **moved}

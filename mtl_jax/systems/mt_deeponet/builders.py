"""From a config to the operator network with its data."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from mtl_jax.data import plate_geometry
from mtl_jax.data.operators import OperatorSet
from mtl_jax.engine import parallel
from mtl_jax.errors import UserError
from mtl_jax.systems.base import Data, System, task_numbers
from mtl_jax.systems.mt_deeponet import normaliser
from mtl_jax.systems.mt_deeponet.config import Config, DataConfig, ModelConfig
from mtl_jax.systems.mt_deeponet.data import boundary, operator_data, pack, time_axes
from mtl_jax.systems.mt_deeponet.model import Networks, make_system
from mtl_jax.systems.mt_deeponet.networks import CNN, MLP, Trunk


def build(config: Config) -> tuple[System, Data]:
    """Checks the config, loads its set, making it where it is missing, builds the system.

    Raises:
      UserError: what the user can mend; a wrong config before any data is touched.
    """
    config.check()
    whole = load(config.data)
    if whole.pointwise and config.data.scale_solution == "point":
        raise UserError(
            "config.data.scale_solution is point, but the samples have query points of their own,"
            " which no statistics belong to; choose standard, global, max or none"
        )
    if config.loss == "relative_l2":
        _check_solutions(whole)
    found, kept = pack(whole)
    stratified = config.data.batches == "stratified"
    settings = config.model
    field_masks = image_masks = _field_masks(whole)
    if settings.branch == "cnn":
        shape = whole.field.shape[1:]
        _check_image(shape, settings.branch_channels)
        if field_masks is None:
            image_masks = np.ones((len(whole.masks), *shape), bool)
    data = operator_data(
        found,
        batch_size=config.train.batch_size,
        seed=config.seed,
        stratified=stratified,
        points_per_step=config.data.points_per_step,
        image_masks=image_masks,
        edges=boundary(whole.masks, whole.grid, time_axes(whole))[:, kept],
        shard=parallel.process_index(),
        shards=parallel.process_count(),
        devices=parallel.device_count(),
        microbatches=config.train.microbatches,
    )
    scales = normaliser.fit(
        found,
        params=config.data.scale_params,
        solution=config.data.scale_solution,
        coords=config.data.scale_coords,
        field_masks=field_masks,
    )
    system = make_system(
        found,
        make_networks(settings, config.data, found.pointwise),
        scales,
        loss=config.loss,
        stratified=stratified,
        shared_branch=not stratified
        or settings.branch_norm == "batch"
        or any(settings.branch_dropout),
        points_per_step=config.data.points_per_step,
        seed=config.seed,
        branch_l2=settings.branch_l2,
        grid_points=whole.masks.shape[1],
    )
    return system, data


def load(data: DataConfig) -> OperatorSet:
    """Loads the set that a config names, cut to `train_size` training samples a task."""
    folder = data.data_dir or None
    if data.name.startswith("fisher"):
        from mtl_jax.data.pde_sets import load_fisher

        found = load_fisher(data.name.partition("/")[2] or "default", folder)
    elif data.name == "darcy":
        from mtl_jax.data.pde_sets import load_darcy

        found = load_darcy(data.geometry, data.full, folder)
    elif data.name.startswith("plate"):
        from mtl_jax.data.plate_set import load_plate

        size = data.name.partition("/")[2] or "default"
        found = load_plate(size, folder, paper_split=data.paper_split)
    elif data.name == "file":
        from mtl_jax.data.operator_files.arrays import load_operator_file

        found = load_operator_file(data.path, data.validation, data.test)
    else:
        from mtl_jax.data.operator_files.dispatch import load_manual

        options = {"geometries": data.geometry} if data.name == "mtdeeponet_darcy" else {}
        if data.name == "mtdeeponet_plate":
            options = {"paper_split": data.paper_split}
        found = load_manual(data.name, data.manual_dir, **options)
    if data.tasks:
        found = only_tasks(found, data.tasks)
    return cut(found, data.train_size) if data.train_size else found


def only_tasks(found: OperatorSet, names: Sequence[str]) -> OperatorSet:
    """Returns the set with the samples of some tasks, in the order of `names`.

    Raises:
      UserError: a task that the set does not have, or one named twice.
    """
    number = {k: t for t, k in enumerate(task_numbers(names, found.task_names))}
    keep = np.flatnonzero(np.isin(found.task, list(number)))
    place = np.full(len(found.task), -1)
    place[keep] = np.arange(len(keep))
    return found._replace(
        task_names=tuple(names),
        params=found.params[keep],
        field=found.field[keep],
        coords=found.coords[keep] if found.pointwise else found.coords,
        solutions=found.solutions[keep],
        task=np.array([number[t] for t in found.task[keep].tolist()], np.int32),
        geometry=found.geometry[keep],
        splits={
            split: place[own[place[own] >= 0]].astype(np.int32)
            for split, own in found.splits.items()
        },
    )


def cut(found: OperatorSet, train_size: int) -> OperatorSet:
    """Returns the set with the first `train_size` training samples of each task.

    Raises:
      UserError: a task has fewer.
    """
    train = found.splits["train"]
    chosen = []
    for t, name in enumerate(found.task_names):
        own = train[found.task[train] == t]
        if len(own) < train_size:
            raise UserError(
                f"config.data.train_size is {train_size}, but task {name} has {len(own)} training"
                f" samples; choose at most {len(own)}, or 0 for all"
            )
        chosen.append(own[:train_size])
    splits = {**found.splits, "train": np.sort(np.concatenate(chosen))}
    return found._replace(splits=splits)


def make_networks(model: ModelConfig, data: DataConfig, pointwise: bool = False) -> Networks:
    """Builds branch and trunk; batch statistics are taken over all devices.

    Args:
      model: their layers.
      data: what an image has besides the field.
      pointwise: whether samples have query points of their own.
    """
    dense: dict[str, Any] = {
        "widths": (*model.branch_widths, model.latent),
        "activation": model.branch_activation,
        "last": model.branch_last,
        "norm": model.branch_norm,
        "rates": model.branch_dropout,
        "init_std": model.init_std,
        "axis_name": parallel.AXIS,
    }
    branch = CNN(model.branch_channels, **dense) if model.branch == "cnn" else MLP(**dense)
    warp = None
    if model.trunk_coords == "hole":
        warp = functools.partial(plate_geometry.around_hole, jnp)
    # Query points that all samples share are the same on every device: nothing to exchange.
    trunk = MLP(
        (*model.trunk_widths, model.latent),
        model.trunk_activation,
        norm=model.trunk_norm,
        skip=model.trunk_skip,
        init_std=model.init_std,
        axis_name=parallel.AXIS if pointwise or warp is not None else None,
    )
    return Networks(
        branch,
        Trunk(trunk, model.trunk_frequencies),
        image=model.branch == "cnn",
        mask_channel=data.mask_channel,
        mask_input=data.mask_input,
        film=model.film,
        warp=warp,
    )


def trainable(config: Config) -> dict[str, str]:
    """Returns what `optim.trainable` may name besides globs on paths of parameters.

    "paper" is the set of MT-DeepONet's code: the first convolution, the dense layers of the branch
    and the last layer of the trunk; a branch without convolutions is trained whole.
    """
    model = config.model
    image = model.branch == "cnn"
    dense = "branch/dense/" if image else "branch/"
    last = f"trunk/net/dense_{len(model.trunk_widths)}/*"
    return {
        "full": "all",
        "paper": f"{'branch/conv_0/*,' if image else ''}{dense}*,{last}",
        "head": f"{dense}dense_{len(model.branch_widths)}/*,{last}",
    }


def _check_solutions(found: OperatorSet) -> None:
    train = found.splits["train"]
    zero = train[~found.solutions[train].any(1)]
    if len(zero):
        raise UserError(
            f"config.loss is relative_l2, but the solution of sample {zero[0]} is 0 everywhere"
            f" ({len(zero)} such for training), which no error is relative to; remove it, or choose"
            " interior_mse"
        )


def _field_masks(found: OperatorSet) -> np.ndarray | None:
    """The masks in the layout of the fields [G, ...]; None where those have another."""
    shape = found.field.shape[1:]
    if shape != (tuple(found.grid) or found.masks.shape[1:]):
        return None
    return found.masks.reshape(-1, *shape)


def _check_image(shape: tuple[int, ...], channels: tuple[int, ...]) -> None:
    if len(shape) != 2:
        found = ", ".join(map(str, ("samples", *shape)))
        raise UserError(
            f"config.model.branch is cnn, which reads a field [samples, height, width]; this set's"
            f" is [{found}]: choose config.model.branch=mlp"
        )
    if min(shape) < 2 ** len(channels):
        raise UserError(
            f"config.model.branch_channels has {len(channels)} stages that halve a field of"
            f" {' x '.join(map(str, shape))}; give fewer"
        )

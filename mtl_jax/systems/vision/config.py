"""Config of the image systems, and how one becomes a system with its data."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from mtl_jax.config import ExperimentConfig
from mtl_jax.data.loader import batch_indices, eval_batches
from mtl_jax.data.overlay import compose
from mtl_jax.data.pairs import PairData, load_pairs
from mtl_jax.engine import parallel
from mtl_jax.systems.base import Data, System
from mtl_jax.systems.vision import lenet, mlp, resnet
from mtl_jax.systems.vision.classification import make_system
from mtl_jax.systems.vision.heads import Head

Array = jax.Array
Tree = Any
SPLITS = ("train", "validation", "test")


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """The images."""

    name: str = "multi_mnist"
    """multi_mnist, multi_fashion or multi_fashion_mnist, with /small (default) or /full."""
    pairs: Literal["fresh", "fixed"] = "fresh"
    """Training pairs: new ones every epoch, or the fixed two a source image of the original."""
    partners: int = 2
    """Pairs a source image, in an epoch and in every split."""
    train_size: int = 0
    """Use so many training sources only, balanced over classes; 0 for all."""
    data_dir: str = ""
    """Where prepared sets are; empty for $MTL_JAX_DATA/sets or ~/.cache/mtl_jax/sets."""
    manual_dir: str = ""
    """Folder with your own copy of the raw files, tried first."""


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """The trunk; every task gets a linear head."""

    name: Literal["lenet_pareto", "lenet_5x5", "resnet18", "mlp"] = "lenet_pareto"
    """lenet_pareto and resnet18 are the papers'; lenet_5x5 is the benchmarks'."""
    widths: tuple[int, ...] = (10, 20)
    """Channels of lenet_5x5, or widths of mlp."""


@dataclasses.dataclass(frozen=True)
class Config(ExperimentConfig):
    """An image experiment."""

    system: ClassVar[str] = "mtl_jax.systems.vision"

    data: DataConfig = DataConfig()
    """The images."""
    model: ModelConfig = ModelConfig()
    """The trunk."""


def make_trunk(name: str, widths: tuple[int, ...]) -> nn.Module:
    """Builds a trunk by name; batch statistics are taken over all devices."""
    if name == "lenet_pareto":
        return lenet.lenet_pareto()
    if name == "lenet_5x5":
        return lenet.lenet_5x5((widths[0], widths[1]))
    if name == "resnet18":
        return resnet.resnet18_multimnist(axis_name=parallel.AXIS)
    return mlp.MLP(widths)


def build(config: Config) -> tuple[System, Data]:
    """Loads the data set, preparing it first where it is missing, and builds the system."""
    pairs = load_pairs(
        config.data.name,
        config.data.data_dir or None,
        config.data.manual_dir or None,
        train_size=config.data.train_size or None,
        partners=config.data.partners,
    )
    trunk = make_trunk(config.model.name, config.model.widths)
    data = pair_data(
        pairs,
        fresh=config.data.pairs == "fresh",
        batch_size=config.train.batch_size,
        seed=config.seed,
        shard=parallel.process_index(),
        shards=parallel.process_count(),
    )
    return make_system(trunk, Head(10), pairs.tasks), data


def pair_data(
    pairs: PairData, *, fresh: bool, batch_size: int, seed: int, shard: int, shards: int
) -> Data:
    """Returns the data of a Multi-MNIST-style set; the images live on the devices.

    Host batches hold `pair` [B, 2] indices; images are composed inside the step.

    Args:
      pairs: the set.
      fresh: new training pairs every epoch, from (seed, epoch).
      batch_size: global batch size.
      seed: of the order and of fresh pairs.
      shard: this process.
      shards: number of processes.
    """
    total = len(pairs.pairs["train"])
    steps_per_epoch = total // batch_size
    epochs: dict[int, np.ndarray] = {}
    one_pool = pairs.images[0] is pairs.images[1]
    resident = {"images": pairs.images[:1] if one_pool else pairs.images}
    resident["labels"] = pairs.labels[:1] if one_pool else pairs.labels

    def of_epoch(epoch: int) -> np.ndarray:
        if not fresh:
            return pairs.pairs["train"]
        if epoch not in epochs:
            epochs.clear()  # one epoch is in use at a time
            epochs[epoch] = pairs.fresh_pairs(seed, epoch)
        return epochs[epoch]

    def train_batch(step: int) -> Tree:
        index = batch_indices(seed, step, total, batch_size, shard, shards)
        return {"pair": of_epoch(step // steps_per_epoch)[index]}

    def batches(split: str) -> Any:
        chosen = pairs.pairs[split]
        for index, mask in eval_batches(len(chosen), batch_size, shard, shards):
            yield {"pair": chosen[index], "mask": mask}

    def assemble(resident: Tree, host: Tree, keys: Array | None) -> Tree:
        del keys  # nothing random: pairs and order come from the host
        pair = host["pair"]
        first, last = resident["images"][0], resident["images"][-1]
        image = compose(jnp.take(first, pair[:, 0], 0), jnp.take(last, pair[:, 1], 0))
        label = [resident["labels"][t][pair[:, k]] for k, t in ((0, 0), (1, -1))]
        batch = {"image": image[..., None], "label": jnp.stack(label, 1)}
        return {**batch, "mask": host["mask"]} if "mask" in host else batch

    return Data(resident, train_batch, batches, assemble, steps_per_epoch, SPLITS[1:])

"""The models that are timed, on images made up for it, through the contracts of a real system."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from mtl_jax.data.loader import batch_indices
from mtl_jax.data.overlay import compose
from mtl_jax.engine import parallel
from mtl_jax.errors import UserError, did_you_mean
from mtl_jax.systems.base import Data, System
from mtl_jax.systems.vision import lenet, mlp, resnet
from mtl_jax.systems.vision.classification import make_system
from mtl_jax.systems.vision.heads import Head

Tree = Any
IMAGES = 2048


class Model(NamedTuple):
    """A trunk with one linear head of 10 classes a task, on 36 x 36 images.

    Attributes:
      trunk: builds it.
      cpu_batch: batch size on the CPU.
      batch: batch size on an accelerator.
    """

    trunk: Callable[[], nn.Module]
    cpu_batch: int = 256
    batch: int = 256


MODELS = {
    "mlp": Model(lambda: mlp.MLP((512, 512, 512, 50))),
    "lenet_10_20": Model(lambda: lenet.lenet_5x5((10, 20))),
    "lenet_32_64": Model(lambda: lenet.lenet_5x5((32, 64))),
    "resnet18": Model(lambda: resnet.resnet18_multimnist(axis_name=parallel.AXIS), cpu_batch=64),
}
NAMES = {
    "mlp": "MLP 512-512-512-50",
    "lenet_10_20": "LeNet 10/20",
    "lenet_32_64": "LeNet 32/64",
    "resnet18": "ResNet-18",
}


def find(name: str) -> Model:
    """Returns a model by name; raises a `UserError` for an unknown one."""
    if name not in MODELS:
        raise UserError(f"unknown model {name!r}; {did_you_mean(name, MODELS)}")
    return MODELS[name]


def default_batch(name: str) -> int:
    """The batch size of a model on the device that is there."""
    model = find(name)
    return model.cpu_batch if jax.default_backend() == "cpu" else model.batch


def image_data(num_tasks: int, batch_size: int, seed: int = 0) -> Data:
    """Random images and labels in the form of the Multi-MNIST data: pairs composed in the step.

    A batch is `image` [B, 36, 36, 1] uint8 and `label` [B, T] int32.
    """
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (IMAGES, 28, 28), np.uint8)
    labels = rng.integers(0, 10, (IMAGES, num_tasks), np.int32)
    pairs = rng.integers(0, IMAGES, (IMAGES, 2), np.int32)

    def train_batch(step: int) -> Tree:
        return {"pair": pairs[batch_indices(seed, step, IMAGES, batch_size)]}

    def assemble(resident: Tree, host: Tree, key: Any) -> Tree:
        del key  # nothing random
        first, second = (jnp.take(resident["images"], host["pair"][:, k], 0) for k in (0, 1))
        label = jnp.take(resident["labels"], host["pair"][:, 0], 0)
        return {"image": compose(first, second)[..., None], "label": label}

    resident = {"images": images, "labels": labels}
    return Data(resident, train_batch, lambda split: iter(()), assemble, IMAGES // batch_size, ())


def build(name: str, num_tasks: int, batch_size: int) -> tuple[System, Data]:
    """Returns a model as a system of `num_tasks` tasks, and its data."""
    tasks = tuple(f"task_{t}" for t in range(num_tasks))
    return make_system(find(name).trunk(), Head(10), tasks), image_data(num_tasks, batch_size)

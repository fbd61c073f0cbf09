"""FS-CAGrad on Multi-Fashion+MNIST: a real digit and a real garment an image.

Paper: FS-MTL (arXiv 2211.13723), table 1 "Fashion+MNIST", at the size of `multi_mnist.py`: LeNet,
about as many source images. `--config.data.name=multi_fashion_mnist/full` takes all 70,000.

    make train EXPERIMENT=experiments/fsmtl/multi_fashion_mnist.py
"""

import dataclasses

from experiments.fsmtl import multi_mnist
from mtl_jax.systems.vision.config import Config


def get_config() -> Config:
    """The experiment."""
    base = multi_mnist.get_config()
    return dataclasses.replace(
        base,
        name="multi_fashion_mnist",
        data=dataclasses.replace(base.data, name="multi_fashion_mnist"),
    )

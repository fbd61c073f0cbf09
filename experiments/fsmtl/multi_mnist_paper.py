"""FS-CAGrad on Multi-MNIST at the paper's scale, for an accelerator.

Paper: FS-MTL (arXiv 2211.13723), table 1 "MultiMNIST": ResNet-18 with 11,223,560 parameters,
120,000 fixed training pairs, batch 256, 200 epochs, Adam 1e-3, adaptive joint rho 2, CAGrad c 0.4.
The paper reports 96.54 / 95.36 % (F-CAGrad) against 95.62 / 94.39 % (CAGrad) of its own pairs,
which were never released; ours overlay by maximum and hold out 5,000 digits for validation.

    make train-gpu
    python -m mtl_jax.train --config experiments/fsmtl/multi_mnist_paper.py --workdir runs/paper

It needs all 70,000 digits: a network for TFDS, or `--config.data.manual_dir` with mnist.npz.
"""

import dataclasses

from experiments.fsmtl import multi_mnist
from mtl_jax.config import TrainConfig
from mtl_jax.systems.vision.config import Config, DataConfig, ModelConfig


def get_config() -> Config:
    """The experiment."""
    return dataclasses.replace(
        multi_mnist.get_config(),
        name="multi_mnist_paper",
        data=DataConfig(name="multi_mnist/full", pairs="fixed"),
        model=ModelConfig(name="resnet18"),
        train=TrainConfig(epochs=200, batch_size=256, log_every=100),
    )

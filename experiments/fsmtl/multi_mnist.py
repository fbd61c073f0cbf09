"""FS-CAGrad on Multi-MNIST, made from 5,000 real digits: the default of `make train`.

Paper: FS-MTL (arXiv 2211.13723), table 1 "MultiMNIST", with ParetoMTL's LeNet in place of its
ResNet-18, a twelfth of its digits, batches of 64 in place of 256 and 40 epochs in place of 200, so
that two CPU cores need minutes and not days. Pairs are fixed, two a digit, as in the original.
Radius: adaptive, joint norm, rho 2, CAGrad c 0.4, as in the authors' Multi-MNIST script.

    make train
    python -m mtl_jax.train --config experiments/fsmtl/multi_mnist.py --workdir runs/multi_mnist

The paper-scale run is `multi_mnist_paper.py`.
"""

from mtl_jax.config import FlatConfig, MethodConfig, OptimConfig, TrainConfig
from mtl_jax.systems.vision.config import Config, DataConfig, ModelConfig


def get_config() -> Config:
    """The experiment."""
    return Config(
        name="multi_mnist",
        data=DataConfig(name="multi_mnist", pairs="fixed"),
        model=ModelConfig(name="lenet_pareto"),
        method=MethodConfig(
            aggregator="cagrad",
            options={"c": 0.4},
            flat=FlatConfig(rho=2.0, adaptive=True, norm="joint"),
        ),
        optim=OptimConfig(name="adam", lr=1e-3),
        train=TrainConfig(epochs=40, batch_size=64, log_every=100),
    )

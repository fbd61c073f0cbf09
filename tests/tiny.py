"""A tiny experiment on made-up images: learnable in a few steps, no network, no cache."""

from __future__ import annotations

from pathlib import Path

import numpy as np

EXPERIMENT = '''"""A tiny experiment."""

from mtl_jax.config import FlatConfig, MethodConfig, OptimConfig, TrainConfig
from mtl_jax.systems.vision.config import Config, DataConfig, ModelConfig


def get_config() -> Config:
    return Config(
        name="tiny",
        data=DataConfig(name="multi_mnist", data_dir="{root}/sets", manual_dir="{root}/raw"),
        model=ModelConfig(name="mlp", widths=(32,)),
        method=MethodConfig(aggregator="{aggregator}", flat=FlatConfig(rho=0.05, adaptive=False)),
        optim=OptimConfig(lr=2e-3),
        train=TrainConfig(steps=12, batch_size=32, eval_every=4, log_every=2, report=False),
    )
'''


def write_images(folder: Path, count: int = 400) -> None:
    """Writes mnist.npz and fashion_mnist.npz: ten random templates each, with noise."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed, name in enumerate(("mnist", "fashion_mnist")):
        rng = np.random.default_rng(seed)
        labels = np.arange(count) % 10
        templates = rng.integers(0, 200, (10, 28, 28))
        images = templates[labels] + rng.integers(0, 56, (count, 28, 28))
        np.savez(folder / f"{name}.npz", x=images.astype(np.uint8), y=labels)


def write_experiment(root: Path, aggregator: str = "cagrad") -> Path:
    """Writes raw images and `tiny.py` under `root`; returns the experiment file."""
    write_images(root / "raw")
    path = root / "tiny.py"
    path.write_text(EXPERIMENT.format(root=root, aggregator=aggregator))
    return path

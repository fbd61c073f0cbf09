"""A tiny experiment on made-up images: learnable in a few steps, no network, no cache."""

from __future__ import annotations

from pathlib import Path

from tests.raw_files import write_images

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


def write_experiment(root: Path, aggregator: str = "cagrad") -> Path:
    """Writes raw images and `tiny.py` under `root`; returns the experiment file."""
    write_images(root / "raw")
    path = root / "tiny.py"
    path.write_text(EXPERIMENT.format(root=root, aggregator=aggregator))
    return path

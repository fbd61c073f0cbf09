"""Image systems: heads on one trunk, for Multi-MNIST and its family, CelebA, NYUv2, CityScapes."""

from mtl_jax.systems.vision.builders import build
from mtl_jax.systems.vision.config import Config
from mtl_jax.systems.vision.figures import report

__all__ = ["Config", "build", "report"]

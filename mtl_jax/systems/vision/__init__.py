"""Image systems: classification heads on one trunk (Multi-MNIST and its family)."""

from mtl_jax.systems.vision.config import Config, build
from mtl_jax.systems.vision.figures import report

__all__ = ["Config", "build", "report"]

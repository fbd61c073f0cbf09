"""Networks for plain tables with several targets: yeast, RF1."""

from mtl_jax.systems.tabular.builders import build
from mtl_jax.systems.tabular.config import Config
from mtl_jax.systems.tabular.figures import report

__all__ = ["Config", "build", "report"]

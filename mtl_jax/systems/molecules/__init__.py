"""Properties of molecules: one message-passing network with a head for each property."""

from mtl_jax.systems.molecules.builders import build
from mtl_jax.systems.molecules.config import Config
from mtl_jax.systems.molecules.figures import report

__all__ = ["Config", "build", "report"]

"""The system of images with a network for each task; see `apart`."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from experiments.compare.apart import apart
from mtl_jax.systems import vision
from mtl_jax.systems.base import Data, System
from mtl_jax.systems.vision import report

__all__ = ["Config", "build", "report"]


@dataclasses.dataclass(frozen=True)
class Config(vision.Config):
    """As that of `systems.vision`."""

    system: ClassVar[str] = "experiments.compare.single_vision"


def build(config: Config) -> tuple[System, Data]:
    """As that of `systems.vision`."""
    system, data = vision.build(config)
    return apart(system), data

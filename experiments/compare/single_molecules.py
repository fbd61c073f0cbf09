"""The system of molecules with a network for each property; see `apart`."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from experiments.compare.apart import apart
from mtl_jax.systems import molecules
from mtl_jax.systems.base import Data, System
from mtl_jax.systems.molecules import report

__all__ = ["Config", "build", "report"]


@dataclasses.dataclass(frozen=True)
class Config(molecules.Config):
    """As that of `systems.molecules`."""

    system: ClassVar[str] = "experiments.compare.single_molecules"


def build(config: Config) -> tuple[System, Data]:
    """As that of `systems.molecules`."""
    system, data = molecules.build(config)
    return apart(system), data

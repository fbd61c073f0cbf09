"""Config of the molecular networks: what may be chosen, and what fits together."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from mtl_jax.config import ExperimentConfig
from mtl_jax.data.registry import base_of, parse
from mtl_jax.errors import UserError
from mtl_jax.systems.molecules.model import Loss

SETS = ("qm9",)


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """The molecules."""

    name: str = "qm9"
    """qm9/small (the default of qm9), every 13th molecule, or qm9/full."""
    tasks: tuple[str, ...] = ()
    """Keep these properties only, in this order; empty for all eleven: mu, alpha, homo, lumo, r2,
    zpve, u0, u, h, g, cv."""
    train_size: int = 0
    """Train on so many molecules, drawn once; 0 for all."""
    eval_batch_size: int = 512
    """Molecules a batch of evaluation at most."""
    resident: bool = True
    """Keep the set on the devices; False puts batches together on the host."""
    data_dir: str = ""
    """Where prepared sets are; empty for $MTL_JAX_DATA/sets or ~/.cache/mtl_jax/sets."""
    manual_dir: str = ""
    """Folder with your own copy of the raw files; empty for the package qm9pack."""


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """The network."""

    width: int = 64
    """Features of an atom."""
    messages: int = 32
    """Features that an atom sends to each other one."""
    layers: int = 4
    """Rounds of messages."""
    basis: int = 16
    """Radial functions of the distance of two atoms."""
    cutoff: float = 6.0
    """Distance in Angstrom beyond which two atoms do not see each other."""
    centre: bool = True
    """Show each atom its distance to the molecule's centre of nuclear charge."""
    hidden: int = 64
    """Width of the hidden layer of each head."""


@dataclasses.dataclass(frozen=True)
class Config(ExperimentConfig):
    """An experiment on molecules."""

    system: ClassVar[str] = "mtl_jax.systems.molecules"

    data: DataConfig = DataConfig()
    """The molecules."""
    model: ModelConfig = ModelConfig()
    """The network."""
    loss: Loss = "l1"
    """Of a standardised property: l1 (what the tables report), huber (quadratic below one standard
    deviation) or mse."""

    def check(self) -> None:
        """Raises a `UserError` for values that no run can use; touches no data."""
        super().check()
        base_of(self.data.name, SETS)
        parse(self.data.name)
        if self.data.train_size < 0:
            raise UserError(
                f"config.data.train_size is {self.data.train_size}; it must be positive, or 0 for"
                " all"
            )
        positive = [f"model.{name}" for name in ("width", "messages", "layers", "hidden")]
        for path in ("data.eval_batch_size", *positive):
            part, _, name = path.partition(".")
            value = getattr(getattr(self, part), name)
            if value < 1:
                raise UserError(f"config.{path} is {value}; it must be 1 or more")
        if self.model.basis < 2:
            raise UserError(f"config.model.basis is {self.model.basis}; it must be 2 or more")
        if self.model.cutoff <= 0:
            raise UserError(f"config.model.cutoff is {self.model.cutoff}; it must be positive")

"""Config of the networks for plain tables: what may be chosen, and what fits together."""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Literal

from mtl_jax.config import ExperimentConfig
from mtl_jax.data.registry import base_of, parse
from mtl_jax.errors import UserError

SETS = ("yeast", "rf1")
Top = Literal["shared", "single"]


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """The table."""

    name: str = "yeast"
    """yeast (14 labels) or rf1 (8 river flows)."""
    eval_batch_size: int = 4096
    """Rows a batch of evaluation at most."""
    data_dir: str = ""
    """Where prepared sets are; empty for $MTL_JAX_DATA/sets or ~/.cache/mtl_jax/sets."""
    manual_dir: str = ""
    """Folder with your own copy of the raw files, tried first."""


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """An MLP that all tasks share, and a head for each. All sizes are ours."""

    top: Top = "shared"
    """shared, or single: a whole network for each task, trained side by side."""
    widths: tuple[int, ...] = (64, 64)
    """Hidden widths of the trunk."""
    tower: tuple[int, ...] = ()
    """Hidden widths of each head."""
    dropout: float = 0.2
    """Of hidden layers."""
    carry: bool = True
    """rf1: predict by how much the present flow changes, and not the flow itself."""
    clip: float = 3.0
    """Bring inputs beyond so many standard deviations to them; 0 for none."""


@dataclasses.dataclass(frozen=True)
class Config(ExperimentConfig):
    """An experiment on a plain table."""

    system: ClassVar[str] = "mtl_jax.systems.tabular"

    data: DataConfig = DataConfig()
    """The table."""
    model: ModelConfig = ModelConfig()
    """The network."""

    def check(self) -> None:
        """Raises a `UserError` for values that no run can use; touches no data."""
        super().check()
        base_of(self.data.name, SETS)
        parse(self.data.name)
        model = self.model
        if self.data.eval_batch_size < 1:
            raise UserError(
                f"config.data.eval_batch_size is {self.data.eval_batch_size}; it must be 1 or more"
            )
        for name in ("widths", "tower"):
            widths = getattr(model, name)
            if any(width < 1 for width in widths):
                found = " ".join(map(str, widths))
                raise UserError(f"config.model.{name} is {found}; give positive widths")
        if not 0 <= model.dropout < 1:
            raise UserError(
                f"config.model.dropout is {model.dropout}; it must be from 0 to below 1"
            )
        if model.clip < 0:
            raise UserError(f"config.model.clip is {model.clip}; it must be 0 or more")

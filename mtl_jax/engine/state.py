"""What a training run carries from step to step, and nothing else."""

from __future__ import annotations

from typing import Any

import flax.struct
import jax

Tree = Any


@flax.struct.dataclass
class TrainState:
    """The whole state of a run: with (seed, data) it determines everything that follows.

    Attributes:
      step: int32 number of updates done.
      params: the parameters.
      opt_state: the optimiser's state; with tables that are updated row by row
        {"dense": of the optimiser of everything else, "tables": {name: its rows' state}}.
      model_state: batch statistics and the like; moved once a step by the clean pass.
      method_state: the multi-task method's state.
    """

    step: jax.Array
    params: Tree
    opt_state: Tree
    model_state: Tree
    method_state: Tree

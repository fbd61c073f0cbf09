"""The JAX side of `versus_torchjd`: this package's own code, gradients only, no optimiser."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax

from benchmarks import models, timing
from benchmarks.task_grads import programs
from mtl_jax.engine import rng
from mtl_jax.engine.step import bind
from mtl_jax.layers.platform import cpu_compiler_options
from mtl_jax.methods.base import Aggregator
from mtl_jax.methods.flat_regions import as_method
from mtl_jax.methods.table import make

Tree = Any


def describe(threads: int) -> dict[str, Any]:
    """The environment; XLA takes all cores by itself."""
    del threads
    return timing.environment()


class Side:
    """One model with its batch; every call in `calls` is one step up to its gradient.

    Writes `shared.npz` into `folder` for the other side: the parameters by path, and the batch.
    """

    def __init__(self, model: str, num_tasks: int, batch_size: int, folder: str):
        self._functions, self._args = programs(model, num_tasks, batch_size)
        self._system, _ = models.build(model, num_tasks, batch_size)
        params, _, batch, _ = self._args
        arrays: dict[str, Any] = {f"batch/{name}": leaf for name, leaf in batch.items()}
        for path, leaf in jax.tree_util.tree_leaves_with_path(params):
            arrays["/".join(str(part.key) for part in path)] = leaf
        np.savez(Path(folder) / "shared.npz", **arrays)
        self.calls: dict[str, Any] = {}

    def prepare(self, what: str) -> dict[str, Any]:
        """Compiles a call and returns the global norm of its gradient, for a comparison."""
        if what in ("sum", "tasks", "fs"):
            function = self._functions["first" if what == "tasks" else what]

            def step(*args: Tree) -> Tree:
                return function("auto", *args)[0]
        else:
            step = self._aggregated(what)
        lowered = jax.jit(step).lower(*self._args)
        program = lowered.compile(compiler_options={**cpu_compiler_options()})
        self.calls[what] = lambda: program(*self._args)
        return {"norm": float(optax.tree.norm(program(*self._args)))}

    def _aggregated(self, name: str) -> Any:
        base = make(name)
        assert isinstance(base, Aggregator)
        method, system = as_method(base), self._system

        def step(params: Tree, model_state: Tree, batch: Tree, keys: Tree) -> Tree:
            problem = bind(system, params, model_state, batch, keys)
            state = method.init(params, problem.owners, problem.num_tasks)
            return method.update(problem, params, state, rng.key_for(0, 0, "method")).grads

        return step

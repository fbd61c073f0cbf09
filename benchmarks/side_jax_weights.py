"""This package's side of `versus_torchjd_weights`: weights from Gram matrices, compiled."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import timing
from benchmarks.solvers import SOLVERS, errors_of, families
from mtl_jax.layers.platform import cpu_compiler_options
from mtl_jax.methods.pcgrad import random_orders


def describe(threads: int) -> dict[str, Any]:
    """The environment; XLA takes all cores by itself."""
    del threads
    return timing.environment()


class Side:
    """Calls are "SOLVER/T": the weights of every family of Gram matrices, one after the other."""

    def __init__(self) -> None:
        self.calls: dict[str, Any] = {}

    def prepare(self, what: str) -> dict[str, Any]:
        """Compiles a call; returns the relative errors of its directions by family."""
        solver, _, size = what.partition("/")
        num_tasks = int(size)
        orders = random_orders(jax.random.key(0), num_tasks)
        found = families(num_tasks)
        grams = [jnp.asarray(grads @ grads.T, jnp.float32) for grads in found.values()]
        lowered = jax.jit(SOLVERS[solver]).lower(grams[0], orders)
        program = lowered.compile(compiler_options={**cpu_compiler_options()})
        self.calls[what] = lambda: [program(gram, orders) for gram in grams]
        weights = [np.asarray(program(gram, orders), np.float64) for gram in grams]
        return {
            "errors": errors_of(solver, found, weights, np.asarray(orders)),
            "problems": len(grams),
        }

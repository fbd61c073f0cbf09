"""Trains toys for three steps and writes their parameters; run by test_parallel in subprocesses.

python tests/engine/parallel_worker.py OUT BACKEND [COORDINATOR PROCESSES PROCESS]
"""

from __future__ import annotations

import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn

from mtl_jax.engine import parallel
from mtl_jax.engine.step import init_state, make_eval_step, make_train_step
from mtl_jax.layers.batch_norm import BatchNorm
from mtl_jax.methods.flat_regions import as_method, flat_regions
from mtl_jax.methods.loss_weighting import famo
from mtl_jax.methods.pcgrad import pcgrad
from mtl_jax.systems.base import System
from tests import toys


def noisy() -> toys.Toy:
    """The stacked toy with batch normalisation and dropout in its trunk: what devices may break."""
    plain = toys.stacked()

    class Trunk(nn.Module):
        @nn.compact
        def __call__(self, x: jax.Array, train: bool) -> jax.Array:
            x = nn.Dense(toys.HIDDEN, use_bias=False, param_dtype=x.dtype)(x)
            return BatchNorm(use_running_average=not train, axis_name=parallel.AXIS)(x)

    trunk = Trunk()

    def init(key: Any, batch: dict) -> tuple:
        params, _ = plain.system.init(key, batch)
        variables = trunk.init(key, batch["x"], False)
        variables = jax.tree.map(lambda leaf: leaf.astype(batch["x"].dtype), dict(variables))
        return {**params, "trunk": variables["params"]}, {"batch_stats": variables["batch_stats"]}

    def features(params: dict, state: dict, batch: dict, keys: Any, train: bool) -> tuple:
        variables = {"params": params["trunk"], **state}
        if not train:
            return trunk.apply(variables, batch["x"], False), state
        z, state = trunk.apply(variables, batch["x"], True, mutable=["batch_stats"])
        keep = jax.vmap(lambda key: jax.random.bernoulli(key, 0.8, z.shape[1:]))(keys)
        return jnp.where(keep, z / 0.8, 0), state

    system: System = plain.system._replace(
        init=init,
        features=features,
        metrics=toys.metrics_of(features, plain.system.task_loss, toys.head_row, 3),
    )
    return toys.Toy(system, plain.batch)


def main(
    out: str, backend: str, coordinator: str = "", processes: str = "1", process: str = "0"
) -> None:
    jax.config.update("jax_enable_x64", True)
    parallel.initialise(coordinator, int(processes), int(process))
    result: dict[str, np.ndarray] = {}
    flat, weighted = flat_regions(pcgrad(), 0.1, adaptive=True), as_method(famo())
    cases = [(name, make, flat) for name, make in toys.ALL.items()]
    cases += [("noisy", noisy, flat), ("noisy_famo", noisy, weighted)]
    for name, make, method in cases:
        toy = make()
        data = toys.data_of(toy, shard=parallel.process_index(), shards=parallel.process_count())
        state, tx = init_state(toy.system, data, method, lambda params, owners: optax.adam(1e-2), 0)
        step = parallel.DataParallel(make_train_step(toy.system, data, method, tx, seed=0), backend)
        state, resident = parallel.replicate(state), parallel.replicate(data.resident)
        for k in range(3):
            state, metrics = step(state, resident, data.train_batch(k))
            jax.block_until_ready(metrics)
        for i, leaf in enumerate(jax.tree.leaves(parallel.to_host((state, metrics)))):
            result[f"{name}/{i}"] = leaf
        score = parallel.DataParallel(make_eval_step(toy.system, data), backend, donate=False)
        carry = (state.params, state.model_state)
        for k, host in enumerate(data.eval_batches("val")):
            _, sums = score(carry, resident, host)
            for i, leaf in enumerate(jax.tree.leaves(parallel.to_host(sums))):
                result[f"{name}/eval{k}/{i}"] = leaf
    if parallel.process_index() == 0:
        np.savez(out, **result)


if __name__ == "__main__":
    main(*sys.argv[1:])

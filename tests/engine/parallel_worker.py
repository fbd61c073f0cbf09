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

from mtl_jax.engine import parallel, rng
from mtl_jax.engine.collectives import collective_bytes
from mtl_jax.engine.step import bind, init_state, make_eval_step, make_train_step
from mtl_jax.layers.batch_norm import BatchNorm
from mtl_jax.methods import table
from mtl_jax.methods.flat_regions import as_method, flat_regions
from mtl_jax.methods.loss_weighting import famo
from mtl_jax.methods.pcgrad import pcgrad
from mtl_jax.methods.prenormalise import prenormalise
from mtl_jax.methods.scattered import scattered
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


def directions(backend: Any) -> dict[str, np.ndarray]:
    """What methods that look at the Gram matrix only make of one batch with missing labels.

    One device aggregates whole gradients, several each its part of them. With pmap all methods;
    also the bytes that devices send each other, under "sent".
    """
    jax.config.update("jax_disable_most_optimizations", True)  # compiles in half the time
    toy = toys.table(2)
    shard, shards = parallel.process_index(), parallel.process_count()
    data = toys.data_of(toy, shard=shard, shards=shards)
    names = table.by_gram() if backend == "pmap" else ["pcgrad"]
    bases = {name: table.make(name) for name in names}
    bases["mgda/loss+"] = prenormalise(table.make("mgda"), "loss+")
    wrap = as_method if parallel.device_count() == 1 else scattered
    methods = {name: wrap(base) for name, base in bases.items()}

    def step(params: Any, resident: Any, host: Any) -> tuple:
        batch = data.assemble(resident, host, None)
        keys = rng.example_keys(rng.key_for(0, 0, "train"), parallel.example_index(len(batch["x"])))
        bound = bind(toy.system, params, {}, batch, keys)
        # Gradients once for all methods.
        if parallel.device_count() == 1:
            grads = bound.task_grads(params)
            bound = bound._replace(task_grads=lambda params: grads)
        else:
            parts = bound.task_shards(params)
            bound = bound._replace(task_shards=lambda params: parts)
        key = rng.key_for(0, 0, "method")

        def one(method: Any) -> tuple:
            state = method.init(params, bound.owners, bound.num_tasks)
            update = method.update(bound, params, state, key)
            return update.grads, update.state, update.info

        return (), {name: one(method) for name, method in methods.items()}

    params, _ = toy.system.init(jax.random.key(0), toy.batch)
    call = parallel.DataParallel(step, backend, donate=False)
    resident = parallel.replicate(data.resident)
    _, out = call(parallel.replicate(params), resident, data.train_batch(0))
    found = {}
    for name, leaves in parallel.to_host(out).items():
        found |= {f"{name}/{i}": leaf for i, leaf in enumerate(jax.tree.leaves(leaves))}
    sent = collective_bytes(call.text())
    return found | {f"sent/{kind}": np.int64(count) for kind, count in sent.items()}


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
    if backend == "pmap" or parallel.device_count() > 1:
        result |= {f"directions/{name}": leaf for name, leaf in directions(backend).items()}
    if parallel.process_index() == 0:
        np.savez(out, **result)


if __name__ == "__main__":
    main(*sys.argv[1:])

"""Five toy systems that every engine and method test can use.

heads: an own head a task; stacked: the same heads in one array; axis: tasks are slices of the
batch and everything is shared; table: an embedding table and missing labels; coupled: the loss of
one task uses the other task's tower (ESMM), so that tower is shared.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mtl_jax.systems.base import Data, System

BATCH, WIDTH, HIDDEN = 16, 5, 6


class Toy(NamedTuple):
    system: System
    batch: dict[str, Any]


def _dense(rng: np.random.Generator, *shape: int) -> jax.Array:
    return jnp.asarray(rng.normal(size=shape) / np.sqrt(shape[-2]), jnp.result_type(float))


def _batch(num_tasks: int) -> dict[str, Any]:
    rng = np.random.default_rng(1)
    dtype = np.dtype(jnp.result_type(float))
    return {
        "x": rng.normal(size=(BATCH, WIDTH)).astype(dtype),
        "ids": rng.integers(0, 7, BATCH).astype(np.int32),
        "y": rng.normal(size=(BATCH, num_tasks)).astype(dtype),
        "label_mask": (rng.random((BATCH, num_tasks)) < 0.7).astype(dtype),
    }


def _squared(pred: jax.Array, batch: dict, t: Any, mask: bool = False) -> tuple:
    weight = batch["label_mask"][:, t] if mask else jnp.ones_like(pred)
    return jnp.sum(weight * jnp.square(pred - batch["y"][:, t])), jnp.sum(weight)


def _trunk(params: dict, state: Any, batch: dict, key: Any, train: bool) -> tuple:
    del key, train
    return jnp.tanh(batch["x"] @ params["trunk"]["w"]), state


def metrics_of(features: Any, task_loss: Any, rows: Any, num_tasks: int) -> Any:
    def metrics(params: dict, state: Any, batch: dict) -> dict:
        z, _ = features(params, state, batch, None, False)
        sums = [task_loss(rows(params, t), z, batch, t) for t in range(num_tasks)]
        return {f"loss_{t}": sums[t] for t in range(num_tasks)}

    return metrics


def _system(
    init: Any, features: Any, task_loss: Any, owner: Any, num_tasks: int, rows: Any
) -> System:
    names = tuple(f"task{t}" for t in range(num_tasks))
    metrics = metrics_of(features, task_loss, rows, num_tasks)
    return System(names, init, features, task_loss, owner, metrics)


def heads(num_tasks: int = 3) -> Toy:
    """A trunk with a head of its own for every task."""

    def init(key: Any, batch: dict) -> tuple:
        rng = np.random.default_rng(0)
        names = {f"head{t}": {"w": _dense(rng, HIDDEN, 1)} for t in range(num_tasks)}
        return {"trunk": {"w": _dense(rng, WIDTH, HIDDEN)}, **names}, {}

    def task_loss(params: dict, z: Any, batch: dict, t: int) -> tuple:
        return _squared((z @ params[f"head{t}"]["w"])[:, 0], batch, t)

    def owner(path: tuple[str, ...]) -> Any:
        return int(path[0][4:]) if path[0].startswith("head") else "shared"

    system = _system(init, _trunk, task_loss, owner, num_tasks, lambda params, t: params)
    return Toy(system, _batch(num_tasks))


def head_row(params: dict, t: int) -> dict:
    """The parameters as `task_loss` sees them for task t: stacked heads cut to their row."""
    return {**params, "heads": {"w": params["heads"]["w"][t]}}


def stacked(num_tasks: int = 3) -> Toy:
    """The heads of `heads` in one array of T rows: the same numbers."""

    def init(key: Any, batch: dict) -> tuple:
        params, state = heads(num_tasks).system.init(key, batch)
        rows = jnp.stack([params[f"head{t}"]["w"] for t in range(num_tasks)])
        return {"trunk": params["trunk"], "heads": {"w": rows}}, state

    def task_loss(params: dict, z: Any, batch: dict, t: Any) -> tuple:
        return _squared((z @ params["heads"]["w"])[:, 0], batch, t)

    def owner(path: tuple[str, ...]) -> Any:
        return "stacked" if path[0] == "heads" else "shared"

    return Toy(_system(init, _trunk, task_loss, owner, num_tasks, head_row), _batch(num_tasks))


def axis(num_tasks: int = 3) -> Toy:
    """Everything shared; task t is the t-th mask of the batch (families of one problem)."""

    def init(key: Any, batch: dict) -> tuple:
        rng = np.random.default_rng(0)
        return {"a": {"w": _dense(rng, WIDTH, HIDDEN)}, "b": {"w": _dense(rng, HIDDEN, 1)}}, {}

    def features(params: dict, state: Any, batch: dict, key: Any, train: bool) -> tuple:
        return (), state

    def task_loss(params: dict, z: Any, batch: dict, t: Any) -> tuple:
        pred = jnp.tanh(batch["x"] @ params["a"]["w"]) @ params["b"]["w"]
        return _squared(pred[:, 0], batch, t, mask=True)

    system = _system(
        init, features, task_loss, lambda path: "shared", num_tasks, lambda params, t: params
    )
    return Toy(system, _batch(num_tasks))


def table(num_tasks: int = 3) -> Toy:
    """An embedding table in front of the trunk, stacked heads, missing labels."""
    plain = stacked(num_tasks)

    def init(key: Any, batch: dict) -> tuple:
        params, state = plain.system.init(key, batch)
        rng = np.random.default_rng(2)
        return {"table": _dense(rng, 7, WIDTH), **params}, state

    def features(params: dict, state: Any, batch: dict, key: Any, train: bool) -> tuple:
        x = batch["x"] + params["table"][batch["ids"]]
        return jnp.tanh(x @ params["trunk"]["w"]), state

    def task_loss(params: dict, z: Any, batch: dict, t: Any) -> tuple:
        return _squared((z @ params["heads"]["w"])[:, 0], batch, t, mask=True)

    system = _system(init, features, task_loss, plain.system.owner, num_tasks, head_row)
    return Toy(system, _batch(num_tasks))


def coupled(num_tasks: int = 2) -> Toy:
    """Click and conversion: task 1 is the product of both towers, so tower 0 is shared."""
    del num_tasks

    def init(key: Any, batch: dict) -> tuple:
        rng = np.random.default_rng(0)
        return {
            "click": {"w": _dense(rng, WIDTH, 1)},
            "buy": {"w": _dense(rng, WIDTH, 1)},
        }, {}

    def features(params: dict, state: Any, batch: dict, key: Any, train: bool) -> tuple:
        return jax.nn.sigmoid(batch["x"] @ params["click"]["w"])[:, 0], state

    def task_loss(params: dict, z: Any, batch: dict, t: int) -> tuple:
        if t == 0:
            return _squared(z, batch, 0)
        return _squared(z * jax.nn.sigmoid(batch["x"] @ params["buy"]["w"])[:, 0], batch, 1)

    def owner(path: tuple[str, ...]) -> Any:
        return 1 if path[0] == "buy" else "shared"

    return Toy(_system(init, features, task_loss, owner, 2, lambda params, t: params), _batch(2))


ALL = {"heads": heads, "stacked": stacked, "axis": axis, "table": table, "coupled": coupled}


def data_of(
    toy: Toy, *, size: int = 64, batch_size: int = BATCH, shard: int = 0, shards: int = 1
) -> Data:
    """A resident data set of `size` random rows with the toy's columns, addressed by step."""
    from mtl_jax.data.loader import batch_indices, eval_batches

    rng = np.random.default_rng(3)

    def column(leaf: np.ndarray) -> np.ndarray:
        if leaf.dtype == np.int32:
            return rng.integers(0, 7, (size, *leaf.shape[1:])).astype(np.int32)
        return rng.normal(size=(size, *leaf.shape[1:])).astype(leaf.dtype)

    resident = {name: column(leaf) for name, leaf in toy.batch.items()}
    resident["label_mask"] = (resident["label_mask"] > -0.5).astype(resident["y"].dtype)

    def train_batch(step: int) -> dict:
        return {"index": batch_indices(0, step, size, batch_size, shard, shards)}

    def batches(split: str) -> Any:
        for index, mask in eval_batches(size, batch_size, shard, shards):
            yield {"index": index, "mask": mask}

    def assemble(resident: dict, host: dict, keys: Any) -> dict:
        batch = {name: leaf[host["index"]] for name, leaf in resident.items()}
        if "mask" in host:
            batch["label_mask"] = batch["label_mask"] * host["mask"][:, None]
        return batch

    return Data(resident, train_batch, batches, assemble, size // batch_size, ("val",))

"""What is analysed: a checkpoint of a run as a function, and batches of its data.

Everything is measured in evaluation mode: no dropout, and running batch statistics that nothing
moves. So a number belongs to the model as it is used, and two calls agree. Training measures the
same quantities in training mode; for a model without dropout and batch statistics they are equal.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mtl_jax import run as runs
from mtl_jax.engine import parallel, rng
from mtl_jax.engine.step import bind
from mtl_jax.errors import UserError
from mtl_jax.layers.platform import cpu_compiler_options
from mtl_jax.methods.base import Problem
from mtl_jax.methods.task_grads import Strategy
from mtl_jax.systems.base import Data, System

Tree = Any
Log = Callable[[str], None]


class NotApplicable(Exception):
    """An analysis that a system does not have; the message says why, in one line."""


class Subject(NamedTuple):
    """A checkpoint of a run.

    Attributes:
      label: what figures and tables call it.
      workdir: the run folder.
      run: the run.
      step: of the checkpoint.
      params: parameters, whole tables included, on the devices.
      model_state: of the checkpoint, on the devices.
      free: tree like `params`: False for what was not trained.
    """

    label: str
    workdir: Path
    run: runs.Run
    step: int
    params: Tree
    model_state: Tree
    free: Tree

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the tasks."""
        return self.run.system.task_names


def open_subject(workdir: Path, which: str | int, label: str) -> Subject:
    """Opens a run folder; raises a `UserError` for what is no run, or has no checkpoint."""
    run = runs.open_run(workdir)
    state, step = runs.restore(run, workdir, which)
    # Tables that are spread over devices are collected first.
    params, model_state = parallel.replicate(
        parallel.to_host(run.export((state.params, state.model_state)))
    )
    return Subject(
        label, workdir, run, step, params, model_state, runs.trained_marker(run.config)(params)
    )


def evaluation_mode(system: System) -> System:
    """Returns the system whose shared part always runs as in evaluation."""

    def features(params: Tree, model_state: Tree, batch: Tree, keys: Any, train: bool) -> Tree:
        del train
        return system.features(params, model_state, batch, keys, False)

    return system._replace(features=features)


def bind_host(
    system: System,
    data: Data,
    params: Tree,
    model_state: Tree,
    resident: Tree,
    host: Tree,
    *,
    strategy: Strategy = "auto",
    microbatches: int = 1,
    free: Tree = None,
) -> Problem:
    """Binds a system in evaluation mode to one host batch, for use inside a compiled function.

    Args:
      system: the model.
      data: says how a host batch is assembled.
      params: the parameters.
      model_state: of the model.
      resident: arrays on the devices.
      host: a batch [B, ...].
      strategy: how to walk over the tasks.
      microbatches: parts that the gradients are summed over, where they divide the batch.
      free: see `engine.step.bind`.
    """
    size = jax.tree.leaves(host)[0].shape[0]
    return bind(
        evaluation_mode(system),
        params,
        model_state,
        data.assemble(resident, host, None),
        evaluation_keys(size),
        strategy=strategy,
        microbatches=1 if size % microbatches else microbatches,
        free=free,
    )


def evaluation_keys(size: int) -> jax.Array:
    """Returns a key an example: losses take them, and in evaluation nothing draws from them."""
    return rng.example_keys(rng.key_for(0, 0, "analysis"), jnp.arange(size, dtype=jnp.int32))


def on_batches(
    subject: Subject, fn: Callable[..., tuple], hosts: Sequence[Tree], *args: Any
) -> Iterator[tuple[np.ndarray, ...]]:
    """Yields `fn(problem, params, *args)` of each host batch, float64 on the host.

    One compiled call a batch, with the strategy and the micro-batches of training.
    """
    run, config = subject.run, subject.run.config

    def one(params: Tree, model_state: Tree, resident: Tree, host: Tree, args: tuple) -> tuple:
        problem = bind_host(
            run.system,
            run.data,
            params,
            model_state,
            resident,
            host,
            strategy=config.method.strategy,
            microbatches=config.train.microbatches,
            free=subject.free,
        )
        return fn(problem, params, *args)

    call = compiled(one)
    for host in hosts:
        out = call(subject.params, subject.model_state, run.data.resident, host, args)
        yield tuple(np.asarray(leaf, np.float64) for leaf in out)


def compiled(fn: Callable, **kwargs: Any) -> Callable:
    """`jax.jit` with the compiler options that convolutions on a CPU need."""
    return jax.jit(fn, compiler_options=cpu_compiler_options(), **kwargs)


def training_batches(data: Data, count: int) -> list[Tree]:
    """Returns the host batches of the first `count` training steps, at most one epoch.

    They are assembled without a key, so nothing is augmented.
    """
    return [data.train_batch(step) for step in range(min(count, max(data.steps_per_epoch, 1)))]


def sampled_batches(data: Data, split: str, count: int, size: int, seed: int) -> list[Tree]:
    """Returns batches of examples drawn from a split without replacement.

    Splits may be sorted by task or by class, so neither the first examples nor whole batches would
    do. The same seed draws the same examples of a set, whatever the run.

    Args:
      data: the data.
      split: one of `data.splits`, or "train".
      count: of batches, at most.
      size: of a batch; the whole split where that is smaller.
      seed: of the draw.

    Raises:
      UserError: a split without examples.
    """
    draw = np.random.default_rng([seed, zlib.crc32(split.encode())])
    wanted = count * size
    ranks, rows = np.zeros(0), None
    for host in data.eval_batches(split):
        real = np.flatnonzero(np.asarray(host["mask"]))
        part = jax.tree.map(lambda leaf, real=real: np.asarray(leaf)[real], host)
        ranks = np.concatenate([ranks, draw.random(len(real))])
        rows = part if rows is None else jax.tree.map(_append, rows, part)
        if len(ranks) > 2 * wanted:  # Streamed examples are large: keep no more than needed.
            ranks, rows = _lowest(ranks, rows, wanted)
    if rows is None or not len(ranks):
        raise UserError(f"split {split} has no examples; choose another --split")
    ranks, rows = _lowest(ranks, rows, wanted)
    size = min(size, len(ranks))
    return [
        jax.tree.map(lambda leaf, k=k: leaf[k * size : (k + 1) * size], rows)
        for k in range(len(ranks) // size)
    ]


def _append(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return np.concatenate([first, second])


def _lowest(ranks: np.ndarray, rows: Tree, count: int) -> tuple[np.ndarray, Tree]:
    order = np.argsort(ranks, kind="stable")[:count]
    return ranks[order], jax.tree.map(lambda leaf: leaf[order], rows)


def stack(hosts: Sequence[Tree]) -> Tree:
    """Stacks host batches of one shape to leaves [N, B, ...]."""
    return jax.tree.map(lambda *leaves: np.stack(leaves), *hosts)


def batches_of(
    subject: Subject, split: str, count: int, seed: int, log: Log = lambda line: None
) -> list[Tree]:
    """Returns batches of a subject's split, "train" included, of its training batch size.

    Training examples are sampled as those of any split are, so that they are the same for all runs
    on a set and come in one form. Sets that are read from disk are too large to be gone through:
    there they are those of the first training batches, which follow from the run's own seed.
    """
    data, size = subject.run.data, subject.run.config.train.batch_size
    log(f"{subject.label}: drawing {count} batches of {size} from {split}")
    if split == "train" and not jax.tree.leaves(data.resident):
        return training_batches(data, count)
    return sampled_batches(data, split, count, size, seed)


def examples_in(hosts: Sequence[Tree]) -> int:
    """Returns how many examples some host batches hold."""
    return sum(jax.tree.leaves(host)[0].shape[0] for host in hosts)


def plain(value: Any) -> Any:
    """Returns numbers and arrays in any nest as JSON holds them; what is not finite is None."""
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return plain(value._asdict())
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value


def mean_over(values: np.ndarray, axis: int | tuple[int, ...] = 0) -> np.ndarray:
    """Returns the mean of what is not NaN, and NaN where nothing is; without a warning."""
    known = ~np.isnan(values)
    count = known.sum(axis)
    total = np.where(known, values, 0).sum(axis)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def std_over(values: np.ndarray, axis: int = 0) -> np.ndarray:
    """Returns the sample standard deviation of what is not NaN; NaN below two values."""
    known = ~np.isnan(values)
    count = known.sum(axis)
    centre = np.expand_dims(mean_over(values, axis), axis)
    square = np.where(known, np.square(np.where(known, values - centre, 0)), 0).sum(axis)
    return np.where(count > 1, np.sqrt(square / np.maximum(count - 1, 1)), np.nan)

"""What a system gives the engine: pure functions, and data addressed by step.

A system is a model with its task losses. The engine never imports a model library: parameters
are a nested dict and everything else is a function of them, so a model from any library enters
by a few lines that split it into parameters and an apply function.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax

from mtl_jax.errors import UserError, did_you_mean
from mtl_jax.methods.ownership import Owner

Array = jax.Array
Tree = Any


class System(NamedTuple):
    """A multi-task model.

    Attributes:
      task_names: one name a task; T = len(task_names).
      init: `init(key, batch) -> (params, model_state)` from one assembled batch.
      features: `features(params, model_state, batch, key, train) -> (z, model_state)`: what the
        tasks share, computed once a pass. z holds float arrays only; () for tasks that share
        nothing but parameters.
      task_loss: `task_loss(params_t, z, batch, t) -> (loss_sum, weight)`: the loss of task t summed
        over its labelled examples, and how many there are; float32 scalars. In `params_t` a
        stacked leaf has been cut to row t. A task without labels returns (0, 0).
      owner: `owner(path) -> "shared" | "stacked" | task index`, see `methods.ownership`.
      metrics: `metrics(params, model_state, batch) -> {name: state}`: evaluation metrics of one
        batch as mergeable sums (`mtl_jax.metrics`). `batch["mask"]` [B] is 0 for padding rows.
      predict: `predict(params, model_state, batch) -> tree of [B, ...]`: what the model says of
        each example, for reports and predictions; None where there is nothing of the kind.
      regulariser: `regulariser(params) -> scalar` that belongs to no task (coupled L2): its
        gradient is added after aggregation and is never perturbed. None for none.
      table_ids: `table_ids(batch) -> {table: {use: int ids [B, ...]}}`: every lookup of the tables
        `params["tables"][table]` [V, D] that may be updated row by row. All functions above must
        look them up by `layers.embedding.lookup` under these names. None for no such tables.
    """

    task_names: tuple[str, ...]
    init: Callable[..., tuple[Tree, Tree]]
    features: Callable[..., tuple[Tree, Tree]]
    task_loss: Callable[..., tuple[Array, Array]]
    owner: Callable[[tuple[str, ...]], Owner]
    metrics: Callable[..., dict[str, Tree]]
    predict: Callable[..., Tree] | None = None
    regulariser: Callable[[Tree], Array] | None = None
    table_ids: Callable[[Tree], dict[str, dict[str, Array]]] | None = None


class Data(NamedTuple):
    """A data set as the engine sees it.

    Attributes:
      resident: arrays that live on the devices for the whole run; {} when batches are streamed.
      train_batch: `train_batch(step) -> host batch`: this process's part of the training batch
        of a step, a pure function of the step. Leaves are numpy arrays [B / processes, ...].
      eval_batches: `eval_batches(split) -> iterator of host batches`, all of one shape, with a
        `mask` leaf that is 0 for rows that pad the last one. The same number on every process.
      assemble: `assemble(resident, host, key) -> batch`, inside the compiled step: gathers from
        the resident arrays, composes, augments. `key` is None in evaluation.
      steps_per_epoch: full training batches in one pass over the training split.
      splits: names that `eval_batches` knows, besides "train".
    """

    resident: Tree
    train_batch: Callable[[int], Tree]
    eval_batches: Callable[[str], Iterator[Tree]]
    assemble: Callable[[Tree, Tree, Array | None], Tree]
    steps_per_epoch: int
    splits: tuple[str, ...]


def task_numbers(names: Sequence[str], known: Sequence[str]) -> list[int]:
    """Returns the places in `known` of the tasks that `config.data.tasks` names.

    Raises:
      UserError: a task that the set does not have, or one named twice.
    """
    for name in names:
        if name not in known or names.count(name) > 1:
            raise UserError(
                f"config.data.tasks is {' '.join(names)}; {did_you_mean(name, known)}, each once"
            )
    return [known.index(name) for name in names]

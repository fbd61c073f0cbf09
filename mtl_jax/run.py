"""A run: its config, system and data, and how to evaluate a state of it.

`train`, `evaluate` and `report` all start here, so that a run folder alone is enough.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from mtl_jax.config import ExperimentConfig, from_dict, system_module
from mtl_jax.engine import parallel
from mtl_jax.engine.checkpoint import Checkpoints
from mtl_jax.engine.optim import make_optimizer, make_schedule
from mtl_jax.engine.runfolder import read_json
from mtl_jax.engine.state import TrainState
from mtl_jax.engine.step import init_state, make_eval_step, make_train_step
from mtl_jax.errors import UserError
from mtl_jax.metrics.base import accumulate, compute
from mtl_jax.systems.base import Data, System

Tree = Any


class Run(NamedTuple):
    """Everything built from a config.

    Attributes:
      config: of the run.
      system: the model.
      data: its data, resident arrays placed on the devices.
      total_steps: number of updates of the whole run.
      init: `init() -> TrainState` before the first step, on the host.
      train_step: the compiled training step.
      eval_step: the compiled evaluation step.
    """

    config: ExperimentConfig
    system: System
    data: Data
    total_steps: int
    init: Any
    train_step: parallel.DataParallel
    eval_step: parallel.DataParallel


def build(config: ExperimentConfig) -> Run:
    """Builds system, data and steps; raises a `UserError` for a config that cannot run."""
    parallel.check_batch_size(config.train.batch_size, config.train.microbatches)
    parallel.keep_compiled_programs()
    system, data = system_module(config.system).build(config)
    method = config.method.make()
    total_steps = config.train.steps or config.train.epochs * data.steps_per_epoch
    state, tx = init_state(
        system, data, method, lambda owners: _optimizer(config, owners, total_steps), config.seed
    )
    data = data._replace(resident=parallel.replicate(data.resident))
    step = make_train_step(
        system,
        data,
        method,
        tx,
        seed=config.seed,
        strategy=config.method.strategy,
        microbatches=config.train.microbatches,
    )
    return Run(
        config,
        system,
        data,
        total_steps,
        lambda: state,
        parallel.DataParallel(step, config.train.backend),
        parallel.DataParallel(make_eval_step(system, data), config.train.backend, donate=False),
    )


def _optimizer(
    config: ExperimentConfig, owners: Tree, total_steps: int
) -> optax.GradientTransformation:
    optim = config.optim

    def schedule(peak: float) -> optax.Schedule:
        return make_schedule(
            optim.schedule,
            peak,
            total_steps,
            warmup_steps=optim.warmup_steps,
            step_every=optim.step_every,
            step_factor=optim.step_factor,
        )

    heads_lr = optim.lr if optim.heads_lr is None else optim.heads_lr
    return make_optimizer(
        optim.name,
        schedule(optim.lr),
        schedule(heads_lr),
        owners,
        clip_norm=optim.clip_norm,
        weight_decay=optim.weight_decay,
    )


def open_run(workdir: Path) -> Run:
    """Builds the run that a folder holds."""
    return build(from_dict(read_json(workdir / "config.json")))


def restore(
    run: Run, workdir: Path, which: str | int = "best", log: Callable[[str], None] = print
) -> tuple[TrainState, int]:
    """Returns (state on the devices, step) of the "best", the "last" or a numbered checkpoint."""
    settings = run.config.train
    with Checkpoints(workdir, metric=settings.select, mode=settings.select_mode, log=log) as saved:
        step = saved.best_step() if which == "best" else None if which == "last" else int(which)
        found = saved.restore(run.init(), step)
    if found is None:
        raise UserError(f"no checkpoint in {workdir} yet; train it first, or look for another one")
    return parallel.replicate(found.state), found.step


def evaluate(run: Run, state: TrainState, split: str) -> tuple[dict[str, float], Mapping[str, Any]]:
    """Scores a state on a split.

    Returns:
      ({"left/accuracy": ..., "accuracy": ...}, the merged metric states). A metric that every task
      has also appears without the task, as the mean over tasks.
    """
    carry = (state.params, state.model_state)
    total = previous = None
    for host in run.data.eval_batches(split):
        _, states = run.eval_step(carry, run.data.resident, host)
        if previous is not None:
            total = accumulate(total, parallel.to_host(previous))
        previous = states
    total = accumulate(total, parallel.to_host(previous))
    return with_task_means(compute(total), run.system.task_names), total


def metric_names(run: Run, split: str) -> list[str]:
    """Names of what `evaluate` returns for a split; nothing is compiled or computed."""
    batch = next(iter(run.data.eval_batches(split)))
    state = run.init()

    def states(params: Tree, model_state: Tree, resident: Tree, host: Tree) -> Tree:
        return run.system.metrics(params, model_state, run.data.assemble(resident, host, None))

    shapes = jax.eval_shape(states, state.params, state.model_state, run.data.resident, batch)
    empty = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
    return list(with_task_means(compute(empty), run.system.task_names))


def with_task_means(values: Mapping[str, float], tasks: tuple[str, ...]) -> dict[str, float]:
    """Puts the mean over tasks of every metric that all tasks have in front, then task by task."""
    own = {task: [name for name in values if name.startswith(f"{task}/")] for task in tasks}
    means = {}
    for name in own[tasks[0]]:
        metric = name.removeprefix(f"{tasks[0]}/")
        if all(f"{task}/{metric}" in values for task in tasks):
            means[metric] = float(np.mean([values[f"{task}/{metric}"] for task in tasks]))
    ordered = {name: values[name] for task in tasks for name in own[task]}
    return {**means, **ordered, **{k: v for k, v in values.items() if k not in ordered}}


def parameter_count(state: TrainState) -> int:
    """Number of parameters."""
    return sum(leaf.size for leaf in jax.tree.leaves(state.params))

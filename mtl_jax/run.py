"""A run: its config, system and data, and how to evaluate a state of it.

`train`, `evaluate` and `report` all start here, so that a run folder alone is enough.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from mtl_jax.config import ExperimentConfig, from_dict, system_module
from mtl_jax.engine import parallel, tables
from mtl_jax.engine.checkpoint import Checkpoints
from mtl_jax.engine.optim import free_tree, make_optimizer, make_schedule, path_name
from mtl_jax.engine.row_rules import make_row_rule
from mtl_jax.engine.runfolder import read_json
from mtl_jax.engine.state import TrainState
from mtl_jax.engine.step import (
    init_shapes,
    init_state,
    make_eval_step,
    make_train_step,
    repeat,
)
from mtl_jax.engine.tables import Tables
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
      tables: those that are updated row by row; None for none.
    """

    config: ExperimentConfig
    system: System
    data: Data
    total_steps: int
    init: Any
    train_step: parallel.DataParallel
    eval_step: parallel.DataParallel
    tables: Tables | None = None

    def place(self, state: Tree) -> Tree:
        """Places a state, or a part of one, on the devices. Never use the source again."""
        return tables.place(self.tables, state)

    def export(self, state: Tree) -> Tree:
        """Returns a placed state, or a part of one, with whole tables, as checkpoints hold it."""
        return tables.export(self.tables, state)


def build(config: ExperimentConfig) -> Run:
    """Builds system, data and steps; raises a `UserError` for a config that cannot run."""
    parallel.check_batch_size(config.train.batch_size, config.train.microbatches)
    parallel.keep_compiled_programs()
    system, data = system_module(config.system).build(config)
    method = config.method.make(config.train.reduce)
    free = trained_marker(config)
    total_steps = config.train.steps or config.train.epochs * data.steps_per_epoch
    plan = _tables(config, system, data, total_steps)

    def make_tx(params: Tree, owners: Tree) -> optax.GradientTransformation:
        dense = tables.cut(plan, owners), tables.cut(plan, free(params))
        return _optimizer(config, *dense, total_steps, clips=plan is None)

    state, tx = init_state(system, data, method, make_tx, config.seed, tables=plan)
    data = data._replace(resident=parallel.replicate(data.resident))
    step = make_train_step(
        system,
        data,
        method,
        tx,
        seed=config.seed,
        strategy=config.method.strategy,
        microbatches=config.train.microbatches,
        free=free(state.params),
        precision=config.train.precision,
        tables=plan,
    )
    count = config.train.steps_per_call
    _check_call(config, total_steps, data.steps_per_epoch)
    if count > 1:
        step = repeat(step, count)
    score, backend = make_eval_step(system, data, plan), config.train.backend
    dealt = tables.is_dealt(plan)
    return Run(
        config,
        system,
        data,
        total_steps,
        lambda: state,
        parallel.DataParallel(step, backend, is_dealt=dealt),
        parallel.DataParallel(score, backend, donate=False, is_dealt=dealt),
        plan,
    )


def _tables(
    config: ExperimentConfig, system: System, data: Data, total_steps: int
) -> Tables | None:
    """Returns which tables are updated row by row, and how; None for none."""
    optim, settings = config.optim, config.optim.tables
    if settings.rule == "dense":
        return None
    if system.table_ids is None:
        raise UserError(
            f"config.optim.tables.rule is {settings.rule}, but {config.system} has no embedding"
            " tables; choose dense"
        )
    peak = optim.lr if settings.lr is None else settings.lr
    rule = make_row_rule(
        settings.rule,
        _schedule(config, peak, total_steps),
        initial=settings.initial,
        b1=optim.b1,
        b2=optim.b2,
        l2=settings.l2,
    )
    return tables.plan(
        system,
        *init_shapes(system, data),
        rule,
        min_rows=settings.min_rows,
        capacity=settings.capacity,
        backend=settings.backend,
        clip_norm=optim.clip_norm,
    )


def _check_call(config: ExperimentConfig, total_steps: int, steps_per_epoch: int) -> None:
    """Raises a `UserError` unless logs, evaluations and the end fall between two calls."""
    count = config.train.steps_per_call
    every = config.train.eval_every or steps_per_epoch
    for name, steps in (
        ("train.log_every", config.train.log_every),
        ("train.eval_every" if config.train.eval_every else "an epoch", every),
        ("the run", total_steps),
    ):
        if steps % count:
            raise UserError(
                f"config.train.steps_per_call is {count}, which does not divide the {steps} steps"
                f" of {name}; choose a divisor, or 1"
            )


def trained_marker(config: ExperimentConfig) -> Callable[[Tree], Tree]:
    """Returns the function that marks the parameters that `optim.trainable` names."""
    named, module = config.optim.trainable, system_module(config.system)
    presets = module.trainable(config) if hasattr(module, "trainable") else {}
    return lambda params: free_tree(params, presets.get(named, named), tuple(presets))


def _schedule(config: ExperimentConfig, peak: float, total_steps: int) -> optax.Schedule:
    optim = config.optim
    return make_schedule(
        optim.schedule,
        peak,
        total_steps,
        warmup_steps=optim.warmup_steps,
        step_every=optim.step_every,
        step_factor=optim.step_factor,
        boundaries=optim.boundaries,
        factors=optim.factors,
    )


def _optimizer(
    config: ExperimentConfig, owners: Tree, free: Tree, total_steps: int, *, clips: bool
) -> optax.GradientTransformation:
    optim = config.optim
    heads_lr = optim.lr if optim.heads_lr is None else optim.heads_lr
    return make_optimizer(
        optim.name,
        _schedule(config, optim.lr, total_steps),
        _schedule(config, heads_lr, total_steps),
        owners,
        clip_norm=optim.clip_norm if clips else 0.0,
        weight_decay=optim.weight_decay,
        b1=optim.b1,
        b2=optim.b2,
        free=free,
    )


def warm_start(run: Run, state: TrainState, log: Callable[[str], None] = print) -> TrainState:
    """Returns `state` with parameters and model state of the run that `config.init_from` names.

    Its best checkpoint is taken. With `config.init_constants` "own" the constants of the model
    state, which were fitted on training data, stay those of this run.

    Raises:
      UserError: no run there, or one of another model, which the first difference names.
    """
    folder = Path(run.config.init_from)
    if not (folder / "config.json").is_file():
        raise UserError(f"config.init_from is {folder}, which is no run folder: no config.json")
    source = open_run(folder)
    found, step = restore(source, folder, "best", log=log)
    params, model_state = parallel.to_host(source.export((found.params, found.model_state)))
    mend = "give the model and the inputs of that run"
    _check_same_shapes(folder, params, state.params, mend)
    if run.config.init_constants == "own" and "constants" in state.model_state:
        model_state = {**model_state, "constants": state.model_state["constants"]}
    else:
        mend += ", or config.init_constants=own, which fits the scales anew"
    _check_same_shapes(folder, model_state, state.model_state, mend)
    log(f"starting from checkpoint {step} of {folder}")
    return dataclasses.replace(state, params=params, model_state=model_state)


def _check_same_shapes(folder: Path, source: Tree, own: Tree, mend: str) -> None:
    def shapes(tree: Tree) -> dict[str, tuple[int, ...]]:
        leaves = jax.tree_util.tree_leaves_with_path(tree)
        return {path_name(path): tuple(leaf.shape) for path, leaf in leaves}

    theirs, ours = shapes(source), shapes(own)
    for name in sorted(theirs.keys() | ours.keys()):
        if theirs.get(name) != ours.get(name):
            raise UserError(
                f"config.init_from is {folder}, whose {name} is {theirs.get(name, 'absent')};"
                f" here it is {ours.get(name, 'absent')}: {mend}"
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
    return run.place(found.state), found.step


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


def final_scores(run: Run, state: TrainState, split: str) -> dict[str, float]:
    """Scores a state on a split, exactly where `evaluate` has to be content with sums.

    A system's module may offer `scores(run, state, split) -> {name: value}` from all predictions
    at once. They take the place of those of `evaluate`; with several processes there are none.
    """
    values, _ = evaluate(run, state, split)
    module = system_module(run.config.system)
    if not hasattr(module, "scores") or parallel.process_count() > 1:
        return values
    tasks = run.system.task_names
    own = {name: value for name, value in values.items() if name.partition("/")[0] in tasks}
    return with_task_means({**own, **module.scores(run, state, split)}, tasks)


def predictions(
    run: Run, state: TrainState, split: str
) -> Iterator[tuple[dict[str, np.ndarray], dict[str, np.ndarray]]]:
    """Yields (assembled batch, what the system's `predict` says of it) over a split, on the host.

    Rows of padding are left out. In one process only.
    """
    if run.system.predict is None:
        raise ValueError(f"{run.config.system} predicts nothing example by example")
    compiled = _predict_step(run.system.predict, run.data.assemble)
    params = state.params if tables.is_dealt(run.tables) is None else _whole(run, state)
    for host in run.data.eval_batches(split):
        both = parallel.to_host(compiled(params, state.model_state, run.data.resident, host))
        rows = np.flatnonzero(both[0]["mask"])
        yield jax.tree.map(lambda leaf, rows=rows: leaf[rows], both)


@functools.lru_cache(maxsize=4)  # splits and checkpoints of one run share a compilation
def _predict_step(predict: Callable, assemble: Callable) -> Callable:
    def step(params: Tree, model_state: Tree, resident: Tree, host: Tree) -> tuple[Tree, Tree]:
        batch = assemble(resident, host, None)
        return batch, predict(params, model_state, batch)

    return jax.jit(step)


def _whole(run: Run, state: TrainState) -> Tree:
    """The parameters with whole tables on every device."""
    return parallel.replicate(run.export(state.params))


def metric_names(run: Run, split: str) -> list[str]:
    """Names of what `evaluate` returns for a split; nothing is compiled or computed."""
    batch = next(iter(run.data.eval_batches(split)))
    state = run.init()

    def states(params: Tree, model_state: Tree, resident: Tree, host: Tree) -> Tree:
        return run.system.metrics(params, model_state, run.data.assemble(resident, host, None))

    shapes = jax.eval_shape(states, state.params, state.model_state, run.data.resident, batch)
    # Ones and not zeros: a metric that has nothing to count may be left out.
    some = jax.tree.map(lambda leaf: np.ones(leaf.shape, leaf.dtype), shapes)
    return list(with_task_means(compute(some), run.system.task_names))


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

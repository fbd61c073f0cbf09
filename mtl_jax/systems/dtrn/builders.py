"""From a config to the recommendation network with its data."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from mtl_jax.data.event_logs.options import EventLogOptions
from mtl_jax.data.impressions import ImpressionSet
from mtl_jax.data.impressions_io import load_impressions
from mtl_jax.engine import parallel
from mtl_jax.errors import UserError, did_you_mean
from mtl_jax.systems.base import Data, System, task_numbers
from mtl_jax.systems.dtrn import tops
from mtl_jax.systems.dtrn.config import FUNNELS, Config, DataConfig, ModelConfig
from mtl_jax.systems.dtrn.data import impression_data
from mtl_jax.systems.dtrn.inputs import spec_of
from mtl_jax.systems.dtrn.interest import Setting
from mtl_jax.systems.dtrn.model import Network, Refine, make_system, single_task

# With fewer items than this their vectors are made once a step and not once an event.
FEW_ITEMS = 50_000


def build(config: Config) -> tuple[System, Data]:
    """Checks the config, loads its set, making it where it is missing, builds the system.

    Raises:
      UserError: what the user can mend; a wrong config before any data is touched.
    """
    config.check()
    return build_on(load(config.data), config)


def build_on(found: ImpressionSet, config: Config) -> tuple[System, Data]:
    """Returns the system of a config on a set that has been loaded.

    Raises:
      UserError: a network whose tables cannot be updated row by row, where that is asked for.
    """
    sparse = config.optim.tables.rule != "dense"
    network = make_network(found, config.data.length, config.model, config.data.history_sizes)
    if sparse and config.model.top in ("single", "stem"):
        raise UserError(
            f"config.optim.tables.rule is {config.optim.tables.rule}, but every task of"
            f" {config.model.top} has tables of its own, which are not updated row by row; choose"
            " dense"
        )
    data = impression_data(
        found,
        length=config.data.length,
        batch_size=config.train.batch_size,
        eval_batch_size=config.data.eval_batch_size,
        seed=config.seed,
        shard=parallel.process_index(),
        shards=parallel.process_count(),
        event_attributes=sparse or not network.items,
        history_sizes=config.data.history_sizes,
        resident=config.data.resident,
    )
    weighted = not np.isin(found.label_mask, (0, 1)).all()
    if config.model.top == "single":
        return single_task(network, found.task_names, weighted), data
    return make_system(network, found.task_names, sparse=sparse, weighted=weighted), data


@functools.lru_cache(maxsize=1)  # the report and the scores read it again
def load(data: DataConfig) -> ImpressionSet:
    """Loads the set that a config names, with the tasks and sample spaces that it asks for."""
    folder = data.data_dir or None
    if data.name == "event_log":
        from mtl_jax.data.event_logs.loading import load_event_log

        found = load_event_log(log_options(data), folder)
    else:
        found = load_impressions(data.name, folder, data.manual_dir or None)
    found = conditional(found, data.condition)
    return only_tasks(found, data.tasks) if data.tasks else found


def vocabularies(data: DataConfig) -> dict[str, np.ndarray]:
    """Returns the raw values of ids 2, 3, ... of those columns that keep them."""
    from mtl_jax.data.impressions_io import load_vocabularies

    return load_vocabularies(load(data).name, data.data_dir or None)[0]


def log_options(data: DataConfig) -> EventLogOptions:
    """Returns the preset's options, changed by those that the config gives."""
    from mtl_jax.data.event_logs.presets import preset

    path = data.path or data.log.path or data.manual_dir
    if not data.preset:
        return dataclasses.replace(data.log, path=path)
    changed: dict[str, Any] = {
        field.name: getattr(data.log, field.name)
        for field in dataclasses.fields(data.log)
        if getattr(data.log, field.name) != field.default and field.name != "path"
    }
    return dataclasses.replace(preset(data.preset, path), **changed)


def conditional(found: ImpressionSet, rules: Sequence[str]) -> ImpressionSet:
    """Returns the set with labels that do not count unless another label is 1: "a|b".

    Raises:
      UserError: a task that the set does not have.
    """
    mask = found.label_mask.copy()
    for rule in rules:
        target, _, given = rule.partition("|")
        for name in (target, given):
            if name not in found.task_names:
                raise UserError(
                    f"config.data.condition has {rule!r}; {did_you_mean(name, found.task_names)}"
                )
        t, g = found.task_names.index(target), found.task_names.index(given)
        mask[:, t] *= (found.labels[:, g] > 0) & (found.label_mask[:, g] > 0)
    return found._replace(label_mask=mask)


def only_tasks(found: ImpressionSet, names: Sequence[str]) -> ImpressionSet:
    """Returns the set with some tasks, in the order of `names`.

    Raises:
      UserError: a task that the set does not have, or one named twice.
    """
    at = task_numbers(names, found.task_names)
    return found._replace(
        task_names=tuple(names),
        labels=found.labels[:, at],
        label_mask=found.label_mask[:, at],
        truth=found.truth[:, at] if found.truth.shape[1] else found.truth,
    )


def make_network(
    found: ImpressionSet, length: int, model: ModelConfig, history_sizes: bool = False
) -> Network:
    """Builds the network of a set.

    Raises:
      UserError: a top that the set's tasks do not suit.
    """
    num_tasks = len(found.task_names)
    if model.top in FUNNELS and num_tasks < 2:
        raise UserError(f"config.model.top is {model.top}, a funnel of two tasks or more; found 1")
    encoder = model.encoder if found.histories else "none"
    tim = None
    if encoder == "transformer":
        tim = Setting(
            behaviours=len(found.histories),
            length=length,
            width=model.width,
            heads=model.heads,
            layers=model.layers,
            out=model.dim,
            conditioning=model.conditioning,
            pool=model.pool,
            norm_first=model.norm_first,
            embedding=model.task_embedding,
            hidden=model.hyper_hidden,
            rate=model.attention_dropout,
            residual=model.residual,
            fold=model.fold,
        )
    refine = None
    if model.trm:
        refine = Refine(
            model.trm_reduction, model.trm_granularity, model.trm_gate, model.trm_squeeze
        )
    items = {attribute.name: np.asarray(attribute.ids) for attribute in found.attributes}
    few = all(len(ids) <= FEW_ITEMS for ids in items.values())
    return Network(
        spec_of(found, model.dim, length, model.embedding_std, history_sizes),
        encoder,
        tim,
        refine,
        make_top(model, num_tasks),
        model.embedding_dropout,
        items if few else None,
        model.calibrator if model.top == "aitm" else 0.0,
    )


def make_top(model: ModelConfig, num_tasks: int) -> tops.Top:
    """Builds the upper network that a config names."""
    bottom, tower, rate = model.bottom, model.tower, model.dropout
    if model.top in ("shared_bottom", "single"):
        return tops.shared_bottom(bottom, tower, rate)
    if model.top == "mmoe":
        return tops.mmoe(bottom, tower, rate, model.experts)
    if model.top == "ple" and model.levels == 1:
        return tops.cgc(bottom, tower, rate, model.experts, model.own_experts)
    if model.top == "ple":
        return tops.ple(
            bottom, tower, rate, model.experts, model.own_experts, model.levels, num_tasks
        )
    if model.top == "esmm":
        return tops.esmm((*bottom, *tower), rate, num_tasks)
    if model.top == "aitm":
        return tops.aitm(bottom, tower, rate, num_tasks)
    return tops.stem(bottom, tower, rate, model.experts, model.own_experts)

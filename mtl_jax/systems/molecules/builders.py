"""From a config to the molecular network with its data."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np

from mtl_jax.data.molecules import MoleculeSet, load_molecules
from mtl_jax.data.overlay import stable_permutation
from mtl_jax.engine import parallel
from mtl_jax.errors import UserError
from mtl_jax.systems.base import Data, System, task_numbers
from mtl_jax.systems.molecules.config import Config, DataConfig, ModelConfig
from mtl_jax.systems.molecules.data import molecule_data
from mtl_jax.systems.molecules.model import fit_scales, make_system
from mtl_jax.systems.molecules.network import Head, MessagePassing


def build(config: Config) -> tuple[System, Data]:
    """Checks the config, loads its set, preparing it where it is missing, builds the system.

    Raises:
      UserError: what the user can mend; a wrong config before any data is touched.
    """
    config.check()
    found = load(config.data)
    data = molecule_data(
        found,
        batch_size=config.train.batch_size,
        eval_batch_size=config.data.eval_batch_size,
        seed=config.seed,
        shard=parallel.process_index(),
        shards=parallel.process_count(),
        resident=config.data.resident,
    )
    trunk = make_trunk(config.model)
    head = Head(config.model.hidden)
    return make_system(trunk, head, found.target_names, fit_scales(found), config.loss), data


@functools.lru_cache(maxsize=1)  # the report reads it again
def load(data: DataConfig) -> MoleculeSet:
    """Loads the set that a config names, with the tasks and the training size it asks for."""
    found = load_molecules(data.name, data.data_dir or None, data.manual_dir or None)
    if data.tasks:
        found = only_tasks(found, data.tasks)
    return cut(found, data.train_size) if data.train_size else found


def only_tasks(found: MoleculeSet, names: Sequence[str]) -> MoleculeSet:
    """Returns the set with some properties, in the order of `names`.

    Raises:
      UserError: a property that the set does not have, or one named twice.
    """
    at = task_numbers(names, found.target_names)
    return found._replace(target_names=tuple(names), targets=found.targets[:, at])


def cut(found: MoleculeSet, train_size: int) -> MoleculeSet:
    """Returns the set with `train_size` of its training molecules, the same for every seed.

    Raises:
      UserError: more than there are.
    """
    own = found.splits["train"]
    if train_size > len(own):
        raise UserError(
            f"config.data.train_size is {train_size}, but there are {len(own)} training molecules;"
            " choose at most that, or 0 for all"
        )
    kept = np.sort(own[stable_permutation(len(own), 0)[:train_size]])
    return found._replace(splits={**found.splits, "train": kept})


def make_trunk(model: ModelConfig) -> MessagePassing:
    """Builds the message-passing network that a config names."""
    return MessagePassing(
        model.width, model.messages, model.layers, model.basis, model.cutoff, model.centre
    )

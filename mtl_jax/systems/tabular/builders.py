"""From a config to the network of a table with its data."""

from __future__ import annotations

import functools

from mtl_jax.data.tabular_sets import TabularSet, load_tabular
from mtl_jax.engine import parallel
from mtl_jax.systems.base import Data, System
from mtl_jax.systems.row_data import row_data
from mtl_jax.systems.tabular.config import Config, DataConfig
from mtl_jax.systems.tabular.data import gather, prepare
from mtl_jax.systems.tabular.model import make_system


def build(config: Config) -> tuple[System, Data]:
    """Checks the config, loads its set, making it where it is missing, builds the system.

    Raises:
      UserError: what the user can mend; a wrong config before any data is touched.
    """
    config.check()
    found, model = load(config.data), config.model
    ready = prepare(found, carry=model.carry, clip=model.clip)
    system = make_system(
        found.kind,
        found.task_names,
        model.widths,
        model.tower,
        model.dropout,
        ready.scale,
        model.top,
    )
    data = row_data(
        ready.columns,
        found.splits,
        gather,
        batch_size=config.train.batch_size,
        eval_batch_size=config.data.eval_batch_size,
        seed=config.seed,
        shard=parallel.process_index(),
        shards=parallel.process_count(),
    )
    return system, data


@functools.lru_cache(maxsize=2)  # the report and further seeds read it again
def load(data: DataConfig) -> TabularSet:
    """Loads the set that a config names."""
    return load_tabular(data.name, data.data_dir or None, data.manual_dir or None)

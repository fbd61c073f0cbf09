r"""Taobao UserBehavior: what follows on a page view, a cart, a favourite or a buy? DTRN over MMoE.

Paper: DTRN (arXiv 2308.05996); tasks, splits and sizes are ours. Give the folder with
UserBehavior.csv, or that file (packed or not) as --config.data.path. A row is a page view, its
labels are what the user does with the item within 24 hours; there are no exposures in this log.

    make train EXPERIMENT=experiments/dtrn/taobao_userbehavior.py \
        ARGS="--config.data.manual_dir=UserBehavior"
    make train EXPERIMENT=experiments/dtrn/taobao_userbehavior.py WORKDIR=runs/taobao_all \
        ARGS="--config.data.path=UserBehavior.csv --config.data.log.max_users=0 \
        --config.data.resident=False"

The default takes 50,000 of the million users, by a hash of them. Tables are updated row by row, so
that a step costs the same for any number of items. Not measured here.
"""

import dataclasses

from experiments.dtrn import kuairand
from mtl_jax.data.event_logs.options import EventLogOptions
from mtl_jax.systems.dtrn.config import Config, DataConfig


def get_config() -> Config:
    """The experiment: the network and the training of KuaiRand's."""
    return dataclasses.replace(
        kuairand.get_config(),
        name="taobao_userbehavior",
        data=DataConfig(
            name="event_log",
            manual_dir="UserBehavior",
            preset="taobao_userbehavior",
            length=50,
            log=EventLogOptions(max_users=50_000),
        ),
    )

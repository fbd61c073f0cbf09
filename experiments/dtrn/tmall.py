r"""Tmall (IJCAI-15): what follows on a click, a cart, a favourite, a buy, a return? DTRN over MMoE.

Paper: DTRN (arXiv 2308.05996); tasks, splits and sizes are ours. Give the folder with
user_log_format1.csv, where user_info_format1.csv beside it adds age and gender, or the log (packed
or not) as --config.data.path. Its times are days, so histories are of strictly earlier days.

    make train EXPERIMENT=experiments/dtrn/tmall.py ARGS="--config.data.manual_dir=IJCAI-15"
    make train EXPERIMENT=experiments/dtrn/tmall.py WORKDIR=runs/tmall_all \
        ARGS="--config.data.path=user_log_format1.csv --config.data.log.max_users=0 \
        --config.data.resident=False"

The default takes 50,000 of the 424,000 users, by a hash of them. The test days include the sale of
11 November, when people buy as on no other day: expect the calibration to be off. Not measured
here.
"""

import dataclasses

from experiments.dtrn import kuairand
from mtl_jax.data.event_logs.options import EventLogOptions
from mtl_jax.systems.dtrn.config import Config, DataConfig


def get_config() -> Config:
    """The experiment: the network and the training of KuaiRand's."""
    return dataclasses.replace(
        kuairand.get_config(),
        name="tmall",
        data=DataConfig(
            name="event_log",
            manual_dir="IJCAI-15",
            preset="tmall",
            length=50,
            log=EventLogOptions(max_users=50_000),
        ),
    )

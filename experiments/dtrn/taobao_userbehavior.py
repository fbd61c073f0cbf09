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

from mtl_jax.config import FlatConfig, MethodConfig, OptimConfig, TableConfig, TrainConfig
from mtl_jax.data.event_logs.options import EventLogOptions
from mtl_jax.systems.dtrn.config import Config, DataConfig, ModelConfig


def get_config() -> Config:
    """The experiment."""
    return Config(
        name="taobao_userbehavior",
        data=DataConfig(
            name="event_log",
            manual_dir="UserBehavior",
            preset="taobao_userbehavior",
            length=50,
            log=EventLogOptions(max_users=50_000),
        ),
        model=ModelConfig(
            top="mmoe",
            width=64,
            heads=4,
            bottom=(256, 128),
            experts=8,
            tower=(64,),
            dropout=0.1,
        ),
        method=MethodConfig(
            aggregator="linear_scalarization", flat=FlatConfig(combine="erm", rho=0.05)
        ),
        optim=OptimConfig(
            name="adam",
            lr=1e-3,
            schedule="cosine",
            tables=TableConfig(rule="row_adagrad", lr=0.02),
        ),
        train=TrainConfig(epochs=2, batch_size=4096, log_every=50, select="validation/auc"),
    )

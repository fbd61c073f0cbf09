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

from mtl_jax.config import FlatConfig, MethodConfig, OptimConfig, TableConfig, TrainConfig
from mtl_jax.data.event_logs.options import EventLogOptions
from mtl_jax.systems.dtrn.config import Config, DataConfig, ModelConfig


def get_config() -> Config:
    """The experiment."""
    return Config(
        name="tmall",
        data=DataConfig(
            name="event_log",
            manual_dir="IJCAI-15",
            preset="tmall",
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

r"""A log of several behaviours of your own, DTRN over MMoE.

Paper: DTRN (arXiv 2308.05996); set, tasks and sizes are ours. The log is a file of events (user,
item, behaviour, time and perhaps more: CSV, JSON lines or parquet, packed or not). What to make of
it, tasks and splits included, is a preset (`mtl_jax.data.event_logs.presets`: tmall2014,
tmall2014_b, taobao_userbehavior, tmall, otto, retailrocket). Options --config.data.log.* change the
preset, or say everything where --config.data.preset is empty; they are explained in
`mtl_jax.data.event_logs.options`.

    make train EXPERIMENT=experiments/dtrn/event_log.py \
        ARGS="--config.data.path=events.csv --config.data.preset=tmall2014"
    make train EXPERIMENT=experiments/dtrn/event_log.py WORKDIR=runs/base \
        ARGS="--config.data.path=events.csv --config.model.encoder=mean --config.model.trm=False"

The default preset reads the Tmall brand contest of 2014: columns user_id, brand_id, type (0 click,
1 buy, 2 favourite, 3 cart), day (0 .. 122). Such a log is small, so networks overfit within a few
epochs: the checkpoint is chosen by the validation AUC, several times an epoch. Of some fifteen
configurations of the network without TIM and TRM, by the validation AUC, small layers, a high rate
and a strong weight decay did best; large layers at a low rate stay below the means of users. Sizes
of the histories are shown because they tell how often a user buys.
"""

from mtl_jax.config import FlatConfig, MethodConfig, OptimConfig, TableConfig, TrainConfig
from mtl_jax.systems.dtrn.config import Config, DataConfig, ModelConfig


def get_config() -> Config:
    """The experiment."""
    return Config(
        name="event_log",
        data=DataConfig(
            name="event_log",
            path="events.csv",
            preset="tmall2014",
            length=20,
            history_sizes=True,
        ),
        model=ModelConfig(top="mmoe", width=32, bottom=(32,), tower=(16,), embedding_dropout=0.3),
        method=MethodConfig(
            aggregator="linear_scalarization", flat=FlatConfig(combine="erm", rho=0.05)
        ),
        optim=OptimConfig(
            name="adamw",
            lr=1e-2,
            weight_decay=1.0,
            schedule="cosine",
            tables=TableConfig(rule="row_adagrad", lr=0.02),
        ),
        train=TrainConfig(
            epochs=4, batch_size=512, eval_every=25, log_every=25, select="validation/auc"
        ),
    )

"""Lifetimes in a table of your own: any CSV or TSV (parquet with pyarrow).

Paper: Kitada, Iyatomi and Seki 2022 (arXiv 2204.11588), for the two terms; sizes are ours.

Columns go by their names: time and event, perhaps cause, entry, upper, start, group, weight, value;
num*, cat*, text*, image_path, history_AMOUNT_DAY. Options --config.data.table.* say otherwise; they
are explained in `mtl_jax.data.survival.table_options`. Bins are in the table's unit of time:

    make train EXPERIMENT=experiments/ad_survival/table.py ARGS="--config.data.path=my.csv"
    make train EXPERIMENT=experiments/ad_survival/table.py \
        ARGS="--config.data.path=my.csv --config.data.table.time=days --config.data.short 0 7 30 \
              --config.data.long 0 30 90 180 365"
"""

from mtl_jax.config import FlatConfig, MethodConfig, OptimConfig, TrainConfig
from mtl_jax.systems.ad_survival.config import Config, DataConfig, ModelConfig


def get_config() -> Config:
    """The experiment."""
    return Config(
        name="table",
        data=DataConfig(name="table", path="my.csv"),
        model=ModelConfig(trunk=(64, 64)),
        method=MethodConfig(
            aggregator="linear_scalarization", flat=FlatConfig(combine="erm", rho=0.05)
        ),
        optim=OptimConfig(name="adamw", lr=1e-3, weight_decay=0.1, schedule="cosine"),
        train=TrainConfig(
            epochs=20, batch_size=64, log_every=20, select="validation/nll", select_mode="min"
        ),
    )

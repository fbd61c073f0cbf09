r"""AliExpress search: clicks and conversions in one country, MMoE without histories.

Paper: none of its own; a usual check of multi-task models, without histories and without items.
Sizes are ours. Give the folder with the processed train.csv and test.csv of a country, or the one
that holds AliExpress_NL/ and so on.

    make train EXPERIMENT=experiments/dtrn/aliexpress.py ARGS="--config.data.manual_dir=AliExpress"
    make train EXPERIMENT=experiments/dtrn/aliexpress.py WORKDIR=runs/aliexpress_es \
        ARGS="--config.data.manual_dir=AliExpress --config.data.name=aliexpress/ES \
        --config.model.top=ple"

Published models differ by thousandths of AUC on this set: several seeds and intervals, or no
claim. The rows are held in memory, some 400 bytes each. Not measured here.
"""

from mtl_jax.config import FlatConfig, MethodConfig, OptimConfig, TableConfig, TrainConfig
from mtl_jax.systems.dtrn.config import Config, DataConfig, ModelConfig


def get_config() -> Config:
    """The experiment."""
    return Config(
        name="aliexpress",
        data=DataConfig(name="aliexpress", resident=False),
        model=ModelConfig(
            top="mmoe",
            encoder="none",
            trm=False,
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

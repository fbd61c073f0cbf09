r"""Ali-CCP: clicks and conversions of a shop's impressions, DTRN over MMoE.

Paper: DTRN (arXiv 2308.05996); the set is that of ESMM (SIGIR 2018). Sizes are ours. Give the
folder with sample_skeleton_{train,test}.csv and common_features_{train,test}.csv.

    make train EXPERIMENT=experiments/dtrn/ali_ccp.py ARGS="--config.data.manual_dir=Ali-CCP"
    make train EXPERIMENT=experiments/dtrn/ali_ccp.py WORKDIR=runs/ali_ccp_esmm \
        ARGS="--config.data.manual_dir=Ali-CCP --config.model.top=esmm"

Histories are bags of categories, shops, brands and intentions without times, so that the
transformer sees no order. A conversion is of the impression; --config.data.condition
"conversion|click" learns and scores it among clicks. It is rarer than one in a thousand, so its AUC
has a wide interval. The 84 million rows are held in memory, some 200 bytes each: start with a part
of the skeleton files where that is too much. Not measured here.
"""

from mtl_jax.config import FlatConfig, MethodConfig, OptimConfig, TableConfig, TrainConfig
from mtl_jax.systems.dtrn.config import Config, DataConfig, ModelConfig


def get_config() -> Config:
    """The experiment."""
    return Config(
        name="ali_ccp",
        data=DataConfig(name="ali_ccp", length=20, resident=False),
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

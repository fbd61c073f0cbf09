r"""KuaiRand: does a user click, watch, like, follow or forward a short video? DTRN over MMoE.

Paper: DTRN (arXiv 2308.05996); set, tasks and sizes are ours. Give the folder of a published size
(Pure is the smallest), which holds log_standard*.csv and perhaps user_features*.csv and
video_features_basic*.csv; the set is made from it once.

    make train EXPERIMENT=experiments/dtrn/kuairand.py \
        ARGS="--config.data.manual_dir=KuaiRand-Pure"
    make train EXPERIMENT=experiments/dtrn/kuairand.py WORKDIR=runs/base \
        ARGS="--config.data.manual_dir=KuaiRand-Pure --config.model.encoder=mean \
        --config.model.trm=False"

Exposures are real, their outcomes are labels and never inputs, and histories end strictly before
the exposure. Likes, follows and forwards are rare: expect wide intervals. Networks of this kind
overfit after an epoch or two, hence few epochs. Not measured here.
"""

from mtl_jax.config import FlatConfig, MethodConfig, OptimConfig, TableConfig, TrainConfig
from mtl_jax.systems.dtrn.config import Config, DataConfig, ModelConfig


def get_config() -> Config:
    """The experiment."""
    return Config(
        name="kuairand",
        data=DataConfig(name="kuairand", length=50),
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

r"""MovieLens-100K, DTRN over MMoE: does a user like, love or dislike a film?

Paper: DTRN (arXiv 2308.05996). Its data sets and tables are not known to us: the set, its three
tasks and every size are our own choice. Ratings come from a package, by name; they are for research
and are not passed on.

    make train EXPERIMENT=experiments/dtrn/movielens.py               # minutes on two CPU cores
    make train EXPERIMENT=experiments/dtrn/movielens.py WORKDIR=runs/base \
        ARGS="--config.model.encoder=mean --config.model.trm=False"   # plain MMoE

These networks overfit after a few epochs: dropout, decay and the selection of the checkpoint by
the validation AUC are what keeps them. The floor to beat, smoothed means of users and items, is in
the report.
"""

from mtl_jax.config import FlatConfig, MethodConfig, OptimConfig, TrainConfig
from mtl_jax.systems.dtrn.config import Config, DataConfig, ModelConfig


def get_config() -> Config:
    """The experiment."""
    return Config(
        name="movielens",
        data=DataConfig(name="movielens100k", length=10),
        model=ModelConfig(top="mmoe", embedding_dropout=0.2),
        method=MethodConfig(
            aggregator="linear_scalarization", flat=FlatConfig(combine="erm", rho=0.05)
        ),
        optim=OptimConfig(name="adamw", lr=2e-3, weight_decay=0.05, schedule="cosine"),
        train=TrainConfig(epochs=5, batch_size=1024, log_every=38, select="validation/auc"),
    )

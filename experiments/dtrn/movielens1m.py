r"""MovieLens-1M, DTRN over MMoE: does a user like, love or dislike a film?

Paper: DTRN (arXiv 2308.05996). Its data sets and tables are not known to us: the set, its three
tasks and every size are our own choice. Give the folder with ratings.dat, users.dat and movies.dat;
they are for research and are not passed on.

    make train EXPERIMENT=experiments/dtrn/movielens1m.py ARGS="--config.data.manual_dir=ml-1m"
    make train EXPERIMENT=experiments/dtrn/movielens1m.py WORKDIR=runs/base \
        ARGS="--config.data.manual_dir=ml-1m --config.model.encoder=mean --config.model.trm=False"

The tasks are those of `movielens.py`, as is the way to keep such a network from overfitting. Here
most users rate for one evening, so nearly all of a history has the time of the row's own session.
Not measured here; the floor to beat is in the report.
"""

from mtl_jax.config import FlatConfig, MethodConfig, OptimConfig, TrainConfig
from mtl_jax.systems.dtrn.config import Config, DataConfig, ModelConfig


def get_config() -> Config:
    """The experiment."""
    return Config(
        name="movielens1m",
        data=DataConfig(name="movielens1m", length=20),
        model=ModelConfig(top="mmoe", width=32, embedding_dropout=0.2),
        method=MethodConfig(
            aggregator="linear_scalarization", flat=FlatConfig(combine="erm", rho=0.05)
        ),
        optim=OptimConfig(name="adamw", lr=2e-3, weight_decay=0.05, schedule="cosine"),
        train=TrainConfig(epochs=5, batch_size=2048, log_every=50, select="validation/auc"),
    )

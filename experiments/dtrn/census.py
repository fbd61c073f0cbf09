r"""Census-Income (KDD): income and marital status of people, MMoE without histories.

Paper: none of its own; the set, with these two tasks, is a usual check of MMoE (KDD 2018) and PLE
(RecSys 2020). All sizes are ours. There are no items and no histories, so that DTRN has nothing to
add but its weights of the embeddings, which are off: this is for the upper networks. The two files
come from a package, by name; with your own census-income.data and census-income.test give their
folder as --config.data.manual_dir.

    make train EXPERIMENT=experiments/dtrn/census.py
    make train EXPERIMENT=experiments/dtrn/census.py WORKDIR=runs/census_ple \
        ARGS="--config.model.top=ple --config.model.levels=2"
    make train EXPERIMENT=experiments/dtrn/census.py WORKDIR=runs/census_single \
        ARGS="--config.model.top=single"

Some inputs nearly tell a label (the household of a spouse), so AUCs are near 1 and differences
small: read them with their intervals and over several seeds. The floor of user and item means does
not exist here.
"""

from mtl_jax.config import FlatConfig, MethodConfig, OptimConfig, TrainConfig
from mtl_jax.systems.dtrn.config import Config, DataConfig, ModelConfig


def get_config() -> Config:
    """The experiment."""
    return Config(
        name="census",
        data=DataConfig(name="census_income"),
        model=ModelConfig(top="mmoe", encoder="none", trm=False),
        method=MethodConfig(
            aggregator="linear_scalarization", flat=FlatConfig(combine="erm", rho=0.05)
        ),
        optim=OptimConfig(name="adamw", lr=2e-3, weight_decay=0.01, schedule="cosine"),
        train=TrainConfig(epochs=5, batch_size=1024, log_every=50, select="validation/auc"),
    )

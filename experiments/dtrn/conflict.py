"""A generated world in which tasks use the same histories in opposed ways, and the best is known.

Paper: DTRN (arXiv 2308.05996), which says why task-specific bottoms should help where tasks are in
conflict; the world, its tasks and every size are ours.

Clicks, conversions and two further signals of one impression weigh the matches between a candidate
and the user's histories differently, and a knob says how differently. The best possible prediction
is computed with the set, so a table can say which share of the attainable AUC a network reaches.

Embeddings are narrow on purpose: 4 numbers a history are enough for what one task needs of it (3),
not for what all of them need (9). The rate is high and the first embeddings are large because there
is a plateau to leave, where a network knows how much of a history matches and not yet in what.

    make train EXPERIMENT=experiments/dtrn/conflict.py                # minutes on two CPU cores
    make train EXPERIMENT=experiments/dtrn/conflict.py ARGS="--config.data.name=conflict/mild"
"""

from mtl_jax.config import FlatConfig, MethodConfig, OptimConfig, TrainConfig
from mtl_jax.systems.dtrn.config import Config, DataConfig, ModelConfig


def get_config() -> Config:
    """The experiment."""
    return Config(
        name="conflict",
        data=DataConfig(name="conflict/strong", length=10),
        model=ModelConfig(top="mmoe", dim=4, dropout=0.0, embedding_std=0.3),
        method=MethodConfig(
            aggregator="linear_scalarization", flat=FlatConfig(combine="erm", rho=0.05)
        ),
        optim=OptimConfig(
            name="adamw", lr=1e-2, weight_decay=0.01, schedule="cosine", warmup_steps=40
        ),
        train=TrainConfig(epochs=12, batch_size=1024, log_every=41, select="validation/auc"),
    )

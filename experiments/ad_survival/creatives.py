"""Generated ad creatives: which will be stopped when, from five kinds of input.

Paper: Kitada, Iyatomi and Seki, Applied Sciences 12(7):3594, 2022 (arXiv 2204.11588), and JSAI
2020. The world is ours (`mtl_jax.data.survival.creatives`): text, image, categories, numbers and
daily amounts of 20,000 creatives, what decides their lifetimes, and the best that can be known of
them. The paper's data are not public.

Two terms, losses weighed by click rate + 1. Creatives are predicted when they start and after 3 and
10 days, each time among those alive (`landmark`); the paper's own way is for comparison:

    make train EXPERIMENT=experiments/ad_survival/creatives.py         # minutes on two CPU cores
    make train EXPERIMENT=experiments/ad_survival/creatives.py ARGS="--config.data.protocol=paper"
    make train EXPERIMENT=experiments/ad_survival/creatives.py WORKDIR=runs/overall \
        ARGS="--config.model.terms=overall --config.weights.kind=none"
"""

from mtl_jax.config import FlatConfig, MethodConfig, OptimConfig, TrainConfig
from mtl_jax.systems.ad_survival.config import Config, DataConfig, ModelConfig, WeightConfig


def get_config() -> Config:
    """The experiment."""
    return Config(
        name="creatives",
        data=DataConfig(name="creatives/faithful", landmarks=(0, 3, 10)),
        model=ModelConfig(dropout=0.3),
        weights=WeightConfig(kind="ctr"),
        method=MethodConfig(
            aggregator="linear_scalarization", flat=FlatConfig(combine="erm", rho=0.05)
        ),
        optim=OptimConfig(
            name="adamw", lr=2e-3, weight_decay=0.1, schedule="cosine", warmup_steps=50
        ),
        train=TrainConfig(
            epochs=6, batch_size=256, log_every=47, select="validation/nll", select_mode="min"
        ),
    )

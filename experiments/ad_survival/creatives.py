"""Generated ad creatives: which will be stopped when, from five kinds of input.

Paper: Kitada, Iyatomi and Seki, Applied Sciences 12(7):3594, 2022 (arXiv 2204.11588), and JSAI
2020. The world is ours (`mtl_jax.data.survival.creatives`): text, image, categories, numbers and
daily amounts of 100,000 creatives, what decides their lifetimes, and the best that can be known of
them. The paper's data are not public.

Texts are read as bags of words, for a recurrent net over them (the paper's) took four times as long
and said no more of these; on 12,000 training rows, what texts and images say cannot be learned.

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
        data=DataConfig(name="creatives/large", landmarks=(0, 3, 10)),
        model=ModelConfig(
            text="bag",
            text_dim=8,
            image_widths=(16, 32),
            image_stride=4,
            dropout=0.1,
            modality_dropout=0.0,
        ),
        weights=WeightConfig(kind="ctr"),
        method=MethodConfig(
            aggregator="linear_scalarization", flat=FlatConfig(combine="erm", rho=0.05)
        ),
        optim=OptimConfig(
            name="adamw", lr=4e-3, weight_decay=0.3, schedule="cosine", warmup_steps=50
        ),
        train=TrainConfig(
            epochs=5, batch_size=256, log_every=233, select="validation/nll", select_mode="min"
        ),
    )

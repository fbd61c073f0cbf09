"""Political ads on Snapchat, from the library's own CSV: real lifetimes of real ads.

Paper: Kitada, Iyatomi and Seki 2022 (arXiv 2204.11588); the ads, the columns and every size are
not theirs. File: Snap's political ads library, one CSV a year (its licence is not stated; bring
your own copy).

An ad's end is the one that was scheduled, so that a stop before it is not seen. Spend and
impressions are totals up to the snapshot and never inputs. Split by organisation by default, which
is what an ad of a new advertiser meets; random is easier, since texts of one advertiser are alike:

    make train EXPERIMENT=experiments/ad_survival/snap_ads.py \
        ARGS="--config.data.path=PoliticalAds.csv"
    make train EXPERIMENT=experiments/ad_survival/snap_ads.py WORKDIR=runs/random \
        ARGS="--config.data.path=PoliticalAds.csv --config.data.split=random"
"""

from mtl_jax.config import FlatConfig, MethodConfig, OptimConfig, TrainConfig
from mtl_jax.systems.ad_survival.config import Config, DataConfig, ModelConfig


def get_config() -> Config:
    """The experiment."""
    return Config(
        name="snap_ads",
        data=DataConfig(name="snap_ads", path="PoliticalAds.csv", split="group"),
        model=ModelConfig(text="bag", trunk=(64, 64), dropout=0.3),
        method=MethodConfig(
            aggregator="linear_scalarization", flat=FlatConfig(combine="erm", rho=0.05)
        ),
        optim=OptimConfig(
            name="adamw", lr=2e-3, weight_decay=0.1, schedule="cosine", warmup_steps=10
        ),
        train=TrainConfig(
            epochs=10, batch_size=128, log_every=26, select="validation/nll", select_mode="min"
        ),
    )

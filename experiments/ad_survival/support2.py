"""SUPPORT2: 9,105 seriously ill patients, a real set with a short and a long term.

Paper: Kitada, Iyatomi and Seki 2022 (arXiv 2204.11588), for the two terms; the set, its terms and
every size are not theirs. Set: Knaus et al. 1995, in the package SurvSet (GPL; fetched by name,
never shipped here). A quarter of the patients die within 30 days, another two fifths later: the
shape of cut-out and wear-out, without texts or images. Its column that tells who died within two
months is left out.

The network is wide, its layers lose half of their units in training and weights decay strongly: of
the settings tried on the validation rows of the first split, narrow networks at a tenth of the rate
fitted too little (0.764 in concordance, as much as Cox's model), this one does better.

    make train EXPERIMENT=experiments/ad_survival/support2.py          # seconds on two CPU cores
"""

from mtl_jax.config import FlatConfig, MethodConfig, OptimConfig, TrainConfig
from mtl_jax.systems.ad_survival.config import Config, DataConfig, ModelConfig

SHORT = (0, 3, 7, 14, 21, 30)
LONG = (0, 30, 60, 120, 240, 480, 960, 1920)


def get_config() -> Config:
    """The experiment."""
    return Config(
        name="support2",
        data=DataConfig(name="support2", short=SHORT, long=LONG),
        model=ModelConfig(out=64, trunk=(256,), modality_dropout=0.0, dropout=0.5),
        method=MethodConfig(
            aggregator="linear_scalarization", flat=FlatConfig(combine="erm", rho=0.05)
        ),
        optim=OptimConfig(
            name="adamw", lr=4e-3, weight_decay=1.0, schedule="cosine", warmup_steps=20
        ),
        train=TrainConfig(
            epochs=40, batch_size=256, log_every=21, select="validation/nll", select_mode="min"
        ),
    )

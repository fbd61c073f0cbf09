r"""Yeast: 14 functional classes of genes, an MLP with a head for each.

Paper: Elisseeff and Weston (NIPS 2001) made the set; it is a usual one of multi-label learning. The
network, its sizes and the split (60, 20 and 20 %, classes spread evenly) are ours: scores are not
those of papers with other splits. The file comes from a package, by name; with your own yeast.csv
give its folder as --config.data.manual_dir.

    make train EXPERIMENT=experiments/tabular/yeast.py
    make train EXPERIMENT=experiments/tabular/yeast.py WORKDIR=runs/yeast_single \
        ARGS="--config.model.top=single"

Some ten seconds on two CPU cores. AUCs are about 0.7 in the mean and the rarest class has seven
genes in the test split: compare methods over several seeds. It is a set of `make compare`.
"""

from mtl_jax.config import FlatConfig, MethodConfig, OptimConfig, TrainConfig
from mtl_jax.systems.tabular.config import Config, DataConfig, ModelConfig


def get_config() -> Config:
    """The experiment."""
    return Config(
        name="yeast",
        data=DataConfig(name="yeast"),
        model=ModelConfig(widths=(64, 64), dropout=0.3),
        method=MethodConfig(
            aggregator="linear_scalarization",
            flat=FlatConfig(combine="erm", rho=0.05, adaptive=False),
        ),
        optim=OptimConfig(name="adamw", lr=2e-3, weight_decay=0.05, schedule="cosine"),
        train=TrainConfig(
            epochs=40, batch_size=64, eval_every=88, log_every=44, select="validation/auc"
        ),
    )

r"""RF1: flows at eight gauges of a river in 48 hours, an MLP with a head for each.

Paper: Spyromitros-Xioufis et al. (Machine Learning 104, 2016) made the set; training and test rows
are theirs, two periods one after the other. The network, its sizes and the validation rows (the
last fifth of the training period) are ours. The network predicts by how much the present flow
changes (--config.model.carry=False: the flow itself), from inputs of at most three standard
deviations: flows of the test rows swing more than any in training. The files come from a package,
by name; with your own rf1_train.csv and rf1_test.csv give their folder as
--config.data.manual_dir.

    make train EXPERIMENT=experiments/tabular/rf1.py
    make train EXPERIMENT=experiments/tabular/rf1.py WORKDIR=runs/rf1_single \
        ARGS="--config.model.top=single"

Some ten seconds on two CPU cores. The score is aRRMSE, the mean over gauges of the root mean square
error over that of the training mean. The present flow as forecast, which needs no network, is hard
to beat on the test rows: the report shows it gauge by gauge. It is a set of `make compare`.
"""

from mtl_jax.config import FlatConfig, MethodConfig, OptimConfig, TrainConfig
from mtl_jax.systems.tabular.config import Config, DataConfig, ModelConfig


def get_config() -> Config:
    """The experiment."""
    return Config(
        name="rf1",
        data=DataConfig(name="rf1"),
        model=ModelConfig(widths=(64, 64), dropout=0.2),
        method=MethodConfig(
            aggregator="linear_scalarization",
            flat=FlatConfig(combine="erm", rho=0.05, adaptive=False),
        ),
        optim=OptimConfig(name="adamw", lr=3e-4, weight_decay=0.05, schedule="cosine"),
        train=TrainConfig(
            epochs=15,
            batch_size=64,
            eval_every=50,
            log_every=50,
            select="validation/rrmse",
            select_mode="min",
        ),
    )

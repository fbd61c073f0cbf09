"""Darcy flow on a square, a disc and a triangle at once: the mask is a second channel.

Paper: MT-DeepONet (arXiv 2408.02198), its 2-D problem, at a size for two CPU cores: every third
point of the 100 x 100 grid, 500 training samples a geometry in place of 1,800, 2,500 steps in place
of 30,000, Adam with a cosine schedule, no dropout; the loss is the mean relative error of a sample,
so that a small geometry weighs as much as a large one (the paper's is `--config.loss=grid_mse`).
The network is the paper's; on this grid its flattened layer is smaller.

    make train EXPERIMENT=experiments/mt_deeponet/darcy.py
    make train EXPERIMENT=experiments/mt_deeponet/darcy_paper.py      # for a GPU

`darcy_transfer.py` goes on from its run folder on a new geometry.
"""

from mtl_jax.config import FlatConfig, MethodConfig, OptimConfig, TrainConfig
from mtl_jax.systems.mt_deeponet.config import Config, DataConfig, ModelConfig


def get_config() -> Config:
    """The experiment."""
    return Config(
        name="darcy",
        data=DataConfig(name="darcy", train_size=500, scale_solution="global"),
        model=ModelConfig(
            branch="cnn",
            branch_activation="tanh",
            branch_norm="none",
            trunk_widths=(64, 128, 128, 128),
            latent=150,
        ),
        method=MethodConfig(
            aggregator="linear_scalarization", flat=FlatConfig(combine="erm", rho=0.1)
        ),
        optim=OptimConfig(name="adam", lr=1e-3, schedule="cosine"),
        train=TrainConfig(
            steps=2500,
            batch_size=60,
            eval_every=125,
            log_every=125,
            select="validation/rel_l2_mean",
            select_mode="min",
        ),
    )

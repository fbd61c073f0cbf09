"""Temperatures of a heated plate from two design parameters: holes and their position.

Paper: MT-DeepONet (arXiv 2408.02198), its 3-D problem; each number of holes is a task. 24 designs
to train on, at positions 0.9, 1.2 and 1.6. Ours: LayerNorm in place of batch normalisation over
query points (which couples them), Fourier features in the trunk, 8,192 points a step drawn from
those inside a design, 50 x 50 x 32 points. And what decides how well the network does between the
three positions: no normalisation in the branch, which reads two numbers and has to be smooth in
them. With LayerNorm there it fits the training designs as well and errs twice as much on others.

    make train EXPERIMENT=experiments/mt_deeponet/plate3d.py
"""

from mtl_jax.config import FlatConfig, MethodConfig, OptimConfig, TrainConfig
from mtl_jax.systems.mt_deeponet.config import Config, DataConfig, ModelConfig


def get_config() -> Config:
    """The experiment."""
    return Config(
        name="plate3d",
        data=DataConfig(
            name="plate", scale_params="point", scale_solution="standard", points_per_step=8192
        ),
        model=ModelConfig(
            branch_widths=(32, 64, 128, 128),
            branch_activation="swish",
            branch_last="selu",
            branch_norm="none",
            trunk_widths=(32, 64, 64, 64, 128, 128, 128, 128, 128),
            trunk_activation="swish",
            trunk_norm="layer",
            trunk_skip=True,
            trunk_frequencies=3,
            latent=200,
        ),
        loss="interior_mse",
        method=MethodConfig(
            aggregator="linear_scalarization", flat=FlatConfig(combine="erm", rho=0.1)
        ),
        optim=OptimConfig(name="muon", lr=3e-3, schedule="cosine"),
        train=TrainConfig(
            steps=1500,
            batch_size=24,
            eval_every=100,
            log_every=100,
            select="validation/rel_l2_mean",
            select_mode="min",
        ),
    )

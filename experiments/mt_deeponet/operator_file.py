r"""Your own operator problem from one .npz or .h5 file.

Paper: none; the network is MT-DeepONet's (arXiv 2408.02198), smaller. The file holds `solutions`
and `coords`, and `params` or `field`; optionally `mask`, `task`, `split` (see
`mtl_jax.data.operator_files.arrays`). Shared query points are far cheaper than points of each
sample's own; both are read.

    make train EXPERIMENT=experiments/mt_deeponet/operator_file.py \
      ARGS="--config.data.path=mine.npz"
"""

from mtl_jax.config import FlatConfig, MethodConfig, OptimConfig, TrainConfig
from mtl_jax.systems.mt_deeponet.config import Config, DataConfig, ModelConfig


def get_config() -> Config:
    """The experiment."""
    return Config(
        name="operator_file",
        data=DataConfig(
            name="file", path="mine.npz", scale_params="point", scale_solution="standard"
        ),
        model=ModelConfig(latent=128),
        method=MethodConfig(
            aggregator="linear_scalarization", flat=FlatConfig(combine="erm", rho=0.1)
        ),
        optim=OptimConfig(name="muon", lr=3e-3, schedule="cosine"),
        train=TrainConfig(
            steps=2000,
            batch_size=60,
            eval_every=200,
            log_every=100,
            select="validation/rel_l2_mean",
            select_mode="min",
        ),
    )

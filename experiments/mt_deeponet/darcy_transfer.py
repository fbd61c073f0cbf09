r"""A Darcy network goes on to a geometry that it has not seen, from few samples.

Paper: MT-DeepONet (arXiv 2408.02198), transfer: 100 samples of the target geometry, all in one
batch, relative L2 loss. 400 steps of full fine-tuning here, with the scales of the source network;
`--config.optim.trainable=paper` trains the paper's set (first convolution, the branch's dense
layers, the trunk's last layer), `head` only the last layers of both.

    make train EXPERIMENT=experiments/mt_deeponet/darcy.py
    make train EXPERIMENT=experiments/mt_deeponet/darcy_transfer.py \
      ARGS="--config.init_from=runs/darcy --config.data.geometry=l_shape"

Without init_from it trains from scratch: the comparison that counts.
"""

import dataclasses

from experiments.mt_deeponet import darcy
from mtl_jax.systems.mt_deeponet.config import Config


def get_config() -> Config:
    """The experiment."""
    config = darcy.get_config()
    return dataclasses.replace(
        config,
        name="darcy_transfer",
        data=dataclasses.replace(config.data, geometry=("pentagon",), train_size=100),
        optim=dataclasses.replace(config.optim, lr=5e-4),
        train=dataclasses.replace(
            config.train, steps=400, batch_size=100, eval_every=50, log_every=50
        ),
    )

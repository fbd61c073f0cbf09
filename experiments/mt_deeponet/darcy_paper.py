"""MT-DeepONet's Darcy problem at the paper's size: 100 x 100, 3 x 1,800 samples, 30,000 steps.

Paper: MT-DeepONet (arXiv 2408.02198) and its code: batches of 1,000, Adam (0.9, 0.99), learning
rate 1e-3 to step 5,001, 5e-4 to 8,001, then 1e-4, dropout 0.1 in the branch's dense layers, loss
over all grid points, as the authors' (`--config.loss=relative_l2` for ours).

    make train-gpu EXPERIMENT=experiments/mt_deeponet/darcy_paper.py

A CPU would need weeks. The authors' released weights score 4.4, 4.4 and 7.5 % on our data.
"""

import dataclasses

from experiments.mt_deeponet import darcy
from mtl_jax.systems.mt_deeponet.config import Config


def get_config() -> Config:
    """The experiment."""
    config = darcy.get_config()
    return dataclasses.replace(
        config,
        name="darcy_paper",
        data=dataclasses.replace(config.data, full=True, train_size=0, batches="mixed"),
        model=dataclasses.replace(config.model, branch_dropout=(0.1, 0.1)),
        loss="grid_mse",
        optim=dataclasses.replace(
            config.optim,
            schedule="piecewise",
            boundaries=(5001, 8001),
            factors=(0.5, 0.1),
            b2=0.99,
        ),
        train=dataclasses.replace(
            config.train, steps=30_000, batch_size=1000, eval_every=500, log_every=100
        ),
    )

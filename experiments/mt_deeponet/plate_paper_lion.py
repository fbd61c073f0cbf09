r"""The last 5,000 steps of the paper's heated plate: Lion, from the network that Adam has trained.

Paper: the code of MT-DeepONet (arXiv 2408.02198): Lion (0.9, 0.99), rate 1e-5 times 0.9 every 100
steps, from step 15,000 on. Lion begins with no momentum there too, so two runs are the same as one;
but this one goes on from the checkpoint that validation chose, not from the last.

    make train-gpu EXPERIMENT=experiments/mt_deeponet/plate_paper_lion.py \
      ARGS="--config.init_from=runs/plate_paper"
"""

import dataclasses

from experiments.mt_deeponet import plate_paper
from mtl_jax.config import OptimConfig
from mtl_jax.systems.mt_deeponet.config import Config


def get_config() -> Config:
    """The experiment."""
    config = plate_paper.get_config()
    return dataclasses.replace(
        config,
        name="plate_paper_lion",
        optim=OptimConfig(name="lion", lr=1e-5, schedule="step", step_every=100, step_factor=0.9),
        train=dataclasses.replace(config.train, steps=5000),
    )

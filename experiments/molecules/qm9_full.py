"""All of QM9, eleven properties, for an accelerator: as long as the papers train, another network.

Paper: Nash-MTL (arXiv 2202.01017), section "QM9", whose protocol FAMO (2306.03792) and FS-MTL
(2211.13723) follow: 110,000 training molecules, 10,000 to choose by and 10,000 to test, batches of
120, 300 epochs of Adam from 1e-3, properties standardised, energies of atomisation. Ours differ in
the network (theirs is that of Gilmer et al. 2017 with Set2Set, ours passes messages in radial
functions), in the schedule (a cosine in place of dividing on plateaus), in AdamW, in the loss
(absolute, not squared errors) and in which molecules are held out, which they do not say. So the
numbers of this file are for comparing methods with each other, not with the papers' tables.

    make train-gpu EXPERIMENT=experiments/molecules/qm9_full.py

Untested on a GPU, and never trained at this size: the tests run it with a narrow network on a few
made-up molecules.
"""

import dataclasses

from experiments.molecules import qm9
from mtl_jax.config import OptimConfig
from mtl_jax.systems.molecules.config import Config, DataConfig, ModelConfig


def get_config() -> Config:
    """The experiment."""
    base = qm9.get_config()
    return dataclasses.replace(
        base,
        name="qm9_full",
        data=DataConfig(name="qm9/full", eval_batch_size=1200),
        model=ModelConfig(width=128, messages=64, layers=6, basis=32, cutoff=10.0, hidden=128),
        optim=OptimConfig(
            name="adamw", lr=1e-3, weight_decay=0.01, schedule="cosine", warmup_steps=1000
        ),
        train=dataclasses.replace(base.train, epochs=300, batch_size=120, log_every=200),
    )

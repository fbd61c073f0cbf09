"""Hard drives: 52,422 disks of which one in twenty fails, a large set with few events.

Paper: Kitada, Iyatomi and Seki 2022 (arXiv 2204.11588), for the two terms; the set, its terms and
every size are not theirs. Set: disks of a storage company, in the package SurvSet
(GPL; fetched by name, never shipped here). Times are days in service; the short term is the first
400, the middle failure comes after 722.

    make train EXPERIMENT=experiments/ad_survival/hdfail.py          # seconds on two CPU cores
"""

import dataclasses

from experiments.ad_survival import support2
from mtl_jax.systems.ad_survival.config import Config

SHORT = (0, 100, 200, 300, 400)
LONG = (0, 400, 600, 800, 1000, 1300, 1600, 2000, 3000, 6000)


def get_config() -> Config:
    """The experiment: network and optimiser of SUPPORT2, fewer epochs of larger batches."""
    base = support2.get_config()
    data = dataclasses.replace(base.data, name="hdfail", short=SHORT, long=LONG)
    train = dataclasses.replace(base.train, epochs=8, batch_size=512, log_every=62)
    return dataclasses.replace(base, name="hdfail", data=data, train=train)

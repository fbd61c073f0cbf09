"""Right heart catheterisation: 5,735 critically ill patients, with a short and a long term.

Paper: Kitada, Iyatomi and Seki 2022 (arXiv 2204.11588), for the two terms; the set, its terms and
every size are not theirs. Set: Connors et al. 1996, in the package SurvSet (GPL; fetched by name,
never shipped here). A third of the patients die within 30 days and nearly as many later.

    make train EXPERIMENT=experiments/ad_survival/rhc.py          # seconds on two CPU cores
"""

import dataclasses

from experiments.ad_survival import support2
from mtl_jax.systems.ad_survival.config import Config

SHORT = (0, 3, 7, 14, 21, 30)
LONG = (0, 30, 60, 120, 180, 240, 365, 730)


def get_config() -> Config:
    """The experiment: the network and the optimiser of SUPPORT2."""
    base = support2.get_config()
    data = dataclasses.replace(base.data, name="rhc", short=SHORT, long=LONG)
    return dataclasses.replace(base, name="rhc", data=data)

"""Unemployment: 3,241 spells in whole periods of two weeks, a set with discrete times.

Paper: Kitada, Iyatomi and Seki 2022 (arXiv 2204.11588), for the two terms; the set, its terms and
every size are not theirs. Set: McCall 1996, in the package SurvSet (GPL; fetched by name, never
shipped here). A spell ends with a job; the longest lasts 28 periods. The short term is the first
four months.

    make train EXPERIMENT=experiments/ad_survival/unempdur.py          # seconds on two CPU cores
"""

import dataclasses

from experiments.ad_survival import support2
from mtl_jax.systems.ad_survival.config import Config

SHORT = (0, 1, 2, 3, 4, 6, 8)
LONG = (0, 8, 10, 12, 14, 17, 20, 24, 28)


def get_config() -> Config:
    """The experiment: the network and the optimiser of SUPPORT2."""
    base = support2.get_config()
    data = dataclasses.replace(base.data, name="unempdur", short=SHORT, long=LONG)
    return dataclasses.replace(base, name="unempdur", data=data)

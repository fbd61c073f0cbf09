r"""Ali-CCP: clicks and conversions of a shop's impressions, DTRN over MMoE.

Paper: DTRN (arXiv 2308.05996); the set is that of ESMM (SIGIR 2018). Sizes are ours. Give the
folder with sample_skeleton_{train,test}.csv and common_features_{train,test}.csv.

    make train EXPERIMENT=experiments/dtrn/ali_ccp.py ARGS="--config.data.manual_dir=Ali-CCP"
    make train EXPERIMENT=experiments/dtrn/ali_ccp.py WORKDIR=runs/ali_ccp_esmm \
        ARGS="--config.data.manual_dir=Ali-CCP --config.model.top=esmm"

Histories are bags of categories, shops, brands and intentions without times, so that the
transformer sees no order. A conversion is of the impression; --config.data.condition
"conversion|click" learns and scores it among clicks. It is rarer than one in a thousand, so its AUC
has a wide interval. The 84 million rows are held in memory, some 200 bytes each: start with a part
of the skeleton files where that is too much. Not measured here.
"""

import dataclasses

from experiments.dtrn import kuairand
from mtl_jax.systems.dtrn.config import Config, DataConfig


def get_config() -> Config:
    """The experiment: the network and the training of KuaiRand's."""
    return dataclasses.replace(
        kuairand.get_config(),
        name="ali_ccp",
        data=DataConfig(name="ali_ccp", length=20, resident=False),
    )

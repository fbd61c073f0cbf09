"""Operator networks (MT-DeepONet): families of source terms, geometries and designs as tasks."""

from mtl_jax.systems.mt_deeponet.builders import build
from mtl_jax.systems.mt_deeponet.config import Config
from mtl_jax.systems.mt_deeponet.figures import report
from mtl_jax.systems.mt_deeponet.predict import predict_file

# What `optim.trainable` may name besides globs. "paper" is the set of MT-DeepONet's code: the first
# convolution, the dense layers of the branch and the last layer of the trunk.
TRAINABLE = {
    "full": "all",
    "paper": "branch/conv_0/*,branch/dense*,trunk/net/dense_4/*",
    "head": "branch/dense/dense_2/*,trunk/net/dense_4/*",
}

__all__ = ["TRAINABLE", "Config", "build", "predict_file", "report"]

"""Operator networks (MT-DeepONet): families of source terms, geometries and designs as tasks."""

from mtl_jax.systems.mt_deeponet.builders import build, trainable
from mtl_jax.systems.mt_deeponet.config import Config
from mtl_jax.systems.mt_deeponet.figures import report
from mtl_jax.systems.mt_deeponet.predict import predict_file

__all__ = ["Config", "build", "predict_file", "report", "trainable"]

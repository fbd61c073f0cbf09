"""Recommendation: DTRN's task-specific bottoms under SharedBottom, MMoE, PLE and others."""

from mtl_jax.systems.dtrn.builders import build
from mtl_jax.systems.dtrn.config import Config
from mtl_jax.systems.dtrn.figures import report
from mtl_jax.systems.dtrn.predict import predict_file
from mtl_jax.systems.dtrn.scores import scores

__all__ = ["Config", "build", "predict_file", "report", "scores"]

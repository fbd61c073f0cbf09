"""Lifetimes from many kinds of input: short- and long-term hazards of ad creatives, and others."""

from mtl_jax.systems.ad_survival.builders import build
from mtl_jax.systems.ad_survival.config import Config
from mtl_jax.systems.ad_survival.figures import report
from mtl_jax.systems.ad_survival.predict import predict_file
from mtl_jax.systems.ad_survival.scores import scores

__all__ = ["Config", "build", "predict_file", "report", "scores"]

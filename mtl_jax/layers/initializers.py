"""Initialisers that draw from PyTorch's distributions."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
from jax.nn import initializers

Initializer = Callable[..., Any]


def torch_kernel() -> Initializer:
    """Uniform in +-1 / sqrt(fan_in): PyTorch's default for linear and convolution kernels."""
    return initializers.variance_scaling(1 / 3, "fan_in", "uniform")


def torch_bias(fan_in: int) -> Initializer:
    """Uniform in +-1 / sqrt(fan_in): PyTorch's default for the bias next to such a kernel.

    Args:
      fan_in: inputs of one output unit: kernel height * width * channels.
    """
    limit = 1 / math.sqrt(fan_in)

    def init(key: jax.Array, shape: tuple[int, ...], dtype: Any = float) -> jax.Array:
        return jax.random.uniform(key, shape, dtype, -limit, limit)

    return init


def kaiming_normal_fan_out() -> Initializer:
    """Normal with variance 2 / fan_out (He et al. 2015, eq. 14): torchvision's ResNet kernels."""
    return initializers.variance_scaling(2.0, "fan_out", "normal")

"""A trunk of dense layers."""

from __future__ import annotations

import math
from collections.abc import Sequence

import jax
from flax import linen as nn

from mtl_jax.layers.initializers import torch_bias, torch_kernel

Array = jax.Array


class MLP(nn.Module):
    """Dense layers, each with a ReLU, on the flattened image: [B, ...] to [B, widths[-1]].

    Attributes:
      widths: of the layers.
    """

    widths: Sequence[int] = (512, 512, 512, 50)

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        """Maps inputs [B, ...] to features [B, widths[-1]]; `train` makes no difference."""
        del train
        x = x.reshape(x.shape[0], math.prod(x.shape[1:]))
        for width in self.widths:
            bias_init = torch_bias(x.shape[-1])
            x = nn.relu(nn.Dense(width, kernel_init=torch_kernel(), bias_init=bias_init)(x))
        return x

"""LeNet trunks for 36 x 36 images of two objects."""

from __future__ import annotations

import math

import jax
from flax import linen as nn

from mtl_jax.layers.conv import Conv
from mtl_jax.layers.initializers import torch_bias, torch_kernel
from mtl_jax.layers.pooling import max_pool

Array = jax.Array


class LeNet(nn.Module):
    """Two convolutions with pooling, then one hidden layer: [B, H, W, C] to [B, hidden].

    Pooling comes before ReLU: the same values as the other way round, on a quarter of the pixels.
    Features are flattened as height, width, channel; PyTorch's order is channel, height, width.

    Attributes:
      widths: channels of the two convolutions.
      kernels: their window sizes, without padding.
      hidden: width of the last layer.
    """

    widths: tuple[int, int] = (10, 20)
    kernels: tuple[int, int] = (9, 5)
    hidden: int = 50

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        """Maps images [B, H, W, C] to features [B, hidden]; `train` makes no difference."""
        del train
        for width, kernel in zip(self.widths, self.kernels, strict=True):
            bias_init = torch_bias(kernel * kernel * x.shape[-1])
            x = Conv(
                width, kernel, padding="VALID", kernel_init=torch_kernel(), bias_init=bias_init
            )(x)
            x = nn.relu(max_pool(x))
        x = x.reshape(x.shape[0], math.prod(x.shape[1:]))
        return nn.relu(
            nn.Dense(self.hidden, kernel_init=torch_kernel(), bias_init=torch_bias(x.shape[-1]))(x)
        )


def lenet_pareto() -> LeNet:
    """ParetoMTL's LeNet (Lin et al., NeurIPS 2019, code): 9x9x10, 5x5x20, 50. For the studies."""
    return LeNet(widths=(10, 20), kernels=(9, 5), hidden=50)


def lenet_5x5(widths: tuple[int, int] = (10, 20)) -> LeNet:
    """Two 5x5 convolutions, then 50. For the benchmarks, with widths (10, 20) or (32, 64)."""
    return LeNet(widths=widths, kernels=(5, 5), hidden=50)

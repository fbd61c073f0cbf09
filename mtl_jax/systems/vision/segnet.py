"""A small encoder-decoder for dense prediction (NYUv2, CityScapes)."""

from __future__ import annotations

from collections.abc import Sequence

import jax
from flax import linen as nn

from mtl_jax.layers.batch_norm import BatchNorm
from mtl_jax.layers.conv import Conv
from mtl_jax.layers.initializers import torch_bias, torch_kernel
from mtl_jax.layers.pooling import max_pool_with_winners, max_unpool

Array = jax.Array


class ConvNormReLU(nn.Module):
    """A 3x3 convolution, batch normalisation and ReLU: [B, H, W, C] to [B, H, W, features]."""

    features: int
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        """Batch statistics when `train`, else running ones."""
        kernel_init = nn.initializers.glorot_normal()
        x = Conv(self.features, 3, padding=1, use_bias=False, kernel_init=kernel_init)(x)
        x = BatchNorm(use_running_average=not train, axis_name=self.axis_name)(x)
        return nn.relu(x)


class SegNetSmall(nn.Module):
    """A SegNet trunk (Badrinarayanan et al. 2017) with fewer and narrower stages.

    Every stage of the encoder is two convolutions and a 2x2 max pooling; the decoder puts values
    back where the maxima came from and mirrors the convolutions. It is not the SegNet-MTAN of the
    FS-MTL paper, which has five stages (64, 128, 256, 512, 512), up to three convolutions a stage
    and an attention module per task: numbers of the two must not be compared.

    Attributes:
      widths: channels of the stages, outermost first; the features have `widths[0]` channels.
      axis_name: device axis over which batch statistics are taken.
    """

    widths: Sequence[int] = (32, 64, 128, 256)
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        """Maps images [B, H, W, C] to features [B, H, W, widths[0]].

        Raises:
          ValueError: H or W is no multiple of 2 ** number of stages.
        """
        step = 2 ** len(self.widths)
        if x.shape[1] % step or x.shape[2] % step:
            raise ValueError(f"height and width must be multiples of {step}. Found {x.shape[1:3]}.")

        def block(x: Array, width: int, name: str) -> Array:
            return ConvNormReLU(width, self.axis_name, name=name)(x, train)

        winners = []
        for stage, width in enumerate(self.widths):
            x = block(x, width, f"down{stage}_a")
            x = block(x, width, f"down{stage}_b")
            x, winner = max_pool_with_winners(x)
            winners.append(winner)
        for stage in reversed(range(len(self.widths))):
            x = max_unpool(x, winners[stage])
            x = block(x, self.widths[stage], f"up{stage}_a")
            x = block(x, self.widths[max(stage - 1, 0)], f"up{stage}_b")
        return x


class DenseHead(nn.Module):
    """A 3x3 convolution with ReLU and a 1x1 one: [B, H, W, D] to [B, H, W, outputs].

    Attributes:
      outputs: 13 or 7 classes, 1 for depth, 3 for normals.
      hidden: channels in between; None for as many as come in.
    """

    outputs: int
    hidden: int | None = None

    @nn.compact
    def __call__(self, z: Array) -> Array:
        """Maps features to outputs at every pixel."""
        channels = z.shape[-1]
        hidden = self.hidden or channels
        first = Conv(
            hidden, 3, padding=1, kernel_init=torch_kernel(), bias_init=torch_bias(9 * channels)
        )
        last = Conv(
            self.outputs, 1, padding=0, kernel_init=torch_kernel(), bias_init=torch_bias(hidden)
        )
        return last(nn.relu(first(z)))

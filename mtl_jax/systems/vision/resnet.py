"""ResNet-18 trunks: torchvision's stem for small grey images, the CIFAR stem for CelebA."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Literal

import jax
from flax import linen as nn

from mtl_jax.layers.batch_norm import BatchNorm
from mtl_jax.layers.conv import Conv
from mtl_jax.layers.initializers import kaiming_normal_fan_out, torch_bias, torch_kernel
from mtl_jax.layers.pooling import max_pool

Array = jax.Array

_conv = functools.partial(Conv, use_bias=False, kernel_init=kaiming_normal_fan_out())


class BasicBlock(nn.Module):
    """Two 3x3 convolutions around a shortcut (He et al. 2016, fig. 5 left).

    Attributes:
      features: output channels.
      stride: of the first convolution; the shortcut is a 1x1 convolution where it or the number
        of channels changes the shape.
      norm: builds a normalisation layer.
    """

    features: int
    stride: int
    norm: Callable[..., nn.Module]

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Maps [B, H, W, C] to [B, ceil(H / stride), ceil(W / stride), features]."""
        y = _conv(self.features, 3, self.stride, padding=1)(x)
        y = nn.relu(self.norm()(y))
        y = _conv(self.features, 3, padding=1)(y)
        y = self.norm()(y)
        if self.stride != 1 or x.shape[-1] != self.features:
            x = _conv(self.features, 1, self.stride, padding=0, name="shortcut_conv")(x)
            x = self.norm(name="shortcut_norm")(x)
        return nn.relu(x + y)


class ResNet18(nn.Module):
    """ResNet-18 without its classifier: images [B, H, W, C] to features [B, D].

    Sources: He et al. 2016 table 1; torchvision `resnet18` and its initialisers. Batch
    normalisation has momentum 0.9 and epsilon 1e-5 (PyTorch's 0.1) and biased running variances.

    Attributes:
      stem: "imagenet", a 7x7 convolution of stride 2 and a 3x3 max pooling of stride 2 as in
        torchvision; "cifar", a 3x3 convolution alone.
      pool: side of the average pooling windows at the end; None for the whole map. 4 turns the
        8x8 map of a 64-pixel image into 2 * 2 * 512 = 2048 features (CelebA).
      hidden: width of a last dense layer with ReLU; None for none. 100 in the Multi-MNIST study.
      axis_name: device axis over which batch statistics are taken.
    """

    stem: Literal["imagenet", "cifar"] = "imagenet"
    pool: int | None = None
    hidden: int | None = 100
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        """Maps images [B, H, W, C] to features, by batch statistics when `train`."""
        norm = functools.partial(BatchNorm, use_running_average=not train, axis_name=self.axis_name)
        if self.stem == "imagenet":
            x = nn.relu(norm()(_conv(64, 7, 2, padding=3)(x)))
            x = max_pool(x, 3, 2, padding=1)
        elif self.stem == "cifar":
            x = nn.relu(norm()(_conv(64, 3, padding=1)(x)))
        else:
            raise ValueError(f"stem must be 'imagenet' or 'cifar'. Found {self.stem!r}.")
        for stage in range(4):
            for block in range(2):
                stride = 2 if stage > 0 and block == 0 else 1
                x = BasicBlock(64 * 2**stage, stride, norm)(x)
        if self.pool is None:
            x = x.mean((1, 2))
        else:
            x = nn.avg_pool(x, (self.pool, self.pool), (self.pool, self.pool))
            x = x.reshape(x.shape[0], math.prod(x.shape[1:]))
        if self.hidden is None:
            return x
        bias_init = torch_bias(x.shape[-1])
        return nn.relu(nn.Dense(self.hidden, kernel_init=torch_kernel(), bias_init=bias_init)(x))


def resnet18_multimnist(axis_name: str | None = None) -> ResNet18:
    """The trunk of the Multi-MNIST study: torchvision's stem, a dense layer of 100.

    With one input channel and two heads of 100 x 10 it has 11,223,560 parameters.
    """
    return ResNet18("imagenet", hidden=100, axis_name=axis_name)


def resnet18_celeba(axis_name: str | None = None) -> ResNet18:
    """The trunk for 64-pixel CelebA images: CIFAR stem, 2048 features."""
    return ResNet18("cifar", pool=4, hidden=None, axis_name=axis_name)

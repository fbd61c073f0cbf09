"""Branch and trunk networks of a DeepONet, with the papers' initial values.

The branch maps the description of a problem to p coefficients, the trunk a query point to the
values of p basis functions there; their inner product is the solution at that point.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn

from mtl_jax.layers.batch_norm import BatchNorm
from mtl_jax.layers.conv import Conv
from mtl_jax.layers.dropout import dropout

Array = jax.Array
Norm = Literal["layer", "batch", "none"]
Activation = Callable[[Array], Array]

LEAKY_SLOPE = 0.2  # Keras' "leaky_relu"; JAX's own default is 0.01
NORM_EPS = 1e-3


def initializers(std: float) -> dict[str, Any]:
    """Returns `kernel_init` and `bias_init`: both N(0, std^2), or the papers' if `std` is 0.

    Those are Glorot normal kernels and N(0, 0.01^2) biases.
    """
    if std:
        return {
            "kernel_init": nn.initializers.normal(std),
            "bias_init": nn.initializers.normal(std),
        }
    return {
        "kernel_init": nn.initializers.glorot_normal(),
        "bias_init": nn.initializers.normal(0.01),
    }


def leaky_relu(x: Array) -> Array:
    """Leaky ReLU of slope 0.2."""
    return jax.nn.leaky_relu(x, LEAKY_SLOPE)


ACTIVATIONS: dict[str, Activation] = {
    "leaky_relu": leaky_relu,
    "tanh": jnp.tanh,
    "swish": jax.nn.swish,
    "gelu": jax.nn.gelu,
    "selu": jax.nn.selu,
    "linear": lambda x: x,
}


class MLP(nn.Module):
    """Dense layers, the last one linear: [..., D] to [..., widths[-1]].

    A hidden layer is dense, normalisation, activation, dropout, in this order.

    Attributes:
      widths: of all layers, the last one included.
      activation: of the hidden layers.
      last: activation of the last layer.
      norm: after each hidden dense layer: "layer" (eps 1e-3), "batch" over all but the last axis,
        or "none".
      rates: dropout rate of each hidden layer; shorter for none in the rest.
      skip: whether hidden layer i >= 3 (counted from 1) adds a dense projection of the output two
        layers back (the heated plate's trunk).
      init_std: of the initial values, see `initializers`.
      axis_name: of the devices, for batch statistics.
    """

    widths: Sequence[int]
    activation: str = "leaky_relu"
    last: str = "linear"
    norm: Norm = "none"
    rates: Sequence[float] = ()
    skip: bool = False
    init_std: float = 0.0
    axis_name: str | None = None

    @nn.compact
    def __call__(
        self, x: Array, train: bool = False, keys: Array | None = None, dtype: Any = None
    ) -> Array:
        """Maps x; `keys` [B] draw the dropout masks of a training pass.

        `dtype` is that of the computation behind the first product; None for that of the product.
        """

        def dense(width: int, name: str) -> nn.Dense:
            return nn.Dense(width, name=name, **initializers(self.init_std))

        outputs: list[Array] = []
        for i, width in enumerate(self.widths[:-1]):
            back = outputs[i - 2] if i >= 2 else None
            x = dense(width, f"dense_{i}")(x)
            x = x if dtype is None else x.astype(dtype)
            if self.norm == "layer":
                x = nn.LayerNorm(epsilon=NORM_EPS, name=f"norm_{i}")(x)
            elif self.norm == "batch":
                norm = BatchNorm(
                    not train, epsilon=NORM_EPS, axis_name=self.axis_name, name=f"norm_{i}"
                )
                x = norm(x)
            x = ACTIVATIONS[self.activation](x)
            if i < len(self.rates):
                x = dropout(x, keys, self.rates[i], i)
            if self.skip and back is not None:
                x = x + dense(width, f"skip_{i}")(back)
            outputs.append(x)
        x = dense(self.widths[-1], f"dense_{len(self.widths) - 1}")(x)
        return ACTIVATIONS[self.last](x)


class CNN(nn.Module):
    """5x5 convolutions, each with ReLU and 2x2 average pooling, then dense layers.

    [B, H, W, C] to [B, widths[-1]]. Pooling leaves an odd last row or column out, as the paper's.

    Attributes:
      channels: of the convolutions.
      widths: of the dense layers, the last one included.
      activation: of the hidden dense layers.
      last: activation of the last layer.
      norm: of the hidden dense layers, see `MLP`.
      rates: dropout rates of the hidden dense layers.
      init_std: of the initial values, see `initializers`.
      axis_name: of the devices, for batch statistics.
    """

    channels: Sequence[int]
    widths: Sequence[int]
    activation: str = "tanh"
    last: str = "linear"
    norm: Norm = "none"
    rates: Sequence[float] = ()
    init_std: float = 0.0
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: Array, train: bool = False, keys: Array | None = None) -> Array:
        """Maps images; `keys` [B] draw the dropout masks of a training pass."""
        for i, channels in enumerate(self.channels):
            conv = Conv(channels, 5, name=f"conv_{i}", **initializers(self.init_std))
            x = average_pool(nn.relu(conv(x)))
        x = x.reshape(x.shape[0], math.prod(x.shape[1:]))
        dense = MLP(
            self.widths,
            self.activation,
            self.last,
            norm=self.norm,
            rates=self.rates,
            init_std=self.init_std,
            axis_name=self.axis_name,
            name="dense",
        )
        return dense(x, train, keys)


def average_pool(x: Array) -> Array:
    """Means over 2x2 windows of [B, H, W, C], stride 2; an odd last row or column is left out.

    Slices instead of `lax.reduce_window`, whose gradient is slow on the CPU.
    """
    height, width = x.shape[1] // 2 * 2, x.shape[2] // 2 * 2
    x = x[:, :height, :width]
    parts = [x[:, i::2, j::2] for i in (0, 1) for j in (0, 1)]
    return (parts[0] + parts[1] + parts[2] + parts[3]) / 4


class Trunk(nn.Module):
    """Basis functions at query points: [..., d] to [..., widths[-1]].

    Attributes:
      net: the layers.
      frequencies: F > 0 puts sin and cos of pi 2^k y, k = 0 .. F-1, beside each coordinate y
        (Fourier features): sharper basis functions.
    """

    net: nn.Module
    frequencies: int = 0

    @nn.compact
    def __call__(self, y: Array, train: bool = False, dtype: Any = None) -> Array:
        """Maps coordinates, scaled to about -1..1, with all their bits into the first product.

        `dtype` is that of the computation behind it: bfloat16 would tell 256 points apart.
        """
        if self.frequencies:
            angles = [jnp.pi * 2**k * y for k in range(self.frequencies)]
            y = jnp.concatenate([y, *map(jnp.sin, angles), *map(jnp.cos, angles)], -1)
        return self.net(y, train, None, dtype)

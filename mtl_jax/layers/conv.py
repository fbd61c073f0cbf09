"""Two-dimensional convolution that is fast on the CPU and plain elsewhere."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import jax
from flax import linen as nn
from flax.linen.dtypes import promote_dtype
from flax.typing import Dtype, Initializer
from jax import lax

from mtl_jax.layers import conv_cpu
from mtl_jax.layers.conv_cpu import Pads, Strides

Array = jax.Array
Padding = str | int | Sequence[int | tuple[int, int]]


def _pair(value: int | Sequence[int], name: str) -> tuple[int, int]:
    pair = (value, value) if isinstance(value, int) else tuple(value)
    if len(pair) != 2 or min(pair) < 1:
        raise ValueError(f"{name} must be one positive int or two. Found {value!r}.")
    return pair[0], pair[1]


def resolve_padding(
    padding: Padding, hw: tuple[int, int], window: tuple[int, int], strides: Strides
) -> Pads:
    """Returns ((top, bottom), (left, right)) of a padding given in any of the usual ways.

    Args:
      padding: "SAME" or "VALID" as in `lax.padtype_to_pads` (with stride 2, "SAME" puts the odd
        pixel at the end; PyTorch's padding=1 is the int 1), an int for all four sides, or for
        each axis an int or a (low, high) pair.
      hw: input height and width.
      window: kernel height and width.
      strides: of the window.
    """
    if isinstance(padding, str):
        top, left = lax.padtype_to_pads(hw, window, strides, padding)
    else:
        axes = (padding, padding) if isinstance(padding, int) else tuple(padding)
        if len(axes) != 2:
            raise ValueError(f"padding needs one entry for each of 2 axes. Found {padding!r}.")
        top, left = ((p, p) if isinstance(p, int) else p for p in axes)
    return (int(top[0]), int(top[1])), (int(left[0]), int(left[1]))


def _lax_conv(x: Array, kernel: Array, *, strides: Strides, pads: Pads) -> Array:
    return lax.conv_general_dilated(
        x, kernel, strides, pads, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def _lax_backward(
    x: Array, kernel: Array, g: Array, *, strides: Strides, pads: Pads
) -> tuple[Array, Array]:
    _, pull = jax.vjp(functools.partial(_lax_conv, strides=strides, pads=pads), x, kernel)
    return pull(g)


# The rule is outside and the choice of platform inside: differentiating a choice would keep the
# residuals of both sides.
@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _conv(x: Array, kernel: Array, strides: Strides, pads: Pads) -> Array:
    on_cpu = functools.partial(conv_cpu.forward, strides=strides, pads=pads)
    plain = functools.partial(_lax_conv, strides=strides, pads=pads)
    return lax.platform_dependent(x, kernel, cpu=on_cpu, default=plain)


def _conv_fwd(
    x: Array, kernel: Array, strides: Strides, pads: Pads
) -> tuple[Array, tuple[Array, Array]]:
    # Calls the rule's own function, so that a second derivative comes through the rule again.
    return _conv(x, kernel, strides, pads), (x, kernel)


def _conv_bwd(
    strides: Strides, pads: Pads, residuals: tuple[Array, Array], g: Array
) -> tuple[Array, Array]:
    on_cpu = functools.partial(conv_cpu.backward, strides=strides, pads=pads)
    plain = functools.partial(_lax_backward, strides=strides, pads=pads)
    return lax.platform_dependent(*residuals, g, cpu=on_cpu, default=plain)


_conv.defvjp(_conv_fwd, _conv_bwd)


def conv2d(
    x: Array, kernel: Array, strides: int | Sequence[int] = 1, padding: Padding = "SAME"
) -> Array:
    """Cross-correlates images with a kernel: `lax.conv_general_dilated`, faster on the CPU.

    On a CPU the sums are taken in the forms of `conv_cpu`; on any other platform this is the plain
    `lax` convolution with its own gradient. The platform is settled when the program is lowered:
    no conditional is left in it. Works under vmap, scan and reverse-mode differentiation of any
    order (Hessian-vector products as reverse over reverse); forward mode (`jvp`, `jacfwd`) raises
    TypeError, as for every function with its own reverse rule.

    Args:
      x: [B, H, W, C] images.
      kernel: [kh, kw, C, O].
      strides: of the window, one int or (sh, sw).
      padding: see `resolve_padding`.

    Returns:
      [B, Ho, Wo, O].

    Raises:
      ValueError: shapes that do not fit, or a window larger than the padded image.
    """
    if x.ndim != 4 or kernel.ndim != 4 or x.shape[3] != kernel.shape[2]:
        raise ValueError(
            "conv2d needs x [B, H, W, C] and kernel [kh, kw, C, O]."
            f" Found {x.shape}, {kernel.shape}."
        )
    steps = _pair(strides, "strides")
    hw, window = (x.shape[1], x.shape[2]), (kernel.shape[0], kernel.shape[1])
    pads = resolve_padding(padding, hw, window, steps)
    if min(conv_cpu.output_hw(x.shape, kernel.shape, steps, pads)) < 1:
        raise ValueError(f"a {hw} image with padding {pads} is smaller than the {window} kernel.")
    return _conv(x, kernel, steps, pads)


class Conv(nn.Module):
    """A convolution layer over `conv2d`.

    Its parameters, `kernel` [kh, kw, C, O] and `bias` [O], have the names, shapes and initial
    values of `nn.Conv`; only undilated, ungrouped, two-dimensional convolutions are covered.

    Attributes:
      features: number of output channels O.
      kernel_size: one int for a square window, or (kh, kw).
      strides: one int or (sh, sw).
      padding: see `resolve_padding`.
      use_bias: whether a bias is added.
      dtype: type of the computation; None takes that of the inputs and parameters.
      param_dtype: type of the parameters.
      kernel_init, bias_init: initialisers.
    """

    features: int
    kernel_size: int | Sequence[int]
    strides: int | Sequence[int] = 1
    padding: Padding = "SAME"
    use_bias: bool = True
    dtype: Dtype | None = None
    param_dtype: Dtype = jax.numpy.float32
    kernel_init: Initializer = nn.initializers.lecun_normal()
    bias_init: Initializer = nn.initializers.zeros_init()

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Maps images [B, H, W, C] to [B, Ho, Wo, features]."""
        window = _pair(self.kernel_size, "kernel_size")
        shape = (*window, x.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape, self.param_dtype)
        bias = None
        if self.use_bias:
            bias = self.param("bias", self.bias_init, (self.features,), self.param_dtype)
        x, kernel, bias = promote_dtype(x, kernel, bias, dtype=self.dtype)
        y = conv2d(x, kernel, self.strides, self.padding)
        return y if bias is None else y + bias.reshape(1, 1, 1, -1)

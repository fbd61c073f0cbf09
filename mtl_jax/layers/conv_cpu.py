"""Convolutions in the forms that XLA:CPU runs fast; the same sums as `lax.conv_general_dilated`.

Four facts of XLA:CPU, measured with jaxlib 0.10.2, shape this file:

* a convolution inside a loop body keeps the layout it was written in, and only NHWC x HWIO -> NHWC
  has a fast kernel. Gradients are therefore written out in that order, transposes made explicit;
* the input gradient of a strided convolution multiplies the zeros between the strides. Split by
  residue modulo the stride it is a handful of dense stride-1 convolutions instead;
* a kernel larger than the map falls to a scalar loop. Such maps are tiny: one matmul does it;
* few channels leave the vector units idle. A wide kernel on such an image is applied to blocks of
  neighbouring columns, which act as channels: more multiplications, up to five times the speed.

Shapes: x [B, H, W, C], kernel [kh, kw, C, O], result [B, Ho, Wo, O]. `strides` is (sh, sw) and
`pads` is ((top, bottom), (left, right)); negative padding crops. All functions can be
differentiated any number of times in reverse.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

Array = jax.Array
Strides = tuple[int, int]
Pads = tuple[tuple[int, int], tuple[int, int]]

_LAYOUT = ("NHWC", "HWIO", "NHWC")
_UNIT: Strides = (1, 1)
_TINY = 16  # positions of a map that one dense matmul may cover


def output_size(size: int, window: int, stride: int, pad: tuple[int, int]) -> int:
    """Returns the number of window positions along one axis (0 or less: there is none)."""
    return (size + sum(pad) - window) // stride + 1


def output_hw(
    x_shape: tuple[int, ...], kernel_shape: tuple[int, ...], strides: Strides, pads: Pads
) -> tuple[int, int]:
    """Returns (Ho, Wo) of a convolution."""
    ho, wo = (output_size(x_shape[1 + a], kernel_shape[a], strides[a], pads[a]) for a in range(2))
    return ho, wo


def _lax_conv(
    x: Array, kernel: Array, strides: Strides, pads: Pads, dilation: Strides = _UNIT
) -> Array:
    return lax.conv_general_dilated(
        x, kernel, strides, pads, rhs_dilation=dilation, dimension_numbers=_LAYOUT
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def canonical(x: Array, kernel: Array, strides: Strides, pads: Pads) -> Array:
    """A convolution whose gradients, of every order, keep the NHWC x HWIO -> NHWC layout.

    Exception: what a second derivative takes through the weight gradient of a strided convolution
    is left to JAX. It is right, and slow inside a loop body.
    """
    return _lax_conv(x, kernel, strides, pads)


def _canonical_fwd(
    x: Array, kernel: Array, strides: Strides, pads: Pads
) -> tuple[Array, tuple[Array, Array]]:
    return canonical(x, kernel, strides, pads), (x, kernel)


def _canonical_bwd(
    strides: Strides, pads: Pads, residuals: tuple[Array, Array], g: Array
) -> tuple[Array, Array]:
    x, kernel = residuals
    hw, khw = (x.shape[1], x.shape[2]), (kernel.shape[0], kernel.shape[1])
    return input_gradient(g, kernel, hw, strides, pads), kernel_gradient(x, g, khw, strides, pads)


canonical.defvjp(_canonical_fwd, _canonical_bwd)


def _phase(
    residue: int, window: int, stride: int, low: int, size: int, out: int
) -> tuple[tuple[int, ...], tuple[int, int]]:
    """One residue of the input positions h = stride * m + residue along one axis.

    Kernel tap i sends output o to input stride * o + i - low, so position m takes the outputs
    o = m + (residue + low - i) / stride of the taps i for which that is an integer.

    Returns:
      The taps in order of their output offset, and the padding that makes a stride-1 convolution
      of the output gradient with them give ceil(size / stride) positions.
    """
    taps = tuple(i for i in reversed(range(window)) if (residue + low - i) % stride == 0)
    if not taps:
        return (), (0, 0)
    first = (residue + low - taps[0]) // stride
    return taps, (-first, -(-size // stride) - 1 + first + len(taps) - out)


def interleave(phases: list[list[Array]], hw: tuple[int, int]) -> Array:
    """Returns [B, H, W, C] with phases[a][b] at rows a, a + sh, .. and columns b, b + sw, ..

    Every phase is [B, ceil(H / sh), ceil(W / sw), C]; what lies beyond `hw` is cut off.
    """
    rows = [row[0] if len(row) == 1 else jnp.stack(row, 3) for row in phases]
    both = rows[0] if len(rows) == 1 else jnp.stack(rows, 2)
    batch, height, width, channels = phases[0][0].shape
    height, width = height * len(phases), width * len(phases[0])
    return both.reshape(batch, height, width, channels)[:, : hw[0], : hw[1]]


def input_gradient(
    g: Array, kernel: Array, hw: tuple[int, int], strides: Strides, pads: Pads
) -> Array:
    """Returns the gradient [B, H, W, C] with respect to the input, from g [B, Ho, Wo, O]."""
    swapped = kernel.transpose(0, 1, 3, 2)
    axes = [
        [
            _phase(r, kernel.shape[a], strides[a], pads[a][0], hw[a], g.shape[1 + a])
            for r in range(strides[a])
        ]
        for a in range(2)
    ]
    sizes = [-(-hw[a] // strides[a]) for a in range(2)]
    nothing = jnp.zeros((g.shape[0], *sizes, kernel.shape[2]), g.dtype)

    def part(row: tuple, column: tuple) -> Array:
        (row_taps, row_pad), (column_taps, column_pad) = row, column
        if not row_taps or not column_taps:
            return nothing
        # Taps come in equal steps downwards: slices and flips, no gather.
        rows, columns = (
            slice(t[-1], t[0] + 1, s)
            for t, s in ((row_taps, strides[0]), (column_taps, strides[1]))
        )
        taps = jnp.flip(swapped[rows, columns], (0, 1))
        return canonical(g, taps, _UNIT, (row_pad, column_pad))

    return interleave([[part(row, column) for column in axes[1]] for row in axes[0]], hw)


def kernel_gradient(
    x: Array, g: Array, khw: tuple[int, int], strides: Strides, pads: Pads
) -> Array:
    """Returns the gradient [kh, kw, C, O] with respect to the kernel, from g [B, Ho, Wo, O]."""
    # The window may stop short of the far edge: those positions take no part.
    rest = [
        x.shape[1 + a] + sum(pads[a]) - ((g.shape[1 + a] - 1) * strides[a] + khw[a])
        for a in range(2)
    ]
    cut = ((pads[0][0], pads[0][1] - rest[0]), (pads[1][0], pads[1][1] - rest[1]))
    images, filters = x.transpose(3, 1, 2, 0), g.transpose(1, 2, 0, 3)
    if strides == _UNIT:
        out = canonical(images, filters, _UNIT, cut)
    else:
        out = _lax_conv(images, filters, _UNIT, cut, dilation=strides)
    return out.transpose(1, 2, 0, 3)


def pointwise(x: Array, kernel: Array, strides: Strides, pads: Pads) -> Array:
    """A 1x1 convolution without padding, as a matmul."""
    del pads
    return x[:, :: strides[0], :: strides[1]] @ kernel[0, 0]


def dense(x: Array, kernel: Array, strides: Strides, pads: Pads) -> Array:
    """A convolution of a tiny map as one matmul with the [H W C, Ho Wo O] matrix of all taps."""
    batch, height, width, channels = x.shape
    kh, kw, _, outputs = kernel.shape
    ho, wo = output_hw(x.shape, kernel.shape, strides, pads)
    zero = jnp.zeros((channels, outputs), kernel.dtype)

    def tap(h: int, w: int, i: int, j: int) -> Array:
        """The weights between input position (h, w) and output position (i, j)."""
        row, column = h + pads[0][0] - strides[0] * i, w + pads[1][0] - strides[1] * j
        return kernel[row, column] if 0 <= row < kh and 0 <= column < kw else zero

    matrix = jnp.stack(
        [
            jnp.stack([tap(h, w, i, j) for i in range(ho) for j in range(wo)], 1)
            for h in range(height)
            for w in range(width)
        ]
    )
    flat = x.reshape(batch, -1) @ matrix.reshape(height * width * channels, -1)
    return flat.reshape(batch, ho, wo, outputs)


def windows(x: Array, khw: tuple[int, int], strides: Strides) -> list[Array]:
    """Returns the kh * kw views [B, Ho, Wo, C] of x under each tap of a window, row by row."""
    batch, height, width, channels = x.shape
    ho = output_size(height, khw[0], strides[0], (0, 0))
    wo = output_size(width, khw[1], strides[1], (0, 0))
    stop = (strides[0] * (ho - 1) + 1, strides[1] * (wo - 1) + 1)
    return [
        lax.slice(x, (0, i, j, 0), (batch, i + stop[0], j + stop[1], channels), (1, *strides, 1))
        for i in range(khw[0])
        for j in range(khw[1])
    ]


def patches(x: Array, kernel: Array, strides: Strides, pads: Pads) -> Array:
    """A convolution as a matmul of gathered patches (im2col)."""
    padded = jnp.pad(x, ((0, 0), *pads, (0, 0)))
    gathered = jnp.concatenate(windows(padded, (kernel.shape[0], kernel.shape[1]), strides), -1)
    return gathered @ kernel.reshape(-1, kernel.shape[-1])


def column_block(x_shape: tuple[int, ...], kernel_shape: tuple[int, ...], strides: Strides) -> int:
    """Returns how many columns `blocked` should take together; 1 for not at all (measured)."""
    _, width, channels, outputs = kernel_shape
    if strides != _UNIT or width < 5 or x_shape[2] < 2 * width:
        return 1
    if channels <= 4:
        return 4
    return 2 if max(channels, outputs) <= 24 else 1


def blocked(x: Array, kernel: Array, strides: Strides, pads: Pads) -> Array:
    """A stride-1 convolution in which b neighbouring columns stand as b * C channels.

    Both reshapes are free in this layout. The kernel becomes [kh, n, b C, b O]: output column
    b q + r takes input column b (q + c) + u with the weight of kernel column b c + u - r.
    """
    b = column_block(x.shape, kernel.shape, strides)
    batch, height, width, channels = x.shape
    kh, kw, _, outputs = kernel.shape
    ho, wo = output_hw(x.shape, kernel.shape, strides, pads)
    n, blocks = -(-(kw - 1 + b) // b), -(-wo // b)
    copies = [jnp.pad(kernel, ((0, 0), (r, n * b - kw - r), (0, 0), (0, 0))) for r in range(b)]
    taps = jnp.stack(copies, 3).reshape(kh, n, b * channels, b * outputs)
    left, total = pads[1][0], (blocks + n - 1) * b
    # The far side is padded or cropped to whole blocks.
    config = [(0, 0, 0), (0, 0, 0), (left, total - width - left, 0), (0, 0, 0)]
    columns = lax.pad(x, jnp.zeros((), x.dtype), config)
    columns = columns.reshape(batch, height, total // b, b * channels)
    y = canonical(columns, taps, _UNIT, (pads[0], (0, 0)))
    return y.reshape(batch, ho, blocks * b, outputs)[:, :, :wo]


Form = Callable[[Array, Array, Strides, Pads], Array]


def pick_form(
    x_shape: tuple[int, ...], kernel_shape: tuple[int, ...], strides: Strides, pads: Pads
) -> Form:
    """Returns the fastest of the forms above for these shapes (all give the same sums)."""
    khw = kernel_shape[:2]
    hw, ohw = x_shape[1:3], output_hw(x_shape, kernel_shape, strides, pads)
    cropped = min(min(pad) for pad in pads) < 0
    if khw == (1, 1) and pads == ((0, 0), (0, 0)):
        return pointwise
    if cropped or ohw[0] * ohw[1] > _TINY:
        blocks = 1 if cropped else column_block(x_shape, kernel_shape, strides)
        return blocked if blocks > 1 else canonical
    if hw[0] * hw[1] <= _TINY and (hw[0] < khw[0] or hw[1] < khw[1]):
        return dense
    if max(strides) > 1 and (ohw[0] < khw[0] or ohw[1] < khw[1]):
        return patches
    return canonical


def forward(x: Array, kernel: Array, *, strides: Strides, pads: Pads) -> Array:
    """Returns the convolution [B, Ho, Wo, O] in the form that suits its shapes."""
    return pick_form(x.shape, kernel.shape, strides, pads)(x, kernel, strides, pads)


def backward(
    x: Array, kernel: Array, g: Array, *, strides: Strides, pads: Pads
) -> tuple[Array, Array]:
    """Returns the gradients with respect to x and kernel, from g [B, Ho, Wo, O]."""
    _, pull = jax.vjp(functools.partial(forward, strides=strides, pads=pads), x, kernel)
    return pull(g)

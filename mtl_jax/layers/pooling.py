"""Max pooling with a gradient that is fast on the CPU.

XLA:CPU runs the gradient of `lax.reduce_window` (select-and-scatter) as a serial loop. Here the
maximum is taken over strided views of the image, and the number of the winning tap is kept, one
byte for each output. Other platforms use `reduce_window` and its own gradient.

Among equal values the first tap of the window, in row order, gets the whole gradient, as in
PyTorch; both forms agree on that.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from mtl_jax.layers.conv_cpu import Pads, Strides, interleave, output_size, windows

Array = jax.Array
Window = tuple[int, int]


def _winners(x: Array, window: Window, strides: Strides, pads: Pads) -> tuple[Array, Array]:
    """Returns the maxima [B, Ho, Wo, C] and the winning taps, uint8 of the same shape."""
    if pads != ((0, 0), (0, 0)):
        x = jnp.pad(x, ((0, 0), *pads, (0, 0)), constant_values=-jnp.inf)
    best, *others = windows(x, window, strides)
    winner = jnp.zeros(best.shape, jnp.uint8)
    for tap, value in enumerate(others, 1):
        winner = jnp.where(value > best, jnp.uint8(tap), winner)
        best = jnp.maximum(best, value)
    return best, winner


def _route(
    g: Array, winner: Array, hw: tuple[int, int], window: Window, strides: Strides, pads: Pads
) -> Array:
    """Sends g [B, Ho, Wo, C] back to the winning positions: [B, H, W, C].

    Input row h = stride * m + a (a its residue) takes output row o = m + (a + low - i) / stride
    from every tap i for which that is an integer, so each residue gathers a few shifted views.
    """
    sizes = [-(-hw[a] // strides[a]) for a in range(2)]

    def sources(axis: int, residue: int) -> list[tuple[int, int]]:
        """The (tap, output offset) pairs of one residue along one axis."""
        shift = residue + pads[axis][0]
        return [
            (i, (shift - i) // strides[axis])
            for i in range(window[axis])
            if (shift - i) % strides[axis] == 0
        ]

    def shifted(value: Array, rows: int, columns: int) -> Array:
        """value[m + rows, n + columns] for m, n over `sizes`, zero outside."""
        config = [
            (0, 0, 0),
            (-rows, sizes[0] + rows - value.shape[1], 0),
            (-columns, sizes[1] + columns - value.shape[2], 0),
            (0, 0, 0),
        ]
        return lax.pad(value, jnp.zeros((), value.dtype), config)

    def part(row: int, column: int) -> Array:
        total = jnp.zeros((g.shape[0], *sizes, g.shape[3]), g.dtype)
        for i, rows in sources(0, row):
            for j, columns in sources(1, column):
                won = jnp.where(winner == i * window[1] + j, g, 0)
                total = total + shifted(won, rows, columns)
        return total

    phases = [[part(a, b) for b in range(strides[1])] for a in range(strides[0])]
    return interleave(phases, hw)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3))
def _pool_by_slices(x: Array, window: Window, strides: Strides, pads: Pads) -> tuple[Array, Array]:
    return _winners(x, window, strides, pads)


def _pool_fwd(
    x: Array, window: Window, strides: Strides, pads: Pads
) -> tuple[tuple[Array, Array], tuple]:
    best, winner = _pool_by_slices(x, window, strides, pads)
    # The shape travels as an empty array: residuals must be arrays.
    shape = jnp.zeros((0, *x.shape[1:3]), x.dtype)
    return (best, winner), (winner, shape)


def _pool_bwd(
    window: Window, strides: Strides, pads: Pads, residuals: tuple, cotangents: tuple
) -> tuple[Array]:
    winner, shape = residuals
    return (_route(cotangents[0], winner, shape.shape[1:], window, strides, pads),)


_pool_by_slices.defvjp(_pool_fwd, _pool_bwd)


def _pool_by_windows(x: Array, *, window: Window, strides: Strides, pads: Pads) -> Array:
    # A NumPy scalar as the initial value: only then does JAX see the maximum that it can
    # differentiate.
    lowest = np.array(-np.inf, x.dtype)
    return lax.reduce_window(
        x, lowest, lax.max, (1, *window, 1), (1, *strides, 1), ((0, 0), *pads, (0, 0))
    )


def _checked(
    x: Array, window: int | Sequence[int], strides: int | Sequence[int] | None, padding: int
) -> tuple[Window, Strides, Pads]:
    kh, kw = (window, window) if isinstance(window, int) else window
    steps = (kh, kw) if strides is None else strides
    sh, sw = (steps, steps) if isinstance(steps, int) else steps
    pad = (padding, padding)
    if x.ndim != 4 or not jnp.issubdtype(x.dtype, jnp.floating):
        raise ValueError(f"pooling needs floats [B, H, W, C]. Found {x.dtype} {x.shape}.")
    if not 0 <= 2 * padding <= min(kh, kw):
        raise ValueError(f"padding must be at most half the window {kh, kw}. Found {padding}.")
    if min(output_size(x.shape[1], kh, sh, pad), output_size(x.shape[2], kw, sw, pad)) < 1:
        raise ValueError(f"a {x.shape[1:3]} image is smaller than the {kh, kw} window.")
    return (kh, kw), (sh, sw), (pad, pad)


def max_pool(
    x: Array,
    window: int | Sequence[int] = 2,
    strides: int | Sequence[int] | None = None,
    padding: int = 0,
) -> Array:
    """Takes the maximum over windows; what lies beyond the last whole window is dropped.

    Args:
      x: [B, H, W, C], floats.
      window: height and width, one int or two.
      strides: steps of the window, one int or two; the window's size by default.
      padding: of all four sides, with minus infinity; at most half the window, as in PyTorch.

    Returns:
      [B, Ho, Wo, C].

    Raises:
      ValueError: an image that is not [B, H, W, C] of floats or is smaller than the window, or
        too much padding.
    """
    size, steps, pads = _checked(x, window, strides, padding)

    def by_slices(x: Array) -> Array:
        return _pool_by_slices(x, size, steps, pads)[0]

    by_windows = functools.partial(_pool_by_windows, window=size, strides=steps, pads=pads)
    return lax.platform_dependent(x, cpu=by_slices, default=by_windows)


def max_pool_with_winners(x: Array, window: int = 2) -> tuple[Array, Array]:
    """`max_pool` over adjoining windows, and which tap of each window won.

    Args:
      x: [B, H, W, C], floats; H and W multiples of `window`.
      window: height and width.

    Returns:
      The maxima [B, H / window, W / window, C] and, of the same shape, the winning taps as uint8
      (row * window + column), for `max_unpool`. The same code on every platform.

    Raises:
      ValueError: as for `max_pool`, or an image that is no whole number of windows.
    """
    size, steps, pads = _checked(x, window, None, 0)
    if x.shape[1] % window or x.shape[2] % window:
        raise ValueError(f"a {x.shape[1:3]} image is no whole number of {size} windows.")
    return _pool_by_slices(x, size, steps, pads)


def max_unpool(x: Array, winners: Array, window: int = 2) -> Array:
    """Puts values back where `max_pool_with_winners` took the maxima, zeros elsewhere.

    Args:
      x: [B, H, W, C].
      winners: [B, H, W, C] uint8, see `max_pool_with_winners`.
      window: height and width of the windows.

    Returns:
      [B, H * window, W * window, C].

    Raises:
      ValueError: `x` and `winners` differ in shape.
    """
    if x.shape != winners.shape:
        raise ValueError(f"winners must have the shape of x. Found {winners.shape}, {x.shape}.")
    hw = (x.shape[1] * window, x.shape[2] * window)
    size = (window, window)
    return _route(x, winners, hw, size, size, ((0, 0), (0, 0)))

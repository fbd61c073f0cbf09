"""max_pool against a loop in NumPy: values, the tap that gets the gradient, transformations."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from mtl_jax.layers.pooling import (
    _pool_by_windows,
    max_pool,
    max_pool_with_winners,
    max_unpool,
)

# (height, width), window, strides, padding
CASES = [
    ((8, 6), 2, None, 0),
    ((7, 9), 2, 2, 0),  # the last row and column are dropped
    ((9, 8), 3, 2, 1),  # ResNet's stem
    ((10, 11), 3, 2, 1),
    ((8, 9), 3, 1, 1),
    ((9, 11), (2, 3), (3, 2), 0),  # gaps between windows
    ((7, 7), (4, 2), (1, 2), 1),
    ((3, 3), 3, 2, 1),
]


def loop(
    x: np.ndarray, g: np.ndarray | None, window: object, strides: object, padding: int
) -> tuple[np.ndarray, np.ndarray]:
    """The maxima, and g sent to the first maximum of each window in row order."""
    kh, kw = (window, window) if isinstance(window, int) else window
    steps = (kh, kw) if strides is None else strides
    sh, sw = (steps, steps) if isinstance(steps, int) else steps
    pad = ((0, 0), (padding, padding), (padding, padding), (0, 0))
    padded = np.pad(x, pad, constant_values=-np.inf)
    ho, wo = (padded.shape[1] - kh) // sh + 1, (padded.shape[2] - kw) // sw + 1
    y, dx = np.zeros((x.shape[0], ho, wo, x.shape[3])), np.zeros(padded.shape)
    for b, i, j, c in np.ndindex(*y.shape):
        view = padded[b, i * sh : i * sh + kh, j * sw : j * sw + kw, c]
        y[b, i, j, c] = view.max()
        row, column = np.unravel_index(view.argmax(), view.shape)
        dx[b, i * sh + row, j * sw + column, c] += 1 if g is None else g[b, i, j, c]
    return y, dx[:, padding : padding + x.shape[1], padding : padding + x.shape[2]]


def image(hw: tuple[int, int], ties: bool) -> np.ndarray:
    rng = np.random.default_rng(0)
    if ties:  # few values, and the zeros of a ReLU
        return np.maximum(rng.integers(-3, 3, (2, *hw, 3)), 0).astype(np.float64)
    return rng.normal(size=(2, *hw, 3))


def pooled_and_routed(pool: object, x: np.ndarray, g: np.ndarray) -> tuple[jax.Array, jax.Array]:
    """The pooled image, and the gradient that g sends to x."""

    @jax.jit
    def run(x: jax.Array, g: jax.Array) -> tuple[jax.Array, jax.Array]:
        y, pull = jax.vjp(pool, x)
        return y, pull(g)[0]

    return run(x, g)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize(("hw", "window", "strides", "padding"), CASES)
def test_value_and_gradient(hw, window, strides, padding, ties) -> None:
    with jax.enable_x64(True):
        x = image(hw, ties)
        g = np.random.default_rng(1).normal(size=loop(x, None, window, strides, padding)[0].shape)
        want, want_dx = loop(x, g, window, strides, padding)
        y, dx = pooled_and_routed(lambda x: max_pool(x, window, strides, padding), x, g)
        np.testing.assert_array_equal(y, want)
        np.testing.assert_allclose(dx, want_dx, rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize(("hw", "window", "strides", "padding"), CASES)
def test_the_plain_form_agrees(hw, window, strides, padding) -> None:
    """What accelerators run: the same values and, ties included, the same gradient."""
    with jax.enable_x64(True):
        x = image(hw, ties=True)
        size = (window, window) if isinstance(window, int) else window
        steps = size if strides is None else strides
        steps = (steps, steps) if isinstance(steps, int) else steps
        pads = ((padding, padding), (padding, padding))
        want, want_dx = loop(x, None, window, strides, padding)
        y, dx = pooled_and_routed(
            lambda x: _pool_by_windows(x, window=size, strides=steps, pads=pads),
            x,
            np.ones_like(want),
        )
        np.testing.assert_array_equal(y, want)
        np.testing.assert_array_equal(dx, want_dx)


def test_accelerators_get_reduce_window() -> None:
    x = jnp.zeros((1, 4, 4, 1))

    def program(platform: str) -> str:
        grad = jax.jit(jax.grad(lambda x: max_pool(x).sum()))
        return grad.trace(x).lower(lowering_platforms=(platform,)).as_text()

    assert "select_and_scatter" in program("cuda")
    assert "select_and_scatter" not in program("cpu")


def test_transformations() -> None:
    with jax.enable_x64(True):
        x = np.stack([image((9, 8), ties) for ties in (False, True, False)])

        @jax.jit
        def grad(x: jax.Array) -> jax.Array:
            return jax.grad(lambda x: jnp.sum(max_pool(x, 3, 2, 1) ** 3))(x)

        one_by_one = np.stack([grad(v) for v in x])
        np.testing.assert_allclose(jax.jit(jax.vmap(grad))(x), one_by_one, rtol=1e-14)
        np.testing.assert_allclose(jax.jit(lambda x: lax.map(grad, x))(x), one_by_one, rtol=1e-14)
        # A second derivative: the pooled value enters as 3 y^2 at the winner, so its own as 6 y.
        second = jax.jit(jax.grad(lambda x: grad(x).sum()))(x[0])
        y, _ = loop(x[0], None, 3, 2, 1)
        np.testing.assert_allclose(second, loop(x[0], 6 * y, 3, 2, 1)[1], rtol=1e-13)


def test_unpool_returns_maxima_to_their_places() -> None:
    with jax.enable_x64(True):
        x = image((6, 8), ties=False)
        y, winners = max_pool_with_winners(x)
        assert winners.dtype == jnp.uint8
        back = max_unpool(y, winners)
        np.testing.assert_array_equal(back, np.where(loop(x, None, 2, None, 0)[1] > 0, x, 0))
        again, same = max_pool_with_winners(jnp.where(back == 0, -jnp.inf, back))
        np.testing.assert_array_equal(again, y)
        np.testing.assert_array_equal(same, winners)
        # Unpooling is linear in the values: its gradient reads the same places.
        g = np.random.default_rng(1).normal(size=x.shape)
        (dy,) = jax.vjp(lambda y: max_unpool(y, winners), y)[1](jnp.asarray(g))
        assert float(jnp.vdot(dy, y)) == pytest.approx(float(jnp.vdot(g, back)), rel=1e-12)


@pytest.mark.parametrize(
    ("shape", "dtype", "args", "message"),
    [
        ((4, 4, 1), jnp.float32, (2,), "needs floats"),
        ((1, 4, 4, 1), jnp.int32, (2,), "needs floats"),
        ((1, 1, 4, 1), jnp.float32, (2,), "smaller than"),
        ((1, 4, 4, 1), jnp.float32, (2, 2, 2), "half the window"),
        ((1, 4, 4, 1), jnp.float32, (2, 2, -1), "half the window"),
    ],
)
def test_bad_arguments(shape, dtype, args, message) -> None:
    with pytest.raises(ValueError, match=message):
        max_pool(jnp.zeros(shape, dtype), *args)


def test_bad_unpooling() -> None:
    with pytest.raises(ValueError, match="whole number"):
        max_pool_with_winners(jnp.zeros((1, 5, 4, 1)))
    with pytest.raises(ValueError, match="shape of x"):
        max_unpool(jnp.zeros((1, 2, 2, 1)), jnp.zeros((1, 2, 1, 1), jnp.uint8))

"""conv2d against lax.conv_general_dilated in float64: values, gradients, transformations."""

from __future__ import annotations

import re

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax import lax

from mtl_jax.layers import conv_cpu
from mtl_jax.layers.conv import Conv, conv2d, resolve_padding

# (height, width), (kh, kw), strides, padding, (channels, outputs), form on the CPU
GRID = [
    ((9, 9), (3, 3), 1, 1, (3, 4), "canonical"),
    ((9, 8), (3, 3), 1, "SAME", (2, 5), "canonical"),
    ((9, 8), (3, 3), 1, "VALID", (2, 5), "canonical"),
    ((7, 10), (4, 2), 1, ((1, 0), (0, 2)), (2, 3), "canonical"),
    ((7, 10), (2, 3), 1, ((-1, 0), (0, -2)), (2, 3), "canonical"),  # cropped
    ((8, 9), (3, 5), 1, ((6, 5), (7, 8)), (2, 3), "canonical"),  # wider than the kernel
    ((10, 11), (3, 3), 2, 1, (3, 4), "canonical"),
    ((11, 10), (3, 3), 2, "SAME", (3, 4), "canonical"),
    ((13, 12), (7, 7), 2, 3, (1, 4), "canonical"),
    ((13, 17), (3, 4), (2, 3), ((1, 2), (0, 1)), (2, 3), "canonical"),
    ((14, 15), (2, 2), 3, 0, (2, 3), "canonical"),  # kernel smaller than the stride
    ((14, 15), (2, 1), (2, 3), ((-1, 2), (1, -1)), (2, 3), "canonical"),
    ((12, 20), (3, 3), (1, 2), 1, (2, 3), "canonical"),
    ((12, 12), (5, 5), 1, 0, (1, 3), "blocked"),
    ((12, 13), (5, 5), 1, 2, (3, 2), "blocked"),
    ((12, 13), (5, 5), 1, "VALID", (10, 6), "blocked"),
    ((11, 19), (9, 9), 1, ((0, 0), (3, 0)), (1, 2), "blocked"),
    ((12, 14), (1, 6), 1, ((0, 1), (2, 5)), (8, 3), "blocked"),
    ((6, 7), (1, 1), 1, 0, (3, 4), "pointwise"),
    ((7, 8), (1, 1), 2, 0, (3, 4), "pointwise"),
    ((7, 8), (1, 1), (3, 2), "VALID", (3, 4), "pointwise"),
    ((6, 6), (1, 1), 1, 1, (3, 4), "canonical"),
    ((2, 2), (3, 3), 1, 1, (5, 4), "dense"),
    ((1, 1), (3, 3), 1, 1, (5, 4), "dense"),
    ((1, 2), (3, 3), 2, 1, (5, 4), "dense"),
    ((2, 3), (5, 4), 1, "SAME", (2, 3), "dense"),
    ((3, 3), (3, 3), 2, 1, (5, 4), "patches"),
    ((5, 4), (7, 7), 2, 3, (2, 3), "patches"),
    ((1, 40), (3, 3), 1, 1, (2, 3), "canonical"),  # too long for one matmul
]


def arrays(
    hw: tuple[int, int],
    window: tuple[int, int],
    channels: tuple[int, int],
    dtype: type = np.float64,
) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3, *hw, channels[0])).astype(dtype)
    return x, rng.normal(size=(*window, *channels)).astype(dtype)


def reference(x: jax.Array, kernel: jax.Array, strides: object, padding: object) -> jax.Array:
    steps = (strides, strides) if isinstance(strides, int) else strides
    if isinstance(padding, int):
        padding = ((padding, padding), (padding, padding))
    return lax.conv_general_dilated(
        x, kernel, steps, padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def assert_all_close(got: object, want: object, tol: float = 1e-11) -> None:
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=tol, atol=tol), got, want)


def value_and_grads(conv: object, strides: object, padding: object) -> object:
    def run(x: jax.Array, kernel: jax.Array) -> object:
        y, pull = jax.vjp(lambda x, k: conv(x, k, strides, padding), x, kernel)
        return y, pull(jnp.cos(y))

    return jax.jit(run)


@pytest.mark.parametrize(("hw", "window", "strides", "padding", "channels", "form"), GRID)
def test_value_and_gradients(hw, window, strides, padding, channels, form) -> None:
    with jax.enable_x64(True):
        x, kernel = arrays(hw, window, channels)
        steps = (strides, strides) if isinstance(strides, int) else strides
        pads = resolve_padding(padding, hw, window, steps)
        assert conv_cpu.pick_form(x.shape, kernel.shape, steps, pads).__name__ == form
        got = value_and_grads(conv2d, strides, padding)(x, kernel)
        assert_all_close(got, value_and_grads(reference, strides, padding)(x, kernel))


sides = st.tuples(st.integers(0, 4), st.integers(0, 4))


@hypothesis.settings(max_examples=15)
@hypothesis.given(
    hw=st.tuples(st.integers(1, 15), st.integers(1, 15)),
    window=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    strides=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    padding=st.tuples(sides, sides),
    channels=st.tuples(st.sampled_from([1, 3, 8]), st.sampled_from([1, 6])),
)
def test_any_shape(hw, window, strides, padding, channels) -> None:
    with jax.enable_x64(True):
        x, kernel = arrays(hw, window, channels)
        if min(conv_cpu.output_hw(x.shape, kernel.shape, strides, padding)) < 1:
            with pytest.raises(ValueError, match="smaller than"):
                conv2d(x, kernel, strides, padding)
            return
        got = value_and_grads(conv2d, strides, padding)(x, kernel)
        assert_all_close(got, value_and_grads(reference, strides, padding)(x, kernel))


# One case of each form, and the strided canonical one.
FORMS = [GRID[i] for i in (0, 6, 13, 19, 22, 26)]


@pytest.mark.parametrize(("hw", "window", "strides", "padding", "channels", "form"), FORMS)
def test_under_vmap_and_scan(hw, window, strides, padding, channels, form) -> None:
    with jax.enable_x64(True):
        x, kernel = arrays(hw, window, channels)
        kernels = np.stack([kernel, 2 * kernel, kernel[::-1]])

        def grads(conv: object, kernel: jax.Array) -> object:
            return jax.grad(lambda x, k: jnp.sum(jnp.sin(conv(x, k, strides, padding))), (0, 1))(
                x, kernel
            )

        alone = jax.jit(lambda kernel: grads(reference, kernel))
        one_by_one = [alone(kernel) for kernel in kernels]
        want = jax.tree.map(lambda *leaves: np.stack(leaves), *one_by_one)
        assert_all_close(jax.jit(jax.vmap(lambda k: grads(conv2d, k)))(kernels), want)
        assert_all_close(jax.jit(lambda ks: lax.map(lambda k: grads(conv2d, k), ks))(kernels), want)
        images = jnp.stack([x, -x])
        got = jax.jit(jax.vmap(lambda x: conv2d(x, kernel, strides, padding)))(images)
        assert_all_close(got, [reference(image, kernel, strides, padding) for image in images])


@pytest.mark.parametrize(("hw", "window", "strides", "padding", "channels", "form"), FORMS)
def test_reverse_over_reverse(hw, window, strides, padding, channels, form) -> None:
    with jax.enable_x64(True):
        x, kernel = arrays(hw, window, channels)
        direction = arrays(hw, window, channels)[0][::-1].copy(), kernel[::-1].copy()

        def product(conv: object) -> object:
            def loss(x: jax.Array, kernel: jax.Array) -> jax.Array:
                return jnp.sum(jnp.sin(conv(x, kernel, strides, padding)))

            def slope(x: jax.Array, kernel: jax.Array) -> jax.Array:
                gx, gk = jax.grad(loss, (0, 1))(x, kernel)
                return jnp.vdot(gx, direction[0]) + jnp.vdot(gk, direction[1])

            return jax.jit(jax.grad(slope, (0, 1)))(x, kernel)

        assert_all_close(product(conv2d), product(reference), 1e-9)


def test_forward_mode_is_refused() -> None:
    x, kernel = arrays((5, 5), (3, 3), (1, 1), np.float32)
    with pytest.raises(TypeError, match="forward-mode"):
        jax.jvp(lambda x: conv2d(x, kernel), (x,), (x,))


def loop_of_grads(conv: object, strides: int) -> object:
    def grads(x: jax.Array, kernels: jax.Array) -> object:
        def one(kernel: jax.Array) -> object:
            return jax.grad(lambda x, k: jnp.sum(conv(x, k, strides, 1) ** 2), (0, 1))(x, kernel)

        return lax.map(one, kernels)

    return grads


@pytest.mark.parametrize("strides", [1, 2])
def test_loop_bodies_keep_the_fast_layout(strides: int) -> None:
    x, kernel = arrays((12, 12), (3, 3), (3, 4), np.float32)

    def layouts(conv: object) -> set[str]:
        program = jax.jit(loop_of_grads(conv, strides)).lower(x, jnp.stack([kernel, kernel]))
        return set(re.findall(r"dim_labels=([\w>-]+)", program.compile().as_text()))

    assert layouts(conv2d) == {"b01f_01io->b01f"}
    assert layouts(reference) != {"b01f_01io->b01f"}  # else the rule is no longer needed


@pytest.mark.parametrize(("hw", "window", "strides", "padding", "channels", "form"), FORMS)
def test_accelerators_get_the_plain_convolution(
    hw, window, strides, padding, channels, form
) -> None:
    x, kernel = arrays(hw, window, channels, np.float32)

    def operations(f: object, platform: str) -> list[str]:
        """The operations of a program, with their attributes and shapes."""
        text = jax.jit(f).trace(x, kernel).lower(lowering_platforms=(platform,)).as_text()
        lines = [line.split("= stablehlo.") for line in text.splitlines()]
        found = [line[1] for line in lines if len(line) > 1 and "constant" not in line[1]]
        return sorted(re.sub(r"%\w+", "%", line) for line in found)

    def value(conv: object) -> object:
        return lambda x, kernel: conv(x, kernel, strides, padding)

    def grads(conv: object) -> object:
        return jax.grad(lambda x, kernel: jnp.sum(value(conv)(x, kernel) ** 2), (0, 1))

    for program in (value, grads):
        for platform in ("cuda", "tpu"):
            ours = operations(program(conv2d), platform)
            assert ours == operations(program(reference), platform)
            assert any("convolution" in line for line in ours)
        if form != "canonical":
            ours = operations(program(conv2d), "cpu")
            assert ours != operations(program(reference), "cpu")


def test_no_conditional_is_left_in_the_program() -> None:
    x, kernel = arrays((12, 12), (3, 3), (3, 4), np.float32)
    program = jax.jit(loop_of_grads(conv2d, 2)).lower(x, jnp.stack([kernel, kernel])).compile()
    assert "conditional(" not in program.as_text()


def test_module_is_interchangeable_with_flax() -> None:
    x, _ = arrays((9, 8), (3, 3), (3, 4), np.float32)
    for options in (
        {},
        {"strides": 2, "padding": 1},
        {"use_bias": False, "padding": "VALID"},
        {"strides": (2, 1), "padding": ((0, 1), (2, 0))},
        {"bias_init": nn.initializers.normal()},
    ):
        ours, theirs = Conv(4, 3, **options), nn.Conv(4, (3, 3), **options)
        variables = theirs.init(jax.random.key(0), x)
        assert_all_close(ours.init(jax.random.key(0), x), variables, 0)
        assert_all_close(ours.apply(variables, x), theirs.apply(variables, x), 1e-5)


def test_module_computes_in_the_asked_type() -> None:
    x, _ = arrays((9, 8), (3, 3), (3, 4), np.float32)
    layer = Conv(4, 3, dtype=jnp.bfloat16)
    variables = layer.init(jax.random.key(0), x)
    grads = jax.grad(lambda v: jnp.sum(layer.apply(v, x).astype(jnp.float32)))(variables)
    assert layer.apply(variables, x).dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in jax.tree.leaves((variables, grads))} == {np.dtype("float32")}


@pytest.mark.parametrize(
    ("x", "kernel", "options", "message"),
    [
        ((1, 5, 5), (3, 3, 1, 1), {}, "needs x"),
        ((1, 5, 5, 2), (3, 3, 1, 1), {}, "needs x"),
        ((1, 5, 5, 1), (3, 3, 1, 1), {"strides": 0}, "strides must be"),
        ((1, 5, 5, 1), (3, 3, 1, 1), {"strides": (1, 1, 1)}, "strides must be"),
        ((1, 5, 5, 1), (3, 3, 1, 1), {"padding": ((1, 1),)}, "one entry for each"),
        ((1, 2, 5, 1), (3, 3, 1, 1), {"padding": "VALID"}, "smaller than"),
    ],
)
def test_bad_arguments(x, kernel, options, message) -> None:
    with pytest.raises(ValueError, match=message):
        conv2d(jnp.zeros(x), jnp.zeros(kernel), **options)

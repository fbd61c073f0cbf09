"""BatchNorm against nn.BatchNorm in float64, its precision, and one batch over many devices."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from mtl_jax.layers.batch_norm import BatchNorm, batch_moments, batch_norm, bound_axis

AXIS = "batch"


def assert_all_close(got: object, want: object, tol: float = 1e-11) -> None:
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=tol, atol=tol), got, want)


def batch(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(size=shape) * rng.uniform(0.5, 3, shape[-1]) + rng.normal(size=shape[-1])


def variables(channels: int) -> dict:
    rng = np.random.default_rng(3)
    return {
        "params": {"scale": rng.uniform(1, 2, channels), "bias": rng.normal(size=channels)},
        "batch_stats": {"mean": rng.normal(size=channels), "var": rng.uniform(1, 2, channels)},
    }


def run(layer: nn.Module, v: dict, x: object) -> object:
    """The value, new statistics and gradients of a loss that no symmetry makes zero."""

    def loss(params: dict, x: jax.Array) -> tuple[jax.Array, object]:
        v_ = {**v, "params": params}
        y, state = layer.apply(v_, x, mutable=["batch_stats"])
        return jnp.sum(jnp.sin(y) + y**2 * jnp.arange(y.size).reshape(y.shape) / y.size), (y, state)

    return jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))(v["params"], x)


@pytest.mark.parametrize("use_running", [False, True])
@pytest.mark.parametrize("shape", [(6, 4), (5, 3, 4, 2), (1, 7, 3)])
def test_same_as_flax(shape, use_running) -> None:
    with jax.enable_x64(True):
        x, v = batch(shape), variables(shape[-1])
        ours = BatchNorm(use_running_average=use_running)
        theirs = nn.BatchNorm(use_running_average=use_running, momentum=0.9, epsilon=1e-5)
        assert_all_close(run(ours, v, x), run(theirs, v, x), 1e-10)
        fresh, want = ours.init(jax.random.key(0), x), theirs.init(jax.random.key(0), x)
        assert jax.tree.structure(fresh) == jax.tree.structure(want)
        assert_all_close(fresh, want, 0)


def test_mode_of_the_call_and_of_the_module() -> None:
    x = jnp.asarray(batch((6, 4)), jnp.float32)
    v = BatchNorm(use_running_average=True).init(jax.random.key(0), x)
    y = BatchNorm().apply(v, x, use_running_average=True)
    assert_all_close(y, BatchNorm(use_running_average=True).apply(v, x))
    assert_all_close(y, x / np.sqrt(1 + 1e-5), 1e-6)


@pytest.mark.parametrize("offset", [0.0, 3e2, 3e4])
def test_variance_survives_a_large_mean(offset) -> None:
    x = (np.random.default_rng(0).normal(size=(16, 5, 5, 3)) + offset).astype(np.float32)
    mean, variance = jax.jit(batch_moments)(x)
    exact = x.astype(np.float64)
    np.testing.assert_allclose(variance, exact.var((0, 1, 2)), rtol=2e-5)
    np.testing.assert_allclose(mean, exact.mean((0, 1, 2)), rtol=1e-6, atol=1e-6)


def test_variance_survives_an_odd_first_example() -> None:
    x = np.random.default_rng(0).normal(size=(64, 9, 3)).astype(np.float32)
    x[0] += 1e4
    exact = x.astype(np.float64)
    np.testing.assert_allclose(jax.jit(batch_moments)(x)[1], exact.var((0, 1)), rtol=2e-5)


def test_variance_is_never_negative() -> None:
    constants = np.random.default_rng(0).normal(size=200).astype(np.float32) * 1e3
    x = np.broadcast_to(constants, (6, 5, 200))
    assert float(jax.jit(batch_moments)(x)[1].min()) >= 0
    y, pull = jax.vjp(lambda x: batch_norm(x, jnp.ones(200), jnp.zeros(200))[0], jnp.asarray(x))
    assert np.isfinite(y).all()
    assert np.isfinite(pull(jnp.ones_like(y))[0]).all()


def test_gradient_of_the_statistics() -> None:
    with jax.enable_x64(True):
        x = batch((5, 3, 2))

        def ours(x: jax.Array) -> jax.Array:
            y, mean, variance = batch_norm(x, jnp.ones(2), jnp.zeros(2))
            return jnp.sum(y**3) + jnp.sum(mean**2) + jnp.sum(jnp.sin(variance))

        def plain(x: jax.Array) -> jax.Array:
            mean, variance = x.mean((0, 1)), x.var((0, 1))
            y = (x - mean[None, None]) / jnp.sqrt(variance[None, None] + 1e-5)
            return jnp.sum(y**3) + jnp.sum(mean**2) + jnp.sum(jnp.sin(variance))

        assert_all_close(jax.jit(jax.grad(ours))(x), jax.jit(jax.grad(plain))(x), 1e-10)


def test_reverse_over_reverse() -> None:
    with jax.enable_x64(True):
        x, v = batch((5, 3, 2)), variables(2)
        direction = batch(x.shape, seed=5)

        def product(layer: nn.Module) -> object:
            def loss(params: dict, x: jax.Array) -> jax.Array:
                y, _ = layer.apply({**v, "params": params}, x, mutable=["batch_stats"])
                return jnp.sum(jnp.sin(y) * direction)

            def slope(params: dict, x: jax.Array) -> jax.Array:
                gp, gx = jax.grad(loss, (0, 1))(params, x)
                return jnp.vdot(gx, direction) + jnp.sum(gp["scale"] ** 2) + jnp.sum(gp["bias"])

            return jax.jit(jax.grad(slope, (0, 1)))(v["params"], x)

        theirs = nn.BatchNorm(use_running_average=False, momentum=0.9)
        assert_all_close(product(BatchNorm(use_running_average=False)), product(theirs), 1e-9)


def test_half_precision_keeps_float32_statistics() -> None:
    x = jnp.asarray(batch((64, 3)), jnp.bfloat16)
    layer = BatchNorm(use_running_average=False, dtype=jnp.bfloat16)
    v = layer.init(jax.random.key(0), x)
    y, state = layer.apply(v, x, mutable=["batch_stats"])
    assert y.dtype == jnp.bfloat16
    mean = np.asarray(x, np.float64).mean(0)
    np.testing.assert_allclose(state["batch_stats"]["mean"], 0.1 * mean, rtol=1e-5)


def test_initialising_moves_nothing() -> None:
    v = BatchNorm(use_running_average=False).init(jax.random.key(0), batch((6, 4)))
    assert_all_close(v["batch_stats"], {"mean": np.zeros(4), "var": np.ones(4)}, 0)


def test_axis_is_ignored_where_it_is_not_bound() -> None:
    x, v = jnp.asarray(batch((6, 4)), jnp.float32), variables(4)
    with_axis = BatchNorm(use_running_average=False, axis_name=AXIS)
    assert_all_close(run(with_axis, v, x), run(BatchNorm(use_running_average=False), v, x), 0)
    assert bound_axis(AXIS) is None
    assert bound_axis(None) is None
    seen = []
    jax.vmap(lambda x: seen.append(bound_axis(AXIS)) or x, axis_name=AXIS)(x)
    assert seen == [AXIS]


def check_sharded_is_whole(devices: int, mapped: object) -> None:
    """One batch over `devices` (through `mapped`, like vmap) equals the same batch on one."""
    x, v = batch((devices * 3, 2, 5, 4)), variables(4)
    x += np.arange(devices * 3)[:, None, None, None] * 10  # devices with unlike means
    weight = batch(x.shape, seed=9)
    layer = BatchNorm(use_running_average=False, axis_name=AXIS)

    def local(x: jax.Array, weight: jax.Array) -> object:
        def loss(params: dict, x: jax.Array) -> tuple[jax.Array, object]:
            y, state = layer.apply({**v, "params": params}, x, mutable=["batch_stats"])
            return jnp.sum(jnp.sin(y) * weight), (y, state)

        (value, (y, state)), (params, dx) = jax.value_and_grad(loss, (0, 1), has_aux=True)(
            v["params"], x
        )
        if bound_axis(AXIS):
            value, params = jax.lax.psum((value, params), AXIS)
        return (value, params, state), (y, dx)

    def cut(x: np.ndarray) -> np.ndarray:
        return x.reshape(devices, -1, *x.shape[1:])

    everywhere, rows = mapped(local)(cut(x), cut(weight))
    want_everywhere, want_rows = jax.jit(local)(x, weight)
    for device in range(devices):
        assert_all_close(
            jax.tree.map(lambda leaf, d=device: leaf[d], everywhere), want_everywhere, 1e-9
        )
    assert_all_close(jax.tree.map(lambda leaf: leaf.reshape(x.shape), rows), want_rows, 1e-9)


@pytest.mark.parametrize("devices", [1, 4])
def test_one_batch_over_a_mapped_axis(devices) -> None:
    with jax.enable_x64(True):
        check_sharded_is_whole(devices, lambda f: jax.jit(jax.vmap(f, axis_name=AXIS)))


def test_one_batch_over_eight_devices(run_python) -> None:
    code = f"""
import jax
from tests.layers.test_batch_norm import AXIS, check_sharded_is_whole
assert jax.local_device_count() == 8
jax.config.update("jax_enable_x64", True)
check_sharded_is_whole(8, lambda f: jax.pmap(f, axis_name={AXIS!r}))
print("same")
"""
    done = run_python("-c", code, devices=8)
    assert done.stdout.strip() == "same", done.stderr

"""Trunks and heads: sizes, initial values, and the networks written out with plain JAX."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax import lax

from mtl_jax.systems.vision import resnet
from mtl_jax.systems.vision.heads import Head, init_stacked
from mtl_jax.systems.vision.lenet import lenet_5x5, lenet_pareto
from mtl_jax.systems.vision.mlp import MLP


def count(tree: object) -> int:
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


def shapes_of(trunk: nn.Module, shape: tuple[int, ...]) -> tuple[dict, tuple[int, ...]]:
    """The variables' shapes and the features' shape, without computing anything."""
    x = jnp.zeros(shape)
    variables = jax.eval_shape(lambda: trunk.init(jax.random.key(0), x, True))
    z = jax.eval_shape(lambda v: trunk.apply(v, x, False), variables)
    return variables, z.shape


def test_multimnist_resnet_has_the_papers_parameter_count() -> None:
    variables, features = shapes_of(resnet.resnet18_multimnist(), (2, 36, 36, 1))
    z = jnp.zeros(features)
    heads = jax.eval_shape(lambda: init_stacked(Head(10), jax.random.key(0), z, 2))
    assert features == (2, 100)
    assert count(variables["params"]) + count(heads) == 11_223_560


def test_celeba_resnet_gives_2048_features() -> None:
    variables, features = shapes_of(resnet.resnet18_celeba(), (2, 64, 64, 3))
    assert features == (2, 2048)
    # The classifier-free ResNet-18 (11,176,512) with a 3x3 stem instead of 7x7.
    assert count(variables["params"]) == 11_176_512 - (49 - 9) * 3 * 64


@pytest.mark.parametrize(
    ("trunk", "flat", "parameters"),
    [
        (lenet_pareto(), 5 * 5 * 20, (81 + 1) * 10 + (250 + 1) * 20),
        (lenet_5x5(), 6 * 6 * 20, (25 + 1) * 10 + (250 + 1) * 20),
        (lenet_5x5((32, 64)), 6 * 6 * 64, (25 + 1) * 32 + (800 + 1) * 64),
    ],
)
def test_lenets(trunk, flat, parameters) -> None:
    variables, features = shapes_of(trunk, (2, 36, 36, 1))
    assert features == (2, 50)
    assert variables["params"]["Dense_0"]["kernel"].shape == (flat, 50)
    assert count(variables["params"]) == parameters + (flat + 1) * 50


def test_lenet_is_convolution_relu_pooling_twice() -> None:
    with jax.enable_x64(True):
        x = np.random.default_rng(0).uniform(size=(3, 36, 36, 1))
        v = lenet_pareto().init(jax.random.key(0), x, True)
        v = jax.tree.map(lambda leaf: leaf.astype(np.float64), v)
        y = x
        for name in ("Conv_0", "Conv_1"):
            p = v["params"][name]
            y = lax.conv_general_dilated(
                y, p["kernel"], (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
            )
            y = nn.max_pool(nn.relu(y + p["bias"][None, None, None]), (2, 2), (2, 2))
        p = v["params"]["Dense_0"]
        want = nn.relu(y.reshape(3, -1) @ p["kernel"] + p["bias"][None])
        got = lenet_pareto().apply(v, x, False)
        np.testing.assert_allclose(got, want, rtol=1e-11, atol=1e-11)


def torchvision_resnet18(v: dict, x: jax.Array, stem: str, train: bool) -> jax.Array:
    """ResNet-18 written out, with PyTorch's paddings."""
    p, stats = v["params"], v["batch_stats"]

    def conv(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
        pad = kernel.shape[0] // 2
        return lax.conv_general_dilated(
            x,
            kernel,
            (stride, stride),
            ((pad, pad), (pad, pad)),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )

    def norm(x: jax.Array, p: dict, stats: dict) -> jax.Array:
        mean, var = (
            (x.mean((0, 1, 2)), x.var((0, 1, 2))) if train else (stats["mean"], stats["var"])
        )
        scale, bias, mean, var = (
            leaf[None, None, None] for leaf in (p["scale"], p["bias"], mean, var)
        )
        return (x - mean) / jnp.sqrt(var + 1e-5) * scale + bias

    x = conv(x, p["Conv_0"]["kernel"], 2 if stem == "imagenet" else 1)
    x = nn.relu(norm(x, p["BatchNorm_0"], stats["BatchNorm_0"]))
    if stem == "imagenet":
        x = nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))
    for i in range(8):
        b, s = p[f"BasicBlock_{i}"], stats[f"BasicBlock_{i}"]
        stride = 2 if i in (2, 4, 6) else 1
        y = conv(x, b["Conv_0"]["kernel"], stride)
        y = nn.relu(norm(y, b["BatchNorm_0"], s["BatchNorm_0"]))
        y = norm(conv(y, b["Conv_1"]["kernel"], 1), b["BatchNorm_1"], s["BatchNorm_1"])
        if stride == 2:
            x = conv(x, b["shortcut_conv"]["kernel"], 2)
            x = norm(x, b["shortcut_norm"], s["shortcut_norm"])
        x = nn.relu(x + y)
    x = x.mean((1, 2))
    return nn.relu(x @ p["Dense_0"]["kernel"] + p["Dense_0"]["bias"][None])


@pytest.mark.parametrize(("stem", "side"), [("imagenet", 36), ("cifar", 16)])
def test_resnet_is_torchvisions(stem, side) -> None:
    trunk = resnet.ResNet18(stem, hidden=5)
    x = np.random.default_rng(0).normal(size=(4, side, side, 1)).astype(np.float32)
    rng = np.random.default_rng(1)

    def draw(leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        if len(leaf.shape) == 1:  # scales, biases, means and variances
            return rng.uniform(0.5, 1.5, leaf.shape).astype(np.float32)
        spread = np.sqrt(2 / np.prod(leaf.shape[:-1]))
        return (spread * rng.normal(size=leaf.shape)).astype(np.float32)

    v = jax.tree.map(draw, jax.eval_shape(lambda: trunk.init(jax.random.key(0), x, True)))
    v["params"]["Dense_0"]["bias"] += 20  # no feature is cut off by the last ReLU
    got, state = jax.jit(lambda v, x: trunk.apply(v, x, True, mutable=["batch_stats"]))(v, x)
    want = jax.jit(lambda v, x: torchvision_resnet18(v, x, stem, True))(v, x)
    np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-3)
    got, same = jax.jit(lambda v, x: trunk.apply(v, x, False, mutable=["batch_stats"]))(v, x)
    want = jax.jit(lambda v, x: torchvision_resnet18(v, x, stem, False))(v, x)
    np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-3)
    # Training moves all running statistics, evaluation none.
    moved = jax.tree.map(lambda a, b: bool((a != b).any()), v["batch_stats"], state["batch_stats"])
    assert all(jax.tree.leaves(moved))
    jax.tree.map(np.testing.assert_array_equal, same["batch_stats"], v["batch_stats"])


def test_resnet_starts_from_torchvisions_distributions() -> None:
    trunk = resnet.resnet18_multimnist()
    x = jnp.zeros((1, 36, 36, 1))

    @jax.jit
    def some_parameters() -> tuple[dict, dict, dict]:
        params = trunk.init(jax.random.key(0), x, False)["params"]
        return params["Conv_0"], params["BasicBlock_2"]["Conv_0"], params["Dense_0"]

    stem, inner, dense = some_parameters()
    for conv, fan_out in ((stem, 49 * 64), (inner, 9 * 128)):
        assert float(conv["kernel"].std()) == pytest.approx(math.sqrt(2 / fan_out), rel=0.05)
        assert set(conv) == {"kernel"}
    limit = 1 / math.sqrt(512)
    assert 0.9 * limit < float(jnp.abs(dense["kernel"]).max()) <= limit
    assert 0.5 * limit < float(jnp.abs(dense["bias"]).max()) <= limit


def test_unknown_stem() -> None:
    with pytest.raises(ValueError, match="Found 'vit'"):
        resnet.ResNet18("vit").init(jax.random.key(0), jnp.zeros((1, 8, 8, 1)), True)


def test_mlp() -> None:
    variables, features = shapes_of(MLP((7, 5)), (2, 6, 6, 1))
    assert features == (2, 5)
    assert count(variables["params"]) == 37 * 7 + 8 * 5
    assert "batch_stats" not in variables


@pytest.mark.parametrize("hidden", [None, 6])
def test_stacked_heads_are_single_heads_in_rows(hidden) -> None:
    head, key = Head(3, hidden), jax.random.key(1)
    z = np.random.default_rng(0).normal(size=(4, 5)).astype(np.float32)
    stacked = init_stacked(head, key, z, 3)
    for t, k in enumerate(jax.random.split(key, 3)):
        row = jax.tree.map(lambda leaf, t=t: leaf[t], stacked)
        jax.tree.map(np.testing.assert_array_equal, row, head.init(k, z)["params"])
        want = z
        if hidden is not None:
            want = np.maximum(z @ row["Dense_0"]["kernel"] + row["Dense_0"]["bias"][None], 0)
        last = row["Dense_0" if hidden is None else "Dense_1"]
        np.testing.assert_allclose(
            head.apply({"params": row}, z),
            want @ last["kernel"] + last["bias"][None],
            rtol=1e-5,
            atol=1e-6,
        )
    assert len({float(v) for v in stacked["Dense_0"]["bias"][:, 0]}) == 3

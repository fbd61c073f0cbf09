"""The papers' networks: parameter counts, activations, no output bias, pooling."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from mtl_jax import config as configs
from mtl_jax.systems.mt_deeponet import networks
from mtl_jax.systems.mt_deeponet.builders import make_networks
from mtl_jax.systems.mt_deeponet.networks import CNN, MLP, Trunk


def _count(module: nn.Module, x: jax.Array) -> int:
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), x))
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(shapes["params"]))


@pytest.mark.parametrize(
    ("name", "branch", "trunk", "parameters"),
    [
        ("fisher_paper", (2, 68), (2, 2), 136_664),
        ("darcy_paper", (2, 100, 100, 2), (2, 2), 559_164),
    ],
)
def test_the_papers_networks_have_the_released_weights_size(
    name: str, branch: tuple, trunk: tuple, parameters: int
) -> None:
    config = configs.load(f"experiments/mt_deeponet/{name}.py")
    made = make_networks(config.model, config.data)
    assert _count(made.branch, jnp.ones(branch)) + _count(made.trunk, jnp.ones(trunk)) == parameters


def test_the_papers_plate_has_the_numbers_of_the_released_weights() -> None:
    config = configs.load("experiments/mt_deeponet/plate_paper.py")
    made = make_networks(config.model, config.data)
    pairs = ((made.branch, jnp.ones((2, 2))), (made.trunk, jnp.ones((2, 3))))
    whole = [jax.eval_shape(net.init, jax.random.key(0), x) for net, x in pairs]
    # About 241 thousand, batch moments included, is what the checkpoint holds.
    assert round(sum(leaf.size for leaf in jax.tree.leaves(whole)), -3) == 241_000


def test_initial_values_of_a_standard_deviation() -> None:
    for net in (MLP((300, 200), init_std=0.1), CNN((8, 9), (300, 200), init_std=0.1)):
        x = jnp.ones((1, 50) if isinstance(net, MLP) else (1, 8, 8, 20))
        leaves = jax.tree.leaves(net.init(jax.random.key(0), x))
        for leaf in leaves:
            assert 0.05 < float(leaf.std()) < 0.15
            assert abs(float(leaf.mean())) < 0.1


def test_the_slope_of_the_leaky_relu() -> None:
    np.testing.assert_allclose(networks.leaky_relu(jnp.array([-1.0, 2.0])), [-0.2, 2.0])


def test_pooling_is_the_mean_of_whole_windows() -> None:
    x = np.random.default_rng(0).normal(size=(2, 7, 5, 3)).astype(np.float32)
    want = nn.avg_pool(jnp.asarray(x), (2, 2), (2, 2))
    np.testing.assert_allclose(networks.average_pool(jnp.asarray(x)), want, rtol=1e-6)


def test_layers_come_in_the_order_dense_norm_activation() -> None:
    net = MLP((6, 3), norm="layer")
    x = np.random.default_rng(0).normal(size=(4, 5)).astype(np.float32)
    params = net.init(jax.random.key(0), x)["params"]
    assert set(params) == {"dense_0", "norm_0", "dense_1"}
    h = x @ params["dense_0"]["kernel"] + params["dense_0"]["bias"][None]
    h = (h - h.mean(1, keepdims=True)) / np.sqrt(h.var(1, keepdims=True) + 1e-3)
    h = np.where(h > 0, h, 0.2 * h)
    want = h @ params["dense_1"]["kernel"] + params["dense_1"]["bias"][None]
    np.testing.assert_allclose(net.apply({"params": params}, x), want, rtol=1e-4, atol=1e-5)


def test_skips_project_the_output_two_layers_back() -> None:
    net = MLP((4, 5, 6, 7, 2), "swish", skip=True)
    params = net.init(jax.random.key(0), jnp.ones((3, 2)))["params"]
    assert {name: params[name]["kernel"].shape for name in params if name.startswith("skip")} == {
        "skip_2": (4, 6),
        "skip_3": (5, 7),
    }


def test_dropout_follows_from_the_examples_key_alone() -> None:
    x = jnp.ones((6, 100))
    keys = jax.random.split(jax.random.key(1), 6)
    whole = networks.dropout(x, keys, 0.4, 0)
    np.testing.assert_array_equal(whole[2:4], networks.dropout(x[2:4], keys[2:4], 0.4, 0))
    assert float(jnp.abs(whole - networks.dropout(x, keys, 0.4, 1)).max()) > 0
    assert abs(float((whole == 0).mean()) - 0.4) < 0.08
    np.testing.assert_allclose(float(whole.mean()), 1, atol=0.1)
    assert networks.dropout(x, None, 0.4, 0) is x


def test_fourier_features_see_fine_detail() -> None:
    trunk = Trunk(MLP((8, 3)), frequencies=3)
    params = trunk.init(jax.random.key(0), jnp.ones((2, 2)))["params"]
    assert params["net"]["dense_0"]["kernel"].shape == (2 + 2 * 2 * 3, 8)


def test_a_cnn_flattens_what_pooling_leaves() -> None:
    net = CNN((4, 6), (5, 3))
    params = net.init(jax.random.key(0), jnp.ones((2, 11, 9, 2)))["params"]
    assert params["dense"]["dense_0"]["kernel"].shape == (2 * 2 * 6, 5)


@pytest.mark.parametrize("shape", [(6, 4), (3, 5, 4)])
def test_batch_norm_takes_the_batch_in_training_and_running_statistics_after(shape: tuple) -> None:
    net = MLP((5, 2), "linear", norm="batch")
    x = jnp.asarray(np.random.default_rng(0).normal(3, 2, shape), jnp.float32)
    variables = net.init(jax.random.key(0), x)
    dense, last = (variables["params"][name] for name in ("dense_0", "dense_1"))

    def want(mean: np.ndarray, var: np.ndarray) -> np.ndarray:
        h = np.asarray(x) @ dense["kernel"] + dense["bias"]
        return (h - mean) / np.sqrt(var + 1e-3) @ last["kernel"] + last["bias"]

    with jax.numpy_rank_promotion("allow"):
        rows = (x @ dense["kernel"] + dense["bias"]).reshape(-1, 5)
        trained, moved = net.apply(variables, x, True, mutable=["batch_stats"])
        np.testing.assert_allclose(trained, want(rows.mean(0), rows.var(0)), rtol=1e-3, atol=1e-4)
        running = moved["batch_stats"]["norm_0"]
        np.testing.assert_allclose(running["mean"], 0.1 * rows.mean(0), rtol=1e-4)
        after = net.apply({"params": variables["params"], **moved}, x, False)
        np.testing.assert_allclose(
            after, want(running["mean"], running["var"]), rtol=1e-3, atol=1e-4
        )


def test_a_cnn_ends_in_the_activation_that_is_asked_for() -> None:
    config = configs.load("experiments/mt_deeponet/darcy.py")
    model = dataclasses.replace(config.model, branch_last="tanh", branch_channels=(2,))
    branch = make_networks(model, config.data).branch
    x = 100 * jnp.ones((2, 8, 8, 2))
    out = branch.apply(branch.init(jax.random.key(0), x), x)
    assert 0 < float(jnp.abs(out).max()) <= 1

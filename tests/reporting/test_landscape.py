"""The loss surface: filter norms, what a grid point means, which examples it is taken over."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtl_jax.methods.ownership import owner_tree
from mtl_jax.reporting import landscape
from mtl_jax.reporting.landscape import Landscape
from mtl_jax.systems.base import Data
from mtl_jax.systems.vision.classification import make_system
from mtl_jax.systems.vision.heads import Head
from mtl_jax.systems.vision.lenet import LeNet
from tests import toys

TINY = LeNet(widths=(3, 4), kernels=(3, 3), hidden=5)


@pytest.fixture(scope="module")
def lenet():
    """A small network with convolutions, dense layers, biases and stacked heads."""
    system = make_system(TINY, Head(10), ("a", "b", "c"))
    rng = np.random.default_rng(0)
    batch = {
        "image": rng.integers(0, 256, (8, 12, 12, 1)).astype(np.uint8),
        "label": rng.integers(0, 10, (8, 3)).astype(np.int32),
    }
    params, state = system.init(jax.random.key(0), batch)
    return system, batch, params, state, owner_tree(params, system.owner, 3)


def filter_norms(leaf: np.ndarray, stacked: bool) -> np.ndarray:
    """Norms of all filters of a kernel, one by one."""
    rows = leaf if stacked else leaf[None]
    return np.array([[np.linalg.norm(r[..., k]) for k in range(r.shape[-1])] for r in rows])


def test_every_filter_of_a_direction_has_the_norm_of_the_models(lenet):
    _, _, params, _, owners = lenet
    found = landscape.random_direction(jax.random.key(1), params, owners)
    kernels = 0
    for path, w in jax.tree_util.tree_leaves_with_path(params):
        d = np.asarray(dict(jax.tree_util.tree_leaves_with_path(found))[path], np.float64)
        assert d.shape == w.shape
        if path[-1].key == "bias":
            assert (d == 0).all()
            continue
        kernels += 1
        stacked = path[0].key == "heads"
        want = filter_norms(np.asarray(w, np.float64), stacked)
        assert (want > 0).all()
        np.testing.assert_allclose(filter_norms(d, stacked), want, rtol=1e-5)
    assert kernels == 4


@given(st.integers(0, 2**31), st.floats(1e-3, 1e3))
def test_directions_scale_with_the_model_and_forget_their_own_scale(seed, scale):
    rng = np.random.default_rng(seed)
    params = {"k": rng.normal(size=(3, 2, 4)), "h": rng.normal(size=(2, 3, 5)), "b": np.ones(4)}
    params = jax.tree.map(jnp.asarray, params)
    owners = {"k": "shared", "h": "stacked", "b": "shared"}
    draw = {name: jnp.asarray(rng.normal(size=leaf.shape)) for name, leaf in params.items()}
    base = landscape.filter_normalise(draw, params, owners)
    scaled = jax.tree.map(lambda leaf: scale * leaf, (draw, params))
    longer = landscape.filter_normalise(scaled[0], params, owners)
    larger = landscape.filter_normalise(draw, scaled[1], owners)
    for name in params:
        np.testing.assert_allclose(longer[name], base[name], rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(larger[name], scale * base[name], rtol=1e-4, atol=1e-6 * scale)


def test_a_filter_of_zeros_stays_and_a_direction_of_zeros_is_no_nan():
    params = {"k": jnp.asarray([[0.0, 3.0], [0.0, 4.0]])}
    draw = {"k": jnp.asarray([[1.0, 0.0], [1.0, 0.0]])}
    found = landscape.filter_normalise(draw, params, {"k": "shared"})
    np.testing.assert_array_equal(found["k"], np.zeros((2, 2)))


def test_the_middle_is_the_loss_of_the_parameters(lenet):
    system, batch, params, state, owners = lenet
    directions = [landscape.random_direction(jax.random.key(k), params, owners) for k in (0, 1)]
    grid = landscape.loss_surface(
        system, params, state, batch, tuple(directions), np.array([-1.0, 0.0, 1.0])
    )
    probability = np.asarray(system.predict(params, state, batch)["probability"], np.float64)
    rows = np.arange(8)
    for t in range(3):
        want = -np.log(probability[rows, t, batch["label"][:, t]]).mean()
        np.testing.assert_allclose(grid[1, 1, t], want, rtol=1e-5)
    assert grid.shape == (3, 3, 3)
    assert len(np.unique(grid.round(6))) == 27  # no two points are the same


@pytest.mark.parametrize("make", [toys.heads, toys.stacked])
def test_a_grid_point_is_the_loss_of_the_moved_parameters(make):
    system, batch = make(3)
    params, state = system.init(jax.random.key(0), batch)
    rng = np.random.default_rng(2)
    first, second = (
        jax.tree.map(lambda w: jnp.asarray(rng.normal(size=w.shape), w.dtype), params)
        for _ in range(2)
    )
    offsets = np.array([-0.5, 0.0, 0.25])
    grid = landscape.loss_surface(system, params, state, batch, (first, second), offsets)
    for i, j in ((0, 2), (2, 0), (1, 1)):
        moved = jax.tree.map(
            lambda w, d, e, a=offsets[i], b=offsets[j]: w + a * d + b * e, params, first, second
        )
        metrics = system.metrics(moved, state, batch)  # (sum, weight) of each task's loss
        want = [float(metrics[f"loss_{t}"][0] / metrics[f"loss_{t}"][1]) for t in range(3)]
        np.testing.assert_allclose(grid[i, j], want, rtol=1e-5)


def of_rows(n: int, batch_size: int) -> Data:
    """A set whose example k is the number k, padded like every evaluation."""

    def batches(split: str):
        del split
        for start in range(0, n, batch_size):
            x = np.arange(start, start + batch_size)
            yield {"x": np.where(x < n, x, -1), "mask": x < n}

    def assemble(resident, host, key):
        assert key is None
        return {**host, "x": host["x"] + resident["base"]}

    return Data({"base": np.int32(100)}, lambda step: {}, batches, assemble, 1, ("validation",))


@pytest.mark.parametrize(("n", "count"), [(10, 7), (10, 10), (10, 99), (3, 2), (4, 4)])
def test_first_examples_are_whole_and_in_order(n, count):
    batch, found = landscape.first_examples(of_rows(n, 4), "validation", count)
    assert found == min(n, count)
    np.testing.assert_array_equal(batch["x"], 100 + np.arange(found))
    assert batch["mask"].all()


def test_large_examples_are_fewer(monkeypatch):
    monkeypatch.setattr(landscape, "MAX_NUMBERS", 7)  # two numbers an example: x and the mask
    assert landscape.first_examples(of_rows(10, 4), "validation", 9)[1] == 3
    monkeypatch.setattr(landscape, "MAX_NUMBERS", 1)
    assert landscape.first_examples(of_rows(10, 4), "validation", 9)[1] == 1


@pytest.mark.parametrize("budget", [1e15, 1e6, 3e5, 1.0])
def test_large_models_get_a_smaller_grid_and_then_fewer_examples(lenet, monkeypatch, budget):
    system, batch, params, state, _ = lenet
    monkeypatch.setattr(landscape, "CPU_FLOPS", budget)
    monkeypatch.setattr(landscape, "SIZES", (5, 3))
    data = Data({}, lambda s: batch, lambda s: iter([host()]), assemble, 1, ("validation",))
    found = landscape.measure(system, data, params, state)
    size, few = {1e15: (5, 6), 1e6: (3, 6), 3e5: (3, None), 1.0: (3, 1)}[budget]
    assert found.losses.shape == (size, size, 3)
    assert found.examples == few or (few is None and 1 < found.examples < 6)
    logits = np.log(np.asarray(system.predict(params, state, host())["probability"], np.float64))
    want = -np.take_along_axis(logits, host()["label"][..., None], -1)[: found.examples, :, 0]
    np.testing.assert_allclose(found.centre, want.mean(0), rtol=1e-4)


def test_measure_is_the_same_every_time_and_knows_its_examples(lenet):
    system, batch, params, state, _ = lenet
    data = Data({}, lambda s: batch, lambda s: iter([host()]), assemble, 1, ("validation",))
    one, two = (
        landscape.measure(system, data, params, state, examples=5, size=3) for _ in range(2)
    )
    assert one.examples == 5
    np.testing.assert_array_equal(one.losses, two.losses)
    np.testing.assert_array_equal(one.offsets, [-1, 0, 1])
    np.testing.assert_array_equal(one.centre, one.losses[1, 1])


def host() -> dict:
    rng = np.random.default_rng(3)
    return {
        "image": rng.integers(0, 256, (8, 12, 12, 1)).astype(np.uint8),
        "label": rng.integers(0, 10, (8, 3)).astype(np.int32),
        "mask": np.arange(8) < 6,
    }


def assemble(resident, host, key):
    del resident, key
    return host


def test_rise_is_the_mean_over_the_disc_without_its_middle():
    offsets = np.linspace(-1, 1, 5)
    a, b = np.meshgrid(offsets, offsets, indexing="ij")
    losses = np.stack([3 + a**2 + b**2, 3 + 2 * a], -1)
    found = Landscape(offsets, losses, 1)
    np.testing.assert_allclose(found.rise(0.5), [0.25, 0])  # four neighbours
    np.testing.assert_allclose(found.rise(1.0), [(4 * 0.25 + 4 * 0.5 + 4 * 1) / 12, 0], atol=1e-12)


@given(st.floats(0, 1e15), st.floats(1, 100))
def test_grids_are_odd_and_shrink_with_the_work(flops, factor):
    size = landscape.grid_size(flops, on_cpu=True)
    assert size % 2 == 1
    assert landscape.grid_size(factor * flops, on_cpu=True) <= size
    assert landscape.grid_size(flops, on_cpu=False) == landscape.SIZES[0]
    assert size * size * flops <= landscape.CPU_FLOPS or size == landscape.SIZES[-1]

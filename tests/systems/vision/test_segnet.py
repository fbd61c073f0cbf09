"""The encoder-decoder: sizes, where the decoder puts values, and that gradients train it."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtl_jax.systems.vision import segnet
from mtl_jax.systems.vision.dense_losses import segmentation_nll
from mtl_jax.systems.vision.segnet import DenseHead, SegNetSmall


def test_features_and_outputs_have_the_images_size() -> None:
    trunk, head = SegNetSmall((4, 6, 8)), DenseHead(3)
    x = jnp.zeros((2, 16, 24, 3))
    v = jax.eval_shape(lambda: trunk.init(jax.random.key(0), x, True))
    z, state = jax.eval_shape(lambda v: trunk.apply(v, x, True, mutable=["batch_stats"]), v)
    assert z.shape == (2, 16, 24, 4)
    assert jax.tree.structure(state["batch_stats"]) == jax.tree.structure(v["batch_stats"])
    y = jax.eval_shape(lambda: head.init_with_output(jax.random.key(0), jnp.zeros(z.shape))[0])
    assert y.shape == (2, 16, 24, 3)


def test_height_and_width_must_halve() -> None:
    with pytest.raises(ValueError, match=r"multiples of 4. Found \(16, 18\)"):
        SegNetSmall((2, 2)).init(jax.random.key(0), jnp.zeros((1, 16, 18, 3)), True)


def test_every_stage_of_the_decoder_uses_the_places_of_its_own_stage(monkeypatch) -> None:
    trunk, x = SegNetSmall((2, 3, 4)), np.random.default_rng(0).normal(size=(1, 8, 8, 1))
    v = jax.eval_shape(lambda: trunk.init(jax.random.key(0), x, False))
    found, used = [], []
    pool, unpool = segnet.max_pool_with_winners, segnet.max_unpool

    def recording_pool(x: jax.Array) -> tuple[jax.Array, jax.Array]:
        found.append(pool(x))
        return found[-1]

    def recording_unpool(x: jax.Array, winners: jax.Array) -> jax.Array:
        used.append(winners)
        return unpool(x, winners)

    monkeypatch.setattr(segnet, "max_pool_with_winners", recording_pool)
    monkeypatch.setattr(segnet, "max_unpool", recording_unpool)
    jax.eval_shape(lambda v: trunk.apply(v, x, False), v)
    assert len(used) == 3
    assert all(w is f[1] for w, f in zip(used, reversed(found), strict=True))


def test_fits_one_small_batch() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, (2, 8, 8))
    x = (labels[..., None] + 0.3 * rng.normal(size=(2, 8, 8, 1))).astype(np.float32)
    trunk, head = SegNetSmall((4, 4)), DenseHead(2)
    v = jax.jit(lambda x: trunk.init(jax.random.key(0), x, True))(x)
    h = head.init(jax.random.key(1), jnp.zeros((1, 8, 8, 4)))
    params, stats = (v["params"], h), v["batch_stats"]

    def loss(params: tuple) -> jax.Array:
        v = {"params": params[0], "batch_stats": stats}
        z, _ = trunk.apply(v, x, True, mutable=["batch_stats"])
        total, weight = segmentation_nll(head.apply(params[1], z), labels)
        return total / weight

    @jax.jit
    def step(params: tuple) -> tuple[tuple, jax.Array]:
        value, grads = jax.value_and_grad(loss)(params)
        return jax.tree.map(lambda p, g: p - 0.2 * g, params, grads), value

    losses = []
    for _ in range(80):
        params, value = step(params)
        losses.append(float(value))
    assert losses[0] > 0.6
    assert losses[-1] < 0.35

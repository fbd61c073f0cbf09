"""Dense losses against NumPy: which pixels count, their sum, and clean gradients."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtl_jax.systems.vision.dense_losses import (
    depth_l1,
    normals_cosine,
    segmentation_nll,
    unit_vectors,
)

SHAPE = (3, 4, 5)
RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(*SHAPE, 6)).astype(np.float32)
LABELS = RNG.integers(-1, 6, SHAPE)
DEPTH = np.where(RNG.random(SHAPE) < 0.3, 0, RNG.uniform(0.5, 9, SHAPE)).astype(np.float32)
GUESS = RNG.normal(size=SHAPE).astype(np.float32)
NORMALS = RNG.normal(size=(*SHAPE, 3))
NORMALS /= np.linalg.norm(NORMALS, axis=-1, keepdims=True)
NORMALS[RNG.random(SHAPE) < 0.3] = 0
NORMALS = NORMALS.astype(np.float32)
FIELD = RNG.normal(size=(*SHAPE, 3)).astype(np.float32)


def reference_nll(mask: np.ndarray) -> np.ndarray:
    log_p = LOGITS - np.log(np.exp(LOGITS.astype(np.float64)).sum(-1, keepdims=True))
    picked = -np.take_along_axis(log_p, np.maximum(LABELS, 0)[..., None], -1)[..., 0]
    return picked[(LABELS >= 0) & mask]


def reference_l1(mask: np.ndarray) -> np.ndarray:
    return np.abs(GUESS.astype(np.float64) - DEPTH)[(DEPTH > 0) & mask]


def reference_cosine(mask: np.ndarray) -> np.ndarray:
    field = FIELD / np.linalg.norm(FIELD.astype(np.float64), axis=-1, keepdims=True)
    return (1 - (field * NORMALS).sum(-1))[(np.abs(NORMALS).sum(-1) > 0) & mask]


LOSSES = [
    (segmentation_nll, LOGITS, LABELS, reference_nll),
    (depth_l1, GUESS, DEPTH, reference_l1),
    (depth_l1, GUESS[..., None], DEPTH[..., None], reference_l1),
    (normals_cosine, FIELD, NORMALS, reference_cosine),
]


@pytest.mark.parametrize("mask", [None, [1, 0, 1], [0, 0, 0]])
@pytest.mark.parametrize(("loss", "prediction", "target", "reference"), LOSSES)
def test_sum_and_weight(loss, prediction, target, reference, mask) -> None:
    keep = np.ones(3, bool) if mask is None else np.asarray(mask, bool)
    want = reference(np.broadcast_to(keep[:, None, None], SHAPE))
    total, weight = loss(prediction, target, None if mask is None else jnp.asarray(mask))
    assert total.dtype == weight.dtype == jnp.float32
    assert float(weight) == len(want)
    np.testing.assert_allclose(total, want.sum(), rtol=1e-5)


@pytest.mark.parametrize(("loss", "prediction", "target", "reference"), LOSSES)
def test_nothing_comes_from_pixels_that_do_not_count(loss, prediction, target, reference) -> None:
    mask = jnp.asarray([1, 0, 1])
    spoilt = np.array(target)
    spoilt[1] = 999 if np.issubdtype(spoilt.dtype, np.integer) else np.nan
    total, weight = loss(prediction, spoilt, mask)
    want, want_weight = loss(prediction, target, mask)
    assert (float(total), float(weight)) == (float(want), float(want_weight))
    grad = np.asarray(jax.grad(lambda p: loss(p, spoilt, mask)[0])(jnp.asarray(prediction)))
    assert np.isfinite(grad).all()
    counted = {
        segmentation_nll: LABELS >= 0,
        depth_l1: DEPTH > 0,
        normals_cosine: np.abs(NORMALS).sum(-1) > 0,
    }[loss]
    counted = counted & np.array([True, False, True])[:, None, None]
    moved = np.abs(grad).reshape(*SHAPE, -1).sum(-1) > 0
    np.testing.assert_array_equal(moved, counted)


def test_normals_whose_components_cancel_count() -> None:
    target = np.array([1, -1, 0], np.float32).reshape(1, 1, 1, 3) / np.sqrt(2, dtype=np.float32)
    total, weight = normals_cosine(-target * 7, target)
    assert float(weight) == 1
    assert float(total) == pytest.approx(2, abs=1e-6)


def test_a_zero_prediction_has_a_gradient() -> None:
    grad = jax.grad(lambda p: normals_cosine(p, jnp.asarray(NORMALS))[0])(jnp.zeros_like(FIELD))
    assert np.isfinite(np.asarray(grad)).all()
    np.testing.assert_array_equal(unit_vectors(jnp.zeros(3)), np.zeros(3))


def test_half_precision_sums_in_single() -> None:
    logits = jnp.zeros((1, 64, 64, 2), jnp.bfloat16)
    total, weight = segmentation_nll(logits, jnp.zeros((1, 64, 64), jnp.int32))
    assert float(weight) == 4096
    np.testing.assert_allclose(total, 4096 * np.log(2), rtol=1e-6)


def test_depth_of_a_wrong_shape() -> None:
    with pytest.raises(ValueError, match=r"expected \[B, H, W\]"):
        depth_l1(jnp.zeros((1, 2, 2, 3)), jnp.zeros((1, 2, 2)))

"""Dense metrics against NumPy in float64, and that their sums add up."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtl_jax.metrics.base import accumulate
from mtl_jax.systems.vision import dense_metrics

SHAPE = (4, 6, 7)
RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(*SHAPE, 5)).astype(np.float32)
LABELS = RNG.integers(-1, 5, SHAPE)
DEPTH = np.where(RNG.random(SHAPE) < 0.3, 0, RNG.uniform(0.5, 9, SHAPE)).astype(np.float32)
GUESS = RNG.normal(size=(*SHAPE, 1)).astype(np.float32)
NORMALS = RNG.normal(size=(*SHAPE, 3)).astype(np.float32)
NORMALS[RNG.random(SHAPE) < 0.3] = 0
FIELD = (NORMALS + 0.5 * RNG.normal(size=NORMALS.shape)).astype(np.float32)

METRICS = [
    (dense_metrics.segmentation, LOGITS, LABELS),
    (dense_metrics.depth, GUESS, DEPTH),
    (dense_metrics.normals, FIELD, NORMALS),
]


def angles(prediction: np.ndarray, target: np.ndarray) -> np.ndarray:
    a, b = prediction.astype(np.float64), target.astype(np.float64)
    known = np.abs(b).sum(-1) > 0
    a, b = a[known], b[known]
    cosine = (a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)
    return np.degrees(np.arccos(np.clip(cosine, -1, 1)))


def test_segmentation() -> None:
    state = jax.jit(dense_metrics.segmentation)(LOGITS, LABELS)
    predicted, confusion = LOGITS.argmax(-1), np.zeros((5, 5))
    for true, guess in zip(LABELS.ravel(), predicted.ravel(), strict=True):
        if true >= 0:
            confusion[true, guess] += 1
    np.testing.assert_array_equal(state.confusion, confusion)
    assert state.confusion.dtype == jnp.int32
    known = LABELS >= 0
    iou = [
        (known & (c == LABELS) & (predicted == c)).sum()
        / (known & ((c == LABELS) | (predicted == c))).sum()
        for c in range(5)
    ]
    metrics = state.compute()
    assert metrics["miou"] == pytest.approx(np.mean(iou), rel=1e-12)
    assert metrics["pixel_accuracy"] == pytest.approx((predicted == LABELS)[known].mean())


def test_classes_that_do_not_occur_are_left_out_of_the_mean() -> None:
    confusion = np.array([[3, 1, 0], [0, 2, 0], [0, 0, 0]])
    metrics = dense_metrics.Segmentation(confusion).compute()
    assert metrics["miou"] == pytest.approx((3 / 4 + 2 / 3) / 2)
    # Predicted but never true: it occurs, with an intersection of 0.
    confusion[0, 2] = 1
    metrics = dense_metrics.Segmentation(confusion).compute()
    assert metrics["miou"] == pytest.approx((3 / 5 + 2 / 3 + 0) / 3)


def test_depth() -> None:
    known = DEPTH > 0
    error = np.abs(GUESS[..., 0].astype(np.float64) - DEPTH)[known]
    metrics = jax.jit(dense_metrics.depth)(GUESS, DEPTH).compute()
    assert metrics["absolute_error"] == pytest.approx(error.mean(), rel=1e-6)
    assert metrics["relative_error"] == pytest.approx((error / DEPTH[known]).mean(), rel=1e-6)


def test_normals() -> None:
    angle = angles(FIELD, NORMALS)
    metrics = jax.jit(dense_metrics.normals)(FIELD, NORMALS).compute()
    assert metrics["angle_mean"] == pytest.approx(angle.mean(), rel=1e-5)
    # An even number of pixels: NumPy averages the two in the middle.
    low, high = np.sort(angle)[[(len(angle) - 1) // 2, len(angle) // 2]]
    assert low - 0.05 <= metrics["angle_median"] <= high + 0.05
    for limit in (11.25, 22.5, 30):
        assert metrics[f"within_{limit:g}"] == pytest.approx((angle < limit).mean(), abs=1e-12)


@pytest.mark.parametrize("angle", [0.0, 1e-3, 11.2499, 11.2501, 22.4999, 29.9999, 90.0, 180.0])
def test_one_known_angle(angle) -> None:
    target = np.array([0, 0, 2], np.float32).reshape(1, 1, 1, 3)
    radians = np.radians(angle)
    guess = 5 * np.array([np.sin(radians), 0, np.cos(radians)]).reshape(1, 1, 1, 3)
    metrics = dense_metrics.normals(jnp.asarray(guess, jnp.float32), target).compute()
    assert metrics["angle_mean"] == pytest.approx(angle, abs=2e-5)
    assert metrics["angle_median"] == pytest.approx(angle, abs=0.05)
    for limit in (11.25, 22.5, 30):
        assert metrics[f"within_{limit:g}"] == float(angle < limit)


def test_a_zero_vector_points_nowhere() -> None:
    target = np.array([0, 0, 1], np.float32).reshape(1, 1, 1, 3)
    assert dense_metrics.normals(jnp.zeros_like(target), target).compute()["angle_mean"] == 90


@pytest.mark.parametrize(("metric", "prediction", "target"), METRICS)
def test_batches_add_up(metric, prediction, target) -> None:
    total = None
    for rows in (slice(0, 1), slice(1, 4)):
        total = accumulate(total, metric(prediction[rows], target[rows]))
    whole = metric(prediction, target).compute()
    for name, value in total.compute().items():
        assert value == pytest.approx(whole[name], rel=1e-6)


@pytest.mark.parametrize(("metric", "prediction", "target"), METRICS)
def test_masked_images_do_not_count(metric, prediction, target) -> None:
    spoilt, wild = np.array(target), np.array(prediction)
    spoilt[1] = 999 if np.issubdtype(spoilt.dtype, np.integer) else np.nan
    wild[1] = np.nan
    got = metric(wild, spoilt, jnp.asarray([1, 0, 1, 1]))
    rows = np.array([0, 2, 3])
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6),
        got,
        metric(prediction[rows], target[rows]),
    )


@pytest.mark.parametrize(("metric", "prediction", "target"), METRICS)
def test_nothing_labelled_is_nan(metric, prediction, target) -> None:
    state = metric(prediction, target, jnp.zeros(SHAPE[0], bool))
    assert all(np.isnan(value) for value in state.compute().values())

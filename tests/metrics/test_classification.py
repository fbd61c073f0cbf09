"""Against float64 numpy; any way of cutting and padding the batch gives the whole."""

from __future__ import annotations

import itertools

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from hypothesis import strategies as st

from mtl_jax.metrics.base import accumulate, compute, merge
from mtl_jax.metrics.classification import (
    Calibration,
    accuracy,
    binary_logits,
    brier,
    calibration,
    classification,
    nll,
    reliability,
)

jitted = jax.jit(classification)
PAD = 16  # one compiled shape for every ragged part


def reference(logits, labels, weights) -> dict[str, float]:
    """The definitions, one example at a time, in float64."""
    logits = np.asarray(logits, np.float64)
    # Bins are decided in float32, as documented; everything else in float64.
    probs = scipy.special.softmax(logits, axis=-1)
    top = np.asarray(scipy.special.softmax(logits.astype(np.float32), axis=-1)).max(-1)
    edges = (np.arange(11) / 10).astype(np.float32)
    n = weights.sum()
    rows = np.arange(len(labels))
    correct = probs.argmax(-1) == labels
    ece = 0.0
    for lower, upper in itertools.pairwise(edges):
        inside = (top > lower) & (top <= upper)
        size = weights[inside].sum()
        if size:
            gap = np.average(correct[inside], weights=weights[inside])
            gap -= np.average(probs.max(-1)[inside], weights=weights[inside])
            ece += size / n * abs(gap)
    return {
        "accuracy": (weights * correct).sum() / n,
        "nll": -(weights * np.log(probs[rows, labels])).sum() / n,
        "brier": (weights * ((probs - np.eye(logits.shape[-1])[labels]) ** 2).sum(-1)).sum() / n,
        "ece": ece,
    }


def draw(seed: int, n: int, classes: int, scale: float = 2.0):
    rng = np.random.default_rng(seed)
    logits = (scale * rng.normal(size=(n, classes))).astype(np.float32)
    return logits, rng.integers(0, classes, n).astype(np.int32), rng


@pytest.mark.parametrize("classes", [2, 10])
@pytest.mark.parametrize("kind", ["all", "mask", "float"])
def test_equals_the_float64_reference(classes, kind):
    logits, labels, rng = draw(classes, 500, classes)
    weights = {
        "all": np.ones(500),
        "mask": rng.integers(0, 2, 500).astype(bool),
        "float": rng.uniform(0, 2, 500).astype(np.float32),
    }[kind]
    given = None if kind == "all" else weights
    got = compute(classification(jnp.asarray(logits), jnp.asarray(labels), given))
    expected = reference(logits, labels, weights.astype(np.float64))
    assert got == pytest.approx(expected, rel=1e-5, abs=1e-6)


@hypothesis.given(st.integers(0, 10**6), st.integers(1, 60))
def test_any_cut_into_padded_batches_equals_the_whole(seed, n):
    logits, labels, rng = draw(seed, n, 3)
    keep = rng.integers(0, 4, n) > 0  # some examples have no label
    whole, start = None, 0
    while start < n:
        size = int(rng.integers(1, PAD + 1))
        part = slice(start, start + size)
        m = len(labels[part])
        # Padding holds what would be noticed: NaN logits and impossible labels.
        padded = np.full((PAD, 3), np.nan, np.float32)
        padded_labels = np.full(PAD, -1, np.int32)
        mask = np.zeros(PAD, bool)
        padded[:m], padded_labels[:m], mask[:m] = logits[part], labels[part], keep[part]
        whole = accumulate(whole, jitted(padded, padded_labels, mask))
        start += size
    got = compute(whole)
    if not keep.any():
        assert all(np.isnan(value) for value in got.values())
        return
    assert got == pytest.approx(reference(logits, labels, keep.astype(float)), rel=1e-5, abs=1e-6)
    assert whole.accuracy.weight == whole.calibration.count.sum() == keep.sum()


def test_merging_commutes():
    a, b = (jitted(*draw(seed, PAD, 3)[:2], np.ones(PAD, bool)) for seed in (0, 1))
    for x, y in zip(jax.tree.leaves(merge(a, b)), jax.tree.leaves(merge(b, a)), strict=True):
        np.testing.assert_array_equal(x, y)


def test_bins_are_closed_on_the_right():
    def at(p: float) -> np.ndarray:
        logits = jnp.log(jnp.asarray([[p, 1 - p]], jnp.float32))
        return np.asarray(calibration(logits, jnp.asarray([0])).count)

    exact = np.asarray([[np.log(3.0), 0.0]], np.float32)  # softmax gives 0.75
    assert np.asarray(calibration(jnp.asarray(exact), jnp.asarray([0])).count).argmax() == 7
    assert at(0.5).argmax() == 4  # 0.5 itself belongs to (0.4, 0.5]
    assert at(0.5001).argmax() == 5
    assert at(0.999999).argmax() == 9
    ten = jnp.zeros((1, 10))  # confidence float32(0.1) belongs to (0, 0.1]
    assert np.asarray(calibration(ten, jnp.asarray([0])).count).argmax() == 0


def test_reliability_table_of_known_bins():
    # Four confident predictions at 0.75, three of them right: perfectly calibrated.
    logits = jnp.tile(jnp.asarray([[np.log(3.0), 0.0]], jnp.float32), (4, 1))
    state = calibration(logits, jnp.asarray([0, 0, 0, 1]))
    assert compute(state)["ece"] == pytest.approx(0, abs=1e-7)
    table = reliability(state)
    assert table.count[7] == 4
    assert table.accuracy[7] == 0.75
    assert table.confidence[7] == pytest.approx(0.75)
    assert np.isnan(table.accuracy[:7]).all()
    np.testing.assert_allclose(table.upper - table.lower, 0.1)


def test_ece_of_overconfidence():
    state = Calibration(np.eye(10)[9] * 8, np.eye(10)[9] * 4, np.eye(10)[9] * 7.8)
    assert compute(state)["ece"] == pytest.approx(7.8 / 8 - 0.5)


def test_ece_of_a_million_pixels_keeps_six_digits():
    n = 10**6
    logits = jnp.tile(jnp.asarray([[2.2, 0.0]], jnp.float32), (n, 1))
    state = jax.jit(calibration)(logits, jnp.zeros(n, jnp.int32))
    confidence = scipy.special.expit(np.float64(np.float32(2.2)))
    assert compute(state)["ece"] == pytest.approx(1 - confidence, rel=1e-5)


@hypothesis.given(st.integers(0, 10**6))
def test_one_logit_is_the_two_class_case(seed):
    rng = np.random.default_rng(seed)
    z = jnp.asarray(rng.normal(size=PAD), jnp.float32)
    labels = jnp.asarray(rng.integers(0, 2, PAD))
    got = compute(jitted(z, labels))
    assert got == compute(jitted(binary_logits(z), labels))
    p = scipy.special.expit(np.asarray(z, np.float64))
    y = np.asarray(labels)
    assert got["brier"] == pytest.approx(2 * ((p - y) ** 2).mean(), rel=1e-5)
    assert got["nll"] == pytest.approx(-np.log(np.where(y == 1, p, 1 - p)).mean(), rel=1e-5)
    assert got["accuracy"] == pytest.approx(((p > 0.5) == y).mean())


def test_binary_tasks_under_vmap_equal_a_loop():
    rng = np.random.default_rng(0)
    logits = jnp.asarray(rng.normal(size=(PAD, 5)), jnp.float32)  # [B, T], as CelebA
    labels = jnp.asarray(rng.integers(0, 2, (PAD, 5)))
    mask = jnp.asarray(rng.integers(0, 2, (PAD, 5)), bool)
    stacked = jax.vmap(classification, in_axes=1)(logits, labels, mask)
    for t in range(5):
        one = classification(logits[:, t], labels[:, t], mask[:, t])
        row = jax.tree.map(lambda leaf, t=t: leaf[t], stacked)
        assert compute(row) == pytest.approx(compute(one), rel=1e-6)


def test_dense_predictions_count_every_pixel():
    logits, labels, rng = draw(3, 2 * 4 * 5, 4)
    keep = rng.integers(0, 2, (2, 4, 5)).astype(bool)
    shaped = classification(
        jnp.asarray(logits.reshape(2, 4, 5, 4)), jnp.asarray(labels.reshape(2, 4, 5)), keep
    )
    flat = reference(logits, labels, keep.reshape(-1).astype(float))
    assert compute(shaped) == pytest.approx(flat, rel=1e-5, abs=1e-6)


def test_separate_functions_agree_with_the_bundle():
    logits, labels, _ = draw(5, 20, 3)
    bundle = compute(classification(logits, labels))
    for name, function in (("accuracy", accuracy), ("nll", nll), ("brier", brier)):
        assert compute({name: function(logits, labels)}) == {name: bundle[name]}


def test_large_logits_stay_finite():
    got = compute(classification(jnp.asarray([[1e4, -1e4], [1e4, -1e4]]), jnp.asarray([0, 1])))
    assert got["nll"] == pytest.approx(1e4)
    assert got["brier"] == pytest.approx(1.0)


@pytest.mark.parametrize("label", [-1, 3])
def test_a_counted_label_out_of_range_is_not_hidden(label):
    assert np.isnan(compute(classification(jnp.zeros((2, 3)), jnp.asarray([0, label])))["nll"])


def test_wrong_shapes_and_types_are_refused():
    with pytest.raises(ValueError, match="class axis"):
        classification(jnp.zeros((4, 3)), jnp.zeros(5, jnp.int32))
    with pytest.raises(TypeError, match="integer class indices, found float32"):
        classification(jnp.zeros((4, 3)), jnp.zeros(4))

"""Entropies, scores and what is made of a system's predictions."""

from __future__ import annotations

import numpy as np
import pytest

from mtl_jax.analysis import calibration


def test_entropy_of_known_distributions():
    for classes in (2, 10):
        uniform = np.full((3, classes), -np.log(classes))
        np.testing.assert_allclose(calibration.entropy(uniform), np.log(classes), rtol=1e-12)
    sure = np.log(
        np.array([[1.0, 0.0, 0.0]]), where=[[True, False, False]], out=np.full((1, 3), -np.inf)
    )
    assert calibration.entropy(sure) == 0


def test_logits_are_two_classes_and_probabilities_stay():
    logit = np.array([[0.0, 3.0], [-800.0, 800.0]])
    found = calibration.log_probabilities({"logit": logit})
    np.testing.assert_allclose(np.exp(found).sum(-1), 1, rtol=1e-12)
    np.testing.assert_allclose(np.exp(found[0, 1, 1]), 1 / (1 + np.exp(-3)), rtol=1e-12)
    assert np.isfinite(found).all()
    probability = np.array([[[0.25, 0.75], [1.0, 0.0]]])
    found = calibration.log_probabilities({"probability": probability})
    np.testing.assert_allclose(np.exp(found), probability, atol=1e-30)
    assert np.isfinite(found).all()
    assert calibration.log_probabilities({"solution": logit}) is None


def test_scores_are_those_of_all_examples_whatever_the_chunk(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(calibration, "CHUNK", 8)
    rng = np.random.default_rng(0)
    log_probs = np.log(rng.dirichlet(np.ones(4), (21, 2)))
    labels = rng.integers(0, 4, (21, 2)).astype(np.int32)
    known = rng.random((21, 2)) < 0.8
    states = calibration.score(log_probs, labels, known)
    probs = np.exp(log_probs)
    for t in range(2):
        on = known[:, t]
        p, y = probs[on, t], labels[on, t]
        assert states.accuracy.weight[t] == on.sum()
        np.testing.assert_allclose(
            states.accuracy.total[t] / on.sum(), (p.argmax(-1) == y).mean(), rtol=1e-6
        )
        brier = ((p - np.eye(4)[y]) ** 2).sum(-1).mean()
        np.testing.assert_allclose(states.brier.total[t] / on.sum(), brier, rtol=1e-5)
        confidence = states.calibration.confidence[t]
        np.testing.assert_allclose(confidence.sum(), p.max(-1).sum(), rtol=1e-5)


def test_missing_labels_are_known_to_be_missing():
    batch = {"labels": np.array([[1.0, np.nan]]), "label_mask": np.array([[1.0, 0.0]])}
    labels, known = calibration.labels_of(batch)
    np.testing.assert_array_equal(known, [[True, False]])
    np.testing.assert_array_equal(labels, [[1, 0]])
    labels, known = calibration.labels_of({"label": np.array([[3, -1]])})
    np.testing.assert_array_equal(known, [[True, False]])
    assert labels.dtype == np.int32


def test_separation_is_the_chance_of_more_entropy_elsewhere():
    own, other = np.array([[0.1, 0.5], [0.2, 0.5]]), np.array([[0.3, 0.5], [0.15, 0.5]])
    found = calibration.Found(2, {}, own, 10, other)
    np.testing.assert_allclose(calibration.separation(found), [0.75, 0.5])

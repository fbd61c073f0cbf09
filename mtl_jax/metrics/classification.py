"""Classification: accuracy, negative log-likelihood, Brier score, calibration.

Every function takes the logits of one batch and returns a mergeable state (`metrics.base`); all
of them work under `vmap` over tasks. `weights` [B] masks rows that pad a ragged last batch and
examples without a label; the rows may then hold anything, NaN and labels out of range included.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mtl_jax.metrics.base import Mean, mean, ratio, spread_weights, weighted_sum

Array = jax.Array

NUM_BINS = 10


class Calibration(NamedTuple):
    """Top-1 confidences in equal bins of (0, 1]; bin k holds k/10 < confidence <= (k+1)/10.

    Attributes:
      count: [10] sum of the weights.
      correct: [10] weighted number of correct predictions.
      confidence: [10] weighted sum of the confidences.
    """

    count: Array
    correct: Array
    confidence: Array

    def compute(self) -> dict[str, float]:
        """Returns `{"ece": ...}`, the expected calibration error.

        sum_k (n_k / n) |accuracy_k - confidence_k| (Guo et al. 2017, eq. 3).
        """
        gap = np.abs(np.asarray(self.correct, np.float64) - np.asarray(self.confidence, np.float64))
        return {"ece": ratio(gap.sum(), np.asarray(self.count, np.float64).sum())}


class Reliability(NamedTuple):
    """The table behind a reliability diagram, float64 [10] each; NaN for empty bins."""

    lower: np.ndarray
    upper: np.ndarray
    count: np.ndarray
    accuracy: np.ndarray
    confidence: np.ndarray


class Classification(NamedTuple):
    """All metrics of one classification task, from one softmax."""

    accuracy: Mean
    nll: Mean
    brier: Mean
    calibration: Calibration

    def compute(self) -> dict[str, float]:
        """Returns accuracy (a fraction, not %), nll (nats), brier and ece."""
        means = {"accuracy": self.accuracy, "nll": self.nll, "brier": self.brier}
        return {name: ratio(*state) for name, state in means.items()} | self.calibration.compute()


def binary_logits(logits: Array) -> Array:
    """Turns one logit a task [...] into two class logits [..., 2]; softmax gives 1-p and p."""
    return jnp.stack([jnp.zeros_like(logits), logits], axis=-1)


def accuracy(logits: Array, labels: Array, weights: Array | None = None) -> Mean:
    """Fraction of examples whose largest logit is the label's (the first of equal ones counts).

    Args:
      logits: [B, ..., C], or [B, ...] as `labels` for a binary task with one logit.
      labels: [B, ...] class indices.
      weights: [B] or [B, ...], see `metrics.base.mean`.
    """
    return mean(jnp.argmax(_class_logits(logits, labels), axis=-1) == labels, weights)


def nll(logits: Array, labels: Array, weights: Array | None = None) -> Mean:
    """Mean of -log p(label), in nats. Arguments as `accuracy`; a label out of range gives NaN."""
    log_probs = jax.nn.log_softmax(_class_logits(logits, labels), axis=-1)
    return mean(-_at_label(log_probs, labels), weights)


def brier(logits: Array, labels: Array, weights: Array | None = None) -> Mean:
    """Mean over examples of sum_c (p_c - y_c)^2, in [0, 2]. Arguments as `accuracy`.

    The sum runs over all classes, for binary tasks too: twice the one-sided (p - y)^2.
    """
    probs = jax.nn.softmax(_class_logits(logits, labels), axis=-1)
    return mean(jnp.sum((probs - jax.nn.one_hot(labels, probs.shape[-1])) ** 2, axis=-1), weights)


def calibration(logits: Array, labels: Array, weights: Array | None = None) -> Calibration:
    """Counts top-1 confidences in 10 equal right-closed bins. Arguments as `accuracy`.

    Confidence and edges are compared in float32, so 0.3 of a float32 softmax is at the edge 3/10
    and not above it.
    """
    logits = _class_logits(logits, labels)
    weights = spread_weights(weights, labels.shape).reshape(-1)
    confidence = jnp.max(jax.nn.softmax(logits, axis=-1), axis=-1).reshape(-1)
    correct = (jnp.argmax(logits, axis=-1) == labels).reshape(-1)
    upper = jnp.asarray(_edges()[1:], confidence.dtype)
    bins = jnp.searchsorted(upper, confidence, side="left")
    # Softmax may round to a hair above 1; NaN sorts last as well, and then makes the ECE a NaN.
    bins = jnp.minimum(bins, NUM_BINS - 1)
    # One masked reduction a bin: a scatter-add would lose digits (see metrics.base).
    inside = bins[:, None] == jnp.arange(NUM_BINS)[None, :]  # [N, 10]
    weights = jnp.where(inside, weights[:, None], 0)
    return Calibration(
        count=jnp.sum(weights, axis=0, dtype=weights.dtype),
        correct=weighted_sum(correct[:, None], weights, axis=0),
        confidence=weighted_sum(confidence[:, None], weights, axis=0),
    )


def classification(logits: Array, labels: Array, weights: Array | None = None) -> Classification:
    """All of the above for one task. Arguments as `accuracy`."""
    return Classification(
        accuracy=accuracy(logits, labels, weights),
        nll=nll(logits, labels, weights),
        brier=brier(logits, labels, weights),
        calibration=calibration(logits, labels, weights),
    )


def reliability(state: Calibration) -> Reliability:
    """Returns the reliability table of a state."""
    count, correct, confidence = (np.asarray(leaf, np.float64) for leaf in state)
    safe = np.where(count > 0, count, np.nan)
    edges = _edges()
    return Reliability(edges[:-1], edges[1:], count, correct / safe, confidence / safe)


def _edges() -> np.ndarray:
    return np.arange(NUM_BINS + 1) / NUM_BINS


def _class_logits(logits: Array, labels: Any) -> Array:
    """Checks the shapes; returns [..., C] logits in float32 or wider."""
    labels = jnp.asarray(labels)
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        raise TypeError(f"labels must be integer class indices, found {labels.dtype}")
    if logits.shape == labels.shape:
        logits = binary_logits(logits)
    if logits.shape[:-1] != labels.shape:
        raise ValueError(f"logits {logits.shape} must be labels {labels.shape} with a class axis")
    return logits.astype(jnp.promote_types(logits.dtype, jnp.float32))


def _at_label(values: Array, labels: Array) -> Array:
    """values[..., labels]; NaN where the label is out of range, negative ones included."""
    found = jnp.take_along_axis(values, labels[..., None], axis=-1, mode="clip")[..., 0]
    return jnp.where((labels >= 0) & (labels < values.shape[-1]), found, jnp.nan)

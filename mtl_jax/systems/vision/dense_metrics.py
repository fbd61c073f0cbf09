"""Metrics of dense prediction as mergeable sums (see `mtl_jax.metrics.base`).

Which pixels count is decided by `dense_losses`: what a loss leaves out, its metric leaves out.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mtl_jax.metrics.base import ratio
from mtl_jax.systems.vision.dense_losses import known_depth, known_normal, labelled, plane

Array = jax.Array

ANGLE_BINS = 3600
"""Bins over 0 .. 180 degrees, 0.05 each: 11.25, 22.5 and 30 are edges of bins."""
THRESHOLDS = (11.25, 22.5, 30.0)


class Segmentation(NamedTuple):
    """Counts of labelled pixels.

    Attributes:
      confusion: [C, C] int32; row: true class, column: predicted class.
    """

    confusion: Array

    def compute(self) -> dict[str, float]:
        """Returns `miou` and `pixel_accuracy`, fractions.

        The mean of the intersection over union is over classes that occur, in the labels or in
        the predictions.
        """
        counts = np.asarray(self.confusion, np.float64)
        hits = np.diagonal(counts)
        union = counts.sum(0) + counts.sum(1) - hits
        seen = union > 0
        iou = hits[seen] / union[seen]
        return {
            "miou": float(iou.mean()) if seen.any() else float("nan"),
            "pixel_accuracy": ratio(hits.sum(), counts.sum()),
        }


class Depth(NamedTuple):
    """Errors over pixels of known depth.

    Attributes:
      absolute: sum of |prediction - target|.
      relative: sum of |prediction - target| / target.
      count: int32 number of pixels.
    """

    absolute: Array
    relative: Array
    count: Array

    def compute(self) -> dict[str, float]:
        """Returns `absolute_error`, in the target's unit, and `relative_error`, a fraction."""
        return {
            "absolute_error": ratio(self.absolute, self.count),
            "relative_error": ratio(self.relative, self.count),
        }


class Normals(NamedTuple):
    """Angles between predicted and true normals, in degrees, over pixels of known normal.

    Attributes:
      total: sum of the angles.
      histogram: [ANGLE_BINS] int32 counts; bin k holds k <= angle / 0.05 < k + 1, the last one
        180 degrees too.
    """

    total: Array
    histogram: Array

    def compute(self) -> dict[str, float]:
        """Returns `angle_mean`, `angle_median` (degrees) and `within_11.25`, .. (fractions).

        The mean is exact. The median is interpolated within its bin, so it is off by less than
        0.05 degrees. The fractions are exact but for angles within float32 rounding (about 2e-5
        degrees) of a threshold; an angle equal to the threshold is not within it.
        """
        counts = np.asarray(self.histogram, np.float64)
        below = np.concatenate([[0.0], np.cumsum(counts)])
        width = 180.0 / ANGLE_BINS
        result = {"angle_mean": ratio(self.total, below[-1]), "angle_median": float("nan")}
        if below[-1] > 0:
            half = below[-1] / 2
            k = int(np.searchsorted(below, half, side="left")) - 1
            result["angle_median"] = float(width * (k + (half - below[k]) / counts[k]))
        for limit in THRESHOLDS:
            result[f"within_{limit:g}"] = ratio(below[round(limit / width)], below[-1])
        return result


def _count(index: Array, valid: Array, length: int) -> Array:
    """Counts the valid indices: [length] int32. Integer scatter-adds are exact."""
    index = jnp.where(valid, index, length).reshape(-1)  # out of range: dropped
    return jnp.zeros(length, jnp.int32).at[index].add(1, mode="drop")


def segmentation(logits: Array, labels: Array, mask: Array | None = None) -> Segmentation:
    """Counts true against predicted classes (the largest logit; the first of equal ones).

    Args:
      logits: [B, H, W, C].
      labels: [B, H, W] ints; -1, and any other value that is no class, is left out.
      mask: [B] or None.
    """
    classes = logits.shape[-1]
    valid = labelled(labels, classes, mask)
    cell = labels.astype(jnp.int32) * classes + jnp.argmax(logits, -1).astype(jnp.int32)
    return Segmentation(_count(cell, valid, classes**2).reshape(classes, classes))


def depth(prediction: Array, target: Array, mask: Array | None = None) -> Depth:
    """Sums the depth errors.

    Args:
      prediction: [B, H, W] or [B, H, W, 1].
      target: [B, H, W] or [B, H, W, 1]; 0 or less, or not finite, is unknown.
      mask: [B] or None.
    """
    valid = known_depth(target, mask)
    true = jnp.where(valid, plane(target), 1)
    error = jnp.where(valid, jnp.abs(plane(prediction) - true), 0)
    return Depth(
        absolute=jnp.sum(error, dtype=jnp.float32),
        relative=jnp.sum(error / true, dtype=jnp.float32),
        count=jnp.sum(valid, dtype=jnp.int32),
    )


def normals(prediction: Array, target: Array, mask: Array | None = None) -> Normals:
    """Sums the angles and counts them in bins.

    Args:
      prediction: [B, H, W, 3], of any length; a zero vector is taken as 90 degrees off.
      target: [B, H, W, 3], of any length; zero or not finite is unknown.
      mask: [B] or None.
    """
    valid = known_normal(target, mask)
    # The arc cosine of a float32 is off by 0.02 degrees near 0; this form is not.
    sine = jnp.linalg.norm(jnp.cross(prediction, target), axis=-1)
    cosine = jnp.sum(prediction * target, -1)
    nothing = (sine == 0) & (cosine == 0)
    angle = jnp.where(nothing, 90.0, jnp.degrees(jnp.arctan2(sine, cosine)))
    index = jnp.minimum((angle * (ANGLE_BINS / 180)).astype(jnp.int32), ANGLE_BINS - 1)
    total = jnp.sum(jnp.where(valid, angle, 0), dtype=jnp.float32)
    return Normals(total, _count(index, valid, ANGLE_BINS))

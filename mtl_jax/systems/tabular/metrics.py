"""Metrics of tables with several targets: relative errors, and counts over all labels together."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mtl_jax.metrics.base import ratio

Array = jax.Array


class TargetError(NamedTuple):
    """Sums over the rows of one target; fields are [] or lead with a task axis.

    Attributes:
      error: sum of the squared errors.
      deviation: sum of the squared distances from the training mean.
      count: number of rows, int32.
    """

    error: Array
    deviation: Array
    count: Array

    def compute(self) -> dict[str, float]:
        """Returns `rmse`, in the target's unit, and `rrmse`.

        rrmse is the root mean square error over that of predicting the training mean for the same
        rows; its mean over targets is the aRRMSE of Spyromitros-Xioufis et al. (Machine Learning
        104, 2016, section 4.2). 1 is as good as that mean. NaN where nothing was counted.
        """
        return {
            "rrmse": float(np.sqrt(ratio(self.error, self.deviation))),
            "rmse": float(np.sqrt(ratio(self.error, self.count))),
        }


def target_error(error: Array, deviation: Array, weight: Array) -> TargetError:
    """Returns the sums of one batch of one target.

    Args:
      error: [B], prediction - target.
      deviation: [B], target - training mean, in the same unit.
      weight: [B] bool or 0/1; rows of weight 0 are ignored, whatever they hold.
    """
    counted = weight != 0
    return TargetError(
        error=jnp.sum(jnp.square(jnp.where(counted, error, 0))),
        deviation=jnp.sum(jnp.square(jnp.where(counted, deviation, 0))),
        count=jnp.sum(counted, dtype=jnp.int32),
    )


class LabelCounts(NamedTuple):
    """Counts over all labels of all rows, int32: a label is said where its logit is above 0.

    Attributes:
      hits: labels that are there and said.
      misses: labels that are there and not said.
      false_alarms: labels that are said and not there.
      count: labels in all.
    """

    hits: Array
    misses: Array
    false_alarms: Array
    count: Array

    def compute(self) -> dict[str, float]:
        """Returns `micro_f1` and `hamming_loss`; see Tsoumakas et al., JMLR 12, 2011.

        micro_f1 = 2 hits / (2 hits + misses + false alarms), NaN where no label is there or said;
        hamming_loss = (misses + false alarms) / count.
        """
        wrong = np.asarray(self.misses) + np.asarray(self.false_alarms)
        return {
            "micro_f1": ratio(2 * np.asarray(self.hits), 2 * np.asarray(self.hits) + wrong),
            "hamming_loss": ratio(wrong, self.count),
        }


def label_counts(logits: Array, labels: Array, weights: Array) -> LabelCounts:
    """Returns the counts of one batch.

    Args:
      logits: [B, T].
      labels: [B, T], 0 or 1.
      weights: [B, T] bool or 0/1; labels of weight 0 are ignored.
    """
    counted, there, said = weights != 0, labels == 1, logits > 0

    def number(which: Array) -> Array:
        return jnp.sum(counted & which, dtype=jnp.int32)

    return LabelCounts(
        hits=number(there & said),
        misses=number(there & ~said),
        false_alarms=number(~there & said),
        count=jnp.sum(counted, dtype=jnp.int32),
    )

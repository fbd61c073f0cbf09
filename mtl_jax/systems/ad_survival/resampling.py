"""Intervals by resampling whole campaigns, for whatever is computed from sums over rows.

The rows of a campaign are not independent, so campaigns are drawn with replacement, as many as
there are. What is compared is drawn together: differences are paired.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from mtl_jax.errors import UserError
from mtl_jax.metrics.bootstrap import Interval, draw_units, percentile_interval
from mtl_jax.metrics.survival.inputs import dense_rank


class Resamples(NamedTuple):
    """R resamples of G groups.

    Attributes:
      owner: [N] int64, the group of each row, from 0 on.
      times: [R, G] float64, how often each group was drawn.
    """

    owner: np.ndarray
    times: np.ndarray

    def sums(self, columns: np.ndarray) -> np.ndarray:
        """Sums of `columns` [N, M] over the rows of each resample, [R, M]."""
        groups = self.times.shape[1]
        each = [np.bincount(self.owner, column, groups) for column in columns.T]
        return self.times @ np.stack(each, 1)

    def intervals(
        self,
        columns: np.ndarray,
        of: Mapping[str, Callable[[np.ndarray], np.ndarray]],
        level: float = 0.95,
    ) -> dict[str, Interval]:
        """The percentile intervals of functions of sums, {name: interval}.

        Args:
          columns: [N, M], what is summed.
          of: {name: function}, each takes sums [..., M] to values [...]; NaN where not defined.
          level: probability that an interval should cover.
        """
        whole, drawn = columns.sum(0)[None], self.sums(columns)
        return {
            name: percentile_interval(float(one(whole)[0]), one(drawn), level)
            for name, one in of.items()
        }


def resamples(groups: Any, *, replicates: int = 1000, seed: int = 0) -> Resamples:
    """Draws groups with replacement.

    Args:
      groups: [N] ids.
      replicates: R.
      seed: of the draws.

    Raises:
      UserError: no rows, or no replicates.
    """
    groups = np.asarray(groups)
    if groups.ndim != 1 or not len(groups):
        raise UserError(
            f"groups are {groups.shape}; they must be one id a row [N], of 1 row or more"
        )
    if replicates < 1:
        raise UserError(f"replicates is {replicates}; it must be 1 or more")
    owner = dense_rank(groups)
    units = int(owner.max()) + 1
    rng = np.random.default_rng(seed)
    times = [draw_units(rng, units) for _ in range(replicates)]
    return Resamples(owner, np.stack(times).astype(np.float64))


def ratio(part: Any, whole: Any) -> np.ndarray:
    """Returns part / whole, NaN where the whole is 0."""
    whole = np.asarray(whole, np.float64)
    some = whole != 0
    return np.where(some, np.asarray(part) / np.where(some, whole, 1.0), np.nan)

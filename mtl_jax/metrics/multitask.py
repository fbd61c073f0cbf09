"""How one method compares with others over many tasks: Delta_m and mean rank. Host side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from mtl_jax.errors import did_you_mean


def delta_m(
    metrics: Mapping[str, float],
    reference: Mapping[str, float],
    higher_is_better: Mapping[str, bool],
) -> float:
    """Average relative change against a reference, in %; negative is better.

    100 / K * sum_k (-1)^[higher is better] (M_k - S_k) / S_k over K metrics, each with the same
    weight: a task with three metrics counts three times (specs: FS-MTL, section 3.1; first used
    by Maninis et al. 2019). The FS-MTL paper's prose has the sign the other way round; its tables
    follow this formula, as do those of Nash-MTL, FAMO and FairGrad.

    Args:
      metrics: the method's values by metric name.
      reference: the single-task values, by the same names.
      higher_is_better: by the same names.

    Raises:
      ValueError: the names differ, no metric at all, or a reference that is not positive.
    """
    if not metrics:
        raise ValueError("delta_m needs at least one metric")
    for other, what in ((reference, "reference"), (higher_is_better, "higher_is_better")):
        for name in metrics:
            if name not in other:
                raise ValueError(f"no {what} for metric {name!r}; {did_you_mean(name, other)}")
        if extra := sorted(set(other) - set(metrics)):
            raise ValueError(f"{what} has {extra}, metrics has {sorted(metrics)}")
    changes = []
    for name, value in metrics.items():
        if not reference[name] > 0:
            raise ValueError(f"reference {name!r} is {reference[name]}; it must be positive")
        change = (value - reference[name]) / reference[name]
        changes.append(-change if higher_is_better[name] else change)
    return 100.0 * float(np.mean(np.asarray(changes, np.float64)))


def mean_rank(table: np.ndarray, higher_is_better: Sequence[bool]) -> np.ndarray:
    """Mean over metrics of each method's rank among the methods, 1 being the best; [M].

    Equal values share the average of their ranks. NaN (a run that failed) ranks last. The rank
    depends on which methods are in the table: never compare it across tables.

    Args:
      table: [M, K] value of metric k for method m.
      higher_is_better: [K].

    Raises:
      ValueError: the shapes do not fit.
    """
    table = np.asarray(table, np.float64)
    sign = np.where(np.asarray(higher_is_better, bool), -1.0, 1.0)
    if table.ndim != 2 or sign.shape != table.shape[1:]:
        raise ValueError(f"table {table.shape} must be [methods, metrics] for {sign.shape} metrics")
    cost = np.where(np.isnan(table), np.inf, table * sign)  # [M, K], less is better
    less = (cost[None] < cost[:, None]).sum(axis=1)  # [M, K] methods strictly ahead
    equal = (cost[None] == cost[:, None]).sum(axis=1)  # itself included
    return (less + (equal + 1) / 2).mean(axis=1)

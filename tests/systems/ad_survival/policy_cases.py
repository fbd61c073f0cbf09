"""Small worlds to replay policies on, and a replay by plain loops."""

from __future__ import annotations

import numpy as np

from mtl_jax.systems.ad_survival.policy_outcomes import Paths

DAYS = 14
NEVER = DAYS + 1


def random_paths(seed: int, rows: int = 40) -> Paths:
    rng = np.random.default_rng(seed)
    shown = rng.poisson(50, (rows, DAYS)).astype(float)
    shown[rng.random(shown.shape) < 0.1] = 0
    sold = rng.binomial(shown.astype(int), 0.05).astype(float)
    bid, worth = rng.uniform(0.5, 1.5, (2, rows, 1))
    end = rng.integers(0, DAYS + 1, rows)
    start, group = rng.integers(3, 20, rows), 7 * rng.integers(0, 6, rows)
    return Paths(shown, sold, shown * bid, sold * worth * 20, end, start, group)


def random_risk(seed: int, rows: int = 40) -> np.ndarray:
    return np.random.default_rng(seed).random((rows, DAYS)).round(2)  # With ties.


def slow_outcome(stop, paths: Paths, replacement: str) -> np.ndarray:
    """Impressions, conversions, cost and value [N, 4], day by day and row by row."""
    fields = np.stack(paths[:4])

    def runs(i: int, day: int) -> bool:
        return day <= min(stop[i] - 1, paths.end[i])

    total = np.zeros((len(stop), 4))
    for i in range(len(stop)):
        for day in range(1, paths.end[i] + 1):
            if runs(i, day):
                total[i] += fields[:, i, day - 1]
            elif replacement == "campaign":
                calendar, others = paths.start[i] + day - 1, np.zeros(4)
                for j in range(len(stop)):
                    own = calendar - paths.start[j] + 1
                    if paths.group[j] == paths.group[i] and own >= 1 and runs(j, own):
                        others += fields[:, j, own - 1]
                if others[0] > 0:
                    total[i] += fields[0, i, day - 1] * others / others[0]
    return total

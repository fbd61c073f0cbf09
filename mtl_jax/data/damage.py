"""Wrong and missing labels of one task, for studies of robustness.

Both act on the training sources of a `PairData` alone; the validation and the test split stay as
they are. A source that is hit is hit in all its pairs. At a higher rate the same sources are hit
and more, so that rates can be compared.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from mtl_jax.data.pairs import PairData

CLASSES = 10


def wrong_labels(
    labels: np.ndarray, rate: float, key: Sequence[int], classes: int = CLASSES
) -> np.ndarray:
    """Returns labels [N] of which round(rate N) are replaced by another class, chosen uniformly.

    Args:
      labels: [N] int in 0..classes - 1; not changed.
      rate: 0 to 1.
      key: seeds of the generator: equal keys hit the same rows.
      classes: K >= 2.

    Raises:
      ValueError: a rate outside 0..1.
    """
    order, rng = _order(len(labels), rate, key)
    shifts = rng.integers(1, classes, len(labels))
    hit, out = order[: round(rate * len(labels))], labels.copy()
    out[hit] = (out[hit] + shifts[hit]) % classes
    return out


def kept_labels(count: int, share: float, key: Sequence[int]) -> np.ndarray:
    """Returns a mask [count] bool in which round(share count) rows, but at least one, are True.

    Raises:
      ValueError: a share outside 0..1.
    """
    order, _ = _order(count, share, key)
    kept = np.zeros(count, bool)
    kept[order[: max(round(share * count), 1)]] = True
    return kept


def damaged(
    pairs: PairData, noise: Sequence[float] = (), share: Sequence[float] = (), seed: int = 0
) -> PairData:
    """Returns a set with wrong and missing training labels.

    Args:
      pairs: the set, whole.
      noise: for each task, the rate of training sources whose label is wrong; () for none.
      share: for each task, the share of training sources whose label is known; () for all.
      seed: of the sources that are hit; tasks differ.

    Raises:
      ValueError: not one number a task, or one outside 0..1.
    """
    labels, labelled = list(pairs.labels), None
    if noise:
        for t, rate in enumerate(_two(noise)):
            own, count = labels[t].copy(), pairs.train_counts[t]
            own[:count] = wrong_labels(own[:count], rate, (seed, t, 0))
            labels[t] = own
    if share:
        known = [np.ones(len(own), bool) for own in labels]
        for t, part in enumerate(_two(share)):
            count = pairs.train_counts[t]
            known[t][:count] = kept_labels(count, part, (seed, t, 1))
        labelled = (known[0], known[1])
    return dataclasses.replace(pairs, labels=(labels[0], labels[1]), labelled=labelled)


def _two(values: Sequence[float]) -> tuple[float, float]:
    if len(values) != 2:
        raise ValueError(f"{len(values)} numbers for 2 tasks")
    return values[0], values[1]


def _order(count: int, rate: float, key: Sequence[int]) -> tuple[np.ndarray, np.random.Generator]:
    if not 0 <= rate <= 1:
        raise ValueError(f"rate = {rate}, it must be from 0 to 1")
    rng = np.random.default_rng(tuple(key))
    return rng.permutation(count), rng

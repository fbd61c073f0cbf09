"""What needs no model: how well smoothed averages of users and items predict each label.

A model that does not beat these has learned nothing of which user meets which item.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mtl_jax.data.impressions import PAD, UNSEEN, ImpressionSet
from mtl_jax.errors import UserError
from mtl_jax.metrics.ranking import auc

SMOOTHING = 5.0  # Weight of the overall rate, in rows.
MEANS = ("user mean", "item mean", "user + item means")
BOTH = "both, LR"


def smoothed_means_floor(
    found: ImpressionSet,
    split: str = "test",
    smoothing: float = SMOOTHING,
    fit: Sequence[str] = ("train",),
) -> dict[str, dict[str, float]]:
    """Returns the AUC of smoothed means, {kind of mean: {task: AUC}}.

    The mean of a user or an item is (positives + smoothing * rate) / (rows + smoothing) over its
    rows in `fit`, weighed by their masks, where rate is the rate of all of them; one without such
    rows has the overall rate.

    Args:
      found: the set; users are its `group`, items the ids of its item column.
      split: whose rows to score, where their label is there.
      smoothing: weight of the overall rate, in rows.
      fit: splits whose labels may be used. Rolling histories show a model the validation rows of
        its user; means of ("train", "validation") are the floor that has seen as much.

    Raises:
      UserError: a set without an item column, an unknown split.
    """
    users, items, rows, seen = _keys(found, split, fit)
    result: dict[str, dict[str, float]] = {kind: {} for kind in MEANS}
    for t, task in enumerate(found.task_names):
        by_user, by_item = (_rates(found, key, t, smoothing, seen)[0] for key in (users, items))
        scores = (by_user[rows], by_item[rows], by_user[rows] + by_item[rows])
        for kind, score in zip(MEANS, scores, strict=True):
            result[kind][task] = _auc(found, rows, t, score)
    return result


def logistic_floor(
    found: ImpressionSet,
    split: str = "test",
    smoothing: float = SMOOTHING,
    fit: Sequence[str] = ("train",),
) -> dict[str, float]:
    """Returns the AUC of a logistic regression on two numbers, {task: AUC}.

    The numbers are the logits of the smoothed mean of the user and of the item. In the rows that
    the regression is fit to, their own label is left out of both, which would otherwise tell it.

    Args:
      found: see `smoothed_means_floor`.
      split: whose rows to score.
      smoothing: weight of the overall rate, in rows; above 0, so that logits are finite.
      fit: see `smoothed_means_floor`.

    Raises:
      UserError: as `smoothed_means_floor`, and smoothing that is not above 0.
    """
    if not smoothing > 0:
        raise UserError(f"smoothing is {smoothing}; a logit of a rate needs it above 0")
    users, items, rows, seen = _keys(found, split, fit)
    result = {}
    for t, task in enumerate(found.task_names):
        outside, without = zip(
            *(_rates(found, key, t, smoothing, seen) for key in (users, items)), strict=True
        )
        inputs = np.stack([_logit(rate) for rate in without], 1)[seen]
        mask = found.label_mask[seen, t].astype(np.float64)
        labels = np.where(mask > 0, found.labels[seen, t], 0.0)
        weights = logistic_regression(inputs, labels, mask)
        scores = np.stack([_logit(rate) for rate in outside], 1)[rows] @ weights[1:]
        result[task] = _auc(found, rows, t, scores)
    return result


def logistic_regression(
    inputs: np.ndarray, labels: np.ndarray, weights: np.ndarray, ridge: float = 1e-6
) -> np.ndarray:
    """Returns the intercept and the coefficients [1 + D], by Newton's method with step halving.

    Minimises sum_i weights_i log(1 + exp(-(2 labels_i - 1) logit_i)) + ridge |coefficients|^2 n / 2
    with n the sum of weights; the ridge also bounds them where the classes can be parted.

    Args:
      inputs: [N, D].
      labels: [N], 0 or 1.
      weights: [N], not negative.
      ridge: penalty on all but the intercept.
    """
    design = np.concatenate([np.ones((len(inputs), 1)), inputs], 1).astype(np.float64)
    total = max(float(weights.sum()), 1.0)
    penalty = np.full(design.shape[1], ridge * total)
    penalty[0] = 1e-9 * total  # Only so that the system stays solvable without any label.

    def loss(beta: np.ndarray) -> float:
        logit = design @ beta
        return float(
            (weights * (np.logaddexp(0, logit) - labels * logit)).sum()
            + 0.5 * (penalty * beta**2).sum()
        )

    beta = np.zeros(design.shape[1])
    best = loss(beta)
    for _ in range(50):
        p = 1 / (1 + np.exp(-np.clip(design @ beta, -500, 500)))
        slope = design.T @ (weights * (p - labels)) + penalty * beta
        curvature = (design * (weights * p * (1 - p))[:, None]).T @ design + np.diag(penalty)
        step = np.linalg.solve(curvature, slope)
        size = 1.0
        while size > 1e-6 and loss(beta - size * step) > best:
            size /= 2
        if size <= 1e-6:
            break
        beta = beta - size * step
        gain, best = best - loss(beta), loss(beta)
        if gain < 1e-12 * total:
            break
    return beta


def _keys(
    found: ImpressionSet, split: str, fit: Sequence[str]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """User and item number of each row, -1 for an unknown item; rows to score and to learn from."""
    if not found.item:
        raise UserError(f"{found.name} has no item column; the floor is of users and items")
    for name in (split, *fit):
        if name not in found.splits:
            raise UserError(f"{found.name} has no split {name!r}; known: {', '.join(found.splits)}")
    column = [column.name for column in found.columns].index(found.item)
    items = found.fields[:, column].astype(np.int64)
    items = np.where((items == PAD) | (items == UNSEEN), -1, items)
    users = np.unique(found.group, return_inverse=True)[1]
    return users, items, found.splits[split], np.concatenate([found.splits[f] for f in fit])


def _rates(
    found: ImpressionSet, key: np.ndarray, task: int, smoothing: float, seen: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Smoothed rate of each row's key over the rows `seen`, and the same without the row itself."""
    mask = np.zeros(len(key))
    mask[seen] = found.label_mask[seen, task]
    positive = np.where(mask > 0, mask * np.where(mask > 0, found.labels[:, task], 0), 0)
    overall = positive.sum() / mask.sum() if mask.sum() else 0.5
    slot = np.where(key < 0, key.max() + 1, key)  # Unknown ones share a slot that stays empty.
    known = key >= 0
    rows = np.bincount(slot[known], mask[known], slot.max() + 1)[slot]
    hits = np.bincount(slot[known], positive[known], slot.max() + 1)[slot]

    def smoothed(hits: np.ndarray, rows: np.ndarray) -> np.ndarray:
        weight = rows + smoothing
        return np.where(
            weight > 0, (hits + smoothing * overall) / np.where(weight > 0, weight, 1), overall
        )

    own = known.astype(float)
    return smoothed(hits, rows), smoothed(hits - own * positive, rows - own * mask)


def _logit(rate: np.ndarray) -> np.ndarray:
    safe = np.clip(rate, 1e-6, 1 - 1e-6)
    return np.log(safe) - np.log1p(-safe)


def _auc(found: ImpressionSet, rows: np.ndarray, task: int, scores: np.ndarray) -> float:
    return auc(scores, found.labels[rows, task], found.label_mask[rows, task])

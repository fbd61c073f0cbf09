"""Exact ranking metrics of binary tasks from all scores at once: AUC, AUC within users, NDCG.

Host side, numpy float64, without a loop over rows or users. Scores may be logits, probabilities
or anything that increases with them, but scores that float32 rounds to one number are ties. A
score that is NaN makes the metric NaN. The functions take

  scores: [N].
  labels: [N], 0 or 1.
  groups: [N] ids of the users, integers or anything else that sorts.
  weights: [N] mask or weights, not negative; None counts every row once. Rows of weight 0 are
    left out, whatever they hold.

and raise a `ValueError` for shapes that differ, negative weights and other labels. The state
that adds up over batches and devices is `metrics.binary.BinaryScores`; intervals are in
`metrics.bootstrap`.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np

NAN = float("nan")


class GroupMean(NamedTuple):
    """A mean over users.

    Attributes:
      value: the mean; NaN if no user counts.
      groups_used: users for whom the metric is defined.
      groups_total: users that have a row.
      rows_used: rows of the users that count.
    """

    value: float
    groups_used: int
    groups_total: int
    rows_used: int


def auc(scores: Any, labels: Any, weights: Any = None) -> float:
    """Area under the ROC curve: the chance that a positive outscores a negative, ties half.

    sum_i sum_j w_i w_j ([s_i > s_j] + [s_i = s_j] / 2) / (P M) over positives i and negatives j
    of total weights P and M, in O(N log N). NaN where a class is missing, never 0.5.
    """
    rows = counted_rows(scores, labels, weights)
    if np.isnan(rows.scores).any():
        return NAN
    order = order_pairs(rows.scores, rows.labels == 1, rows.labels == 0)
    both = rows.weights[order.positives], rows.weights[order.negatives]
    return _divide(*won_pairs(order, *both))


def expected_auc(scores: Any, truth: Any, weights: Any = None) -> float:
    """The AUC of scores over labels that are not drawn but known by their probabilities.

    The ratio of two expectations over labels drawn independently: the pairs of a positive and a
    negative row that the scores order rightly (ties half), and all such pairs,

      sum_{i != j} w_i w_j p_i (1 - p_j) ([s_i > s_j] + [s_i = s_j] / 2)
        / sum_{i != j} w_i w_j p_i (1 - p_j).

    The AUC of drawn labels scatters about it. NaN where no such pair is possible.

    Args:
      scores: [N].
      truth: [N] probabilities of the label 1.
      weights: [N], see the module.
    """
    rows = counted_rows(scores, truth, weights, probabilities=True)
    if np.isnan(rows.scores).any():
        return NAN
    positive, negative = rows.weights * rows.labels, rows.weights * (1 - rows.labels)
    order = order_pairs(rows.scores, positive > 0, negative > 0)
    won, pairs = won_pairs(order, positive[order.positives], negative[order.negatives])
    itself = float(positive @ negative)  # A row makes no pair with itself; it counted as a tie.
    return _divide(won - itself / 2, pairs - itself)


def bayes_auc(truth: Any, weights: Any = None) -> float:
    """The AUC that no scores exceed in expectation: that of the true probabilities [N].

    It is the maximum of `expected_auc` over all scores.
    """
    return expected_auc(truth, truth, weights)


def gauc(
    scores: Any,
    labels: Any,
    groups: Any,
    weights: Any = None,
    weigh_by: Literal["impressions", "positives"] = "impressions",
) -> GroupMean:
    """Mean over users of the AUC of their own rows.

    Users who lack a class have none and are left out. The others weigh by their rows
    ("impressions") or their positives, each row counted with its weight.
    """
    if weigh_by not in ("impressions", "positives"):
        raise ValueError(f"weigh_by is {weigh_by!r}; it must be impressions or positives")
    rows = counted_rows(scores, labels, weights, groups)
    if not len(rows.scores):
        return GroupMean(NAN, 0, 0, 0)
    ties = _ties(rows.scores, rows)
    won = ties.total(ties.positive * (ties.before(ties.negative) + ties.negative / 2))
    positives, negatives = ties.total(ties.positive), ties.total(ties.negative)
    used = (positives > 0) & (negatives > 0)
    own = won[used] / (positives * negatives)[used]
    share = positives if weigh_by == "positives" else positives + negatives
    return _group_mean(own, share[used], used, ties, rows)


def ndcg(scores: Any, labels: Any, groups: Any, k: int, mask: Any = None) -> GroupMean:
    """Mean over users of the normalised discounted cumulative gain of their k best rows.

    A positive at rank r = 1 .. k gains 1 / log2(1 + r); the sum is divided by that of the best
    order (Järvelin and Kekäläinen 2002, with gains 0 and 1). Rows of equal score stand in random
    order, and this is the expected value: each gains the mean over the ranks that they share
    (McSherry and Najork 2008). Users without a positive are left out; the others weigh the same.

    Args:
      scores: [N].
      labels: [N].
      groups: [N].
      k: how many ranks count, 1 or more.
      mask: [N], rows of 0 are left out; None for all.
    """
    if k < 1:
        raise ValueError(f"k is {k}; it must be 1 or more")
    weights = None if mask is None else np.asarray(mask) != 0
    rows = counted_rows(scores, labels, weights, groups)
    if not len(rows.scores):
        return GroupMean(NAN, 0, 0, 0)
    ties = _ties(-rows.scores, rows)
    top = min(k, len(rows.scores))
    gained = np.concatenate([[0.0], np.cumsum(1 / np.log2(np.arange(2, top + 2)))])  # by r ranks
    start = ties.before(ties.rows)
    shared = gained[np.minimum(start + ties.rows, top)] - gained[np.minimum(start, top)]
    found = ties.total(ties.positive * shared / ties.rows)
    positives = ties.total(ties.positive).astype(np.int64)
    used = positives > 0
    own = found[used] / gained[np.minimum(positives[used], top)]
    return _group_mean(own, np.ones(len(own)), used, ties, rows)


class Rows(NamedTuple):
    """The rows that count, those of positive weight.

    Attributes:
      scores: [N] float64.
      labels: [N] float64.
      weights: [N] float64, all positive.
      groups: [N] int64, users numbered from 0 in the order of their ids; all 0 without users.
    """

    scores: np.ndarray
    labels: np.ndarray
    weights: np.ndarray
    groups: np.ndarray


def counted_rows(
    scores: Any, labels: Any, weights: Any, groups: Any = None, probabilities: bool = False
) -> Rows:
    """Checks the arguments, see the module, and leaves out the rows of weight 0.

    With `probabilities`, labels may be anything from 0 to 1.
    """
    given = np.asarray(scores), np.asarray(labels)
    given += (np.ones(given[0].shape) if weights is None else np.asarray(weights),)
    given += (np.zeros(given[0].shape, np.int64) if groups is None else np.asarray(groups),)
    if given[0].ndim != 1 or any(array.shape != given[0].shape for array in given):
        shapes = ", ".join(str(array.shape) for array in given)
        raise ValueError(f"scores, labels, weights and groups must all be [N], found {shapes}")
    if not np.all(given[2] >= 0):
        raise ValueError("weights hold a negative number or NaN")
    kept = given[2] > 0
    values, labels, weights = (array[kept].astype(np.float64) for array in given[:3])
    if not np.all((labels >= 0) & (labels <= 1) if probabilities else np.isin(labels, (0, 1))):
        rule = "be probabilities" if probabilities else "be 0 or 1"
        raise ValueError(f"labels of rows that count must {rule}")
    numbers = np.unique(given[3][kept], return_inverse=True)[1].astype(np.int64)
    return Rows(values, labels, weights, numbers)


class Order(NamedTuple):
    """Which pairs of a positive and a negative row the scores order rightly.

    Sorting does not depend on weights; with it done, every new set of weights takes O(N).

    Attributes:
      positives: [P] rows, by ascending score.
      negatives: [M] rows, by ascending score.
      below: [P] how many of `negatives` have a lower score than the positive.
      upto: [P] how many have a lower score or the same.
    """

    positives: np.ndarray
    negatives: np.ndarray
    below: np.ndarray
    upto: np.ndarray


def order_pairs(scores: np.ndarray, positive: np.ndarray, negative: np.ndarray) -> Order:
    """Sorts the rows that can be positive and those that can be negative, masks [N]."""
    positives, negatives = np.flatnonzero(positive), np.flatnonzero(negative)
    # Sorted positives meet the sorted negatives in order, which is several times faster.
    positives = positives[np.argsort(scores[positives])]
    negatives = negatives[np.argsort(scores[negatives])]
    wanted, ranked = scores[positives], scores[negatives]
    below, upto = (np.searchsorted(ranked, wanted, side) for side in ("left", "right"))
    return Order(positives, negatives, below, upto)


def won_pairs(order: Order, positive: np.ndarray, negative: np.ndarray) -> tuple[float, float]:
    """Returns (weight of the pairs in the right order, ties half; weight of all pairs).

    Args:
      order: of the rows.
      positive: [P] the weights of `order.positives`.
      negative: [M] the weights of `order.negatives`.
    """
    below = np.concatenate([[0.0], np.cumsum(negative)])
    # A sum and not a dot product: that starts threads, which costs more than it gains here.
    won = np.sum(positive * (below[order.below] + below[order.upto])) / 2
    return float(won), float(positive.sum() * below[-1])


class _Ties(NamedTuple):
    """Runs of equal scores within a user, user after user, each user's by ascending score.

    Attributes:
      positive: [K] weight of a run's positives.
      negative: [K] weight of a run's negatives.
      rows: [K] number of a run's rows.
      first: [U] the users' first runs.
    """

    positive: np.ndarray
    negative: np.ndarray
    rows: np.ndarray
    first: np.ndarray

    def total(self, values: np.ndarray) -> np.ndarray:
        """Sums values [K] over each user's runs; [U]."""
        return np.add.reduceat(values, self.first)

    def before(self, values: np.ndarray) -> np.ndarray:
        """Sums values [K] over the runs of the same user before each; [K]."""
        sums = np.cumsum(values) - values
        return sums - np.repeat(sums[self.first], np.diff(self.first, append=len(values)))


def _ties(scores: np.ndarray, rows: Rows) -> _Ties:
    order = np.lexsort((scores, rows.groups))
    groups, scores = rows.groups[order], scores[order]
    positive = (rows.weights * rows.labels)[order]
    negative = (rows.weights * (1 - rows.labels))[order]
    new_group = np.concatenate([[True], groups[1:] != groups[:-1]])
    new_run = new_group | np.concatenate([[True], scores[1:] != scores[:-1]])
    runs = np.flatnonzero(new_run)
    return _Ties(
        positive=np.add.reduceat(positive, runs),
        negative=np.add.reduceat(negative, runs),
        rows=np.diff(runs, append=len(scores)),
        first=np.flatnonzero(new_group[runs]),
    )


def _group_mean(
    own: np.ndarray, share: np.ndarray, used: np.ndarray, ties: _Ties, rows: Rows
) -> GroupMean:
    """Averages the values `own` of the users of the mask `used` [U], weighted by `share`."""
    value = NAN if np.isnan(rows.scores).any() else _divide(float(own @ share), float(share.sum()))
    counted = int(ties.total(ties.rows)[used].sum())
    return GroupMean(value, int(used.sum()), len(used), counted)


def _divide(part: float, whole: float) -> float:
    return float(part / whole) if whole > 0 else NAN

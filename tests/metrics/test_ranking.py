"""Against pair counts, loops over users and all orders of ties; scikit-learn's as fixed numbers."""

from __future__ import annotations

import itertools
import json
import math
import pathlib

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from mtl_jax.metrics.ranking import auc, bayes_auc, expected_auc, gauc, ndcg

GOLDEN = json.loads((pathlib.Path(__file__).parent / "golden" / "ranking_golden.json").read_text())[
    "cases"
]

# Few scores make many ties; score, label, group, weight.
ROWS = st.lists(
    st.tuples(
        st.sampled_from([-np.inf, -1.5, -0.0, 0.0, 0.25, 3.0]),
        st.booleans(),
        st.integers(-2, 2),
        st.sampled_from([0.0, 0.5, 1.0, 2.25]),
    ),
    max_size=14,
)
seeds = st.integers(0, 10**6)


def columns(rows) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    scores, labels, groups, weights = (np.asarray([row[i] for row in rows]) for i in range(4))
    return scores.astype(float), labels.astype(int), groups.astype(int), weights.astype(float)


def pair_auc(scores, positive, negative, itself: bool = True) -> float:
    """Every pair of a positive and a negative mass, one by one."""
    won = pairs = 0.0
    for i, j in itertools.product(range(len(scores)), repeat=2):
        if i == j and not itself:
            continue
        pair = positive[i] * negative[j]
        pairs += pair
        won += pair * ((scores[i] > scores[j]) + (scores[i] == scores[j]) / 2)
    return won / pairs if pairs > 0 else math.nan


def close(value: float, **kwargs):
    return pytest.approx(value, nan_ok=True, rel=1e-12, abs=1e-14, **kwargs)


@hypothesis.given(ROWS)
def test_auc_counts_weighted_pairs(rows):
    scores, labels, _, weights = columns(rows)
    assert auc(scores, labels) == close(pair_auc(scores, labels, 1 - labels))
    expected = pair_auc(scores, weights * labels, weights * (1 - labels))
    assert auc(scores, labels, weights) == close(expected)


@hypothesis.given(ROWS)
def test_auc_is_symmetric_and_invariant(rows):
    scores, labels, _, weights = columns(rows)
    value = auc(scores, labels, weights)
    assert auc(np.arctan(scores) * 7 - 2, labels, weights) == close(value)
    assert auc(-scores, labels, weights) == close(1 - value)
    assert auc(scores, 1 - labels, weights) == close(1 - value)
    assert auc(scores[::-1], labels[::-1], weights[::-1]) == close(value)


def test_integer_weights_repeat_rows():
    rng = np.random.default_rng(0)
    scores, labels, times = rng.integers(0, 9, 80), rng.integers(0, 2, 80), rng.integers(0, 4, 80)
    repeated = np.repeat(scores, times), np.repeat(labels, times)
    assert auc(scores, labels, times) == close(auc(*repeated))
    groups = rng.integers(0, 7, 80)
    assert gauc(scores, labels, groups, times).value == close(
        gauc(*repeated, np.repeat(groups, times)).value
    )


@pytest.mark.parametrize("labels", [[], [0, 0, 0], [1, 1]])
def test_a_missing_class_is_nan_and_not_half(labels):
    scores = np.arange(len(labels), dtype=float)
    assert math.isnan(auc(scores, labels))
    assert math.isnan(bayes_auc(labels))
    found = gauc(scores, labels, np.zeros(len(labels), int))
    assert math.isnan(found.value)
    assert found[1:] == (0, min(len(labels), 1), 0)


def test_nan_scores_are_not_hidden_unless_they_do_not_count():
    scores, labels, groups = np.asarray([0.1, np.nan, 0.7, 0.2]), np.asarray([0, 1, 1, 0]), [5] * 4
    for value in (
        auc(scores, labels),
        expected_auc(scores, labels),
        gauc(scores, labels, groups).value,
        ndcg(scores, labels, groups, 2).value,
    ):
        assert math.isnan(value)
    mask = [1, 0, 1, 1]
    assert auc(scores, labels, mask) == 1
    assert expected_auc(scores, labels, mask) == 1
    assert gauc(scores, labels, groups, mask).value == 1
    assert ndcg(scores, labels, groups, 2, mask).value == 1


def test_labels_of_rows_that_do_not_count_may_be_anything():
    assert auc([1.0, 2.0, 3.0], [0, 1, np.nan], [1, 1, 0]) == 1
    assert auc([1.0, 2.0, 3.0], [0, 1, -1], [True, True, False]) == 1


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.int32, np.uint8, bool])
def test_score_types_keep_their_order(dtype):
    scores = np.asarray([0, 1, 1, 0, 1], dtype)
    labels, groups = np.asarray([0, 1, 0, 1, 1]), np.zeros(5, int)
    assert auc(scores, labels) == close(pair_auc(scores, labels, 1 - labels))
    exact = ndcg(scores.astype(float), labels, groups, 3).value
    assert ndcg(scores, labels, groups, 3).value == close(exact)


@hypothesis.given(seeds, st.integers(1, 9))
def test_expected_auc_is_the_ratio_over_all_possible_labels(seed, n):
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, 4, n).astype(float)
    truth, weights = rng.uniform(0, 1, n), rng.uniform(0.2, 2, n)
    truth[rng.random(n) < 0.2] = rng.integers(0, 2)
    won = pairs = 0.0
    for labels in itertools.product((0, 1), repeat=n):
        y = np.asarray(labels)
        chance = np.prod(np.where(y == 1, truth, 1 - truth))
        both = weights[y == 1].sum() * weights[y == 0].sum()
        if both and chance:
            pairs += chance * both
            won += chance * both * auc(scores, y, weights)
    expected = won / pairs if pairs else math.nan
    assert expected_auc(scores, truth, weights) == pytest.approx(expected, nan_ok=True, rel=1e-9)


@hypothesis.given(ROWS)
def test_expected_auc_of_certain_labels_is_the_auc(rows):
    scores, labels, _, weights = columns(rows)
    assert expected_auc(scores, labels, weights) == close(auc(scores, labels, weights))


@hypothesis.given(seeds)
def test_no_scores_beat_the_truth(seed):
    rng = np.random.default_rng(seed)
    truth, weights = rng.uniform(0, 1, 12).round(1), rng.uniform(0, 2, 12)
    best = bayes_auc(truth, weights)
    assert best == close(expected_auc(5 * truth - 1, truth, weights))
    for scores in (rng.normal(size=12), truth + rng.normal(size=12) / 9, truth.round(), -truth):
        assert expected_auc(scores, truth, weights) <= best + 1e-12


def test_bayes_auc_is_the_mean_auc_of_drawn_labels():
    rng = np.random.default_rng(1)
    truth = rng.beta(0.5, 8, 3000)
    drawn = [auc(truth, rng.random(3000) < truth) for _ in range(200)]
    error = np.std(drawn) / math.sqrt(200)
    assert error < 2e-3
    assert abs(bayes_auc(truth) - np.mean(drawn)) < 4 * error
    assert bayes_auc(np.full(50, 0.3)) == close(0.5)


@hypothesis.given(ROWS, st.sampled_from(["impressions", "positives"]))
def test_gauc_equals_a_loop_over_users(rows, weigh_by):
    scores, labels, groups, weights = columns(rows)
    kept = weights > 0
    values, shares, counted = [], [], 0
    for user in np.unique(groups[kept]):
        own = kept & (groups == user)
        value = pair_auc(scores[own], (weights * labels)[own], (weights * (1 - labels))[own])
        if not math.isnan(value):
            values.append(value)
            shares.append((weights * labels if weigh_by == "positives" else weights)[own].sum())
            counted += own.sum()
    got = gauc(scores, labels, groups, weights, weigh_by)
    expected = np.average(values, weights=shares) if values else math.nan
    assert got == (close(expected), len(values), len(np.unique(groups[kept])), counted)


def test_gauc_ignores_what_is_constant_within_users():
    rng = np.random.default_rng(2)
    groups, labels = rng.integers(0, 40, 900), rng.integers(0, 2, 900)
    scores = rng.integers(0, 9, 900)
    shifted = scores + 50 * (groups % 7)
    assert gauc(shifted, labels, groups) == gauc(scores, labels, groups)
    assert abs(auc(shifted, labels) - auc(scores, labels)) > 1e-3
    names = np.asarray([f"user {group}" for group in groups])
    assert gauc(scores, labels, names) == pytest.approx(gauc(scores, labels, groups), rel=1e-12)


def test_gauc_of_constant_scores_is_half():
    labels, groups = np.asarray([0, 1, 1, 0, 1, 1]), np.asarray([0, 0, 0, 1, 1, 2])
    assert gauc(np.zeros(6), labels, groups) == (0.5, 2, 3, 5)


def brute_ndcg(scores, labels, k: int) -> float:
    """The mean over all orders of the rows that agree with the scores."""
    gains = [1 / math.log2(r + 2) if r < k else 0.0 for r in range(len(scores))]
    found = [
        sum(gain for gain, row in zip(gains, order, strict=True) if labels[row])
        for order in itertools.permutations(range(len(scores)))
        if all(scores[a] >= scores[b] for a, b in itertools.pairwise(order))
    ]
    return float(np.mean(found)) / sum(gains[: int(sum(labels))])


@hypothesis.given(seeds, st.integers(1, 7))
def test_ndcg_is_the_mean_over_all_orders_of_ties(seed, k):
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 6, 4)
    groups = rng.permutation(np.repeat([7, -1, 3, 0], sizes))
    n = len(groups)
    scores, labels = rng.integers(0, 3, n).astype(float), (rng.random(n) < 0.4).astype(int)
    values, counted = [], 0
    for user in np.unique(groups):
        own = groups == user
        if labels[own].any():
            values.append(brute_ndcg(scores[own], labels[own], k))
            counted += own.sum()
    got = ndcg(scores, labels, groups, k)
    assert got == (close(np.mean(values) if values else math.nan), len(values), 4, counted)


def test_ndcg_leaves_out_masked_rows_and_ranks_the_rest():
    scores, labels = np.asarray([9.0, 3.0, 2.0, 1.0]), np.asarray([0, 0, 1, 0])
    groups = np.zeros(4, int)
    assert ndcg(scores, labels, groups, 4).value == close(1 / math.log2(4))
    assert ndcg(scores, labels, groups, 4, [0.0, 2.5, 0.1, 1.0]).value == close(1 / math.log2(3))
    assert ndcg(scores, labels, groups, 2).value == 0
    assert ndcg(scores, labels, groups, 4, np.zeros(4)) == (close(math.nan), 0, 0, 0)


@pytest.mark.parametrize("case", GOLDEN, ids=range(len(GOLDEN)))
def test_equals_scikit_learn(case):
    scores, labels, groups = (np.asarray(case[name]) for name in ("logits", "labels", "groups"))
    assert auc(scores, labels) == close(case["auc"])
    assert auc(scores, labels, case["weights"]) == close(case["weighted_auc"])
    users, sizes = np.unique(groups, return_counts=True)
    assert len(users) == len(case["user_auc"])
    own = [(value, size) for value, size in zip(case["user_auc"], sizes, strict=True) if value]
    expected = sum(value * size for value, size in own) / sum(size for _, size in own)
    assert gauc(scores, labels, groups)[:2] == (close(expected), len(own))
    for k, value in case["ndcg"].items():
        got = ndcg(scores, labels, groups, int(k))
        assert (got.value, got.groups_used) == (close(value), case["ndcg_users"])


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match=r"all be \[N\], found \(3,\), \(2,\)"):
        auc([1.0, 2.0, 3.0], [0, 1])
    with pytest.raises(ValueError, match=r"\[N\]"):
        auc([[1.0, 2.0]], [[0, 1]])
    with pytest.raises(ValueError, match="negative number or NaN"):
        auc([1.0, 2.0], [0, 1], [1, -1])
    with pytest.raises(ValueError, match="negative number or NaN"):
        auc([1.0, 2.0], [0, 1], [1, np.nan])
    with pytest.raises(ValueError, match="must be 0 or 1"):
        auc([1.0, 2.0], [0, 2])
    with pytest.raises(ValueError, match="must be 0 or 1"):
        gauc([1.0, 2.0], [0, np.nan], [0, 0])
    with pytest.raises(ValueError, match="probabilities"):
        bayes_auc([0.5, 1.5])
    with pytest.raises(ValueError, match="weigh_by is 'users'"):
        gauc([1.0], [1], [0], weigh_by="users")  # pyrefly: ignore
    with pytest.raises(ValueError, match="k is 0"):
        ndcg([1.0], [1], [0], 0)

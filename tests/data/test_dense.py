import numpy as np
import pytest

from mtl_jax.data.dense_files import load_dense
from mtl_jax.errors import UserError


@pytest.mark.parametrize("name", ["nyuv2", "cityscapes"])
def test_records_are_the_files(dense_dir, tmp_path, name):
    folder = dense_dir(name)
    for split, part, count in (("train", "train", 5), ("test", "val", 3)):
        source = load_dense(name, split, tmp_path / "sets", folder)
        assert len(source) == count
        for i in range(count):
            record = source[i]
            for field in ("image", "depth", *(["normal"] if name == "nyuv2" else [])):
                want = np.load(folder / part / field / f"{i}.npy").astype(np.float32)
                np.testing.assert_array_equal(record[field], want)
                assert record[field].dtype == np.float32
            label = "label" if name == "nyuv2" else "label_7"
            want = np.load(folder / part / label / f"{i}.npy")
            np.testing.assert_array_equal(record["label"], want)
            assert record["label"].dtype == np.int32
            assert record["label"].min() == -1
            assert set(record) == {"image", "depth", "label"} | (
                {"normal"} if name == "nyuv2" else set()
            )


def test_cityscapes_label_folder_without_a_number(dense_dir, tmp_path):
    folder = dense_dir("cityscapes")
    for part in ("train", "val"):
        (folder / part / "label_7").rename(folder / part / "label")
    assert len(load_dense("cityscapes", "test", tmp_path / "sets", folder)) == 3


def test_held_out_images_leave_the_training_split(dense_dir, tmp_path):
    folder = dense_dir("nyuv2")

    def load(split, **options):
        source = load_dense("nyuv2", split, tmp_path / "sets", folder, **options)
        return {source[i]["image"].tobytes() for i in range(len(source))}

    everything = load("train")
    train, held = load("train", holdout=2), load("validation", holdout=2)
    assert (len(train), len(held)) == (3, 2)
    assert train | held == everything
    assert len(load("test", holdout=2)) == 3
    assert any(load("validation", holdout=2, seed=s) != held for s in (1, 2, 3))


@pytest.mark.parametrize(
    ("split", "holdout", "message"),
    [
        ("validation", 0, "nyuv2 has no validation split; set holdout"),
        ("train", 5, r"cannot hold out 5 of the 5 training records of nyuv2; choose 1\.\.4"),
        ("train", -1, "cannot hold out -1"),
        ("val", 0, "no split 'val'; known: train, validation, test"),
    ],
)
def test_wrong_requests(dense_dir, tmp_path, split, holdout, message):
    folder = dense_dir("nyuv2")
    with pytest.raises(UserError, match=message):
        load_dense("nyuv2", split, tmp_path / "sets", folder, holdout=holdout)


def test_unknown_set(tmp_path):
    with pytest.raises(UserError, match="'celeba' has no label maps; nyuv2 and cityscapes"):
        load_dense("celeba", "train", tmp_path)


def replace(path, change):
    np.save(path, change(np.load(path)))


def with_value(value):
    def change(array):
        array.flat[3] = value
        return array

    return change


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda d: (d / "train/depth/2.npy").unlink(), "train/depth/2.npy: no such file"),
        (lambda d: (d / "train/image/2.npy").unlink(), "train/image/2.npy: no such file"),
        (lambda d: (d / "val/normal").rename(d / "val/n"), "val/normal: no such folder"),
        (
            lambda d: [path.unlink() for path in (d / "val/image").iterdir()],
            "the test split is empty",
        ),
        (
            lambda d: replace(d / "val/label/1.npy", with_value(13)),
            r"val/label/1.npy: label 13.0, expected whole numbers in -1\.\.12",
        ),
        (lambda d: replace(d / "val/label/1.npy", with_value(-2)), "label -2"),
        (lambda d: replace(d / "val/label/1.npy", with_value(0.5)), "label 0.5"),
        (lambda d: replace(d / "train/depth/0.npy", with_value(np.nan)), "depth/0.npy: holds NaN"),
        (lambda d: replace(d / "train/normal/4.npy", with_value(np.inf)), "infinity"),
        (
            lambda d: replace(d / "train/image/3.npy", lambda a: np.moveaxis(a, -1, 0)),
            r"train/image/3.npy: shape \[3, 8, 12\], expected \[8, 12, 3\]",
        ),
        (
            lambda d: replace(d / "train/label/0.npy", lambda a: a[:4]),
            r"label/0.npy: shape \[4, 12\], expected \[8, 12\]",
        ),
        (lambda d: (d / "val/depth/0.npy").write_bytes(b"x"), "depth/0.npy: not a readable array"),
    ],
)
def test_wrong_files_are_named_and_nothing_is_built(dense_dir, tmp_path, damage, message):
    folder = dense_dir("nyuv2")
    damage(folder)
    with pytest.raises(UserError, match=message):
        load_dense("nyuv2", "train", tmp_path / "sets", folder)
    assert list((tmp_path / "sets" / "nyuv2").glob("*")) == []

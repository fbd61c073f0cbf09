import gzip
import io

import numpy as np
import pytest

from mtl_jax.data import raw
from mtl_jax.errors import UserError

X = np.random.default_rng(0).integers(0, 256, (12, 28, 28)).astype(np.uint8)
Y = np.arange(12) % 10


def idx(array):
    header = b"\0\0\x08" + bytes([array.ndim]) + np.array(array.shape, ">i4").tobytes()
    return header + array.astype(np.uint8).tobytes()


def write_idx(folder, packed=True, **replaced):
    folder.mkdir(exist_ok=True)
    arrays = dict(zip(raw.IDX_FILES, (X, Y, X[:4], Y[:4]), strict=True))
    for name, array in arrays.items():
        data = replaced.get(name.split("-")[0] + "_" + name.split("-")[1], idx(array))
        if data is not None:
            path = folder / (f"{name}.gz" if packed else name)
            path.write_bytes(gzip.compress(data) if packed else data)
    return folder


@pytest.mark.parametrize("packed", [True, False])
def test_idx_files_keep_the_official_test_set_last(tmp_path, packed):
    pool = raw.read_idx_pool(write_idx(tmp_path / "mnist", packed), "here")
    assert pool.num_test == 4
    np.testing.assert_array_equal(pool.images, np.concatenate([X, X[:4]]))
    np.testing.assert_array_equal(pool.labels, np.concatenate([Y, Y[:4]]))
    assert pool.labels.dtype == np.int32


@pytest.mark.parametrize(
    ("replaced", "message"),
    [
        ({"t10k_labels": None}, "t10k-labels-idx1-ubyte.gz is missing"),
        ({"train_images": idx(X)[:-1]}, "train-images-idx3-ubyte: 9423 bytes do not match"),
        ({"train_images": idx(X)[:6]}, "do not match its header"),
        ({"train_images": b"<html>"}, "not an idx file"),
        ({"train_images": b""}, "not an idx file"),
        ({"train_labels": idx(Y[:5])}, r"labels of shape \[5\] for 12 images"),
        ({"train_labels": idx(Y + 1)}, r"labels hold 10, expected 0\.\.9"),
        ({"train_images": idx(X[:, :27])}, r"images of shape \[12, 27, 28\]"),
        ({"t10k_images": idx(X[:0]), "t10k_labels": idx(Y[:0])}, "no images"),
    ],
)
def test_broken_idx_files_are_named(tmp_path, replaced, message):
    with pytest.raises(UserError, match=message):
        raw.read_idx_pool(write_idx(tmp_path / "mnist", **replaced), "here")


def test_broken_gzip_is_named(tmp_path):
    folder = write_idx(tmp_path / "mnist")
    path = folder / "train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UserError, match=r"train-images-idx3-ubyte\.gz: damaged gzip"):
        raw.read_idx_pool(folder, "here")


@pytest.mark.parametrize(
    "arrays",
    [
        {"x": X, "y": Y},
        {"x": X.reshape(12, 784), "y": Y.astype(np.uint8)},
        {"x": X[..., None], "y": Y[:, None]},
        {"x": X.astype(np.float64), "y": Y.astype(np.float32)},
    ],
)
def test_npz_forms(tmp_path, arrays):
    np.savez(tmp_path / "mnist.npz", **arrays)
    pool = raw.read_npz_pool(tmp_path / "mnist.npz")
    assert pool.num_test == 0
    assert pool.images.dtype == np.uint8
    np.testing.assert_array_equal(pool.images, X)
    np.testing.assert_array_equal(pool.labels, Y)


def test_npz_with_an_official_test_set(tmp_path):
    np.savez(tmp_path / "m.npz", x_train=X[:8], y_train=Y[:8], x_test=X[8:], y_test=Y[8:])
    pool = raw.read_npz_pool(tmp_path / "m.npz")
    assert pool.num_test == 4
    np.testing.assert_array_equal(pool.images, X)


NAN = np.where(np.arange(12 * 784).reshape(12, 28, 28) == 99, np.nan, X)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": X}, r"holds \['x'\], expected x"),
        ({"x": X[:, :20], "y": Y}, r"images of shape \[12, 20, 28\], expected \[N, 28, 28\]"),
        ({"x": X, "y": Y[:3]}, r"labels of shape \[3\] for 12 images"),
        ({"x": X, "y": Y - 1}, r"labels hold -1, expected 0\.\.9"),
        ({"x": X, "y": Y + 0.5}, "labels hold 0.5, expected whole numbers"),
        ({"x": NAN, "y": Y}, r"pixels hold nan, expected 0\.\.255"),
        ({"x": X.astype(int) + 1, "y": Y}, "pixels hold 256"),
        ({"x": X / 255, "y": Y}, "multiply them by 255"),
        ({"x": X // 255, "y": Y}, "multiply them by 255"),
        ({"x": X.astype(str), "y": Y}, "of type <U3"),
        ({"x": X[:0], "y": Y[:0]}, "no images"),
    ],
)
def test_wrong_npz_values_are_named(tmp_path, arrays, message):
    np.savez(tmp_path / "mnist.npz", **arrays)
    with pytest.raises(UserError, match=message):
        raw.read_npz_pool(tmp_path / "mnist.npz")


def test_unreadable_npz(tmp_path):
    path = tmp_path / "mnist.npz"
    path.write_bytes(b"not a zip file")
    with pytest.raises(UserError, match="not a readable npz"):
        raw.read_npz_pool(path)
    np.savez(path, x=np.array([{}], dtype=object), y=Y)
    with pytest.raises(UserError, match="not a readable npz"):
        raw.read_npz_pool(path)


def test_csv_has_the_label_last():
    text = io.StringIO()
    np.savetxt(text, np.concatenate([X.reshape(12, 784), Y[:, None]], axis=1), "%d", ",")
    pool = raw.read_csv_pool(text.getvalue().encode(), "csv")
    np.testing.assert_array_equal(pool.images, X)
    np.testing.assert_array_equal(pool.labels, Y)

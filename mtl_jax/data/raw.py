"""Reads raw 28x28 image files (idx, npz, csv) and checks every value that later code trusts.

A broken file ends in one `UserError` that names the file, the value found and the rule.
"""

from __future__ import annotations

import dataclasses
import gzip
import io
import zipfile
import zlib
from pathlib import Path

import numpy as np

from mtl_jax.errors import UserError

SIDE = 28
NUM_CLASSES = 10
IDX_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


@dataclasses.dataclass(frozen=True)
class Pool:
    """Source images of one kind, digits or garments.

    Attributes:
      images: [N, 28, 28] uint8.
      labels: [N] int32 in 0..9.
      num_test: how many of the last images are the official test set; 0 where there is none.
      origin: where they came from, for people.
    """

    images: np.ndarray
    labels: np.ndarray
    num_test: int
    origin: str


def make_pool(
    images: np.ndarray, labels: np.ndarray, num_test: int, origin: str, where: str
) -> Pool:
    """Returns a checked `Pool`; `where` names the file in the error of a bad value."""
    images, labels = np.asarray(images), np.asarray(labels)
    if images.ndim == 2 and images.shape[1] == SIDE * SIDE:
        images = images.reshape(-1, SIDE, SIDE)
    if images.ndim == 4 and images.shape[-1] == 1:
        images = images[..., 0]
    if images.ndim != 3 or images.shape[1:] != (SIDE, SIDE):
        raise UserError(f"{where}: images of shape {list(images.shape)}, expected [N, 28, 28]")
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.shape != images.shape[:1]:
        raise UserError(
            f"{where}: labels of shape {list(labels.shape)} for {len(images)} images, "
            "expected one label an image"
        )
    if len(images) == 0:
        raise UserError(f"{where}: no images in it")
    images = _whole_numbers(images, 0, 255, f"{where}: pixels").astype(np.uint8)
    labels = _whole_numbers(labels, 0, NUM_CLASSES - 1, f"{where}: labels").astype(np.int32)
    if images.max() <= 1:
        raise UserError(f"{where}: pixels are in 0..1, expected 0..255; multiply them by 255")
    return Pool(images, labels, num_test, origin)


def _whole_numbers(x: np.ndarray, low: int, high: int, what: str) -> np.ndarray:
    if not (np.issubdtype(x.dtype, np.integer) or np.issubdtype(x.dtype, np.floating)):
        raise UserError(f"{what} are of type {x.dtype}, expected numbers in {low}..{high}")
    if np.issubdtype(x.dtype, np.floating):
        if not np.isfinite(x).all():
            raise UserError(f"{what} hold {x[~np.isfinite(x)][0]}, expected {low}..{high}")
        if x.min() >= 0 and 0 < x.max() <= 1 < high and (x != np.rint(x)).any():
            raise UserError(
                f"{what} are fractions in 0..1, expected {low}..{high}; multiply them by {high}"
            )
        if (x != np.rint(x)).any():
            raise UserError(f"{what} hold {x[x != np.rint(x)][0]}, expected whole numbers")
    if x.min() < low or x.max() > high:
        bad = x.min() if x.min() < low else x.max()
        raise UserError(f"{what} hold {bad}, expected {low}..{high}")
    return x


def read_idx(data: bytes, where: str) -> np.ndarray:
    """Returns the array of an idx file's bytes (uint8, any rank)."""
    if len(data) < 4 or data[:3] != b"\0\0\x08":
        raise UserError(f"{where}: not an idx file of unsigned bytes (it starts {data[:4]!r})")
    rank = data[3]
    shape = np.frombuffer(data, ">i4", count=rank, offset=4) if len(data) >= 4 + 4 * rank else None
    if shape is None or len(data) - 4 - 4 * rank != int(np.prod(shape, dtype=np.int64)):
        raise UserError(
            f"{where}: {len(data)} bytes do not match its header; the file is cut short or damaged"
        )
    return np.frombuffer(data, np.uint8, offset=4 + 4 * rank).reshape(shape)


def unpack(data: bytes, where: str) -> bytes:
    """Returns gzip-packed bytes unpacked."""
    try:
        return gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{where}: damaged gzip file ({error}); fetch it again") from None


def read_file(path: Path) -> bytes:
    """Returns the bytes of a file, unpacked when it ends in .gz."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    return unpack(data, str(path)) if path.suffix == ".gz" else data


def read_idx_pool(folder: Path, origin: str) -> Pool:
    """Returns the pool of the four idx files in `folder`, packed (.gz) or not."""
    files = {}
    for name in IDX_FILES:
        packed, plain = folder / f"{name}.gz", folder / name
        if not (packed.exists() or plain.exists()):
            raise UserError(f"{packed} is missing; all four are needed: {', '.join(IDX_FILES)}")
        files[name] = read_file(packed if packed.exists() else plain)
    return idx_pool(files, origin)


def idx_pool(files: dict[str, bytes], origin: str) -> Pool:
    """Returns the pool of the contents of the four idx files, by name."""
    arrays = [read_idx(files[name], f"{origin}, {name}") for name in IDX_FILES]
    train = make_pool(arrays[0], arrays[1], 0, origin, f"{origin}, training files")
    test = make_pool(arrays[2], arrays[3], 0, origin, f"{origin}, t10k files")
    return _joined(train, test, origin)


def _joined(train: Pool, test: Pool, origin: str) -> Pool:
    images = np.concatenate([train.images, test.images])
    return Pool(images, np.concatenate([train.labels, test.labels]), len(test.images), origin)


def read_npz_pool(path: Path) -> Pool:
    """Returns the pool of an npz: `x`, `y`, or `x_train`, `y_train`, `x_test`, `y_test`."""
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"{path}: not a readable npz of plain arrays ({error})") from None
    if {"x_train", "y_train", "x_test", "y_test"} <= arrays.keys():
        train = make_pool(arrays["x_train"], arrays["y_train"], 0, "", f"{path} (train)")
        test = make_pool(arrays["x_test"], arrays["y_test"], 0, "", f"{path} (test)")
        return _joined(train, test, str(path))
    if {"x", "y"} <= arrays.keys():
        return make_pool(arrays["x"], arrays["y"], 0, str(path), str(path))
    raise UserError(
        f"{path}: holds {sorted(arrays)}, expected x [N, 28, 28] and y [N], "
        "or x_train, y_train, x_test, y_test"
    )


def read_csv_pool(data: bytes, origin: str) -> Pool:
    """Returns the pool of a csv of 784 pixels and the label in each row."""
    table = np.loadtxt(io.BytesIO(data), delimiter=",", dtype=np.int32, ndmin=2)
    return make_pool(table[:, :-1], table[:, -1], 0, origin, origin)

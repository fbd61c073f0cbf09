"""Tiny raw files in their real layout, made here; nothing is fetched and no cache is touched."""

from __future__ import annotations

import importlib.metadata
import shutil
from pathlib import Path

import numpy as np
import pytest

from mtl_jax.data import fetch, sources
from mtl_jax.data.prepare import prepare
from tests import raw_files

NUM_IMAGES = 60


@pytest.fixture(autouse=True)
def _no_network(monkeypatch, tmp_path_factory):
    """No test may use what this machine has installed, the network or the user's cache."""

    def refuse(*args, **kwargs):
        raise fetch.Unavailable("the tests have no network")

    def absent(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setenv("MTL_JAX_DATA", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.setattr(sources.importlib.metadata, "distribution", absent)
    monkeypatch.setattr(sources, "GARMENTS_FOLDER", "nowhere/at/all")
    monkeypatch.setattr(fetch, "run", refuse)
    monkeypatch.setattr(fetch.urllib.request, "urlopen", refuse)


def tiny_pool(seed: int, n: int = NUM_IMAGES) -> tuple[np.ndarray, np.ndarray]:
    """Returns n distinct images and labels; pixel (0, 0) of an image is 10 times its label."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (n, 28, 28)).astype(np.uint8)
    labels = np.arange(n) % 10
    images[:, 0, 0] = 10 * labels
    images[:, 0, 1] = np.arange(n)
    return images, labels


@pytest.fixture(scope="session")
def pools():
    """The raw arrays behind `manual_dir`: {"mnist": (x, y), "fashion_mnist": (x, y)}."""
    return {"mnist": tiny_pool(0), "fashion_mnist": tiny_pool(1)}


@pytest.fixture(scope="session")
def manual_dir(tmp_path_factory, pools) -> Path:
    folder = tmp_path_factory.mktemp("manual")
    for name, (x, y) in pools.items():
        np.savez(folder / f"{name}.npz", x=x, y=y)
    return folder


@pytest.fixture(scope="session")
def _built(tmp_path_factory, manual_dir) -> Path:
    folder = tmp_path_factory.mktemp("sets")
    for name in ("multi_mnist", "multi_fashion_mnist"):
        prepare(name, folder, manual_dir)
    return folder


@pytest.fixture
def sets(_built, tmp_path) -> Path:
    """A data_dir with `multi_mnist` and `multi_fashion_mnist`, free to be damaged."""
    return Path(shutil.copytree(_built, tmp_path / "sets"))


@pytest.fixture
def celeba_dir(tmp_path) -> Path:
    """CelebA's layout: 12 images, 4 of each split; image i has the attributes k with k % 12 = i."""
    return raw_files.write_celeba(tmp_path / "celeba")


@pytest.fixture
def dense_dir(tmp_path):
    """Returns a function that writes MTAN's layout of "nyuv2" or "cityscapes" and its folder."""
    return lambda name: raw_files.write_dense(tmp_path / name, name)

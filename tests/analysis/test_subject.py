"""Batches for an analysis, and small helpers of all its parts."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest

from mtl_jax.analysis import saved, subject
from mtl_jax.errors import UserError
from mtl_jax.reporting.figures import Section
from mtl_jax.systems.base import Data
from tests.reporting.test_landscape import of_rows


def rows_of(n: int, count: int, size: int, seed: int = 0) -> np.ndarray:
    hosts = subject.sampled_batches(of_rows(n, 4), "validation", count, size, seed)
    assert all(host["mask"].all() for host in hosts)
    return np.stack([host["x"] for host in hosts])


def test_examples_are_drawn_without_replacement_and_without_padding():
    found = rows_of(50, 3, 5)
    assert found.shape == (3, 5)
    assert len(np.unique(found)) == 15
    assert found.min() >= 0
    assert found.max() < 50
    np.testing.assert_array_equal(found, rows_of(50, 3, 5))
    assert (found != rows_of(50, 3, 5, seed=1)).any()
    # A sample of a sorted split is not its beginning.
    assert found.max() > 25


def test_small_splits_give_fewer_batches_or_smaller_ones():
    assert rows_of(10, 5, 4).shape == (2, 4)
    assert sorted(rows_of(3, 5, 4).ravel()) == [0, 1, 2]
    with pytest.raises(UserError, match="no examples"):
        subject.sampled_batches(of_rows(0, 4), "validation", 1, 4, 0)


def test_every_example_is_as_likely():
    counts = np.bincount(
        np.concatenate([rows_of(12, 1, 3, seed).ravel() for seed in range(400)]), minlength=12
    )
    # 400 x 3 / 12 = 100 of each; the standard deviation is below 10.
    assert np.abs(counts - 100).max() < 45


def test_training_batches_end_with_the_epoch():
    data = Data({}, lambda step: {"x": step}, lambda split: iter(()), lambda *a: a, 3, ())
    assert [host["x"] for host in subject.training_batches(data, 9)] == [0, 1, 2]


def test_means_leave_out_what_is_not_there():
    values = np.array([[1.0, np.nan, np.nan], [3.0, 5.0, np.nan]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mean, std = subject.mean_over(values), subject.std_over(values)
    np.testing.assert_array_equal(mean, [2.0, 5.0, np.nan])
    np.testing.assert_allclose(std, [np.sqrt(2.0), np.nan, np.nan])
    full = np.random.default_rng(0).normal(size=(6, 2, 3))
    np.testing.assert_allclose(subject.mean_over(full, (0, 1)), full.mean((0, 1)))
    np.testing.assert_allclose(subject.std_over(full), full.std(0, ddof=1))


def test_json_holds_no_nan():
    value = {"a": np.array([1.0, np.nan]), "b": (np.float32(2), float("inf")), "c": np.bool_(True)}
    text = json.dumps(subject.plain(value), allow_nan=False)
    assert json.loads(text) == {"a": [1.0, None], "b": [2.0, None], "c": True}


def test_sections_come_back_for_the_report(tmp_path):
    assert saved.sections(tmp_path) == []
    folder = tmp_path / saved.FOLDER
    folder.mkdir()
    (folder / "gap.png").write_bytes(b"")
    shown = [Section("Gap", "text", [folder / "gap.png", folder / "gone.png"])]
    (folder / saved.FILE).write_text(json.dumps({"sections": saved.as_json(shown)}))
    assert saved.sections(tmp_path) == [Section("Gap", "text", [folder / "gap.png"])]

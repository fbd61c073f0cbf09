"""The base builder of impression sets: parts in, one checked set out."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from mtl_jax.data import impressions_io, manifest, registry
from mtl_jax.data.impression_builder import ImpressionBuilder
from mtl_jax.data.impressions import (
    SPLITS,
    Attribute,
    Column,
    History,
    ImpressionSet,
    check_impressions,
)
from mtl_jax.data.impressions_io import load_impressions, load_vocabularies
from mtl_jax.data.prepare import prepare, verify
from mtl_jax.errors import UserError
from tests.data.recommendation.fixtures import random_part


class ToyImpressions(ImpressionBuilder, skip_registration=True):
    ABOUT = "Random rows."
    made: list[ImpressionSet]

    def parts(self, manual_dir):
        self.sources = ["made by a test"]
        self.vocabularies = {"item": np.array(["a", "b", "c", "d", "e"])}
        yield from self.made


@dataclasses.dataclass(frozen=True)
class ToySpec(registry.DatasetSpec):
    def builder_class(self):
        return ToyImpressions


@pytest.fixture
def toy(monkeypatch):
    """Returns a function that makes the set `toy_impressions` consist of these parts."""
    spec = ToySpec("toy_impressions", "random rows", "nothing")
    monkeypatch.setitem(registry.DATASETS, spec.name, spec)

    def use(*parts):
        monkeypatch.setattr(ToyImpressions, "made", list(parts), raising=False)

    return use


def joined(parts):
    """What the loader must return, put together row by row."""
    rows = {key: [] for key in impressions_io.ROW_ARRAYS}
    histories, counts = [], []
    for split in SPLITS:
        counts.append(0)
        for part in parts:
            for row in part.splits.get(split, []):
                counts[-1] += 1
                for key in rows:
                    rows[key].append(getattr(part, key)[row])
                histories.append(part.histories_of(np.array([row]), 4)[0])
    return {key: np.array(value) for key, value in rows.items()}, np.array(histories), counts


@pytest.mark.parametrize("truth", [False, True])
def test_parts_come_back_as_one_set(toy, tmp_path, monkeypatch, truth):
    monkeypatch.setattr(impressions_io, "BLOCK", 7)
    monkeypatch.setattr(impressions_io, "PIECE", 12)
    parts = [random_part(seed, rows=30 + seed, truth=truth) for seed in range(3)]
    toy(*parts)
    found = load_impressions("toy_impressions", tmp_path)
    rows, histories, counts = joined(parts)
    assert sum(verify("toy_impressions", tmp_path).values()) > len(SPLITS)
    for key, value in rows.items():
        if key not in ("starts", "ends"):
            np.testing.assert_array_equal(getattr(found, key), value, err_msg=key)
            assert getattr(found, key).dtype == impressions_io.ROW_ARRAYS[key]
    np.testing.assert_array_equal(found.histories_of(np.arange(sum(counts)), 4), histories)
    np.testing.assert_array_equal(found.ends - found.starts, rows["ends"] - rows["starts"])
    assert [len(found.splits[split]) for split in SPLITS] == counts
    assert found.columns == parts[0].columns
    assert found.task_names == parts[0].task_names
    np.testing.assert_array_equal(found.attributes[0].ids, parts[0].attributes[0].ids)
    for name in ("ids", "times", "counts"):
        want = np.concatenate([getattr(part.histories[1], name) for part in parts])
        np.testing.assert_array_equal(getattr(found.histories[1], name), want)


def test_the_folder_holds_what_rows_share_and_no_spool(toy, tmp_path):
    parts = [random_part(0), random_part(1)]
    toy(*parts)
    folder = prepare("toy_impressions", tmp_path)
    assert not list(folder.glob("spool*"))
    assert verify("toy_impressions", tmp_path) == {"train": 1, "validation": 1, "test": 1}
    vocabularies, common = load_vocabularies("toy_impressions", tmp_path)
    assert vocabularies["item"].tolist() == list("abcde")
    assert common["sources"] == manifest.read(folder)["sources"] == ["made by a test"]
    assert common["rows"] == {s: sum(len(p.splits[s]) for p in parts) for s in SPLITS}
    own = [(p.labels[p.splits["test"]], p.label_mask[p.splits["test"]]) for p in parts]
    for task in range(2):
        positive = sum((labels * mask)[:, task].sum() for labels, mask in own)
        weight = sum(mask[:, task].sum() for _, mask in own)
        assert common["positive_rates"]["test"][task] == pytest.approx(positive / weight)


def test_a_label_that_is_always_masked_has_no_rate(toy, tmp_path):
    part = random_part(0)
    part.label_mask[:, 1] = 0
    part.labels[:, 1] = np.nan
    toy(part)
    folder = prepare("toy_impressions", tmp_path)
    rates = json.loads((folder / "impressions.json").read_text())["positive_rates"]
    assert rates["train"][1] is None
    assert 0 < rates["train"][0] < 1


def test_an_empty_split_ends_the_build(toy, tmp_path):
    part = random_part(0)
    toy(part._replace(splits={**part.splits, "validation": np.zeros(0, np.int32)}))
    with pytest.raises(UserError, match=r"no row falls into the split validation \(rows: "):
        prepare("toy_impressions", tmp_path)
    assert not list((tmp_path / "toy_impressions").iterdir())


def test_parts_that_do_not_fit_together_are_a_bug(toy, tmp_path):
    other = random_part(1)
    toy(random_part(0), other._replace(task_names=("click", "other")))
    with pytest.raises(ValueError, match="differ in task_names"):
        prepare("toy_impressions", tmp_path)


def test_a_set_without_dense_columns_histories_or_attributes(toy, tmp_path):
    part = random_part(0)
    bare = part._replace(
        item="",
        attributes=(),
        dense_names=(),
        histories=(),
        dense=part.dense[:, :0],
        starts=part.starts[:, :0],
        ends=part.ends[:, :0],
    )
    toy(bare)
    found = load_impressions("toy_impressions", tmp_path)
    assert found.dense.shape == (30, 0)
    assert found.histories_of(np.arange(5), 3).shape == (5, 0, 3)


@pytest.mark.parametrize("size", [0, 1, 5, 10_000])
def test_a_growing_array_is_an_ordinary_npy_file(tmp_path, size):
    values = np.arange(size, dtype=np.int64)
    array = impressions_io.GrowingArray(tmp_path / "a.npy", np.int64)
    for piece in np.array_split(values, 3):
        array.append(piece)
    array.close()
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), values)


def damaged(part, **changes):
    return part._replace(**{key: change(getattr(part, key)) for key, change in changes.items()})


def put(row, column, value):
    def change(array):
        array = array.copy()
        array[row, column] = value
        return array

    return change


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fields": put(0, 1, 7)}, r"column item holds id 7; it must be in 0\.\.6"),
        ({"dense": put(2, 0, np.nan)}, "dense holds NaN"),
        ({"labels": put(3, 0, 0.5)}, "labels must be 0 or 1"),
        ({"label_mask": put(3, 0, -1)}, "negative"),
        ({"label_mask": put(3, 0, np.nan)}, "NaN weight"),
        ({"ends": put(0, 0, 10**6)}, r"history watch: starts and ends must be positions"),
        ({"time": lambda time: np.zeros_like(time)}, "an event at or after the time of its row"),
        ({"group": lambda group: group[:-1]}, r"group is \[29\]; it must be \[30\]"),
        ({"task_names": lambda names: ("click", "click")}, "task names repeat"),
        ({"item": lambda _: "shop"}, "no column is called 'shop'"),
    ],
)
def test_broken_sets_are_refused_in_one_line(changes, message):
    part = random_part(0)
    check_impressions(part, "a set")
    with pytest.raises(UserError, match=message) as caught:
        check_impressions(damaged(part, **changes), "a set")
    assert "\n" not in str(caught.value)


def test_histories_are_the_last_events_padded_in_front():
    column = Column("item", 9, "item")
    history = History(
        "watch", "item", np.array([2, 3, 4, 5], np.int32), np.arange(4), np.ones(4, np.int32)
    )
    empty = np.zeros((2, 0), np.float32)
    found = ImpressionSet(
        name="tiny",
        task_names=("click",),
        columns=(column,),
        item="item",
        attributes=(Attribute("shop", 3, np.ones((9, 1), np.int32)),),
        dense_names=(),
        histories=(history,),
        fields=np.array([[2], [3]], np.int32),
        dense=empty,
        starts=np.array([[0], [1]]),
        ends=np.array([[3], [1]]),
        labels=np.ones((2, 1), np.float32),
        label_mask=np.ones((2, 1), np.float32),
        group=np.zeros(2, np.int32),
        time=np.array([9, 9]),
        splits={split: np.array([0, 1], np.int32) for split in SPLITS},
        truth=empty,
    )
    check_impressions(found, "tiny")
    rows = np.array([0, 1])
    assert found.histories_of(rows, 2).tolist() == [[[3, 4]], [[0, 0]]]
    assert found.histories_of(rows, 5).tolist() == [[[0, 0, 2, 3, 4]], [[0] * 5]]

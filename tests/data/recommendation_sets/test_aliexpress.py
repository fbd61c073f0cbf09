import numpy as np
import pytest

from mtl_jax.data.impression_builder import load_impressions
from mtl_jax.data.recommendation.aliexpress import (
    aliexpress_parts,
    find_folder,
    read_blocks,
    training_statistics,
)
from mtl_jax.errors import UserError
from tests.data.recommendation_sets import samples


def whole(folder, block):
    """All parts put together, {array: rows}, and the split of each row."""
    parts = list(aliexpress_parts(folder, block))
    rows = {
        name: np.concatenate([getattr(part, name) for part in parts])
        for name in ("fields", "dense", "labels", "group")
    }
    where = []
    for part in parts:
        own = np.full(len(part.fields), "", dtype=object)
        for split, chosen in part.splits.items():
            own[chosen] = split
        where.append(own)
    return rows, np.concatenate(where)


def test_blocks_do_not_change_the_set(tmp_path):
    samples.write_aliexpress(tmp_path)
    one, where = whole(tmp_path, 10_000)
    for block in (7, 40):
        other, there = whole(tmp_path, block)
        np.testing.assert_array_equal(where, there)
        for name in ("fields", "labels", "group"):
            np.testing.assert_array_equal(one[name], other[name])
        np.testing.assert_allclose(one["dense"], other["dense"], atol=1e-5)


def test_rows_hold_what_the_files_say(tmp_path):
    written = samples.write_aliexpress(tmp_path)
    rows, where = whole(tmp_path, 50)
    search = written["train"][0] + written["test"][0]
    categories, numbers, labels = (
        np.concatenate([written[side][i] for side in ("train", "test")]) for i in (1, 2, 3)
    )
    train = where == "train"
    assert set(where[:120]) == {"train", "validation"}
    assert set(where[120:]) == {"test"}
    np.testing.assert_array_equal(rows["labels"], labels)
    for i in range(16):
        known = np.unique(categories[train, i]).tolist()
        want = [known.index(v) + 2 if v in known else 1 for v in categories[:, i].tolist()]
        assert rows["fields"][:, i].tolist() == want
    assert (rows["fields"][120:] == 1).any()  # Some values are in the test file only.
    mean, scale = numbers[train].mean(0), numbers[train].std(0)
    scale[5] = 1  # That number is always the same.
    np.testing.assert_allclose(rows["dense"], (numbers - mean) / scale, atol=2e-5)
    # A search is in one split, and has a group of its own.
    for name in set(search[:120]):
        own = np.array([other == name for other in search])
        assert len(set(where[:120][own[:120]])) == 1
        assert len(set(rows["group"][own].tolist())) == 1
    assert len(set(rows["group"].tolist())) == len(set(search))


def test_statistics_do_not_cancel_and_skip_what_is_missing(tmp_path):
    samples.write_aliexpress(tmp_path)
    path = tmp_path / "train.csv"
    lines = path.read_text().splitlines()
    rng = np.random.default_rng(0)
    values = 1e9 + rng.normal(size=120)
    for i in range(120):
        cells = lines[i + 1].split(",")
        cells[17] = f"{values[i]:.9f}"
        cells[18] = "" if i % 3 else cells[18]
        lines[i + 1] = ",".join(cells)
    path.write_text("\n".join(lines) + "\n")
    found = training_statistics(tmp_path, 16)
    blocks = list(read_blocks(path, 16))
    numbers = np.concatenate([block.numbers for block in blocks])
    train = np.concatenate([block.search for block in blocks]) % 10 != 0
    assert found.scale[0] == pytest.approx(values[train].std(), rel=1e-5)
    assert np.isnan(numbers[:, 1]).sum() == 80
    there = train & np.isfinite(numbers[:, 1])
    assert found.mean[1] == pytest.approx(numbers[there, 1].mean())
    rows, _ = whole(tmp_path, 16)
    assert (rows["dense"][:120, 1][np.isnan(numbers[:, 1])] == 0).all()
    assert np.abs(rows["dense"]).max() <= 10


def test_sets_are_prepared_for_each_country(tmp_path):
    samples.write_aliexpress(tmp_path / "raw" / "AliExpress_NL")
    samples.write_aliexpress(tmp_path / "raw" / "AliExpress_ES", seed=1, train=200)
    small = load_impressions("aliexpress", tmp_path / "sets", tmp_path / "raw")
    large = load_impressions("aliexpress/ES", tmp_path / "sets", tmp_path / "raw")
    assert len(small.fields) == 160
    assert len(large.fields) == 240
    assert small.dense.shape == (160, 63)
    assert small.histories == ()
    assert small.item == ""


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda d: (d / "test.csv").unlink(), "no AliExpress in it; give a folder with train.csv"),
        (
            lambda d: samples.edit(d / "train.csv", "categorical_7", "categorical_x"),
            "train.csv: no column 'categorical_7'; it has search_id",
        ),
        (
            lambda d: samples.edit(d / "train.csv", "\nquery", "\nquery,"),
            "train.csv, line 2: 83 cells, expected 82 separated by ','",
        ),
        (
            lambda d: (d / "train.csv").write_text((d / "train.csv").read_text().replace(",", ";")),
            "no column 'search_id'",
        ),
        (lambda d: (d / "train.csv").write_text(""), "train.csv: no column 'search_id'"),
        (
            lambda d: (d / "train.csv").write_text(
                (d / "train.csv").read_text().split("\n")[0] + "\n"
            ),
            "train.csv: no training rows",
        ),
        (lambda d: replace_cell(d, -1, "2"), "test.csv, line 4: conversion is 2, expected 0 or 1"),
        (lambda d: replace_cell(d, -2, ""), "test.csv, line 4: click is nan, expected 0 or 1"),
        (
            lambda d: replace_cell(d, 1, "1.5"),
            "test.csv, line 4: categorical_1 is 1.5, expected a whole number",
        ),
        (
            lambda d: replace_cell(d, 20, "many"),
            "test.csv, line 4: numerical_4 is 'many', expected a number",
        ),
    ],
)
def test_wrong_files_are_named_in_a_line(tmp_path, damage, message):
    samples.write_aliexpress(tmp_path)
    damage(tmp_path)
    with pytest.raises(UserError, match=message) as error:
        list(aliexpress_parts(find_folder(tmp_path, "NL"), 2))
    assert "\n" not in str(error.value)


def replace_cell(folder, place, value):
    lines = (folder / "test.csv").read_text().splitlines()
    cells = lines[3].split(",")
    cells[place] = value
    lines[3] = ",".join(cells)
    (folder / "test.csv").write_text("\n".join(lines) + "\n")

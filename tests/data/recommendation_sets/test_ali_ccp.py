import numpy as np
import pytest

from mtl_jax.data.impression_builder import load_impressions
from mtl_jax.data.recommendation import ali_ccp
from mtl_jax.data.recommendation.ali_ccp import ali_ccp_parts
from mtl_jax.data.recommendation.ali_ccp_lines import BAGS, CONTEXT_FIELDS, ITEM_FIELDS, USER_FIELDS
from mtl_jax.errors import UserError
from tests.data.recommendation_sets import samples

FIELDS = {**USER_FIELDS, **ITEM_FIELDS, **CONTEXT_FIELDS}


def raw_rows(written, split):
    """What the rows of a split should be, as raw values: joined without any sorting."""
    side = "test" if split == "test" else "train"
    rows, common = written[side]
    found = []
    for _, click, bought, key, features in rows:
        held = ali_ccp._hash(key) % 10 == 0
        if (bought and not click) or (side == "train" and held != (split == "validation")):
            continue
        first = {}
        for field, name, _ in common[key] + features:
            first.setdefault(field, str(name))
        bags = tuple(
            tuple(sorted(str(name) for f, name, _ in common[key] if f == field))
            for field in BAGS.values()
        )
        found.append((click, bought, tuple(first.get(f, "") for f in FIELDS.values()), bags))
    return sorted(found)


def decoded_rows(parts, values, split):
    """The rows of a split with ids turned back into raw values."""
    found = []

    def raw(column, i):
        return "" if i == 0 else "?" if i == 1 else str(values[column][i - 2])

    for part in parts:
        for row in part.splits[split]:
            fields = tuple(
                raw(column, i) for column, i in zip(FIELDS, part.fields[row], strict=True)
            )
            bags = tuple(
                tuple(
                    sorted(
                        raw(history.vocabulary, i)
                        for i in history.ids[part.starts[row, s] : part.ends[row, s]]
                    )
                )
                for s, history in enumerate(part.histories)
            )
            click, bought = part.labels[row].astype(int).tolist()
            found.append((click, bought, fields, bags))
    return sorted(found)


def hidden(rows, values):
    """Raw rows with what is not in the vocabularies shown as "?"."""
    known = {column: set(names.tolist()) for column, names in values.items()}

    def show(column, raw):
        return raw if raw == "" or raw in known[column] else "?"

    return sorted(
        (
            click,
            bought,
            tuple(show(c, raw) for c, raw in zip(FIELDS, fields, strict=True)),
            tuple(
                tuple(sorted(show(c, raw) for raw in bag))
                for c, bag in zip(BAGS, bags, strict=True)
            ),
        )
        for click, bought, fields, bags in rows
    )


@pytest.mark.parametrize("shards", [1, 5])
@pytest.mark.parametrize("min_count", [1, 4])
def test_rows_are_the_join_of_both_files(tmp_path, shards, min_count, monkeypatch):
    monkeypatch.setattr(ali_ccp, "_PENDING", 50)  # So that files are written in many pieces.
    written = samples.write_ali_ccp(tmp_path, seed=shards)
    parts, values = ali_ccp_parts(tmp_path, min_count, shards=shards)
    parts = list(parts)
    assert len(parts) == 2 * shards
    for split in ("train", "validation", "test"):
        want = hidden(raw_rows(written, split), values)
        assert len(want) > 5
        assert decoded_rows(parts, values, split) == want


def test_vocabularies_count_training_rows_and_users(tmp_path):
    written = samples.write_ali_ccp(tmp_path)
    for min_count in (1, 6):
        _, values = ali_ccp_parts(tmp_path, min_count)
        rows, common = written["train"]
        kept = {key: f for key, f in common.items() if ali_ccp._hash(key) % 10}
        for column, field in FIELDS.items():
            seen = [str(n) for features in kept.values() for f, n, _ in features if f == field]
            seen += [
                str(n)
                for _, click, bought, key, features in rows
                if key in kept and not (bought and not click)
                for f, n, _ in features
                if f == field
            ]
            if column in BAGS:
                seen += [
                    str(n)
                    for features in kept.values()
                    for f, n, _ in features
                    if f == BAGS[column]
                ]
            names, counts = np.unique(seen, return_counts=True)
            assert set(values[column].tolist()) == set(names[counts >= min_count].tolist())


def test_a_long_bag_keeps_its_greatest_values(tmp_path):
    written = samples.write_ali_ccp(tmp_path)
    whole, values = ali_ccp_parts(tmp_path, 1, shards=1)
    cut, _ = ali_ccp_parts(tmp_path, 1, bag=2, shards=1)
    assert [p.splits["train"].tolist() for p in whole] == [p.splits["train"].tolist() for p in cut]
    part = next(ali_ccp_parts(tmp_path, 1, bag=2, shards=1)[0])
    lengths = part.ends - part.starts
    assert lengths.max() == 2
    best = set()
    for features in written["train"][1].values():
        own = sorted((-value, str(n)) for f, n, value in features if f == BAGS["brand"])[:2]
        best.add(tuple(name for _, name in own))
    s = list(BAGS).index("brand")
    for row in range(0, len(part.fields), 11):
        ids = part.histories[s].ids[part.starts[row, s] : part.ends[row, s]]
        if (ids > 1).all():
            assert tuple(values["brand"][i - 2] for i in ids) in best


def test_bags_have_no_time_and_conversions_imply_clicks(tmp_path):
    samples.write_ali_ccp(tmp_path / "raw")
    found = load_impressions("ali_ccp/all_ids", tmp_path / "sets", tmp_path / "raw")
    for history in found.histories:
        assert len(history.times) == 0
        assert history.vocabulary in BAGS
    assert (found.labels[:, 1] <= found.labels[:, 0]).all()
    assert (found.label_mask == 1).all()
    assert found.labels[:, 1].sum() > 3
    # Users of equal raw id have one group, whichever keys and files they are in.
    groups = {}
    user = [column.name for column in found.columns].index("user")
    for group, i in zip(found.group.tolist(), found.fields[:, user].tolist(), strict=True):
        if i > 1:
            assert groups.setdefault(i, group) == group
    assert len(set(groups.values())) == len(groups)


def test_no_user_of_training_validates(tmp_path):
    samples.write_ali_ccp(tmp_path)
    parts, _ = ali_ccp_parts(tmp_path, 1, shards=3)
    for part in parts:
        streams = [
            {tuple(part.starts[row]) + tuple(part.ends[row]) for row in part.splits[split]}
            for split in ("train", "validation")
        ]
        empty = {key for own in streams for key in own if len(set(key[:4]) | set(key[4:])) < 3}
        assert not (streams[0] & streams[1]) - empty


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda d: (d / "common_features_test.csv").unlink(),
            "common_features_test.csv: no such file; Ali-CCP is sample_skeleton",
        ),
        (
            lambda d: samples.edit(d / "sample_skeleton_train.csv", "\x01", ";"),
            r"sample_skeleton_train.csv, line 1: \d+ features separated by .x01, it says '\d+'",
        ),
        (
            lambda d: samples.edit(d / "sample_skeleton_test.csv", "\x02", ":"),
            r"sample_skeleton_test.csv, line 1: the feature '\S+.* is not field",
        ),
        (
            lambda d: samples.edit(d / "common_features_train.csv", "\x031.0", "\x03one"),
            "common_features_train.csv, line 1: the feature",
        ),
        (
            lambda d: (d / "sample_skeleton_train.csv").write_text("1,2,0,ab,0,\n"),
            "line 1: click is '2', expected 0 or 1",
        ),
        (
            lambda d: (d / "sample_skeleton_train.csv").write_text("1,1,yes,ab,0,\n"),
            "line 1: conversion is 'yes', expected 0 or 1",
        ),
        (
            lambda d: (d / "sample_skeleton_train.csv").write_text("1,1,0\n"),
            "line 1: 3 cells, expected 6",
        ),
        (
            lambda d: (d / "common_features_test.csv").write_text("ab\n"),
            "line 1: 1 cells, expected 3",
        ),
        (
            lambda d: (d / "sample_skeleton_test.csv").write_text("1,1,0,ab,0,\n"),
            "Ali-CCP test: 1 rows of sample_skeleton_test.csv have a key",
        ),
        (
            lambda d: (d / "common_features_train.csv").write_text(""),
            "Ali-CCP train: [0-9]+ rows of sample_skeleton_train.csv have a key",
        ),
    ],
)
def test_wrong_files_are_named_in_a_line(tmp_path, damage, message):
    samples.write_ali_ccp(tmp_path)
    damage(tmp_path)
    with pytest.raises(UserError, match=message) as error:
        list(ali_ccp_parts(tmp_path, 1, shards=2)[0])
    assert "\n" not in str(error.value)


def test_wrong_files_leave_nothing_behind(tmp_path):
    samples.write_ali_ccp(tmp_path / "raw")
    (tmp_path / "raw" / "common_features_test.csv").write_text("ab\n")
    with pytest.raises(UserError, match="expected 3"):
        load_impressions("ali_ccp", tmp_path / "sets", tmp_path / "raw")
    left = [path.name for path in (tmp_path / "sets" / "ali_ccp").rglob("*") if path.is_file()]
    assert left in ([], ["metadata.json"])  # TFDS keeps a list of configs.
    with pytest.raises(UserError, match="built from your own copy"):
        load_impressions("ali_ccp", tmp_path / "sets")

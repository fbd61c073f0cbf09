import hashlib

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from mtl_jax.data.impression_builder import load_impressions
from mtl_jax.data.recommendation import movielens_files
from mtl_jax.data.recommendation.movielens import (
    AGE_EDGES,
    BEHAVIOURS,
    CONFIGS,
    movielens_impressions,
)
from mtl_jax.data.recommendation.movielens_files import (
    Ratings,
    find_movielens100k,
    original_1m,
)
from mtl_jax.errors import UserError
from tests.data.recommendation_sets import samples

KEPT = {"watch": lambda r: r > 0, "like": lambda r: r >= 4, "dislike": lambda r: r <= 2}


def as_ratings(table) -> Ratings:
    user, item, rating, time = table["events"].T.astype(np.int64)
    people = {u: (*person[:3], person[3][:1]) for u, person in table["people"].items()}
    return Ratings("toy", user, item, rating, time, people, table["films"])


def rows_of(table):
    """The events in the order of the set: by user and time, ties as in the file."""
    events = table["events"]
    return events[np.lexsort((events[:, 3], events[:, 0]))]


@pytest.mark.parametrize("config", CONFIGS)
@given(seed=st.integers(0, 10_000), users=st.integers(1, 5), rows=st.integers(25, 60))
@settings(max_examples=15, deadline=None)
def test_histories_are_what_the_user_did_strictly_earlier(config, seed, users, rows):
    table = samples.rating_table(seed, users, 40, rows)
    try:
        found, values = movielens_impressions(as_ratings(table), *CONFIGS[config])
    except UserError:
        assume(False)  # A log so short that a split is empty.
    events = rows_of(table)
    user, item, rating, time = events.T
    train = np.zeros(len(events), bool)
    train[found.splits["train"]] = True
    ids = {raw: i + 2 for i, raw in enumerate(values["item"].tolist())}
    for s, behaviour in enumerate(BEHAVIOURS):
        history = found.histories[s]
        for i in range(len(events)):
            wanted = (user == user[i]) & (time < time[i]) & KEPT[behaviour](rating)
            if config == "frozen":
                wanted &= train
            read = slice(found.starts[i, s], found.ends[i, s])
            np.testing.assert_array_equal(history.times[read], time[wanted])
            assert history.ids[read].tolist() == [ids.get(j, 1) for j in item[wanted].tolist()]


@given(seed=st.integers(0, 10_000))
@settings(max_examples=15, deadline=None)
def test_no_second_of_a_user_is_in_two_splits_and_later_splits_are_later(seed):
    table = samples.rating_table(seed, 4, 40, 80)
    found, _ = movielens_impressions(as_ratings(table))
    part = np.empty(len(found.time), int)
    for p, rows in enumerate(found.splits.values()):
        part[rows] = p
    for user in range(4):
        own = found.group == user
        assert (np.diff(part[own]) >= 0).all()  # Rows are sorted by time.
        for second in np.unique(found.time[own]):
            assert len(np.unique(part[own & (found.time == second)])) == 1
        # The cut is at the row that is eight tenths in, or at the start of its second.
        cut = found.time[own][int(own.sum()) * 8 // 10]
        np.testing.assert_array_equal(part[own] > 0, found.time[own] >= cut)


@given(seed=st.integers(0, 10_000))
@settings(max_examples=15, deadline=None)
def test_what_happens_later_changes_no_earlier_row(seed):
    table = samples.rating_table(seed, 3, 30, 60)
    before, _ = movielens_impressions(as_ratings(table))
    changed = {**table, "events": table["events"].copy()}
    last = changed["events"][:, 3].max()
    late = changed["events"][:, 3] >= np.median(changed["events"][:, 3])
    changed["events"][late, 2] = 6 - changed["events"][late, 2]
    after, _ = movielens_impressions(as_ratings(changed))
    early = np.flatnonzero(before.time <= np.median(before.time))
    assert len(early)
    assert last > before.time[early].max()
    np.testing.assert_array_equal(before.histories_of(early, 30), after.histories_of(early, 30))
    np.testing.assert_array_equal(before.fields, after.fields)
    assert (before.labels != after.labels).any()


def test_labels_fields_and_vocabularies(tmp_path):
    table = samples.rating_table(1, 6, 40, 150)
    found, values = movielens_impressions(as_ratings(table))
    events = rows_of(table)
    rating = events[:, 2]
    want = np.stack([rating >= 4, rating == 5, rating <= 2], 1)
    np.testing.assert_array_equal(found.labels, want)
    names = [column.name for column in found.columns]
    assert names == ["user", "item", "age", "gender", "occupation", "zip", "hour", "weekday"]
    train = found.splits["train"]
    for f, column in enumerate(found.columns):
        assert column.size == len(values[column.name]) + 2
        assert set(found.fields[train, f]) == set(range(2, column.size))
    for i, event in enumerate(events.tolist()):
        age, gender, job, code = table["people"][event[0]]
        raw = {
            "user": event[0],
            "item": event[1],
            "age": sum(age >= edge for edge in AGE_EDGES),
            "gender": gender,
            "occupation": job,
            "zip": code[0] if code[0].isdigit() else "letter",
            "hour": event[3] % 86400 // 3600,
            "weekday": np.datetime64(event[3], "s").astype("datetime64[s]").item().weekday(),
        }
        for f, name in enumerate(names):
            own = found.fields[i, f]
            known = raw[name] in values[name].tolist()
            assert own == (values[name].tolist().index(raw[name]) + 2 if known else 1)
    unseen = np.flatnonzero(found.fields[:, 1] == 1)
    assert 40 in events[unseen, 1]  # Only rated once, last of all.


def test_attributes_belong_to_items():
    table = samples.rating_table(2, 6, 40, 150)
    found, values = movielens_impressions(as_ratings(table))
    year, genres = found.attributes
    for place, item in enumerate(values["item"].tolist()):
        raw_year, raw_genres = table["films"][item]
        own = [values["year"][i - 2] for i in year.ids[place + 2] if i > 1]
        assert own == ([raw_year] if raw_year else [])
        own = [values["genres"][i - 2] for i in genres.ids[place + 2] if i > 1]
        assert own == raw_genres
    assert year.ids[:2].tolist() == [[0], [1]]
    assert genres.ids[0].sum() == 0
    assert genres.ids.shape[1] == 6


def test_three_layouts_of_one_log_give_one_set(tmp_path):
    table = samples.rating_table(3, 6, 40, 150)
    table["films"] = {i: (y, genres or ["Drama"]) for i, (y, genres) in table["films"].items()}
    found = [
        movielens_impressions(find_movielens100k(samples.write_recbole(tmp_path / "a", table))[0]),
        movielens_impressions(
            find_movielens100k(samples.write_original_100k(tmp_path / "b", table))[0]
        ),
        movielens_impressions(original_1m(samples.write_movielens1m(tmp_path / "c", table))),
        movielens_impressions(as_ratings(table)),
    ]
    for other, _ in found[1:]:
        for name in ("fields", "labels", "starts", "ends", "time"):
            np.testing.assert_array_equal(getattr(found[0][0], name), getattr(other, name))
        for one, two in zip(found[0][0].attributes, other.attributes, strict=True):
            np.testing.assert_array_equal(one.ids, two.ids)


def test_sets_are_prepared_and_read_back(tmp_path):
    table = samples.rating_table(4, 6, 40, 150)
    folder = samples.write_recbole(tmp_path / "raw", table)
    for config in CONFIGS:
        found = load_impressions(f"movielens100k/{config}", tmp_path / "sets", folder)
        want, _ = movielens_impressions(as_ratings(table), *CONFIGS[config])
        order = np.concatenate([want.splits[s] for s in ("train", "validation", "test")])
        np.testing.assert_array_equal(found.fields, want.fields[order])
        np.testing.assert_array_equal(
            found.histories_of(np.arange(len(order)), 9), want.histories_of(order, 9)
        )
    folder = samples.write_movielens1m(tmp_path / "raw1m", table)
    found = load_impressions("movielens1m", tmp_path / "sets", folder)
    assert len(found.fields) == len(table["events"])


def test_the_installed_package_is_read_without_an_import(tmp_path, monkeypatch):
    table = samples.rating_table(5, 6, 40, 150)
    root = samples.write_recbole(tmp_path / "site" / "recbole/dataset_example/ml-100k", table)

    class Installed:
        def locate_file(self, member):
            return tmp_path / "site" / member

    monkeypatch.setattr("importlib.metadata.distribution", lambda name: Installed())
    members = {
        name: member._replace(sha256=hashlib.sha256((root / name).read_bytes()).hexdigest())
        for name, member in movielens_files.SHIPMENT.members.items()
    }
    shipment = movielens_files.SHIPMENT._replace(members=members)
    monkeypatch.setattr(movielens_files, "SHIPMENT", shipment)
    ratings, origin = find_movielens100k(report=lambda line: None)
    assert "installed package" in origin
    np.testing.assert_array_equal(ratings.item, table["events"][:, 1])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda d: (d / "u.user").unlink(), "u.user: no such file"),
        (lambda d: samples.edit(d / "u.data", "\t", ","), "u.data, line 1: 3 cells, expected 4"),
        (lambda d: (d / "u.data").write_text(""), "u.data: no rows"),
        (
            lambda d: (d / "u.data").write_text("1\t2\t7\t880000000\n"),
            "u.data, line 1: the rating is 7, expected 1..5",
        ),
        (
            lambda d: (d / "u.data").write_text("1\t2\tfive\t880000000\n"),
            "line 1: rating is 'five', expected a whole number",
        ),
        (
            lambda d: (d / "u.data").write_text("99\t2\t4\t880000000\n"),
            "u.user: no line for user 99",
        ),
        (
            lambda d: (d / "u.data").write_text("1\t99\t4\t880000000\n"),
            "u.item: no line for item 99",
        ),
        (lambda d: (d / "u.data").write_text("1\t2\t4\t880000000\n"), "leave no row for train"),
        (lambda d: samples.edit(d / "u.item", "|0", ""), "u.item, line 1: 23 cells, expected 24"),
        (
            lambda d: [path.unlink() for path in list(d.iterdir())],
            "no MovieLens-100K in it; give a folder with u.data",
        ),
    ],
)
def test_wrong_files_are_named_in_a_line(tmp_path, damage, message):
    folder = samples.write_original_100k(tmp_path / "raw", samples.rating_table(6))
    damage(folder)
    with pytest.raises(UserError, match=message) as error:
        movielens_impressions(find_movielens100k(folder)[0])
    assert "\n" not in str(error.value)


def test_wrong_header_and_wrong_requests(tmp_path):
    folder = samples.write_recbole(tmp_path / "raw", samples.rating_table(7))
    samples.edit(folder / "ml-100k.inter", "rating:float", "stars:float")
    with pytest.raises(UserError, match=r"ml-100k.inter: no column 'rating'; it has user_id"):
        find_movielens100k(folder)
    with pytest.raises(UserError, match="movielens1m is built from your own copy"):
        original_1m(None)
    ratings = as_ratings(samples.rating_table(8))
    with pytest.raises(UserError, match="unknown split 'time'"):
        movielens_impressions(ratings, "time")
    with pytest.raises(UserError, match="unknown history policy 'freeze'; did you mean 'frozen'"):
        movielens_impressions(ratings, "user", "freeze")


def test_without_files_package_or_network_the_way_out_is_told():
    with pytest.raises(UserError, match=r"not installed.*no network.*Way out.*u.data") as error:
        find_movielens100k(report=lambda line: None)
    assert "\n" not in str(error.value)

"""Rows, labels, histories and vocabularies of logs against a program that looks at every event."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtl_jax.data.event_logs import reading, tables, vocabularies
from mtl_jax.data.event_logs.codes import bucket
from mtl_jax.data.event_logs.loading import load_event_log
from mtl_jax.data.impressions import PAD, SPLITS, UNSEEN, check_impressions
from mtl_jax.data.impressions_io import load_vocabularies
from tests.data.recommendation.fixtures import (
    build,
    log_options,
    random_log,
    slow_rows,
    slow_vocabulary,
    write_log,
)

FEATURES = ("pair", "gap", "user", "item")
SECONDS = {
    "time_unit": "s",
    "tasks": ("buy:click+buy:2h", "saved:any:50-250m", "later:click>=2:0d", "revisit:1-1d"),
    "row_behaviours": ("click",),
    "train": ("60000", "172799"),
    "validation": ("172800", "259199"),
    "test": ("259200", "400000"),
}
BY_USER = {"split": "user", "train": (), "validation": (), "test": ()}
DAYS = {
    "days": {},
    "days, frozen": {"policy": "frozen"},
    "days, rare ids": {"min_count": 8},
    "days, by user": BY_USER,
    "days, by user, frozen": {**BY_USER, "policy": "frozen", "row_behaviours": ("click", "fav")},
    "days, labels known later": {"keep": ("0", "60")},
}


def log_of(case: str, seed: int):
    """A random log and its options without a path."""
    if case in DAYS:
        return random_log(seed), log_options("", **DAYS[case])
    # Few distinct seconds, so that ties are common.
    events = [e._replace(time=e.time * 3000) for e in random_log(seed, events=300, span=120)]
    changes = SECONDS | (BY_USER if "user" in case else {})
    changes |= {"policy": "frozen"} if "frozen" in case else {}
    return events, log_options("", **changes)


CASES = [*DAYS, "seconds", "seconds, frozen", "seconds, by user"]


def built(tmp_path_factory, events, options):
    path = write_log(tmp_path_factory.mktemp("log") / "log.csv", events)
    return build(dataclasses.replace(options, path=str(path)))


def ids(vocabulary, values):
    known = {value: number + 2 for number, value in enumerate(vocabulary)}
    return [known.get(value, UNSEEN) for value in values]


@pytest.mark.parametrize("case", CASES)
@settings(max_examples=8)
@given(seed=st.integers(0, 10**6))
def test_a_set_is_what_the_definitions_say(tmp_path_factory, case, seed):
    events, options = log_of(case, seed)
    found, want = built(tmp_path_factory, events, options), slow_rows(events, options)
    check_impressions(found, case)
    items = slow_vocabulary(events, options, "item")
    users = slow_vocabulary(events, options, "user")
    names = [column.name for column in found.columns]
    column = {name: found.fields[:, number] for number, name in enumerate(names)}
    assert found.time.tolist() == [row.time for row in want]
    assert column["item"].tolist() == ids(items, [row.item for row in want])
    assert column["user"].tolist() == ids(users, [row.user for row in want])
    split = {int(row): name for name in SPLITS for row in found.splits[name]}
    assert [split[row] for row in range(len(want))] == [row.split for row in want]
    np.testing.assert_array_equal(found.labels, [row.labels for row in want])
    np.testing.assert_array_equal(found.label_mask, [row.mask for row in want])
    for s, history in enumerate(found.histories):
        for row, expected in enumerate(want):
            own = slice(found.starts[row, s], found.ends[row, s])
            assert history.times[own].tolist() == [t for t, _, _ in expected.histories[s]]
            assert history.ids[own].tolist() == ids(items, [i for _, i, _ in expected.histories[s]])
            assert history.counts[own].tolist() == [n for _, _, n in expected.histories[s]]
    expected = [row.pair_counts + [row.gap] + row.user_counts + [row.popularity] for row in want]
    np.testing.assert_array_equal(found.fields[:, 2:], 2 + bucket(np.array(expected)))
    assert len(set(zip(found.group.tolist(), [r.user for r in want], strict=True))) == len(
        {r.user for r in want}
    )


@pytest.mark.parametrize("case", ["days", "seconds"])
@settings(max_examples=6)
@given(seed=st.integers(0, 10**6), share=st.floats(0.7, 0.99))
def test_the_future_of_a_row_cannot_change_what_it_sees(tmp_path_factory, case, seed, share):
    events, options = log_of(case, seed)
    whole = built(tmp_path_factory, events, options)
    cut = int(max(e.time for e in events) * share)
    rng = np.random.default_rng(seed)
    changed = [
        e if e.time < cut else e._replace(item=int(rng.integers(90, 99)), behaviour="click")
        for e in events
    ]
    # The end of the log stays known, so that the same labels are masked.
    changed.append(max(events, key=lambda e: e.time))
    other = built(tmp_path_factory, changed, options)

    def inputs(found):
        early = np.flatnonzero(found.time < cut)
        seen = [found.fields[early], found.time[early]]
        return [array.tolist() for array in (*seen, found.histories_of(early, 12))]

    assert cut > int(options.validation[0])  # Else the vocabularies would differ, as they should.
    assert inputs(whole) == inputs(other)


def test_a_frozen_history_ends_with_the_training_window(tmp_path_factory):
    events, options = log_of("days, frozen", 3)
    found = built(tmp_path_factory, events, options)
    assert all(history.times.max() < 20 for history in found.histories)
    rolling = built(tmp_path_factory, events, dataclasses.replace(options, policy="rolling"))
    assert max(history.times.max() for history in rolling.histories) > 27
    train = found.splits["train"]
    np.testing.assert_array_equal(
        found.histories_of(train, 9), rolling.histories_of(rolling.splits["train"], 9)
    )


@pytest.mark.parametrize("split", ["time", "user"])
def test_shards_and_blocks_change_nothing(tmp_path_factory, monkeypatch, split):
    events, options = log_of("days" if split == "time" else "days, by user", 5)
    options = dataclasses.replace(
        options, item_columns=("category",), event_columns=("category",), shards=1
    )
    want = built(tmp_path_factory, events, options)
    monkeypatch.setattr(reading, "BLOCK_BYTES", 500)
    found = built(tmp_path_factory, events, dataclasses.replace(options, shards=5))
    assert_equal(found, want)


def test_statistics_that_are_merged_early_are_the_same(tmp_path_factory, monkeypatch):
    events, options = log_of("days", 6)
    options = dataclasses.replace(options, item_columns=("category",))
    # A category that changes: the earliest counts, whichever shard it is in.
    events = [e._replace(category=e.time % 7) for e in events]
    want = built(tmp_path_factory, events, dataclasses.replace(options, shards=1))
    for item in {e.item for e in events if e.time < 20}:
        own = [e for e in events if e.item == item]
        first = {e.category for e in own if e.time == min(o.time for o in own)}
        items = slow_vocabulary(events, options, "item")
        categories = slow_vocabulary(events, options, "category")
        got = want.attributes[0].ids[ids(items, [item])[0], 0]
        assert [got] == ids(categories, first)
    monkeypatch.setattr(vocabularies, "_PENDING", 3)
    monkeypatch.setattr(tables, "_PENDING", 3)
    found = built(tmp_path_factory, events, dataclasses.replace(options, shards=6))
    assert_equal(found, want)


def assert_equal(found, want):
    for key, value in want._asdict().items():
        own = getattr(found, key)
        if isinstance(value, np.ndarray):
            np.testing.assert_array_equal(own, value, err_msg=key)
        elif key == "splits":
            for split in SPLITS:
                np.testing.assert_array_equal(own[split], value[split], err_msg=split)
        elif key in ("histories", "attributes"):
            for a, b in zip(own, value, strict=True):
                for x, y in zip(a, b, strict=True):
                    np.testing.assert_array_equal(x, y, err_msg=key)
        else:
            assert own == value, key


def test_it_is_prepared_once_for_each_log_and_options(tmp_path, capsys):
    events = random_log(1)
    options = log_options(write_log(tmp_path / "a.csv", events))
    first = load_event_log(options, tmp_path / "sets")
    capsys.readouterr()
    assert_equal(load_event_log(options, tmp_path / "sets"), first)
    assert "building" not in capsys.readouterr().err
    # Another place or number of shards is the same set; another log or option is not.
    moved = dataclasses.replace(options, path=str(write_log(tmp_path / "b.csv", events)), shards=3)
    load_event_log(moved, tmp_path / "sets")
    assert len(list((tmp_path / "sets" / "event_log").iterdir())) == 1
    load_event_log(dataclasses.replace(options, min_count=2), tmp_path / "sets")
    load_event_log(log_options(write_log(tmp_path / "c.csv", events[1:])), tmp_path / "sets")
    assert len(list((tmp_path / "sets" / "event_log").iterdir())) == 3


def test_a_rerun_is_identical(tmp_path):
    options = log_options(write_log(tmp_path / "a.csv", random_log(1)))
    sets = [load_event_log(options, tmp_path / name) for name in ("one", "two")]
    assert_equal(*sets)
    # And it is what was built, in the order of the splits.
    want = build(options)
    order = np.concatenate([want.splits[split] for split in SPLITS])
    np.testing.assert_array_equal(sets[0].fields, want.fields[order])
    rows = np.arange(len(order))
    np.testing.assert_array_equal(sets[0].histories_of(rows, 9), want.histories_of(order, 9))


def test_items_unseen_in_training_keep_the_category_that_they_show(tmp_path_factory):
    events, options = log_of("days", 2)
    events = [e for e in events if e.item != 21 or e.time >= 20]
    options = dataclasses.replace(options, item_columns=("category",), event_columns=("category",))
    found = built(tmp_path_factory, events, options)
    names = [column.name for column in found.columns]
    new = found.fields[:, 1] == UNSEEN
    assert 0 < new.sum() < len(new)
    shown = found.fields[:, names.index("category_shown")]
    assert set(shown[new].tolist()) == {2 + 21 % 3}
    assert found.attributes[0].name == "category"
    np.testing.assert_array_equal(found.attributes[0].ids[found.fields[~new, 1], 0], shown[~new])
    assert found.attributes[0].ids[:2, 0].tolist() == [PAD, UNSEEN]


def test_so_many_users_are_taken(tmp_path_factory):
    events, options = log_of("days", 7)
    whole = built(tmp_path_factory, events, options)
    some = built(tmp_path_factory, events, dataclasses.replace(options, max_users=3, shards=4))
    assert set(some.group.tolist()) == {0, 1, 2}
    own = np.flatnonzero(whole.group < 3)
    np.testing.assert_array_equal(some.time, whole.time[own])
    np.testing.assert_array_equal(some.labels, whole.labels[own])


def test_vocabularies_keep_the_raw_values(tmp_path):
    events = random_log(4)
    options = log_options(write_log(tmp_path / "a.csv", events), min_count=3)
    load_event_log(options, tmp_path / "sets")
    (folder,) = (tmp_path / "sets" / "event_log").iterdir()
    raw, common = load_vocabularies(f"event_log/{folder.name}", tmp_path / "sets")
    assert raw["item"].tolist() == slow_vocabulary(events, options, "item")
    assert raw["user"].tolist() == slow_vocabulary(events, options, "user")
    assert f"{len(events)} events" in common["sources"][0]


def test_cut_days_make_the_pairs_of_the_last_days(tmp_path_factory):
    for seed in range(5):
        events = random_log(seed, events=120)
        options = log_options(
            "",
            rows="cuts",
            lookback=6,
            active=4,
            tasks=("click:0-3d", "saved:fav+cart:0-3d"),
            train=("8", "13"),
            validation=("20",),
            test=("30",),
        )
        found = built(tmp_path_factory, events, options)
        items = slow_vocabulary(
            events, dataclasses.replace(options, validation=("21", "21")), "item"
        )
        want = {}
        for cut in (8, 13, 20, 30):
            active = {e.user for e in events if cut < e.time <= cut + 4}
            pairs = {(e.user, e.item) for e in events if cut - 6 < e.time <= cut}
            for user, item in pairs:
                if user in active:
                    later = [
                        e.behaviour
                        for e in events
                        if (e.user, e.item) == (user, item) and cut < e.time <= cut + 4
                    ]
                    want[user, cut + 1, item] = [
                        float("click" in later),
                        float("fav" in later or "cart" in later),
                    ]
        assert len(found.time) == len(want)
        own = sorted((time, *ids(items, [i]), *labels) for (_, time, i), labels in want.items())
        rows = zip(found.time, found.fields[:, 1], found.labels, strict=True)
        assert sorted((int(t), int(i), *labels.tolist()) for t, i, labels in rows) == own
        assert found.label_mask.all()
        # A cut sees its own day and nothing later.
        some = found.ends[:, 0] > found.starts[:, 0]
        latest = found.histories[0].times[found.ends[some, 0] - 1]
        assert (latest < found.time[some]).all()
        assert (latest == found.time[some] - 1).any()
        assert [len(found.splits[s]) for s in SPLITS] == [
            sum(time - 1 in cuts for _, time, _ in want) for cuts in ((8, 13), (20,), (30,))
        ]

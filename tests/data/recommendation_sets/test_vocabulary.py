import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtl_jax.data.recommendation.draws import Draws
from mtl_jax.data.recommendation.histories import earlier_events
from mtl_jax.data.recommendation.vocabulary import Vocabulary, fit, padded_lists

words = st.lists(st.integers(-5, 5), min_size=1, max_size=30)


@given(seen=words, asked=words, min_count=st.integers(1, 3))
@settings(max_examples=50, deadline=None)
def test_ids_are_places_in_the_sorted_frequent_values(seen, asked, min_count):
    vocabulary = fit("v", np.array(seen), min_count=min_count)
    frequent = sorted(v for v in set(seen) if seen.count(v) >= min_count)
    assert vocabulary.size == len(frequent) + 2
    want = [frequent.index(v) + 2 if v in frequent else 1 for v in asked]
    assert vocabulary.ids(asked).tolist() == want
    assert vocabulary.ids(asked, [False] * len(asked)).tolist() == [0] * len(asked)


def test_strings_of_any_length_and_no_values():
    vocabulary = fit("v", np.array(["b", "abc", ""]), np.array([True, True, False]))
    assert vocabulary.values.tolist() == ["abc", "b"]
    assert vocabulary.ids(np.array([["abc", "abcd"], ["b", ""]])).tolist() == [[2, 1], [3, 1]]
    empty = Vocabulary("v", np.array([], str))
    assert empty.size == 2
    assert empty.ids(np.array(["x"])).tolist() == [1]


def test_lists_are_padded_and_cut():
    found = padded_lists([["a"], [], ["b", "cc", "d"]], 2)
    assert found.tolist() == [["a", ""], ["", ""], ["b", "cc"]]


@given(
    events=st.lists(st.tuples(st.integers(0, 3), st.integers(-(10**12), 10**12)), max_size=20),
    rows=st.lists(st.tuples(st.integers(0, 4), st.integers(-(10**12), 10**12)), max_size=10),
    ties=st.booleans(),
)
@settings(max_examples=80, deadline=None)
def test_earlier_events_are_those_of_the_user_that_are_strictly_earlier(events, rows, ties):
    if ties:  # Rows at the very times of events.
        rows = rows + events
    table = np.array(sorted(events), np.int64).reshape(-1, 2)
    asked = np.array(rows, np.int64).reshape(-1, 2)
    starts, ends = earlier_events(table[:, 0], table[:, 1], asked[:, 0], asked[:, 1])
    for (user, time), start, end in zip(asked.tolist(), starts, ends, strict=True):
        want = np.flatnonzero((table[:, 0] == user) & (table[:, 1] < time))
        np.testing.assert_array_equal(np.arange(start, end), want)


def test_draws_are_uniform_and_the_same_everywhere():
    drawn = Draws(3, 1).uniform(4, 5000)
    assert drawn.min() >= 0
    assert drawn.max() < 1
    assert drawn.mean() == pytest.approx(0.5, abs=0.01)
    counts = np.bincount(Draws(3, 1).integers(7, 70_000), minlength=7)
    assert len(counts) == 7
    assert (abs(counts - 10_000) < 500).all()
    np.testing.assert_array_equal(Draws(3, 1).integers(7, 3, 2), [[5, 5], [5, 0], [2, 1]])
    assert (Draws(3, 1).uniform(8) != Draws(3, 2).uniform(8)).any()

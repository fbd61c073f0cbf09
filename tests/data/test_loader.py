import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtl_jax.data.loader import (
    batch_indices,
    epoch_and_batch,
    eval_batches,
    prefetch,
    steps_per_epoch,
)
from mtl_jax.errors import UserError

sizes = st.tuples(st.integers(1, 5), st.integers(1, 8), st.integers(0, 60))  # part, shards, extra


@given(sizes, st.integers(0, 2**63), st.integers(0, 200))
@settings(max_examples=50, deadline=None)
def test_shards_concatenate_to_the_batch_of_one_host(size, seed, step):
    part, shards, extra = size
    batch, n = part * shards, part * shards + extra
    whole = batch_indices(seed, step, n, batch)
    split = [batch_indices(seed, step, n, batch, k, shards) for k in range(shards)]
    assert whole.dtype == np.int32
    assert all(len(one) == part for one in split)
    np.testing.assert_array_equal(np.concatenate(split), whole)


@given(st.integers(1, 40), st.integers(0, 60), st.integers(0, 9), st.integers(0, 3))
@settings(max_examples=50, deadline=None)
def test_an_epoch_shows_no_example_twice(batch, extra, seed, epoch):
    n = batch + extra
    steps = steps_per_epoch(n, batch)
    assert steps == n // batch
    seen = [batch_indices(seed, epoch * steps + b, n, batch) for b in range(steps)]
    seen = np.concatenate(seen)
    assert len(np.unique(seen)) == steps * batch
    assert seen.min() >= 0
    assert seen.max() < n


def test_a_batch_depends_on_its_arguments_alone():
    forward = [batch_indices(1, step, 100, 10) for step in range(40)]
    for step in (39, 0, 17, 3, 39):  # whatever was asked for before
        np.testing.assert_array_equal(batch_indices(1, step, 100, 10), forward[step])


def test_the_order_is_the_documented_one():
    order = np.random.Generator(np.random.Philox(key=[7, 2])).permutation(20)
    np.testing.assert_array_equal(batch_indices(7, 2 * 4 + 1, 20, 5), order[5:10])


def test_epochs_and_seeds_have_other_orders():
    first = batch_indices(0, 0, 1000, 100)
    assert (first != batch_indices(0, 10, 1000, 100)).any()
    assert (first != batch_indices(1, 0, 1000, 100)).any()


def test_the_kept_order_cannot_be_written_to():
    with pytest.raises(ValueError, match="read-only"):
        batch_indices(0, 0, 10, 5)[0] = 3


def test_epoch_and_batch():
    assert [epoch_and_batch(step, 3) for step in (0, 2, 3, 7)] == [(0, 0), (0, 2), (1, 0), (2, 1)]
    with pytest.raises(ValueError, match="-1"):
        epoch_and_batch(-1, 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 0, 100, 10, 0, 3), "batch size 10 does not divide into 3 shards; choose 9"),
        ((0, 0, 9, 10, 0, 1), "batch size 10 is larger than the 9 training examples"),
        ((0, 0, 100, 0, 0, 1), "batch size 0"),
        ((-1, 0, 100, 10, 0, 1), "seed -1"),
    ],
)
def test_wrong_sizes_are_explained(arguments, message):
    with pytest.raises(UserError, match=message):
        batch_indices(*arguments)


def test_a_shard_out_of_range_is_a_programming_mistake():
    with pytest.raises(ValueError, match="shard 2 of 2"):
        batch_indices(0, 0, 100, 10, 2, 2)


@given(sizes, st.integers(1, 70))
@settings(max_examples=50, deadline=None)
def test_evaluation_sees_every_example_once(size, n):
    part, shards, _ = size
    batch = part * shards
    parts = [list(eval_batches(n, batch, k, shards)) for k in range(shards)]
    assert {len(one) for one in parts} == {-(-n // batch)}
    seen = []
    for one in parts:
        for indices, mask in one:
            assert indices.shape == mask.shape == (part,)
            assert indices.dtype == np.int32
            assert mask.dtype == bool
            assert indices.max() < n  # padding is safe to gather
            seen += indices[mask].tolist()
    assert sorted(seen) == list(range(n))
    whole = list(eval_batches(n, batch))
    for step, (indices, mask) in enumerate(whole):
        np.testing.assert_array_equal(np.concatenate([p[step][0] for p in parts]), indices)
        np.testing.assert_array_equal(np.concatenate([p[step][1] for p in parts]), mask)


def test_evaluation_errors_come_at_the_call():
    with pytest.raises(UserError, match="the split is empty"):
        eval_batches(0, 8)
    with pytest.raises(UserError, match="does not divide"):
        eval_batches(10, 7, 0, 2)


def test_prefetch_keeps_the_order_and_ends():
    items = prefetch(range(50), 3)
    assert list(items) == list(range(50))
    assert list(items) == []


def test_prefetch_passes_exceptions_on_in_their_place():
    def broken():
        yield 1
        yield 2
        raise KeyError("third")

    items = prefetch(broken())
    assert next(items) == 1
    assert next(items) == 2
    with pytest.raises(KeyError, match="third"):
        next(items)
    with pytest.raises(StopIteration):
        next(items)


def test_prefetch_passes_on_that_something_is_no_iterable():
    with pytest.raises(TypeError, match="iterable"):
        next(prefetch(3))


def test_prefetch_runs_ahead_by_its_size_only():
    drawn, enough = [], threading.Event()

    def source():
        for i in range(100):
            drawn.append(i)
            if len(drawn) == 4:
                enough.set()
            yield i

    with prefetch(source(), 3) as items:
        assert enough.wait(10)  # three waiting and one in hand
        assert next(items) == 0
        assert next(items) == 1
        assert len(drawn) <= 2 + 3 + 1


def test_prefetch_close_ends_an_endless_thread_and_its_generator():
    closed = threading.Event()

    def endless():
        try:
            while True:
                yield 0
        finally:
            closed.set()

    items = prefetch(endless(), 2)
    assert next(items) == 0
    items.close()
    items.close()
    assert closed.is_set()
    assert not items._thread.is_alive()
    assert list(items) == []


def test_prefetch_size():
    with pytest.raises(ValueError, match="at least 1"):
        prefetch([], 0)

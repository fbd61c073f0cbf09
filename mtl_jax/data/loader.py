"""Which examples make up the batch of a step: a pure function of (seed, step, shard).

Nothing is remembered between steps, so a resumed run sees the batches of an uninterrupted one, and
the shards of all processes, put one after the other, are the batch of a single process. Training
keeps the floor(n / batch) full batches of an epoch and leaves the rest out; the next epoch's order
is another one. Evaluation leaves nothing out: the last batch is padded and masked.

A numpy permutation and a gather are 50 to 100 times faster than a Python pipeline over small
records.
"""

from __future__ import annotations

import functools
import queue
import threading
from collections.abc import Iterable, Iterator
from typing import Generic, TypeVar

import numpy as np

from mtl_jax.errors import UserError

T = TypeVar("T")


def steps_per_epoch(n: int, batch_size: int) -> int:
    """Returns floor(n / batch_size), the full batches of an epoch over `n` examples."""
    if batch_size < 1:
        raise UserError(f"batch size {batch_size}, at least 1 is needed")
    if n < batch_size:
        raise UserError(
            f"batch size {batch_size} is larger than the {n} training examples; choose at most {n}"
        )
    return n // batch_size


def epoch_and_batch(step: int, steps_per_epoch: int) -> tuple[int, int]:
    """Returns the epoch of global step `step`, and the batch within it, both from 0."""
    if step < 0 or steps_per_epoch < 1:
        raise ValueError(f"step {step} of {steps_per_epoch} steps an epoch")
    return divmod(step, steps_per_epoch)


def batch_indices(
    seed: int, step: int, n: int, batch_size: int, shard: int = 0, shards: int = 1
) -> np.ndarray:
    """Returns which of `n` examples shard `shard` of `shards` trains on at global step `step`.

    Args:
      seed: of the run, 0 .. 2**64 - 1.
      step: global step, from 0.
      n: training examples.
      batch_size: over all shards.
      shard: this process's or device's part.
      shards: number of parts.

    Returns:
      [batch_size // shards] int32, no example twice in an epoch.

    Raises:
      UserError: the batch does not divide into shards, or is larger than `n`.
    """
    part = _part(batch_size, shard, shards)
    epoch, batch = epoch_and_batch(step, steps_per_epoch(n, batch_size))
    start = batch * batch_size + shard * part
    return _permutation(seed, epoch, n)[start : start + part]


@functools.lru_cache(maxsize=64)  # a stratified batch has a stream for each task
def _permutation(seed: int, epoch: int, n: int) -> np.ndarray:
    """Returns the order [n] int32 of one epoch; read-only, for it is shared."""
    if seed < 0:
        raise UserError(f"seed {seed}, it must not be negative")
    key = np.array([seed, epoch], dtype=np.uint64)
    order = np.random.Generator(np.random.Philox(key=key)).permutation(n).astype(np.int32)
    order.setflags(write=False)
    return order


def eval_batches(
    n: int, batch_size: int, shard: int = 0, shards: int = 1
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields (indices [B] int32, mask [B] bool), B = batch_size // shards, over all `n` examples.

    In order, each example once in one shard. Every shard gets ceil(n / batch_size) batches, as a
    collective needs; places beyond `n` hold index 0 and mask False.
    """
    part = _part(batch_size, shard, shards)
    if n < 1:
        raise UserError(f"cannot evaluate on {n} examples; the split is empty")
    starts = range(shard * part, -(-n // batch_size) * batch_size, batch_size)
    return (_masked(np.arange(start, start + part, dtype=np.int32), n) for start in starts)


def _masked(indices: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    mask = indices < n
    return np.where(mask, indices, 0).astype(np.int32), mask


def _part(batch_size: int, shard: int, shards: int) -> int:
    """Returns the examples of one shard, after checking that the three numbers fit."""
    if shards < 1 or not 0 <= shard < shards:
        raise ValueError(f"shard {shard} of {shards}")
    if batch_size < 1:
        raise UserError(f"batch size {batch_size}, at least 1 is needed")
    if batch_size % shards:
        near = max(batch_size // shards, 1) * shards
        raise UserError(
            f"batch size {batch_size} does not divide into {shards} shards; choose {near}, say"
        )
    return batch_size // shards


class Prefetch(Generic[T]):
    """Draws from an iterator in a daemon thread, at most `size` items ahead; see `prefetch`."""

    def __init__(self, items: Iterable[T], size: int):
        if size < 1:
            raise ValueError(f"prefetch size must be at least 1, got {size}")
        # One item, or none and the error, if any, that ended the iterator.
        self._queue: queue.Queue[tuple[list[T], BaseException | None]] = queue.Queue(size)
        self._stop = threading.Event()
        self._thread = threading.Thread(
            target=self._fill, args=(items,), name="prefetch", daemon=True
        )
        self._thread.start()

    def __iter__(self) -> Prefetch[T]:
        return self

    def __next__(self) -> T:
        if self._stop.is_set():
            raise StopIteration
        items, error = self._queue.get()
        if items:
            return items[0]
        self.close()
        raise StopIteration if error is None else error

    def __enter__(self) -> Prefetch[T]:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stops the thread and drops what it had drawn; may be called again."""
        self._stop.set()
        while self._thread.is_alive():
            # Empty the queue until the thread, which may wait for a place in it, has noticed.
            try:
                self._queue.get_nowait()
            except queue.Empty:
                self._thread.join(0.01)

    def _fill(self, items: Iterable[T]) -> None:
        last = None
        try:
            iterator = iter(items)
            try:
                for item in iterator:
                    self._queue.put(([item], None))
                    if self._stop.is_set():
                        break
            finally:
                if hasattr(iterator, "close"):
                    iterator.close()
        except BaseException as error:
            last = error
        self._queue.put(([], last))


def prefetch(items: Iterable[T], size: int = 2) -> Prefetch[T]:
    """Returns an iterator over `items` that is prepared ahead, in a thread of its own.

    An exception of `items` is raised where its item would have come. `close()`, or leaving a
    `with` block, stops the thread, also when `items` never ends; a generator is closed as well.
    """
    return Prefetch(items, size)

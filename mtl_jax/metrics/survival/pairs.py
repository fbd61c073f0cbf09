"""Weighted counts of ordered pairs in O(n log n), exact: on the host, and on the device under jit.

Items stand in an order. Every item i may ask, with weight q_i, about the items j that come before
it, of weight p_j. With `rank` a whole number and `block` a number that never falls along the order:

  comparable   sum over block_j < block_i of q_i p_j
  concordant   those of them with rank_j < rank_i
  tied         those of them with rank_j = rank_i

Items of a block make no pair with each other. They must stand in it by falling rank: then none of
them is before another of higher rank, and the count of concordant pairs needs no correction.

The method takes the bits of the ranks from the highest to the lowest. At every bit, items that
agree in the higher bits form a group, in their first order; an item whose bit is 1 is above the
items before it in its group whose bit is 0, which a running sum counts; then a stable partition
by the bit makes the next groups. A level costs O(n), and there are log2 of the number of distinct
ranks. (The partitions are those of a wavelet matrix, Claude and Navarro 2012; each pair of unequal
ranks is counted at the one bit where they part.) Shapes are fixed, so it compiles; ranks and blocks
do not depend on weights, so under vmap over weights the partitions are computed once.

Exactness. On the host counts are int64. On the device, where int64 and float64 are off by default,
an item's count is int32, and sums over items are kept as eight bytes in a uint32 each, which
`total` puts together on the host; a float32 sum would lose pairs beyond 2^24.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

MAX_QUERIES = 2**24 - 1
"""The greatest sum of integer query weights on the device."""
MAX_POINTS = 2**31 - 1
"""The greatest sum of integer point weights on the device."""
_LIMBS = 8


class PairCounts(NamedTuple):
    """Weights of pairs, see the module.

    Attributes:
      concordant: of equal type all: int or float on the host; on the device float32 [], or for
        integer weights uint32 [8] bytes, lowest first, see `total`.
      tied: likewise.
      comparable: likewise.
    """

    concordant: Any
    tied: Any
    comparable: Any


# --- On the host ---------------------------------------------------------------------------------


def count_pairs(
    rank: np.ndarray, block: np.ndarray, query: np.ndarray, point: np.ndarray
) -> PairCounts:
    """Counts on the host: ints if both weights are of an integer type, else float64.

    Args:
      rank: [n] integers, 0 or more, of the order of n at most; smaller ones are faster.
      block: [n] integers, never falling.
      query: [n] weights, 0 or more; 0 for items that ask nothing.
      point: [n] weights, 0 or more; 0 for items that nobody counts.
    """
    query, point = _exact(query), _exact(point)
    if int(query.sum()) * int(point.sum()) >= 2**63:
        query = query.astype(np.float64)  # as integers the counts could overflow
    exact = query.dtype.kind == "i" and point.dtype.kind == "i"
    convert = int if exact else float
    if not len(rank):
        return PairCounts(convert(0), convert(0), convert(0))
    asked = query != 0
    before = _running(point)
    comparable = _dot(query, _held(before, _changes(block)))
    tied = 0
    if np.bincount(rank).max() > 1:
        order = np.argsort(rank.astype(np.int64) * (int(block[-1]) + 1) + block)
        ranks = _changes(rank[order])
        before = _running(point[order])
        runs = ranks | _changes(block[order])
        tied = _dot(query[order], _held(before, runs) - _held(before, ranks))
    concordant = _concordant(rank.astype(np.int32), query, point, asked)
    return PairCounts(convert(concordant), convert(tied), convert(comparable))


def _concordant(rank: np.ndarray, query: np.ndarray, point: np.ndarray, asked: np.ndarray) -> Any:
    units = point.dtype.kind == "i" and point.min() == point.max() == 1
    alike = query.dtype.kind == "i" and query.max() == 1
    first, found = _changes(np.zeros(len(rank), np.int8)), 0
    for bit in range(int(rank.max()).bit_length() - 1, -1, -1):
        high = (rank >> bit) & 1 != 0
        # Counts of rows fit in int32 and are read faster.
        low = np.cumsum(~high, dtype=np.int32) if units else np.cumsum(np.where(high, 0, point))
        starts = np.flatnonzero(first)
        base = np.where(starts > 0, low[starts - 1], 0).astype(low.dtype)
        asking = high & asked
        below = (low - np.repeat(base, np.diff(starts, append=len(rank))))[asking]
        found += below.sum(dtype=_wide(below)) if alike else _dot(query[asking], below)
        if bit:
            order = np.concatenate([np.flatnonzero(~high), np.flatnonzero(high)])
            rank, asked = rank[order], asked[order]
            point = point if units else point[order]
            query = query if alike else query[order]
            first = _changes(rank >> bit)
    return found


def _exact(weights: np.ndarray) -> np.ndarray:
    return weights.astype(np.int64 if weights.dtype.kind in "biu" else np.float64)


def _wide(values: np.ndarray) -> Any:
    return np.int64 if values.dtype.kind in "biu" else np.float64


def _dot(first: np.ndarray, second: np.ndarray) -> Any:
    # A sum and not a dot product: that starts threads, and is not the same on all machines.
    return np.sum(first * second, dtype=np.result_type(_wide(first), _wide(second)))


def _running(weights: np.ndarray) -> np.ndarray:
    """Sums before each item."""
    sums = np.cumsum(weights)
    return np.concatenate([np.zeros(1, sums.dtype), sums[:-1]])


def _changes(values: np.ndarray) -> np.ndarray:
    """Marks the items whose value is not that of the item before; the first one always."""
    marks = np.ones(len(values), bool)
    np.not_equal(values[1:], values[:-1], out=marks[1:])
    return marks


def _held(values: np.ndarray, marks: np.ndarray) -> np.ndarray:
    """Repeats the values at the marks until the next mark."""
    starts = np.flatnonzero(marks)
    return np.repeat(values[starts], np.diff(starts, append=len(values)))


# --- On the device -------------------------------------------------------------------------------


@jax.jit
def pair_sums(
    rank: jax.Array,
    block: jax.Array,
    query: jax.Array,
    point: jax.Array,
    levels: int | jax.Array | None = None,
) -> PairCounts:
    """Counts on the device, for jit and vmap; arguments as in `count_pairs`.

    Integer and boolean weights give exact counts, if the query weights sum to at most
    `MAX_QUERIES` and the point weights to at most `MAX_POINTS` (not checked: the values are
    traced). Other weights give float32 sums, right to about 1e-5 of the comparable weight.

    Args:
      rank: [n] int32, below 2 ** levels.
      block: [n] int32.
      query: [n].
      point: [n].
      levels: bits of the ranks, which may be traced; by default enough for ranks below n.
    """
    size = rank.shape[0]
    exact = not any(jnp.issubdtype(a.dtype, jnp.floating) for a in (query, point))
    query, point = (a.astype(jnp.int32 if exact else jnp.float32) for a in (query, point))
    none = jnp.zeros(_LIMBS, jnp.uint32) if exact else jnp.zeros((), jnp.float32)
    if size == 0:
        return PairCounts(none, none, none)
    add = _add_limbs if exact else _add_floats
    place = jnp.arange(size, dtype=jnp.int32)
    comparable = add(none, query, _before(point)[_starts(_marks(block))])
    if levels is None:
        levels = max(size - 1, 1).bit_length()

    def level(step: jax.Array, carry: tuple) -> tuple:
        rank, block, start, query, point, found = carry
        high = (rank >> (levels - 1 - step)) & 1
        low = 1 - high
        lower = _before(low)
        lows = lower[-1] + low[-1]
        below = _before(point * low.astype(point.dtype))
        found = add(found, query, (below - below[start]) * high.astype(point.dtype))
        goes = jnp.where(high == 1, lows + place - lower, lower)
        comes = jnp.zeros_like(place).at[goes].set(place, unique_indices=True)
        start = jnp.where(high == 1, lows + start - lower[start], lower[start])
        moved = (a[comes] for a in (rank, block, start, query, point))
        return (*moved, found)

    carry = (rank.astype(jnp.int32), block, jnp.zeros_like(place), query, point, none)
    rank, block, start, query, point, concordant = jax.lax.fori_loop(0, levels, level, carry)
    before = _before(point)
    runs = _starts(_marks(rank) | _marks(block))
    tied = add(none, query, before[runs] - before[start])
    return PairCounts(concordant, tied, comparable)


def subtract_sums(counts: PairCounts, others: PairCounts) -> PairCounts:
    """Takes the pairs `others` away from `counts`, of which they are a part; on the device."""

    def less(one: jax.Array, other: jax.Array) -> jax.Array:
        if not jnp.issubdtype(one.dtype, jnp.unsignedinteger):
            return one - other
        return _carry(one.astype(jnp.int32) - other.astype(jnp.int32)).astype(jnp.uint32)

    return jax.tree.map(less, counts, others)


def as_float(sums: jax.Array) -> jax.Array:
    """A field of `pair_sums` as float32, right to its rounding; on the device."""
    if not jnp.issubdtype(sums.dtype, jnp.unsignedinteger):
        return sums
    scale = jnp.asarray([256.0**k for k in range(_LIMBS)], jnp.float32)
    return jnp.sum(sums.astype(jnp.float32) * scale.reshape((1,) * (sums.ndim - 1) + (-1,)), -1)


def total(sums: Any) -> np.ndarray:
    """A field of `pair_sums` on the host: int64 for exact counts, else float64; a batch stays."""
    sums = np.asarray(sums)
    if sums.dtype != np.uint32:
        return sums.astype(np.float64)
    return np.sum(sums.astype(np.int64) << (8 * np.arange(_LIMBS)), axis=-1)


def _add_floats(found: jax.Array, query: jax.Array, counts: jax.Array) -> jax.Array:
    return found + jnp.sum(query * counts)


def _add_limbs(found: jax.Array, query: jax.Array, counts: jax.Array) -> jax.Array:
    """Adds sum(query * counts) to bytes: each byte of the counts has its own sum below 2^32."""
    counts, query = counts.astype(jnp.uint32), query.astype(jnp.uint32)
    sums = [
        jnp.sum(((counts >> (8 * k)) & 255) * query, dtype=jnp.uint32) for k in range(_LIMBS // 2)
    ]
    return _carry(found + jnp.concatenate([jnp.stack(sums), jnp.zeros(4, jnp.uint32)]))


def _carry(limbs: jax.Array) -> jax.Array:
    """Moves what is beyond a byte to the next; a negative int32 borrows from it."""
    out, over = [], jnp.zeros((), limbs.dtype)
    for k in range(_LIMBS):
        value = limbs[k] + over
        out.append(value & 255)
        over = value >> 8
    return jnp.stack(out)


def _before(values: jax.Array) -> jax.Array:
    return jnp.cumsum(values) - values


def _marks(values: jax.Array) -> jax.Array:
    return jnp.concatenate([jnp.ones(1, bool), values[1:] != values[:-1]])


def _starts(marks: jax.Array) -> jax.Array:
    """The place of the last mark at or before each item."""
    return jax.lax.cummax(jnp.where(marks, jnp.arange(marks.shape[0], dtype=jnp.int32), 0))

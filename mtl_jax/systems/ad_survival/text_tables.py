"""Words and their places in hashed tables, without a download and for any language.

A word has two kinds of rows: one of its own, and one for each of its character n-grams, so that
words of one stem begin alike and Japanese needs no dictionary. Both are found by a hash into a
fixed number of buckets (`Hashing`). Only buckets in use get a row:

    row 0            padding, and the word ""
    row `UNSEEN`     every bucket that no known word uses
    rows 2, 3, ...   buckets in use, by their number

so two words or n-grams share a row exactly if the full table would have made them collide, and the
tables of a set of 2,000 words are thousands of rows, not 2 x 32,768. A row is the same on every
machine and in every process (blake2b of UTF-8).

Case, full-width forms and the like do not matter: all is read as NFKC in lower case.

The scheme is that of fastText (Bojanowski et al., TACL 2017), except that words are hashed too,
n-grams are averaged by themselves, and a word has at most `Hashing.most` of them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from mtl_jax.data.survival.words import normalise, split_words

PAD, UNSEEN, FIRST = 0, 1, 2
# Marks of a word's ends: control characters, which no word holds.
BEGIN, END = "\x02", "\x03"


class Hashing(NamedTuple):
    """How words become buckets.

    Attributes:
      buckets: of words.
      ngram_buckets: of n-grams.
      ngrams: least and greatest number of characters, the marks of a word's ends counted.
      most: n-grams a word; see `ngrams_of`.
    """

    buckets: int = 2**15
    ngram_buckets: int = 2**15
    ngrams: tuple[int, int] = (3, 5)
    most: int = 24


class WordTables(NamedTuple):
    """Rows of V words in the tables of words and of n-grams.

    Attributes:
      word: [V] int32 rows in the table of words.
      ngram: [V, G] int32 rows in the table of n-grams, 0 behind the last; G is the largest count.
      count: [V] int32 n-grams of a word, unseen ones included.
      word_rows: rows of the table of words.
      ngram_rows: rows of the table of n-grams.
      word_buckets: [word_rows - 2] increasing buckets that rows 2, 3, ... stand for.
      ngram_buckets: [ngram_rows - 2], the same for n-grams.
      hashing: see there.
    """

    word: np.ndarray
    ngram: np.ndarray
    count: np.ndarray
    word_rows: int
    ngram_rows: int
    word_buckets: np.ndarray
    ngram_buckets: np.ndarray
    hashing: Hashing


class EncodedTexts(NamedTuple):
    """Texts as places in a list of words.

    Attributes:
      words: [N, L] int32, 0 behind the last word.
      new: words that were not in the list, in the order of their places: the first stands behind
        the last of the list.
      cut: [N] bool, texts that had more than L words.
    """

    words: np.ndarray
    new: tuple[str, ...]
    cut: np.ndarray


def word_tables(
    words: Sequence[str],
    *,
    buckets: int = 2**15,
    ngram_buckets: int = 2**15,
    ngrams: tuple[int, int] = (3, 5),
    most: int = 24,
    known: np.ndarray | None = None,
) -> WordTables:
    """Returns the rows of `words` in tables made for them.

    Args:
      words: V words; "" has no row.
      buckets: see `Hashing`, as are the next three.
      ngram_buckets: see there.
      ngrams: see there.
      most: see there.
      known: [V] bool, the words that get rows; the others are treated as `lookup_words` does. With
        the words of the training rows, rows that no training would reach do not exist; with those
        that occur twice or more, the unseen row is trained by the rare ones. None for all.

    Raises:
      ValueError: a number below 1, or n-grams whose least is above their greatest.
    """
    if min(buckets, ngram_buckets, most, ngrams[0]) < 1 or ngrams[0] > ngrams[1]:
        raise ValueError(
            f"buckets {buckets}, ngram_buckets {ngram_buckets}, ngrams {ngrams}, most {most}; all"
            " must be at least 1, and ngrams (least, greatest)"
        )
    hashing = Hashing(buckets, ngram_buckets, tuple(ngrams), most)
    word, ngram = _buckets(words, hashing)
    rows = np.ones(len(words), bool) if known is None else np.asarray(known, bool)
    if rows.shape != (len(words),):
        raise ValueError(f"known has shape {rows.shape}; it must be ({len(words)},)")
    used = word[rows], ngram[rows]
    word_used, ngram_used = (np.unique(each[each >= 0]) for each in used)
    return _rows(word, ngram, word_used, ngram_used, hashing)


def lookup_words(tables: WordTables, words: Sequence[str]) -> WordTables:
    """Returns the rows of other words in tables that exist already.

    A bucket without a row becomes `UNSEEN`. An n-gram of this kind counts in the mean: the less is
    known of a word, the nearer it is to the unseen row.
    """
    found = _buckets(words, tables.hashing)
    return _rows(*found, tables.word_buckets, tables.ngram_buckets, tables.hashing)


def extend_tables(tables: WordTables, words: Sequence[str]) -> WordTables:
    """Returns `tables` with more words behind its own, by `lookup_words`; no row is added."""
    more = lookup_words(tables, words)
    width = max(tables.ngram.shape[1], more.ngram.shape[1])
    wide = [np.pad(t.ngram, ((0, 0), (0, width - t.ngram.shape[1]))) for t in (tables, more)]
    return tables._replace(
        word=np.concatenate([tables.word, more.word]),
        ngram=np.concatenate(wide),
        count=np.concatenate([tables.count, more.count]),
    )


def ngrams_of(word: str, ngrams: tuple[int, int], most: int) -> list[str]:
    """Returns the character n-grams of a word with marks at its ends, each once.

    Short ones come first. Of the length that would pass `most` those kept are spread evenly from
    the beginning to the end; longer ones are left out.
    """
    if not word:
        return []
    marked, found = BEGIN + word + END, []
    for n in range(ngrams[0], ngrams[1] + 1):
        every = list(dict.fromkeys(marked[k : k + n] for k in range(len(marked) - n + 1)))
        room = most - len(found)
        if len(every) > room:
            kept = np.linspace(0, len(every) - 1, room).round().astype(int)
            return found + [every[k] for k in kept]
        found += every
    return found


def bucket_of(text: str, buckets: int) -> int:
    """Returns the bucket of a text, 0 .. buckets - 1, the same everywhere."""
    # Half a surrogate pair cannot be UTF-8, but may come out of a damaged file.
    encoded = text.encode("utf-8", "surrogatepass")
    digest = hashlib.blake2b(encoded, digest_size=8).digest()
    return int.from_bytes(digest, "little") % buckets


def _buckets(words: Sequence[str], hashing: Hashing) -> tuple[np.ndarray, np.ndarray]:
    """Buckets [V] of words and [V, G] of their n-grams, -1 for none."""
    seen: dict[str, int] = {}
    word = np.full(len(words), -1, np.int64)
    lists = []
    for place, each in enumerate(words):
        plain = normalise(each)
        parts = ngrams_of(plain, hashing.ngrams, hashing.most)
        for part in parts:
            if part not in seen:
                seen[part] = bucket_of(part, hashing.ngram_buckets)
        lists.append([seen[part] for part in parts])
        if plain:
            word[place] = bucket_of(plain, hashing.buckets)
    ngram = np.full((len(words), max(map(len, lists), default=0)), -1, np.int64)
    for place, each in enumerate(lists):
        ngram[place, : len(each)] = each
    return word, ngram


def _rows(
    word: np.ndarray,
    ngram: np.ndarray,
    word_used: np.ndarray,
    ngram_used: np.ndarray,
    hashing: Hashing,
) -> WordTables:
    def place(found: np.ndarray, used: np.ndarray) -> np.ndarray:
        at = np.searchsorted(used, found)
        has = np.append(used, -1)[at] == found
        rows = np.where(has, at + FIRST, UNSEEN)
        return np.where(found < 0, PAD, rows).astype(np.int32)

    return WordTables(
        word=place(word, word_used),
        ngram=place(ngram, ngram_used),
        count=(ngram >= 0).sum(1).astype(np.int32),
        word_rows=len(word_used) + FIRST,
        ngram_rows=len(ngram_used) + FIRST,
        word_buckets=word_used,
        ngram_buckets=ngram_used,
        hashing=hashing,
    )


def word_index(words: Sequence[str]) -> dict[str, int]:
    """Returns {word after `normalise`: its place}, the first place of equal ones; "" is left out.

    Args:
      words: the list of words of a set; words[0] is "".
    """
    index: dict[str, int] = {}
    for place, word in enumerate(words):
        index.setdefault(normalise(word), place)
    index.pop("", None)
    return index


def encode_texts(
    texts: Sequence[str], index: Mapping[str, int], length: int, known: int | None = None
) -> EncodedTexts:
    """Encodes texts that were not in the set, as at prediction.

    Give `new` to `extend_tables`, and the tables that it returns to the network.

    Args:
      texts: N texts; "" for none.
      index: of `word_index`.
      length: L; what comes behind is cut.
      known: length of the list that `index` is of, so that new words come behind it; None if no
        word of the list lies behind those of the index.
    """
    first = max(index.values(), default=PAD) + 1 if known is None else known
    new: dict[str, int] = {}
    out = np.zeros((len(texts), length), np.int32)
    cut = np.zeros(len(texts), bool)
    for row, text in enumerate(texts):
        found = split_words(text)
        cut[row] = len(found) > length
        for column, word in enumerate(found[:length]):
            place = index.get(word)
            out[row, column] = new.setdefault(word, first + len(new)) if place is None else place
    return EncodedTexts(out, tuple(new), cut)

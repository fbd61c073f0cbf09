"""Rows of words: stable, compact, with the collisions of the full table; and splitting of texts."""

from __future__ import annotations

import unicodedata
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtl_jax.data.survival.words import normalise, split_words
from mtl_jax.systems.ad_survival.text_tables import (
    PAD,
    UNSEEN,
    bucket_of,
    encode_texts,
    extend_tables,
    lookup_words,
    ngrams_of,
    word_index,
    word_tables,
)

WORDS = ("", "buy", "buying", "BUY", "広告", "値下げ", "extraordinarily", "a", "ﬁne", "fine")
SIZES = {"buckets": 7, "ngram_buckets": 40, "ngrams": (3, 5), "most": 6}
FIXED = [24456, 20909]  # Buckets of "buy" and "広告" of 2**15.
TEXTS = st.text(max_size=30) | st.text("abÉß'.,1 ー広告のタカナไทยก่ี!%\u200d\u0301", max_size=20)


def buckets(word: str) -> tuple[int, list[int]]:
    plain = normalise(word)
    parts = ngrams_of(plain, SIZES["ngrams"], SIZES["most"])
    return bucket_of(plain, SIZES["buckets"]), [bucket_of(p, SIZES["ngram_buckets"]) for p in parts]


def test_rows_are_equal_exactly_where_buckets_are() -> None:
    tables = word_tables(WORDS, **SIZES)
    hashed = [buckets(word) for word in WORDS[1:]]
    own = np.array([word for word, _ in hashed])
    rows = tables.word[1:]
    np.testing.assert_array_equal(own[:, None] == own[None], rows[:, None] == rows[None])
    assert len(set(own.tolist())) < len(set(map(normalise, WORDS[1:])))  # Words do collide here.
    parts = np.concatenate([parts for _, parts in hashed])
    rows = np.concatenate([r[:n] for r, n in zip(tables.ngram, tables.count, strict=True)])
    np.testing.assert_array_equal(parts[:, None] == parts[None], rows[:, None] == rows[None])


def test_tables_are_compact() -> None:
    tables = word_tables(WORDS, **SIZES)
    for rows, count in ((tables.word, tables.word_rows), (tables.ngram, tables.ngram_rows)):
        assert sorted(set(rows.ravel().tolist()) - {PAD}) == list(range(2, count))
    assert tables.word[0] == PAD
    assert tables.count[0] == 0
    assert not tables.ngram[0].any()
    assert tables.ngram.shape[1] == tables.count.max() == SIZES["most"]
    for row, count in zip(tables.ngram, tables.count, strict=True):
        assert (row[:count] > 0).all()
        assert not row[count:].any()


def test_case_and_compatibility_forms_do_not_matter() -> None:
    tables = word_tables(WORDS)
    for a, b in (("buy", "BUY"), ("ﬁne", "fine")):
        a, b = WORDS.index(a), WORDS.index(b)
        assert tables.word[a] == tables.word[b]
        np.testing.assert_array_equal(tables.ngram[a], tables.ngram[b])


def test_words_that_exist_are_found_again() -> None:
    tables = word_tables(WORDS, **SIZES)
    again = lookup_words(tables, WORDS)
    for name in ("word", "ngram", "count"):
        np.testing.assert_array_equal(getattr(tables, name), getattr(again, name))


def test_unseen_words_keep_the_ngrams_that_are_known() -> None:
    tables = word_tables(["", "buying", "sell"])
    more = lookup_words(tables, ["buys", "zzzz", ""])
    assert more.word.tolist() == [UNSEEN, UNSEEN, PAD]
    assert (more.word_rows, more.ngram_rows) == (tables.word_rows, tables.ngram_rows)
    known = set(ngrams_of("buying", (3, 5), 24))
    parts = ngrams_of("buys", (3, 5), 24)
    assert 0 < len(known & set(parts)) < len(parts)
    for part, row in zip(parts, more.ngram[0], strict=False):
        assert (row != UNSEEN) == (part in known)
    assert set(more.ngram[1][: more.count[1]].tolist()) == {UNSEEN}
    longer = extend_tables(tables, ["buys", "extraordinarily"])
    assert longer.ngram.shape == (5, 24)
    np.testing.assert_array_equal(longer.ngram[:3, : tables.ngram.shape[1]], tables.ngram)
    assert not longer.ngram[:3, tables.ngram.shape[1] :].any()
    np.testing.assert_array_equal(longer.ngram[3, : more.ngram.shape[1]][:9], more.ngram[0][:9])


def test_known_words_alone_get_rows() -> None:
    words = ["", "alpha", "beta", "gamma"]
    tables = word_tables(words, known=np.array([True, True, False, True]))
    alone = word_tables(["", "alpha", "gamma"])
    assert tables.word[2] == UNSEEN
    assert (tables.word_rows, tables.ngram_rows) == (alone.word_rows, alone.ngram_rows)
    np.testing.assert_array_equal(tables.word[[0, 1, 3]], alone.word)
    with pytest.raises(ValueError, match="known"):
        word_tables(words, known=np.ones(3, bool))


@pytest.mark.parametrize(
    "bad", [{"buckets": 0}, {"most": 0}, {"ngrams": (0, 3)}, {"ngrams": (4, 3)}]
)
def test_impossible_numbers_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        word_tables(WORDS, **bad)


def test_buckets_never_change() -> None:
    """Saved parameters mean nothing under another hash; Python's own differs by process."""
    assert [bucket_of(word, 2**15) for word in ("buy", "広告")] == FIXED


def test_hash_spreads_evenly() -> None:
    counts = np.bincount([bucket_of(f"word{k}", 64) for k in range(6400)], minlength=64)
    assert ((counts - 100) ** 2 / 100).sum() < 63 + 5 * np.sqrt(2 * 63)  # Chi square, 63 degrees.


@given(st.text(min_size=1, max_size=40), st.integers(1, 30))
def test_ngrams_are_parts_of_the_word_and_reach_both_ends(word: str, most: int) -> None:
    marked = "\x02" + word + "\x03"
    parts = ngrams_of(word, (3, 5), most)
    assert len(parts) == len(set(parts)) <= most
    assert all(part in marked and 3 <= len(part) <= 5 for part in parts)
    assert [len(part) for part in parts] == sorted(len(part) for part in parts)
    possible = {marked[k : k + n] for n in (3, 4, 5) for k in range(len(marked) - n + 1)}
    assert len(parts) == min(most, len(possible))
    if most > 1:
        assert parts[0] == marked[:3]
        assert any(part == marked[-len(part) :] for part in parts)


@given(TEXTS)
def test_normalise_is_stable(text: str) -> None:
    assert normalise(normalise(text)) == normalise(text)


@given(TEXTS)
def test_words_are_normal_and_no_letter_is_lost(text: str) -> None:
    words = split_words(text)
    assert all(word and normalise(word) == word for word in words)
    assert not any(c.isspace() for word in words for c in word)

    def letters(text: str) -> set[str]:
        return {c for c in text if unicodedata.category(c)[0] in "LN"}

    assert letters("".join(words)) == letters(normalise(text.replace("\u2019", "'")))
    assert split_words(" ".join([text, text])) == words + words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Buy NOW, and save 50%!", ["buy", "now", "and", "save", "50", "%", "!"]),
        ("Don’t pay $1,000.50...", ["don't", "pay", "$", "1,000.50"]),
        ("ＡＢＣ！　ﾊﾞﾅﾅ", ["abc", "!", "バナ", "ナナ"]),
        ("広告を停止する", ["広告", "を", "停止", "する"]),
        ("3日間iPhoneがラーメン", ["3", "日間", "iphone", "が", "ラー", "ーメ", "メン"]),
        ("らーめん", ["らー", "ーめ", "めん"]),
        ("ที่นี่", ["ที่นี่"]),
        ("ลดราคา", ["ลด", "ดร", "รา", "าค", "คา"]),
        ("ÉCOLE naïve", ["école", "naïve"]),
        ("❤️ hi👍🏽", ["❤", "hi", "👍", "🏽"]),
        ("co\u00adop", ["coop"]),
        ("안녕하세요 세계", ["안녕하세요", "세계"]),
        ("' a.b \u0301", ["a", "b"]),
        ("", []),
    ],
)
def test_splitting(text: str, words: list[str]) -> None:
    assert split_words(text) == words


def test_texts_are_encoded_with_places_for_new_words() -> None:
    words = ["", "Buy", "now", "buy"]
    index = word_index(words)
    assert index == {"buy": 1, "now": 2}
    found = encode_texts(["Buy it NOW", "", "it costs it now"], index, 3, known=len(words))
    assert found.words.tolist() == [[1, 4, 2], [0, 0, 0], [4, 5, 4]]
    assert found.new == ("it", "costs")
    assert found.cut.tolist() == [False, False, True]
    assert found.words.dtype == np.int32
    # Known words alone: every text comes back.
    every = [*words, *found.new]
    assert [[every[k].lower() for k in row if k] for row in found.words] == [
        ["buy", "it", "now"],
        [],
        ["it", "costs", "it"],
    ]

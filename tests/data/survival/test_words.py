"""How texts become words, and words places in a list."""

import unicodedata

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from mtl_jax.data.survival import words
from mtl_jax.data.survival.words import WordList, split_words


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("Buy NOW, don't wait!", ["buy", "now", "don't", "wait", "!"]),
        ("utm_campaign=ete-rg4", ["utm", "campaign", "=", "ete", "rg4"]),
        ("3.5% of 1,000.", ["3.5", "%", "of", "1,000"]),
        ("ＡＢＣ　ｄｅｆ", ["abc", "def"]),
        ("東京タワー", ["東京", "タワ", "ワー"]),
        ("ﾊﾟﾝ", ["パン"]),
        ("春", ["春"]),
        ("नमस्ते दुनिया", ["नमस्ते", "दुनिया"]),
        ("Straße É", ["straße", "é"]),
        ("🔥sale", ["🔥", "sale"]),
        ("\ufeff\u200bhid\u200dden", ["hidden"]),
        ("", []),
        ("-- ;;", []),
    ],
)
def test_words_of_many_languages(text, want):
    assert split_words(text) == want


def test_thai_becomes_pairs_that_keep_their_marks():
    found = split_words("ที่นี่")
    assert len(found) == 1  # Two characters, each with its marks.
    assert found[0] == unicodedata.normalize("NFKC", "ที่นี่")


@hypothesis.given(st.text(st.characters(max_codepoint=127), max_size=60))
def test_the_fast_way_for_ascii_is_the_same(text):
    assert split_words(text) == words._split_any(text)


@hypothesis.given(st.text(max_size=40))
def test_case_width_and_composition_do_not_matter(text):
    for other in (unicodedata.normalize("NFD", text), f"  {text}\n"):
        assert split_words(other) == split_words(text)
    assert all(split_words(text)), "no word is empty"


def test_a_list_gives_places_in_order_and_cuts():
    found = WordList()
    first = found.encode(["b a b c", "", "D"], 3)
    np.testing.assert_array_equal(first, [[1, 2, 1], [0, 0, 0], [3, 0, 0]])
    np.testing.assert_array_equal(found.encode(["d a e"], 4), [[3, 2, 4, 0]])
    assert found.words() == ("", "b", "a", "d", "e")  # c was cut, and is not in the list.

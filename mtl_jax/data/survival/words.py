"""Texts as words: how a text is split, and the list of words that a set's texts point at.

`split_words` needs no download and no dictionary and reads every language: Japanese, Chinese and
Thai, which are written without spaces, become overlapping pairs of characters. Case, full-width
forms and the like do not matter: all is read as NFKC in lower case.
"""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections.abc import Iterable

import numpy as np

KEPT = frozenset("!?%&#@")
"""Punctuation that says something in an advertisement; the rest only separates."""

# The stdlib's properties of characters do not name scripts; compatibility forms are gone by NFKC.
_SCRIPTS = {
    "han": "\u2e80-\u2fdf\u3005\u3007\u3021-\u3029\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    "\U00020000-\U000323af",
    "hiragana": "\u3041-\u309f",
    "katakana": "\u30a1-\u30fa\u30fd-\u30ff\u31f0-\u31ff",
    "thai": "\u0e00-\u0e7f",
    "lao": "\u0e80-\u0eff",
    "myanmar": "\u1000-\u109f",
    "khmer": "\u1780-\u17ff",
}
_SCRIPT = re.compile("|".join(f"(?P<{name}>[{chars}])" for name, chars in _SCRIPTS.items()))
_LONG = "\u30fc"  # lengthens the vowel before it, in either kana
_VARIATION = re.compile("[\ufe00-\ufe0f\U000e0100-\U000e01ef]")  # of an emoji or a character
# What the rules of `split_words` come to in ASCII, ten times as fast.
_ASCII = re.compile(r"(?:[a-z0-9]|(?<=[a-z])'(?=[a-z])|(?<=[0-9])[.,](?=[0-9]))+|[$+<=>^`|~!?%&#@]")


def normalise(text: str) -> str:
    """Returns the text in Unicode NFKC and lower case."""
    lower = unicodedata.normalize("NFKC", text).lower()
    return unicodedata.normalize("NFKC", lower)


def split_words(text: str) -> list[str]:
    """Splits a text into words by the categories of its characters, after `normalise`.

    A run of letters, marks and digits is a word. So is every symbol (currencies, emoji, +) and
    every character of `KEPT`. An apostrophe between letters and a point or comma between digits
    belong to the word around them. Other punctuation, spaces and controls separate; invisible
    format characters and variation selectors are taken out first.

    Runs of one script that is written without spaces (Han, Hiragana, Katakana, Thai, Lao, Burmese,
    Khmer) become overlapping pairs of characters, or the character where a run has only one; marks
    stay with the character before them. Where one such script ends and another begins a run ends
    too, which in Japanese is often the end of a word.
    """
    return _ASCII.findall(text.lower()) if text.isascii() else _split_any(text)


class WordList:
    """The words of a set in the order in which they were met; place 0 is ""."""

    def __init__(self) -> None:
        self._places: dict[str, int] = {"": 0}

    def words(self) -> tuple[str, ...]:
        """Returns the words so far."""
        return tuple(self._places)

    def encode(self, texts: Iterable[str], length: int) -> np.ndarray:
        """Returns [N, length] int32 places of the words of N texts, 0 after the last.

        Words behind the first `length` of a text are cut, and do not come into the list.
        """
        places = self._places
        rows = [
            [places.setdefault(word, len(places)) for word in split_words(text)[:length]]
            for text in texts
        ]
        found = np.zeros((len(rows), length), np.int32)
        for row, own in enumerate(rows):
            found[row, : len(own)] = own
        return found


def _split_any(text: str) -> list[str]:
    """`split_words` for all characters."""
    text = "".join(c for c in _VARIATION.sub("", text) if unicodedata.category(c) != "Cf")
    text = normalise(text).replace("\u2019", "'")
    words: list[str] = []
    run: list[str] = []  # Characters with their marks.
    script = ""

    def close() -> None:
        if script and len(run) > 1:
            words.extend(a + b for a, b in itertools.pairwise(run))
        elif run:
            words.append("".join(run))
        run.clear()

    for place, char in enumerate(text):
        kind = unicodedata.category(char)
        if kind[0] == "M":
            if run:  # A mark that has nothing to stand on is dropped.
                run[-1] += char
        elif kind[0] in "LN":
            found = _script(char, kind, script)
            if found != script:
                close()
                script = found
            run.append(char)
        elif run and not script and _inside(text, place):
            run.append(char)
        else:
            close()
            if kind[0] == "S" or char in KEPT:
                words.append(char)
    close()
    return words


def _script(char: str, kind: str, before: str) -> str:
    """The script without spaces of a letter or number that comes behind `before`; "" for others."""
    if char == _LONG and before in ("hiragana", "katakana"):
        return before
    match = None if kind == "Nd" else _SCRIPT.match(char)
    return (match.lastgroup or "") if match else ""


def _inside(text: str, place: int) -> bool:
    """Whether the sign at `place` is part of a word: don't, 3.5, 1,000."""
    around = text[place - 1 : place + 2]
    if len(around) < 3:
        return False
    if around[1] == "'":
        return around[0].isalpha() and around[2].isalpha()
    return around[1] in ".," and around[0].isdigit() and around[2].isdigit()

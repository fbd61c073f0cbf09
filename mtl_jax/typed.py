"""Whether a value is of the type that a config's field has, and what that type is in words.

The types of configs are few: numbers, text, True or False, a choice, a tuple, and each of these
or None. Nothing is converted: only a whole number is taken where any number may stand.
"""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, Literal

_WORDS = {int: "a whole number", float: "a number", str: "text", bool: "True or False"}
_MANY = {int: "whole numbers", float: "numbers", str: "words", bool: "True or False"}


def fits(value: Any, hint: Any) -> bool:
    """Whether `value` is of type `hint`; True and False are no numbers."""
    origin, inside = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return value in inside
    if origin in (typing.Union, types.UnionType):
        return any(fits(value, one) for one in inside)
    if origin is tuple:
        if not isinstance(value, tuple) or not (_open(hint) or len(value) == len(inside)):
            return False
        return all(fits(item, inside[0]) for item in value)
    if hint is type(None):
        return value is None
    if hint in (int, float) and isinstance(value, bool):
        return False
    return isinstance(value, int | float if hint is float else origin or hint)


def in_words(hint: Any, value: Any = None) -> str:
    """What a field of type `hint` must be; of choices, the one that is nearest to `value` first."""
    origin, inside = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        near = difflib.get_close_matches(str(value), inside, 1)
        return f"one of {', '.join(inside)}" + (f" (did you mean {near[0]}?)" if near else "")
    if origin in (typing.Union, types.UnionType):
        return " or ".join(in_words(one, value) for one in inside)
    if origin is tuple:
        count = "" if _open(hint) else f"{len(inside)} "
        return f"a tuple of {count}{_MANY.get(inside[0], 'tuples')}"
    if hint is type(None):
        return "None"
    kind = origin or hint
    return _WORDS.get(kind, "a mapping" if kind is Mapping else f"of type {kind.__name__}")


def text_problem(words: Sequence[str], hint: Any) -> str | None:
    """What is wrong with the words of a command line as a value of type `hint`; None for nothing.

    Args:
      words: one, or for a tuple several.
      hint: type of the field.
    """
    origin, inside = typing.get_origin(hint), typing.get_args(hint)
    if origin is tuple:
        right_number = len(words) > 0 if _open(hint) else len(words) == len(inside)
        if right_number and all(_readable(word, inside[0]) for word in words):
            return None
        count = "one or more" if _open(hint) else str(len(inside))
        found, kind = " ".join(words) or "empty", _MANY.get(inside[0], "words")
        return f"is {found}; it must be {count} {kind}"
    if not words:
        return f"has no value; it must be {in_words(hint)}"
    if len(words) > 1:
        return f"has several values, {' '.join(words)}; give one, in quotes if it has spaces"
    if _readable(words[0], hint):
        return None
    return f"is {words[0]!r}; it must be {in_words(hint, words[0])}"


def _open(hint: Any) -> bool:
    return Ellipsis in typing.get_args(hint)


def _readable(word: str, hint: Any) -> bool:
    inside = typing.get_args(hint)
    if typing.get_origin(hint) is Literal:
        return word in inside
    if inside:
        return any(_readable(word, one) for one in inside)
    if hint in (bool, type(None)):
        return word in (("True", "False") if hint is bool else ("None",))
    try:
        hint(word)
    except ValueError:
        return False
    return True

"""Codes for the values of a column: int64 numbers, or text numbered as it first appears."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa

from mtl_jax.data.event_logs.times import whole_numbers
from mtl_jax.errors import UserError

MISSING = np.iinfo(np.int64).min


class NotNumbers(Exception):
    """A column that began as numbers goes on as text; its codes have to begin anew."""


class Coder:
    """Turns the values of one column, block after block, into int64 codes.

    Whole numbers are their own codes, so they take no memory. Anything else is numbered as it
    first appears; then the distinct values are kept.

    Attributes:
      texts: {text: code}, or None for numbers.
    """

    def __init__(self) -> None:
        self.texts: dict[str, int] | None = None
        self._begun = False

    def codes(self, values: pa.Array) -> np.ndarray:
        """Returns the code of each value, MISSING for none; learns new text.

        Raises:
          NotNumbers: the first text in a column of numbers; from here on it is one of text.
        """
        if self.texts is None:
            try:
                found = values.cast(pa.int64()).fill_null(MISSING)
                self._begun = self._begun or len(values) > 0
                return found.to_numpy(zero_copy_only=False)
            except pa.ArrowInvalid:
                self.texts = {}
                if self._begun:
                    raise NotNumbers from None
        assert self.texts is not None
        texts = self.texts
        return self._by_text(values, lambda text: texts.setdefault(text, len(texts)))

    def known(self, values: pa.Array) -> np.ndarray:
        """Returns the codes of values as `codes` gave them; MISSING for others. Learns nothing."""
        if self.texts is None:
            numbers, good = whole_numbers(values)
            return np.where(good, numbers, MISSING)
        texts = self.texts
        return self._by_text(values, lambda text: texts.get(text, MISSING))

    def values(self, codes: np.ndarray) -> np.ndarray:
        """Returns the values [n] of codes: int64, or text."""
        if self.texts is None:
            return codes
        texts = list(self.texts)
        return np.array([texts[code] for code in codes.tolist()], dtype=np.str_)

    @staticmethod
    def _by_text(values: pa.Array, number: Callable[[str], int]) -> np.ndarray:
        coded = values.cast(pa.string()).dictionary_encode()
        own = np.array([number(text) for text in coded.dictionary.to_pylist()] + [MISSING])
        places = coded.indices.fill_null(len(own) - 1).to_numpy(zero_copy_only=False)
        return own[places]


def bucket(numbers: np.ndarray) -> np.ndarray:
    """Returns 0 for numbers below 1, then 1 + floor(log2(number)), as int64."""
    return np.frexp(np.maximum(numbers, 0).astype(np.float64))[1].astype(np.int64).clip(0)


def bucket_codes(values: pa.Array, where: str) -> np.ndarray:
    """Returns log2 buckets of numbers as codes, MISSING where there is none."""
    try:
        numbers = values.cast(pa.float64())
    except pa.ArrowInvalid as error:
        raise UserError(f"{where}: not a number ({' '.join(str(error).split())[:200]})") from error
    found = numbers.fill_null(np.nan).to_numpy(zero_copy_only=False)
    return np.where(np.isfinite(found), bucket(np.nan_to_num(found)), MISSING)

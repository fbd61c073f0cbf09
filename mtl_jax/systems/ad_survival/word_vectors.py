"""Pretrained vectors of words from a file: the text format of fastText and word2vec, or .npz.

    .vec, .txt (also .gz)   a word and its d numbers a line, separated by one space; the first line
                            may be a header, the number of words and d
    .npz                    arrays `words` [M] of strings and `vectors` [M, d]

A text file is read line by line and only the vectors of the words asked for are kept, so that
files of gigabytes need little memory. Numbers of other words are counted, not read.

Files differ in case. Of a word's candidates in a file the best is taken: the word as it is written,
then its lower-case form (`words.normalise`), then any word of the same lower-case form; of equally
good ones the first, which in most files is the most frequent.
"""

from __future__ import annotations

import gzip
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from mtl_jax.data.survival.words import normalise
from mtl_jax.errors import UserError

_SPACES = b" \t\r\n"
_Entries = Iterator[tuple[str, Callable[[], np.ndarray]]]


def vectors_for(words: Sequence[str], path: str | Path) -> tuple[np.ndarray, np.ndarray]:
    """Returns the vectors of words that a file holds.

    Args:
      words: V words; "" never has a vector.
      path: of the file, see the module.

    Returns:
      ([V, d] float32, zeros for words that the file lacks; [V] bool, words that it has).

    Raises:
      UserError: no such file or another format, a line with another number of numbers, something
        that is not a finite number, a file that ends early, or no word found.
    """
    path = Path(path)
    try:
        found = _search(words, path)
    except (OSError, EOFError, zlib.error, zipfile.BadZipFile) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split()) or "ends early"
        raise UserError(
            f"word vectors {path}: {reason}; name a sound .vec, .vec.gz or .npz"
        ) from None
    return found


def _search(words: Sequence[str], path: Path) -> tuple[np.ndarray, np.ndarray]:
    exact: dict[str, list[int]] = {}
    plain: dict[str, list[int]] = {}
    for place, word in enumerate(words):
        if word:
            exact.setdefault(word, []).append(place)
            plain.setdefault(normalise(word), []).append(place)
    rank = np.zeros(len(words), np.int8)  # 3 as written, 2 lower case, 1 another case, 0 none.
    vectors: dict[int, np.ndarray] = {}
    first, count = "", 0
    for word, read in _entries(path):
        count += 1
        first = first or word
        lower = normalise(word)
        places = [(place, 3) for place in exact.get(word, ())]
        places += [(place, 2 if word == lower else 1) for place in plain.get(lower, ())]
        places = [(place, how) for place, how in places if how > rank[place]]
        vector = read() if places else np.zeros(0)
        for place, how in places:
            if how > rank[place]:
                rank[place], vectors[place] = how, vector
    if not vectors:
        asked = next((word for word in words if word), "")
        what = f"its first is {first!r}, ours is {asked!r}" if count else "it is empty"
        raise UserError(
            f"word vectors {path}: none of {len(exact)} words is among its {count} ({what}); name a"
            " file of the texts' language"
        )
    dim = len(next(iter(vectors.values())))
    out = np.zeros((len(words), dim), np.float32)
    for place, vector in vectors.items():
        out[place] = vector
    return out, rank > 0


def _entries(path: Path) -> _Entries:
    """Yields every word and a function that reads its vector."""
    suffixes = [suffix.lower() for suffix in path.suffixes[-2:]]
    if suffixes[-1:] == [".npz"]:
        yield from _npz_entries(path)
    elif suffixes[-1:] == [".gz"]:
        with gzip.open(path, "rb") as file:
            yield from _text_entries(path, file)
    elif suffixes[-1:] == [".bin"]:
        raise UserError(f"word vectors {path}: .bin is not read; convert it to .vec or .npz")
    else:
        with path.open("rb") as file:
            yield from _text_entries(path, file)


def _text_entries(path: Path, lines: Iterable[bytes]) -> _Entries:
    dim, promised, row, entries = 0, None, 0, 0
    for row, line in enumerate(lines, start=1):
        line = line.strip(_SPACES)
        if not dim or line.count(b" ") != dim:
            parts = line.split()  # ASCII spaces only: other kinds occur inside words.
            if not parts:
                continue
            if row == 1 and len(parts) == 2 and all(part.isdigit() for part in parts):
                promised, dim = int(parts[0]), int(parts[1])
                continue
            dim = dim or len(parts) - 1
            if len(parts) != dim + 1 or not dim:
                raise _ragged(path, row, len(parts), dim)
            line = b" ".join(parts)
        word, _, numbers = line.partition(b" ")
        entries += 1
        yield word.decode("utf-8", "replace"), partial(_numbers, path, row, numbers, dim)
    if promised is not None and entries < promised:
        raise UserError(
            f"word vectors {path}: ends after line {row} with {entries} words, but its header says"
            f" {promised}; get the file again"
        )


def _numbers(path: Path, row: int, text: bytes, dim: int) -> np.ndarray:
    fields = text.split()
    if len(fields) != dim:
        raise _ragged(path, row, 1 + len(fields), dim)
    values = []
    for field in fields:
        try:
            values.append(float(field))
        except ValueError:
            values.append(np.nan)
    wide = np.array(values)
    bad = np.flatnonzero(~(np.abs(wide) <= np.finfo(np.float32).max))
    if len(bad):
        raise UserError(
            f"word vectors {path}: line {row} has {fields[bad[0]].decode('utf-8', 'replace')!r}; it"
            " must be a finite number; mend the line"
        )
    return wide.astype(np.float32)


def _ragged(path: Path, row: int, fields: int, dim: int) -> UserError:
    return UserError(
        f"word vectors {path}: line {row} has {fields} fields; it must have a word and"
        f" {dim or 'its'} numbers, as the lines before it; mend or cut the file"
    )


def _npz_entries(path: Path) -> _Entries:
    try:
        with np.load(path, allow_pickle=False) as file:
            missing = [name for name in ("words", "vectors") if name not in file]
            if missing:
                has = ", ".join(file.files) or "nothing"
                raise UserError(
                    f"word vectors {path}: no array {missing[0]!r} (it has {has}); save words and"
                    " vectors"
                )
            words, vectors = file["words"], file["vectors"]
    except ValueError as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"word vectors {path}: {reason}; save words as an array of strings (dtype str), not of"
            " objects"
        ) from None
    good = words.ndim == 1 and words.dtype.kind == "U" and vectors.dtype.kind == "f"
    if not good or vectors.ndim != 2 or len(words) != len(vectors) or not vectors.shape[1]:
        raise UserError(
            f"word vectors {path}: words {words.dtype} {words.shape}, vectors {vectors.dtype}"
            f" {vectors.shape}; they must be [M] strings and [M, d] floating-point numbers"
        )
    bad = np.flatnonzero(~np.isfinite(vectors).all(1))
    if len(bad):
        raise UserError(
            f"word vectors {path}: row {bad[0]} (word {str(words[bad[0]])!r}) has a number that is"
            " not finite; mend the row"
        )
    for word, vector in zip(words.tolist(), vectors, strict=True):
        yield word, partial(vector.astype, np.float32)

"""Files of word vectors: formats agree, what is found, and the one line for each kind of damage."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mtl_jax.errors import UserError
from mtl_jax.systems.ad_survival.word_vectors import vectors_for

WORDS = ("", "buy", "Sell", "広告", "absent", "now")
FILE = {
    "the": [9, 9, 9],
    "buy": [1, 2.5, -3],
    "広告": [4, 5, 6e-1],
    "sell": [7, 8, 9],
    "now": [0, 0, 1],
}


def lines(header: bool = False, **changes: str) -> list[str]:
    rows = [" ".join([word, *map(str, values)]) for word, values in FILE.items()]
    rows = [changes.get(row.split(" ")[0], row) for row in rows]
    return [f"{len(FILE)} 3", *rows] if header else rows


def write(path: Path, rows: list[str]) -> Path:
    data = ("\n".join(rows) + "\n").encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def write_npz(path: Path, **changes: Any) -> Path:
    arrays = {"words": np.array(list(FILE)), "vectors": np.array(list(FILE.values())), **changes}
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
    return path


EXPECTED = np.array([[0, 0, 0], FILE["buy"], FILE["sell"], FILE["広告"], [0, 0, 0], [0, 0, 1]])


@pytest.mark.parametrize("kind", ["plain", "header", "gz", "npz", "tabs", "windows"])
def test_formats_agree(kind: str, tmp_path: Path) -> None:
    if kind == "npz":
        path = write_npz(tmp_path / "v.npz")
    elif kind == "gz":
        path = write(tmp_path / "v.vec.gz", lines(header=True))
    elif kind == "tabs":
        path = write(tmp_path / "v.txt", [row.replace(" ", "\t") for row in lines()])
    elif kind == "windows":
        path = write(tmp_path / "v.vec", [row + " \r" for row in lines(header=True)])
    else:
        path = write(tmp_path / "v.vec", lines(header=kind == "header"))
    vectors, found = vectors_for(WORDS, path)
    assert vectors.dtype == np.float32
    assert found.tolist() == [False, True, True, True, False, True]
    np.testing.assert_allclose(vectors, EXPECTED, rtol=1e-6)


def test_the_nearest_spelling_wins_whatever_the_order(tmp_path: Path) -> None:
    rows = ["BUY 1", "buy 2", "Buy 3", "buy 4", "SELL 5", "Sell 6", "NOW 7", "Now 8"]
    for order in (rows, rows[::-1]):
        path = write(tmp_path / "v.vec", [row + " 0" for row in order])
        vectors, _ = vectors_for(["", "Buy", "buy", "sell", "now"], path)
        first = order is rows
        # Written so; so in lower case; else the first of the same lower-case form.
        assert vectors[:, 0].tolist() == [
            0,
            3,
            2 if first else 4,
            5 if first else 6,
            7 if first else 8,
        ]


def test_words_with_other_spaces_and_bytes_are_read(tmp_path: Path) -> None:
    path = tmp_path / "v.vec"
    path.write_bytes("a\u00a0b 1 2\n".encode() + b"\xff\xfe 3 4\nbuy 5 6\n")
    vectors, found = vectors_for(["buy", "a\u00a0b"], path)
    assert found.all()
    assert vectors.tolist() == [[5, 6], [1, 2]]


def test_numbers_of_other_words_are_not_read(tmp_path: Path) -> None:
    path = write(tmp_path / "v.vec", lines(the="the x y z"))
    assert vectors_for(WORDS, path)[1].sum() == 4


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (lines(now="now 1 2"), "line 5 has 3 fields; it must have a word and 3 numbers"),
        (lines(now="now 1 2 3 4"), "line 5 has 5 fields"),
        (lines(now="now 1  2"), "line 5 has 3 fields"),
        (lines(header=True, the="the 1 2"), "line 2 has 3 fields"),
        (lines(buy="buy 1 x 3"), "line 2 has 'x'; it must be a finite number"),
        (lines(buy="buy 1 nan 3"), "line 2 has 'nan'"),
        (lines(header=True, buy="buy 1 1e99 3"), "line 3 has '1e99'"),
        (lines(header=True)[:-1], "ends after line 5 with 4 words, but its header says 5"),
        (
            ["the 1 2", "of 3 4"],
            "none of 5 words is among its 2 .its first is 'the', ours is 'buy'",
        ),
        ([], "it is empty"),
        (["buy"], "line 1 has 1 fields; it must have a word and its numbers"),
    ],
)
def test_damaged_text_files(rows: list[str], message: str, tmp_path: Path) -> None:
    path = write(tmp_path / "v.vec", rows)
    with pytest.raises(UserError, match=message) as caught:
        vectors_for(WORDS, path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vectors": None}, "no array 'vectors'"),
        ({"words": np.array(list(FILE), object)}, "of objects"),
        ({"words": np.arange(5)}, "must be .M. strings"),
        ({"vectors": np.ones((4, 3))}, "must be .M. strings"),
        ({"vectors": np.ones(5)}, "must be .M. strings"),
        ({"vectors": np.diag([1, 1, np.nan, 1, 1])}, "row 2 .word '広告'. has a number"),
        ({"words": np.array(["p", "q", "r", "s", "t"])}, "none of 5 words"),
    ],
)
def test_damaged_npz_files(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        vectors_for(WORDS, write_npz(tmp_path / "v.npz", **changes))


@pytest.mark.parametrize("name", ["none.vec", "v.vec.gz", "plain.gz", "v.npz", "v.bin", ""])
def test_files_that_are_not_what_they_seem(name: str, tmp_path: Path) -> None:
    if name == "v.vec.gz":  # Cut off.
        whole = write(tmp_path / name, lines(header=True)).read_bytes()
        (tmp_path / name).write_bytes(whole[: len(whole) // 2])
    elif name not in ("none.vec", ""):
        (tmp_path / name).write_text("no such format")
    with pytest.raises(UserError, match=r"word vectors .*;") as caught:
        vectors_for(WORDS, tmp_path / name)
    assert "\n" not in str(caught.value)

r"""The text of Ali-CCP: lines of features, and which field means what.

`sample_skeleton_{train,test}.csv`: sample, click, conversion, key of the common features, number of
features, features. `common_features_{train,test}.csv`: key, number of features, features. Features
are separated by \x01, each is field \x02 id \x03 value.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from mtl_jax.data.recommendation.tables import binary_label, read_lines
from mtl_jax.errors import UserError

SIDES = ("train", "test")
# Raw field of each column. The codes are the publisher's, the names the usual reading of them.
USER_FIELDS = {
    "user": "101",
    **{
        f"profile_{code}": code for code in ("121", "122", "124", "125", "126", "127", "128", "129")
    },
}
ITEM_FIELDS = {
    "item": "205",
    "category": "206",
    "shop": "207",
    "intention": "210",
    "brand": "216",
}
CONTEXT_FIELDS = {"context": "301", **{f"cross_{c}": c for c in ("508", "509", "702", "853")}}
# What a user met before, without order: the raw field and the column whose ids it holds.
BAGS = {"category": "109_14", "shop": "110_14", "brand": "127_14", "intention": "150_14"}

Features = dict[str, list[tuple[str, float]]]


class Sample(NamedTuple):
    """An impression.

    Attributes:
      click, conversion: 0 or 1.
      key: of the common features.
      features: {field: [(id, value)]}.
    """

    click: int
    conversion: int
    key: str
    features: Features


def read_samples(folder: Path, side: str) -> Iterator[Sample]:
    """Yields the impressions of "train" or "test", but none that was bought without a click."""
    path = folder / f"sample_skeleton_{side}.csv"
    for number, line in enumerate(read_lines(path, "Ali-CCP"), 1):
        cells = line.split(",", 5)
        if len(cells) != 6:
            raise UserError(
                f"{path}, line {number}: {len(cells)} cells, expected 6 separated by ','"
            )
        click = int(binary_label(cells[1], str(path), number, "click"))
        conversion = int(binary_label(cells[2], str(path), number, "conversion"))
        if click or not conversion:
            features = parse_features(cells[4], cells[5], path, number)
            yield Sample(click, conversion, cells[3], features)


def read_common(folder: Path, side: str) -> Iterator[tuple[str, Features]]:
    """Yields (key, features) of "train" or "test"."""
    path = folder / f"common_features_{side}.csv"
    for number, line in enumerate(read_lines(path, "Ali-CCP"), 1):
        cells = line.split(",", 2)
        if len(cells) != 3:
            raise UserError(
                f"{path}, line {number}: {len(cells)} cells, expected 3 separated by ','"
            )
        yield cells[0], parse_features(cells[1], cells[2], path, number)


def parse_features(count: str, text: str, path: Path, number: int) -> Features:
    """Returns the features of a line; a `UserError` if it is not as the publisher writes it."""
    found: Features = {}
    pieces = text.split("\x01") if text else []
    if count != str(len(pieces)):
        raise UserError(
            f"{path}, line {number}: {len(pieces)} features separated by \\x01, it says {count!r}"
        )
    for piece in pieces:
        field, _, rest = piece.partition("\x02")
        name, mark, value = rest.partition("\x03")
        try:
            if not mark:
                raise ValueError
            found.setdefault(field, []).append((name, float(value)))
        except ValueError:
            raise UserError(
                f"{path}, line {number}: the feature {piece[:40]!r} is not field \\x02 id \\x03"
                " value"
            ) from None
    return found

"""Lifetime sets on disk: what a build writes, and the loader.

A prepared set holds its rows as TFDS records of at most `BLOCK` rows, in the order of the set, in a
TFDS split `rows`; what would be more than `PIECE_BYTES` goes on in rows_1, rows_2, ... because TFDS
gathers a split in memory before it writes it (and beyond 1 GB needs TensorFlow). Pixels and daily
amounts are compressed. Beside the records is what rows share: `lifetimes.json` (names, levels,
words, shapes, sources, event rates), and .npy files of the row numbers of every split and of
every array of the truth. A set comes back bit for bit.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mtl_jax.data import manifest
from mtl_jax.data.blocks import pieces as split_pieces
from mtl_jax.data.blocks import prepared_name, read_records, wide
from mtl_jax.data.lifetimes import (
    SPLITS,
    Category,
    LifetimeSet,
    Numbers,
    Text,
    check_lifetimes,
)
from mtl_jax.data.prepare import open_set, prepare, reading

BLOCK = 1000
PIECE_BYTES = 1 << 28
COMMON_FILE = "lifetimes.json"
VECTORS: Mapping[str, Any] = {
    "event": np.int32,
    "time": np.float32,
    "upper": np.float32,
    "entry": np.float32,
    "start": np.float32,
    "group": np.int32,
    "weight": np.float32,
    "value": np.float32,
    "has_image": np.uint8,
    "history_days": np.int32,
}
# The other arrays of a record are matrices: columns side by side, images and histories flattened.
MATRICES: Mapping[str, Any] = {
    "numbers": np.float32,
    "categories": np.int32,
    "texts": np.int32,
    "vectors": np.float32,
    "image": np.uint8,
    "history": np.float32,
    "path": np.float32,
}
COMPRESSED = ("image", "history", "path")


def load_lifetimes(
    name: str, data_dir: str | Path | None = None, manual_dir: str | Path | None = None
) -> LifetimeSet:
    """Returns lifetime set "NAME" or "NAME/CONFIG", preparing it first where it is missing.

    Args:
      name: of the set, with its config if it has several.
      data_dir: where sets are; None for the default.
      manual_dir: a folder with raw files, for sets that need or accept one.

    Raises:
      UserError: unknown name, no source, wrong files, a set that is damaged.
    """
    folder = prepare(name, data_dir, manual_dir)
    return read_lifetimes(prepared_name(name, folder), folder, data_dir)


def read_lifetimes(name: str, folder: Path, data_dir: str | Path | None) -> LifetimeSet:
    """Returns the prepared lifetime set `name` in `folder`; see `load_lifetimes`."""
    builder, _, _ = open_set(name, data_dir)
    # Records tell damage by themselves, .npy files do not.
    manifest.require_sound(name, folder, contents=True)
    with reading(name, folder):
        common = json.loads((folder / COMMON_FILE).read_text())
        records = read_records(builder, pieces(common["rows"], common["row_bytes"]))
        rows = {
            key: np.concatenate([record.pop(key) for record in records])
            for key in (*VECTORS, *MATRICES)
        }
        for key in MATRICES:  # Where there is no column, a record has one of zeros.
            shape = common["shapes"][key]
            flat = rows[key][:, : np.prod(shape, dtype=int)]
            rows[key] = flat.reshape(common["rows"], *shape)
        found = LifetimeSet(
            name=name,
            unit=common["unit"],
            causes=tuple(common["causes"]),
            group_name=common["group_name"],
            numbers=tuple(
                Numbers(values=np.ascontiguousarray(rows["numbers"][:, c]), **column)
                for c, column in enumerate(common["numbers"])
            ),
            categories=tuple(
                Category(column["name"], tuple(column["levels"]), np.ascontiguousarray(codes))
                for column, codes in zip(common["categories"], rows["categories"].T, strict=True)
            ),
            texts=tuple(
                Text(column, words) for column, words in _parts(rows["texts"], common["texts"])
            ),
            words=tuple(common["words"]),
            image=rows["image"],
            has_image=rows["has_image"].astype(bool),
            history_names=tuple(common["history_names"]),
            history=rows["history"],
            vectors=dict(_parts(rows["vectors"], common["vectors"])),
            splits={
                protocol: {split: np.load(folder / file) for split, file in files.items()}
                for protocol, files in common["splits"].items()
            },
            path=rows["path"],
            truth={key: np.load(folder / file) for key, file in common["truth"].items()},
            **{key: rows[key] for key in VECTORS if key != "has_image"},
        )
        return check_lifetimes(found, name)


def pieces(rows: int, row_bytes: int) -> dict[str, tuple[int, int]]:
    """Returns the TFDS splits that hold `rows` rows of `row_bytes`, and which rows each has."""
    most = max(PIECE_BYTES // max(row_bytes, 1) // BLOCK, 1) * BLOCK
    return split_pieces("rows", rows, most)


def write_common(folder: Path, found: LifetimeSet, sources: list[str]) -> dict[str, Any]:
    """Writes what the rows of a checked set share; returns the contents of `COMMON_FILE`."""
    splits = {}
    for p, (protocol, rows) in enumerate(found.splits.items()):
        splits[protocol] = {split: f"split-{p}-{split}.npy" for split in SPLITS}
        for split, file in splits[protocol].items():
            np.save(folder / file, rows[split].astype(np.int32), allow_pickle=False)
    truth = {}
    for number, (name, values) in enumerate(found.truth.items()):
        truth[name] = f"truth-{number}.npy"
        np.save(folder / truth[name], values, allow_pickle=False)
    matrices = _matrices(found, slice(0, 0))
    widths = {key: np.prod(matrix.shape[1:], dtype=int) for key, matrix in matrices.items()}
    row_bytes = sum(int(w) * np.dtype(MATRICES[key]).itemsize for key, w in widths.items())
    common = {
        "rows": len(found.time),
        "row_bytes": row_bytes + sum(np.dtype(dtype).itemsize for dtype in VECTORS.values()),
        "unit": found.unit,
        "causes": list(found.causes),
        "group_name": found.group_name,
        "numbers": [{"name": n.name, "scale": n.scale} for n in found.numbers],
        "categories": [{"name": c.name, "levels": list(c.levels)} for c in found.categories],
        "texts": {text.name: text.words.shape[1] for text in found.texts},
        "vectors": {name: vectors.shape[1] for name, vectors in found.vectors.items()},
        "shapes": {key: list(matrix.shape[1:]) for key, matrix in matrices.items()},
        "history_names": list(found.history_names),
        "splits": splits,
        "truth": truth,
        "sources": sources,
        "event_rates": {
            protocol: {split: float((found.event[rows[split]] > 0).mean()) for split in SPLITS}
            for protocol, rows in found.splits.items()
        },
        "words": list(found.words),
    }
    (folder / COMMON_FILE).write_text(json.dumps(common, indent=1) + "\n")
    return common


def blocks(found: LifetimeSet, first: int, last: int) -> Iterator[dict[str, np.ndarray]]:
    """Yields the records of rows first .. last - 1, `BLOCK` rows each."""
    for start in range(first, last, BLOCK):
        rows = slice(start, min(start + BLOCK, last))
        block = {
            key: np.ascontiguousarray(getattr(found, key)[rows], dtype)
            for key, dtype in VECTORS.items()
        }
        for key, matrix in _matrices(found, rows).items():
            flat = np.ascontiguousarray(matrix, MATRICES[key]).reshape(
                len(matrix), np.prod(matrix.shape[1:], dtype=int)
            )
            block[key] = wide(flat)
        yield block


def _matrices(found: LifetimeSet, rows: slice) -> dict[str, np.ndarray]:
    count = len(found.time[rows])

    def side_by_side(columns: list[np.ndarray], key: str) -> np.ndarray:
        none = np.zeros((count, 0), MATRICES[key])
        return np.concatenate([none, *(column[rows] for column in columns)], axis=1)

    return {
        "numbers": side_by_side([n.values[:, None] for n in found.numbers], "numbers"),
        "categories": side_by_side([c.codes[:, None] for c in found.categories], "categories"),
        "texts": side_by_side([text.words for text in found.texts], "texts"),
        "vectors": side_by_side(list(found.vectors.values()), "vectors"),
        "image": found.image[rows],
        "history": found.history[rows],
        "path": found.path[rows],
    }


def _parts(matrix: np.ndarray, widths: Mapping[str, int]) -> Iterator[tuple[str, np.ndarray]]:
    """Yields the named columns that were put side by side."""
    first = 0
    for name, width in widths.items():
        yield name, np.ascontiguousarray(matrix[:, first : first + width])
        first += width

"""Impression sets on disk: what their rows share, the spool of a build, and the loader.

A prepared set holds its rows as TFDS records of at most `BLOCK` rows, in the TFDS splits train,
validation and test; of more than `PIECE` rows the next are in train_1, train_2, ... because TFDS
gathers a split in memory before it writes it (and beyond 1 GB needs TensorFlow). Beside them is
what rows share: `impressions.json` (names, sizes, sources, positive rates) and one .npy file for
each array of a history, an attribute or a vocabulary. Histories grow as they are written, so that
a log of any size is built in bounded memory.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from mtl_jax.data.blocks import pieces as split_pieces
from mtl_jax.data.blocks import prepared_name, read_records, wide
from mtl_jax.data.impressions import (
    SPLITS,
    Attribute,
    Column,
    History,
    ImpressionSet,
    check_impressions,
)
from mtl_jax.data.prepare import open_set, prepare, reading

BLOCK = 1000
PIECE = 1_000_000
COMMON_FILE = "impressions.json"
ROW_ARRAYS: Mapping[str, Any] = {
    "fields": np.int32,
    "dense": np.float32,
    "starts": np.int64,
    "ends": np.int64,
    "labels": np.float32,
    "label_mask": np.float32,
    "truth": np.float32,
    "group": np.int32,
    "time": np.int64,
}
VECTORS = ("group", "time")  # The other arrays of rows are matrices.
_STREAM_ARRAYS: Mapping[str, Any] = {"ids": np.int32, "times": np.int64, "counts": np.int32}


def load_impressions(
    name: str, data_dir: str | Path | None = None, manual_dir: str | Path | None = None
) -> ImpressionSet:
    """Returns impression set "NAME" or "NAME/CONFIG", preparing it first where it is missing.

    Rows are in the order train, validation, test.

    Args:
      name: of the set, with its config if it has several.
      data_dir: where sets are; None for the default.
      manual_dir: a folder with raw files, for sets that need or accept one.

    Raises:
      UserError: unknown name, no source, wrong files, a set that is damaged.
    """
    folder = prepare(name, data_dir, manual_dir)
    return read_impressions(prepared_name(name, folder), folder, data_dir)


def read_impressions(name: str, folder: Path, data_dir: str | Path | None) -> ImpressionSet:
    """Returns the prepared impression set `name` in `folder`; see `load_impressions`."""
    builder, _, _ = open_set(name, data_dir)
    with reading(name, folder):
        blocks, counts = [], []
        common = json.loads((folder / COMMON_FILE).read_text())
        for split in SPLITS:
            counts.append(common["rows"][split])
            blocks += read_records(builder, pieces(split, counts[-1]))
        rows = {key: np.concatenate([block[key] for block in blocks]) for key in ROW_ARRAYS}
        for key, width in common["widths"].items():
            rows[key] = rows[key][:, :width]  # Where there is no column, a record has one of zeros.
        edges = np.cumsum([0, *counts])
        found = ImpressionSet(
            name=name,
            task_names=tuple(common["task_names"]),
            columns=tuple(Column(**column) for column in common["columns"]),
            item=common["item"],
            attributes=tuple(
                Attribute(**attribute, ids=np.load(_attribute_file(folder, a)))
                for a, attribute in enumerate(common["attributes"])
            ),
            dense_names=tuple(common["dense_names"]),
            histories=tuple(
                History(
                    **history,
                    **{key: np.load(_stream_file(folder, s, key)) for key in _STREAM_ARRAYS},
                )
                for s, history in enumerate(common["histories"])
            ),
            splits={
                split: np.arange(edges[i], edges[i + 1], dtype=np.int32)
                for i, split in enumerate(SPLITS)
            },
            **rows,
        )
    return check_impressions(found, name)


def load_vocabularies(
    name: str, data_dir: str | Path | None = None
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Returns the raw values behind the ids of a prepared set, and what its rows share.

    Returns:
      {column or attribute: [size - 2] raw values, of ids 2, 3, ...} of those columns that keep
      them, and the contents of `impressions.json`.
    """
    _, _, folder = open_set(name, data_dir)
    with reading(name, folder):
        common = json.loads((folder / COMMON_FILE).read_text())
        files = {name: folder / file for name, file in common["vocabularies"].items()}
        return {name: np.load(file) for name, file in files.items()}, common


def pieces(split: str, rows: int) -> dict[str, tuple[int, int]]:
    """Returns the TFDS splits that hold the `rows` rows of `split`, and which rows each has."""
    return split_pieces(split, rows, PIECE)


class GrowingArray:
    """A .npy file of a vector that is written piece by piece."""

    def __init__(self, path: Path, dtype: Any) -> None:
        self.dtype, self.count = np.dtype(dtype), 0
        self._file: BinaryIO = open(path, "wb")  # noqa: SIM115 - closed by close()
        self._write_header()

    def append(self, values: np.ndarray) -> None:
        """Adds `values` [k] at the end."""
        self._file.write(np.ascontiguousarray(values, self.dtype).tobytes())
        self.count += len(values)

    def close(self) -> None:
        """Puts the final length into the header."""
        self._file.seek(0)
        self._write_header()
        self._file.close()

    def _write_header(self) -> None:
        # numpy pads the header so that the first axis can grow to any length in place.
        header = {"descr": self.dtype.str, "fortran_order": False, "shape": (self.count,)}
        np.lib.format.write_array_header_1_0(self._file, header)


class Spool:
    """Takes the parts of a set one by one; afterwards yields the blocks of each split.

    Rows wait in flat files in `folder`, which are removed when their split has been read.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._common: dict[str, Any] = {}
        self._streams: list[dict[str, GrowingArray]] = []
        self._counts = dict.fromkeys(SPLITS, 0)
        self._widths: dict[str, int] = {}
        self._positives: dict[str, np.ndarray] = {}
        self._examples: dict[str, np.ndarray] = {}

    def add(self, part: ImpressionSet) -> None:
        """Appends the rows and the events of `part`.

        Raises:
          ValueError: a part that does not share names and sizes with the one before.
        """
        common = _common(part)
        if not self._common:
            self._start(part, common)
        if common != self._common:
            differ = [key for key in common if common[key] != self._common[key]]
            raise ValueError(f"the parts of {part.name} differ in {', '.join(differ)}")
        offsets = np.array([stream["ids"].count for stream in self._streams], np.int64)
        moved = {"starts": part.starts + offsets, "ends": part.ends + offsets}
        for split, rows in part.splits.items():
            self._counts[split] += len(rows)
            for key, dtype in ROW_ARRAYS.items():
                array = moved.get(key, getattr(part, key))[rows]
                with open(self._file(split, key), "ab") as file:
                    file.write(np.ascontiguousarray(array, dtype).tobytes())
            mask = part.label_mask[rows].astype(np.float64)
            self._examples[split] += mask.sum(0)
            self._positives[split] += (mask * np.where(mask > 0, part.labels[rows], 0)).sum(0)
        for stream, history in zip(self._streams, part.histories, strict=True):
            for key, array in stream.items():
                array.append(getattr(history, key))

    def finish(self, sources: list[str], vocabularies: Mapping[str, np.ndarray]) -> dict[str, int]:
        """Writes what rows share; returns the rows of each split."""
        for stream in self._streams:
            for array in stream.values():
                array.close()
        files = {}
        for number, (column, values) in enumerate(vocabularies.items()):
            files[column] = f"vocabulary-{number}.npy"
            np.save(self._folder / files[column], values, allow_pickle=False)
        rates = {
            split: [
                None if count == 0 else positive / count
                for positive, count in zip(
                    self._positives[split].tolist(), self._examples[split].tolist(), strict=True
                )
            ]
            for split in self._positives
        }
        whole = {
            **self._common,
            "sources": sources,
            "rows": self._counts,
            "widths": {key: n for key, n in self._widths.items() if key not in VECTORS},
            "positive_rates": rates,
            "vocabularies": files,
        }
        (self._folder / COMMON_FILE).write_text(json.dumps(whole, indent=1) + "\n")
        return self._counts

    def blocks(self, split: str, first: int, last: int) -> Iterator[dict[str, np.ndarray]]:
        """Yields rows first .. last - 1 of `split`, BLOCK at a time; forgets all after the last."""
        for start in range(first, last, BLOCK):
            count = min(BLOCK, last - start)
            block = {}
            for key, dtype in ROW_ARRAYS.items():
                width = self._widths[key]
                values = np.fromfile(
                    self._file(split, key),
                    dtype,
                    count * width,
                    offset=start * width * np.dtype(dtype).itemsize,
                )
                block[key] = values if key in VECTORS else wide(values.reshape(count, width))
            yield block
        if last == self._counts[split]:
            for key in ROW_ARRAYS:
                self._file(split, key).unlink(missing_ok=True)

    def _start(self, part: ImpressionSet, common: dict[str, Any]) -> None:
        self._common = common
        for key in ROW_ARRAYS:
            self._widths[key] = 1 if key in VECTORS else getattr(part, key).shape[1]
        for split in SPLITS:
            self._positives[split] = np.zeros(len(part.task_names))
            self._examples[split] = np.zeros(len(part.task_names))
        for a, attribute in enumerate(part.attributes):
            np.save(_attribute_file(self._folder, a), attribute.ids.astype(np.int32))
        self._streams = [
            {
                key: GrowingArray(_stream_file(self._folder, s, key), dtype)
                for key, dtype in _STREAM_ARRAYS.items()
            }
            for s in range(len(part.histories))
        ]

    def _file(self, split: str, key: str) -> Path:
        return self._folder / f"spool-{split}-{key}.bin"


def _common(part: ImpressionSet) -> dict[str, Any]:
    """What all parts of a set must agree on, as JSON has it."""
    return {
        "task_names": list(part.task_names),
        "columns": [column._asdict() for column in part.columns],
        "item": part.item,
        "attributes": [{"name": a.name, "size": a.size} for a in part.attributes],
        "dense_names": list(part.dense_names),
        "histories": [{"name": h.name, "vocabulary": h.vocabulary} for h in part.histories],
        "generated": bool(part.truth.shape[1]),
    }


def _attribute_file(folder: Path, number: int) -> Path:
    return folder / f"attribute-{number}.npy"


def _stream_file(folder: Path, number: int, key: str) -> Path:
    return folder / f"history-{number}-{key}.npy"

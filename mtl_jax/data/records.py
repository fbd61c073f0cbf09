"""Sets larger than memory: records read one by one, or gathered into a batch.

`RecordSource` has `__len__` and `__getitem__`, so it also serves as the source of a streaming
library; its `repr` is stable, which such a library may compare on resume.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mtl_jax.data import manifest
from mtl_jax.data.overlay import stable_permutation
from mtl_jax.data.prepare import open_set, prepare
from mtl_jax.errors import UserError

Record = dict[str, np.ndarray]


class RecordSource:
    """The records of one split, or of some of its indices, as dicts of numpy arrays."""

    def __init__(
        self,
        name: str,
        split: str,
        folder: Path,
        records: Any,
        indices: np.ndarray,
        convert: Callable[[dict[str, Any]], Record],
    ):
        self.name, self.split, self.folder = name, split, folder
        self._records, self._indices, self._convert = records, indices, convert

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> Record:
        return self._convert(self._read([int(self._indices[index])])[0])

    def __getitems__(self, indices: Sequence[int]) -> list[Record]:
        chosen = self._indices[np.asarray(indices, np.int64)].tolist()
        return [self._convert(record) for record in self._read(chosen)]

    def __repr__(self) -> str:
        return f"RecordSource({self.name}, {self.split}, {len(self)} records)"

    def gather(self, indices: Sequence[int] | np.ndarray) -> Record:
        """Returns the records of `indices` [B] stacked: each array gets a leading axis [B, ...]."""
        rows = self.__getitems__(np.asarray(indices).tolist())
        return {key: np.stack([row[key] for row in rows]) for key in rows[0]}

    def subset(self, indices: np.ndarray) -> RecordSource:
        """Returns the source of these records only."""
        chosen = self._indices[indices]
        return RecordSource(
            self.name, self.split, self.folder, self._records, chosen, self._convert
        )

    def _read(self, positions: list[int]) -> Sequence[dict[str, Any]]:
        if not positions:
            raise ValueError("no index given")
        try:
            return self._records.__getitems__(positions)
        except RuntimeError as error:
            # The reader says that a record is damaged, not where: find the shard.
            manifest.require_sound(self.name, self.folder, contents=True)
            raise UserError(f"data set {self.name}: unreadable record ({error})") from error


def open_split(
    name: str,
    split: str,
    known: tuple[str, ...],
    convert: Callable[[dict[str, Any]], Record],
    data_dir: str | Path | None,
    manual_dir: str | Path | None,
) -> RecordSource:
    """Returns a split of set `name`, preparing the set first where it is missing."""
    if split not in known:
        raise UserError(f"data set {name} has no split {split!r}; known: {', '.join(known)}")
    folder = prepare(name, data_dir, manual_dir)
    builder, _, _ = open_set(name, data_dir)
    records = builder.as_data_source(split)
    return RecordSource(name, split, folder, records, np.arange(len(records)), convert)


def hold_out(source: RecordSource, count: int, seed: int = 0) -> tuple[RecordSource, RecordSource]:
    """Returns `source` without `count` records drawn by `seed`, and those records."""
    if not 0 < count < len(source):
        raise UserError(
            f"cannot hold out {count} of the {len(source)} training records of {source.name}; "
            f"choose 1..{len(source) - 1}"
        )
    order = stable_permutation(len(source), seed)
    return source.subset(np.sort(order[count:])), source.subset(np.sort(order[:count]))

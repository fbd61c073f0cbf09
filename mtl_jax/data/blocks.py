"""What the builders and loaders of sets with blocks of rows as records have in common."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np


def manual_folder(dl_manager: Any) -> Path | None:
    """Returns the folder of a user's raw files that a TFDS build was given; None for none."""
    try:
        return Path(str(dl_manager.manual_dir))
    except AssertionError:  # How TFDS says that none was given.
        return None


def prepared_name(name: str, folder: Path) -> str:
    """Returns "NAME" or "NAME/CONFIG" of the set that `prepare` put into `folder`.

    A set that is made of a file of one's own is called by a digest of it: its folder knows.
    """
    base, config = name.partition("/")[0], folder.parent.name
    return base if config == base else f"{base}/{config}"


def pieces(split: str, rows: int, most: int) -> dict[str, tuple[int, int]]:
    """Returns the TFDS splits that hold `rows` rows, at most `most` each, and which rows they have.

    They are called split, split_1, split_2, ...
    """
    starts = range(0, max(rows, 1), most)
    names = [split if number == 0 else f"{split}_{number}" for number in range(len(starts))]
    return {
        name: (start, min(start + most, rows)) for name, start in zip(names, starts, strict=True)
    }


def read_records(builder: Any, splits: Iterable[str]) -> list[dict[str, np.ndarray]]:
    """Returns all records of some TFDS splits, in order."""
    return [record for split in splits for record in builder.as_data_source(split)]


def wide(matrix: np.ndarray) -> np.ndarray:
    """A matrix as it can be in a record: TFDS does not read back one without columns."""
    return matrix if matrix.shape[1] else np.zeros((len(matrix), 1), matrix.dtype)

"""NYUv2 and CityScapes as MTAN hands them out: one .npy for each image and each label map.

Layout: `train/` and `val/`, each with a folder a field and files 0.npy, 1.npy, ... in it. What the
papers report is measured on `val`; it is called "test" here, because there is no third split to
choose a checkpoint on. `holdout` takes one out of the training images.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mtl_jax.data.records import Record, RecordSource, hold_out, open_split
from mtl_jax.errors import UserError

SPLITS = ("train", "validation", "test")
FOLDERS = {"train": "train", "test": "val"}
IGNORE = -1  # label of pixels without a class


@dataclasses.dataclass(frozen=True)
class DenseSpec:
    """What one image of a set comes with.

    Attributes:
      num_classes: labels are -1 (no class) or below this.
      channels: of each float field; the last axis of its files.
      label_folders: names that the label folder goes by, the first present is taken.
    """

    num_classes: int
    channels: dict[str, int]
    label_folders: tuple[str, ...]


SPECS = {
    "nyuv2": DenseSpec(13, {"image": 3, "depth": 1, "normal": 3}, ("label",)),
    "cityscapes": DenseSpec(7, {"image": 3, "depth": 1}, ("label_7", "label")),
}


@dataclasses.dataclass(frozen=True)
class DenseFiles:
    """The files of one split: folder of each field and how many images."""

    spec: DenseSpec
    folders: dict[str, Path]
    count: int


def find_files(name: str, manual_dir: Path, split: str) -> DenseFiles:
    """Returns the files of a split, all present; a `UserError` names the first that is missing."""
    spec, base = SPECS[name], manual_dir / FOLDERS[split]
    labels = [base / folder for folder in spec.label_folders]
    folders = {field: base / field for field in spec.channels}
    folders["label"] = next((folder for folder in labels if folder.is_dir()), labels[0])
    for folder in folders.values():
        if not folder.is_dir():
            raise UserError(f"{folder}: no such folder; {name} needs it (MTAN's layout)")
    count = sum(1 for path in folders["image"].glob("*.npy"))
    if count == 0:
        raise UserError(f"{folders['image']}: no .npy files, the {split} split is empty")
    for folder in folders.values():
        present = {path.name for path in folder.glob("*.npy")}
        for index in range(count):
            if f"{index}.npy" not in present:
                raise UserError(
                    f"{folder / f'{index}.npy'}: no such file; {folders['image'].name}/ has "
                    f"{count} files, so every folder needs 0.npy .. {count - 1}.npy"
                )
    return DenseFiles(spec, folders, count)


def examples(files: DenseFiles) -> Iterator[tuple[int, Record]]:
    """Yields (position, record) with float32 fields [H, W, C] and "label" [H, W] int8."""
    size: tuple[int, ...] | None = None
    for index in range(files.count):
        record = {}
        for field, folder in files.folders.items():
            path = folder / f"{index}.npy"
            array = _load(path)
            size = size or array.shape[:2]
            channels = files.spec.channels.get(field)
            want = size if channels is None else (*size, channels)
            if array.shape != want:
                raise UserError(f"{path}: shape {list(array.shape)}, expected {list(want)}")
            if not np.isfinite(array).all():
                raise UserError(f"{path}: holds NaN or infinity")
            if channels is None:
                record[field] = _labels(array, files.spec.num_classes, path)
            else:
                record[field] = array.astype(np.float32)
        yield index, record


def load_dense(
    name: str,
    split: str,
    data_dir: str | Path | None = None,
    manual_dir: str | Path | None = None,
    *,
    holdout: int = 0,
    seed: int = 0,
) -> RecordSource:
    """Returns a split of "nyuv2" or "cityscapes".

    Records: "image" [H, W, 3] float32, "label" [H, W] int32 (-1: no class), "depth" [H, W, 1]
    float32 (0: not measured) and, for nyuv2, "normal" [H, W, 3] float32.

    Args:
      name: of the set.
      split: "train", "test" (MTAN's `val`, what papers report) or "validation".
      data_dir: where sets are; None for the default.
      manual_dir: MTAN's files, for building.
      holdout: training images that make the validation split and leave the training split; the
        papers have none.
      seed: which images are held out.
    """
    if name not in SPECS:
        raise UserError(f"data set {name!r} has no label maps; {' and '.join(SPECS)} have")
    if split == "validation" and holdout == 0:
        raise UserError(f"{name} has no validation split; set holdout to a number of its images")
    where = "train" if split == "validation" else split
    source = open_split(name, where, SPLITS, _convert, data_dir, manual_dir)
    if where == "test" or holdout == 0:
        return source
    rest, held = hold_out(source, holdout, seed)
    return rest if split == "train" else held


def _convert(record: dict[str, Any]) -> Record:
    return {**record, "label": record["label"].astype(np.int32)}


def _load(path: Path) -> np.ndarray:
    try:
        return np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{path}: not a readable array ({error})") from None


def _labels(array: np.ndarray, num_classes: int, path: Path) -> np.ndarray:
    bad = (array < IGNORE) | (array >= num_classes) | (array != np.rint(array))
    if bad.any():
        raise UserError(
            f"{path}: label {array[bad][0]}, expected whole numbers in -1..{num_classes - 1}"
        )
    return array.astype(np.int8)

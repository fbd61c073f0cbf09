"""The Darcy files of the MT-DeepONet code, as its authors hand them out.

    Dataset_{sq,circle,eqtri,sq_cross}_mask.mat
        k_train, k_test, shape_train, shape_test    [n, 100, 100], rows = y, columns = x
        u_train, u_test, xx, yy                     [n, 10000] and [10000], column by column

Source: the code of MT-DeepONet (Kumar et al. 2024), its `preprocessor.py`. The factor of 10 that
it puts to u, and all normalising, are left to the system.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mtl_jax.data.fetch import say
from mtl_jax.data.operator_files.arrays import unique_masks
from mtl_jax.data.operator_files.files import find_file, find_files, read_mat
from mtl_jax.data.operators import SPLITS, OperatorSet, check_operators
from mtl_jax.errors import UserError, did_you_mean

FILES = {
    "square": "Dataset_sq_mask.mat",
    "disc": "Dataset_circle_mask.mat",
    "triangle": "Dataset_eqtri_mask.mat",
    "square_cross": "Dataset_sq_cross_mask.mat",
}
SOURCES = ("square", "disc", "triangle")


def load_darcy(folder: Path, geometries: Sequence[str] = ()) -> OperatorSet:
    """Returns Darcy flow, one task a geometry; `field` is log K [S, H, W], points row by row.

    The test samples are the files' own; a tenth of the training samples validates, drawn by place:
    the last ones. A file without test samples (square_cross, whose code cuts them from the training
    samples) gives its last fifth for the test.

    Args:
      folder: with the files, or above them.
      geometries: names of `FILES`; none for those source geometries that are there, or
        square_cross where it is the only one.

    Raises:
      UserError: a file or array is missing or does not fit.
    """
    for geometry in geometries:
        if geometry not in FILES:
            raise UserError(f"unknown geometry {geometry!r}; {did_you_mean(geometry, FILES)}")
    present = [name for name, file in FILES.items() if find_files(folder, file)]
    chosen = list(geometries) or [name for name in present if name in SOURCES] or present
    if not chosen:
        raise UserError(f"{folder}: none of {', '.join(FILES.values())} in it")
    if not geometries and len(chosen) < len(SOURCES):
        say(f"{folder}: {', '.join(chosen)} only")
    parts = [_darcy_file(find_file(folder, FILES[name])) for name in chosen]
    for name, part in zip(chosen, parts, strict=True):
        if not np.array_equal(part["coords"], parts[0]["coords"]):
            raise UserError(f"{folder}: {name} has other points xx, yy than {chosen[0]}")
    counts = [len(part["field"]) for part in parts]
    starts = np.cumsum([0, *counts[:-1]])
    splits = {
        split: np.concatenate(
            [start + part[split] for start, part in zip(starts, parts, strict=True)]
        ).astype(np.int32)
        for split in SPLITS
    }
    masks, geometry = unique_masks(np.concatenate([part["masks"] for part in parts]))
    found = OperatorSet(
        task_names=tuple(chosen),
        params=np.zeros((sum(counts), 0), np.float32),
        field=np.concatenate([part["field"] for part in parts]),
        coords=parts[0]["coords"],
        coord_names=("x", "y"),
        grid=parts[0]["field"].shape[1:],
        masks=masks,
        solutions=np.concatenate([part["solutions"] for part in parts]),
        task=np.repeat(np.arange(len(parts), dtype=np.int32), counts),
        geometry=geometry,
        splits=splits,
    )
    return check_operators(found, str(folder))


def _darcy_file(path: Path) -> dict[str, np.ndarray]:
    keys = [f"{name}_{split}" for name in ("k", "u", "shape") for split in ("train", "test")]
    arrays = read_mat(path, [*keys, "xx", "yy"])
    halves = ("train", "test") if "k_test" in arrays else ("train",)
    for key in [*(f"{name}_{half}" for name in ("k", "u", "shape") for half in halves), "xx", "yy"]:
        if key not in arrays:
            raise UserError(f"{path}: no {key!r} in it; it has {', '.join(sorted(arrays))}")
    k, u, shape = (
        np.concatenate([arrays[f"{name}_{half}"] for half in halves])
        for name in ("k", "u", "shape")
    )
    side = k.shape[1:]
    points = int(np.prod(side))
    if k.ndim != 3 or shape.shape != k.shape or u.size != k.size or arrays["xx"].size != points:
        raise UserError(
            f"{path}: k {list(k.shape)}, shape {list(shape.shape)}, u {list(u.shape)}, xx"
            f" {list(arrays['xx'].shape)} are not [n, H, W] twice, [n, H W] and [H W]"
        )
    if not (k > 0).all():
        raise UserError(f"{path}: k holds {k.min():g}; a conductivity is positive")

    def by_rows(flat: np.ndarray) -> np.ndarray:
        """[n, H W] that runs down the columns, as [n, H W] that runs along the rows."""
        return flat.reshape(-1, *side[::-1]).transpose(0, 2, 1).reshape(-1, points)

    xx, yy = (by_rows(arrays[name])[0].reshape(side) for name in ("xx", "yy"))
    if (xx != xx[:1]).any() or (yy != yy[:, :1]).any():
        raise UserError(
            f"{path}: xx and yy are no grid that is flattened column by column, x along the rows"
        )
    train = len(arrays["k_train"]) if len(halves) == 2 else len(k) - len(k) // 5
    held = train // 10
    return {
        "field": np.log(k).astype(np.float32),
        "solutions": by_rows(u).astype(np.float32),
        "masks": (shape != 0).reshape(len(k), points),
        "coords": np.stack([xx.ravel(), yy.ravel()], axis=1).astype(np.float32),
        "train": np.arange(train - held),
        "validation": np.arange(train - held, train),
        "test": np.arange(train, len(k)),
    }

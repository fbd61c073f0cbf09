"""Reads a user's own copy of a data set, by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from mtl_jax.data.operator_files import (
    authors_darcy,
    authors_fisher,
    authors_plate,
    neuralop,
    pdebench,
)
from mtl_jax.data.operator_files.arrays import load_operator_file
from mtl_jax.data.operators import OperatorSet
from mtl_jax.errors import UserError, did_you_mean

READERS: dict[str, Callable[..., OperatorSet]] = {
    "mtdeeponet_fisher": authors_fisher.load_fisher,
    "mtdeeponet_darcy": authors_darcy.load_darcy,
    "mtdeeponet_plate": authors_plate.load_plate,
    "pdebench_reacdiff": pdebench.load_reacdiff,
    "pdebench_darcy": pdebench.load_darcy,
    "neuralop_darcy16": neuralop.load_darcy16,
    "file": load_operator_file,
}


def load_manual(name: str, manual_dir: str | Path, **options: Any) -> OperatorSet:
    """Returns the set `name` from the user's files.

    Args:
      name: one of `READERS`.
      manual_dir: the folder they are in or below; the file itself for "file", and the wheel or its
        folder for "neuralop_darcy16".
      **options: of the reader, such as `samples` of PDEBench's.

    Raises:
      UserError: unknown name, or what the reader finds wrong.
    """
    if name not in READERS:
        raise UserError(f"unknown set of operator files {name!r}; {did_you_mean(name, READERS)}")
    if not str(manual_dir):
        raise UserError(f"{name} is read from your own copy; say where it is")
    path = Path(manual_dir).expanduser()
    if not path.exists():
        raise UserError(f"{path}: no such file or folder; {name} is read from your own copy")
    return READERS[name](path, **options)

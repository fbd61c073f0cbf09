"""Lifetimes from a file of the user's, by the name of its kind."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from mtl_jax.data.lifetimes import LifetimeSet
from mtl_jax.data.survival.petfinder import PetfinderOptions
from mtl_jax.data.survival.table_ads import AdsOptions
from mtl_jax.data.survival.table_options import TableOptions
from mtl_jax.errors import UserError, did_you_mean

FILE_SETS = ("table", "snap_ads", "google_ads", "meta_ads", "petfinder")
"""Names of the sets that are made from a file."""


def load_file(
    name: str,
    path: str,
    table: TableOptions | None = None,
    data_dir: str | Path | None = None,
    *,
    snapshot: str = "",
) -> LifetimeSet:
    """Returns the lifetimes in a file, prepared once for its contents and options.

    Args:
      name: one of `FILE_SETS`.
      path: of the file.
      table: of "table", what the columns are; None for what their names say.
      data_dir: where sets are; None for the default.
      snapshot: of a library of ads, when it was made; "" for the latest time in it.

    Raises:
      UserError: an unknown name, an option, a file or a cell that is wrong.
    """
    if name not in FILE_SETS:
        raise UserError(f"unknown kind of file {name!r}; {did_you_mean(name, FILE_SETS)}")
    from mtl_jax.data.survival.table_builder import load_made  # TFDS takes most of a second.

    options: Any = AdsOptions(path, snapshot)
    if name == "table":
        options = dataclasses.replace(table or TableOptions(), path=path)
    elif name == "petfinder":
        if snapshot:
            raise UserError(f"snapshot is {snapshot!r}, which petfinder does not have")
        options = PetfinderOptions(path)
    return load_made(name, options, data_dir)

"""Lifetimes from a file of the user's, by the name of its kind."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from mtl_jax.data.lifetimes import LifetimeSet
from mtl_jax.data.survival.google_ads import load_google_ads
from mtl_jax.data.survival.meta_ads import load_meta_ads
from mtl_jax.data.survival.petfinder import load_petfinder
from mtl_jax.data.survival.snap_ads import load_snap_ads
from mtl_jax.data.survival.table import load_table
from mtl_jax.data.survival.table_ads import AdsOptions
from mtl_jax.data.survival.table_options import TableOptions
from mtl_jax.errors import UserError, did_you_mean

_LOADERS = {
    "snap_ads": load_snap_ads,
    "google_ads": load_google_ads,
    "meta_ads": load_meta_ads,
}
FILE_SETS = ("table", *_LOADERS, "petfinder")
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
    if name == "table":
        return load_table(dataclasses.replace(table or TableOptions(), path=path), data_dir)
    if name not in FILE_SETS:
        raise UserError(f"unknown kind of file {name!r}; {did_you_mean(name, FILE_SETS)}")
    if name == "petfinder":
        if snapshot:
            raise UserError(f"snapshot is {snapshot!r}, which petfinder does not have")
        return load_petfinder(path, data_dir)
    return _LOADERS[name](AdsOptions(path, snapshot), data_dir)

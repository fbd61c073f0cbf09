"""A table of the user's; see `mtl_jax.data.survival.table`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import tensorflow_datasets as tfds

from mtl_jax.data.lifetimes import LifetimeSet
from mtl_jax.data.survival.table import TableOptions, table_files, table_lifetimes
from mtl_jax.data.survival.table_builder import FilesBuilder


class Builder(FilesBuilder):
    """TFDS builder of `table`; its configs are those of options, with a digest in the name."""

    VERSION = tfds.core.Version("1.0.0")
    ABOUT = "Lifetimes of a table."
    PATTERNS = ("table.*", "*.csv", "*.tsv", "*.parquet", "*.csv.*", "*.tsv.*")
    OPTIONS = TableOptions

    @classmethod
    def files(cls, options: TableOptions) -> Sequence[Path]:
        """Returns the table's files; see `FilesBuilder.files`."""
        return table_files(options)

    @classmethod
    def make(cls, options: TableOptions) -> tuple[LifetimeSet, list[str]]:
        """Returns the set; see `FilesBuilder.make`."""
        return table_lifetimes(options)

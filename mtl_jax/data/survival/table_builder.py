"""The TFDS builder of sets that are made from files of the user's, and what opens them.

Such a set is prepared once for each file and options, in `<name>/default-<digest>`; the digest is
of the options and of what is in the files, not of where they are.
"""

from __future__ import annotations

import abc
import dataclasses
import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import tensorflow_datasets as tfds

from mtl_jax.data.lifetime_builder import LifetimeBuilder
from mtl_jax.data.lifetimes import LifetimeSet
from mtl_jax.data.lifetimes_io import read_lifetimes
from mtl_jax.data.prepare import prepare
from mtl_jax.data.registry import DATASETS
from mtl_jax.data.survival.table_ads import AdsOptions, check_ads
from mtl_jax.data.survival.table_files import find_tables
from mtl_jax.errors import UserError

_PATHS = ("path", "vectors", "image_folder")  # Where files are changes nothing.


class FilesConfig(tfds.core.BuilderConfig):
    """Options with a name that tells them apart.

    Attributes:
      options: to build with; None where a prepared set is only opened.
    """

    def __init__(self, name: str, options: Any = None) -> None:
        self.options = options
        super().__init__(name=name, description="Lifetimes made from files of the user's.")


class FilesBuilder(LifetimeBuilder, skip_registration=True):
    """A builder of one file, and perhaps of others that belong to it.

    A subclass has `files` and `make`, and

      PATTERNS: names that the file may have in a folder, the likeliest first.
      OPTIONS: the class of its options, whose field `path` is the file.
    """

    PATTERNS: ClassVar[Sequence[str]]
    OPTIONS: ClassVar[Callable[..., Any]]

    def _create_builder_config(self, builder_config: Any, version: Any) -> Any:
        del version
        return builder_config  # TFDS would warn at every opening that the config is not listed.

    @classmethod
    @abc.abstractmethod
    def files(cls, options: Any) -> Sequence[Path]:
        """Returns the files that the set of checked `options` is made of."""

    @classmethod
    @abc.abstractmethod
    def make(cls, options: Any) -> tuple[LifetimeSet, list[str]]:
        """Returns the set and lines about where it came from."""

    @classmethod
    def named(cls, name: str) -> FilesConfig:
        """Returns a config that opens the prepared set `name`."""
        return FilesConfig(name)

    @classmethod
    def config_for(cls, name: str, manual_dir: Path) -> FilesConfig:
        """Returns the config that builds the set from the files in `manual_dir`."""
        del name
        return cls.config_of(cls.OPTIONS(path=str(find_tables(manual_dir, cls.PATTERNS))))

    @classmethod
    def config_of(cls, options: Any) -> FilesConfig:
        """Returns the config of `options`, which are checked."""
        return FilesConfig(f"default-{digest(options, cls.files(options))}", options)

    def lifetimes(self, manual_dir: Path | None) -> LifetimeSet:
        """Returns the set; see `LifetimeBuilder.lifetimes`."""
        del manual_dir
        found, self.sources = self.make(self.builder_config.options)
        return found


class AdsBuilder(FilesBuilder, skip_registration=True):
    """A builder of an ad library's file."""

    OPTIONS = AdsOptions

    @classmethod
    def files(cls, options: AdsOptions) -> Sequence[Path]:
        """Returns the file; see `FilesBuilder.files`."""
        return [check_ads(options)]


def digest(options: Any, files: Sequence[Path]) -> str:
    """Returns 12 hexadecimal digits of the options and of the contents of the files, in order.

    Raises:
      UserError: a file that cannot be read.
    """
    fields = dataclasses.asdict(options)
    for name in _PATHS:
        fields.pop(name, None)
    found = hashlib.sha256(json.dumps(fields, sort_keys=True).encode())
    for path in files:
        try:
            with open(path, "rb") as file:
                found.update(hashlib.file_digest(file, "sha256").digest())
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    return found.hexdigest()[:12]


def load_made(name: str, options: Any, data_dir: str | Path | None = None) -> LifetimeSet:
    """Returns the set `name` that `options` make of files, preparing it where it is missing.

    Raises:
      UserError: an option, a file or a cell that is wrong.
    """
    config = DATASETS[name].builder_class().config_of(options)
    whole = f"{name}/{config.name}"
    return read_lifetimes(whole, prepare(whole, data_dir, builder_config=config), data_dir)

"""Pets of a shelter site until adoption; see `mtl_jax.data.survival.petfinder`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import tensorflow_datasets as tfds

from mtl_jax.data.lifetimes import LifetimeSet
from mtl_jax.data.survival.petfinder import PetfinderOptions, petfinder_files, petfinder_lifetimes
from mtl_jax.data.survival.table_builder import FilesBuilder


class Builder(FilesBuilder):
    """TFDS builder of `petfinder`; its configs are those of options, with a digest in the name."""

    VERSION = tfds.core.Version("1.0.0")
    ABOUT = "Pets and the interval of days in which they were adopted."
    PATTERNS = ("train.csv*", "petfinder*.csv*", "*.csv*")
    OPTIONS = PetfinderOptions

    @classmethod
    def files(cls, options: PetfinderOptions) -> Sequence[Path]:
        """Returns the files; see `FilesBuilder.files`."""
        return petfinder_files(options)

    @classmethod
    def make(cls, options: PetfinderOptions) -> tuple[LifetimeSet, list[str]]:
        """Returns the set; see `FilesBuilder.make`."""
        return petfinder_lifetimes(options)

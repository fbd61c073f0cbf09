"""Google's political ads; see `mtl_jax.data.survival.google_ads`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import tensorflow_datasets as tfds

from mtl_jax.data.lifetimes import LifetimeSet
from mtl_jax.data.survival.google_ads import google_ads_lifetimes
from mtl_jax.data.survival.table_ads import AdsOptions, check_ads
from mtl_jax.data.survival.table_builder import FilesBuilder
from mtl_jax.data.survival.table_files import find_tables

PATTERNS = ("google-political-ads-creative-stats.csv*", "*creative[-_]stats*", "*.csv*")


class Builder(FilesBuilder):
    """TFDS builder of `google_ads`; its configs are those of options, with a digest in the name."""

    VERSION = tfds.core.Version("1.0.0")
    ABOUT = "Political ads of Google and when they had their last impression."

    @classmethod
    def options_for(cls, manual_dir: Path) -> AdsOptions:
        """Returns the options for the one file in `manual_dir`."""
        return AdsOptions(path=str(find_tables(manual_dir, PATTERNS)))

    @classmethod
    def files(cls, options: AdsOptions) -> Sequence[Path]:
        """Returns the file; see `FilesBuilder.files`."""
        return [check_ads(options)]

    @classmethod
    def make(cls, options: AdsOptions) -> tuple[LifetimeSet, list[str]]:
        """Returns the set; see `FilesBuilder.make`."""
        return google_ads_lifetimes(options)

"""AliExpress search; see `mtl_jax.data.recommendation.aliexpress`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import tensorflow_datasets as tfds

from mtl_jax.data.impression_builder import ImpressionBuilder
from mtl_jax.data.impressions import ImpressionSet
from mtl_jax.data.recommendation.aliexpress import (
    COUNTRIES,
    MANUAL,
    aliexpress_parts,
    find_folder,
)


class Builder(ImpressionBuilder):
    """TFDS builder of `aliexpress`."""

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS: ClassVar = [
        tfds.core.BuilderConfig(name=name, description=f"The country {name}.") for name in COUNTRIES
    ]
    MANUAL_DOWNLOAD_INSTRUCTIONS = MANUAL
    ABOUT = "Search results with clicks and conversions; no histories."

    def parts(self, manual_dir: Path | None) -> Iterator[ImpressionSet]:
        """Yields a part for each block of rows; see `ImpressionBuilder.parts`."""
        folder = find_folder(manual_dir, self.builder_config.name)
        self.sources = [str(folder)]
        yield from aliexpress_parts(folder)

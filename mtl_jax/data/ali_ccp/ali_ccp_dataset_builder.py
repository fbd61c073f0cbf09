"""Ali-CCP; see `mtl_jax.data.recommendation.ali_ccp`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import tensorflow_datasets as tfds

from mtl_jax.data.impression_builder import ImpressionBuilder
from mtl_jax.data.impressions import ImpressionSet
from mtl_jax.data.recommendation.ali_ccp import CONFIGS, MANUAL, ali_ccp_parts
from mtl_jax.errors import UserError


class Builder(ImpressionBuilder):
    """TFDS builder of `ali_ccp`."""

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS: ClassVar = [
        tfds.core.BuilderConfig(name=name, description=f"Ids seen {count} times in training.")
        for name, count in CONFIGS.items()
    ]
    MANUAL_DOWNLOAD_INSTRUCTIONS = MANUAL
    ABOUT = "84 million impressions of a shop, with clicks and conversions."

    def parts(self, manual_dir: Path | None) -> Iterator[ImpressionSet]:
        """Yields a part for each shard of users; see `ImpressionBuilder.parts`."""
        if manual_dir is None:
            raise UserError(f"ali_ccp is built from your own copy: --manual-dir with {MANUAL}")
        self.sources = [str(manual_dir)]
        found, self.vocabularies = ali_ccp_parts(
            manual_dir, CONFIGS[self.builder_config.name], scratch=Path(str(self.data_path))
        )
        yield from found

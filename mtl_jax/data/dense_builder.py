"""What the builders of NYUv2 and CityScapes share; see `dense_files`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from mtl_jax.data import dense_files


class DenseMixin:
    """TFDS builder methods; a builder adds `VERSION`. One record an image, of any one size."""

    MANUAL_DOWNLOAD_INSTRUCTIONS = "train/ and val/ of MTAN's .npy files, a folder a field."
    sources: list[str]

    def _info(self: Any) -> tfds.core.DatasetInfo:
        fields = {
            field: tfds.features.Tensor(
                shape=(None, None, channels), dtype=np.float32, encoding="zlib"
            )
            for field, channels in dense_files.SPECS[self.name].channels.items()
        }
        fields["label"] = tfds.features.Tensor(shape=(None, None), dtype=np.int8, encoding="zlib")
        return tfds.core.DatasetInfo(
            builder=self,
            description="Images with label maps, as preprocessed by MTAN's authors.",
            features=tfds.features.FeaturesDict(fields),
            disable_shuffling=True,
        )

    def _split_generators(self: Any, dl_manager: Any) -> dict[str, Any]:
        folder = Path(str(dl_manager.manual_dir))
        self.sources = [str(folder)]
        found = {s: dense_files.find_files(self.name, folder, s) for s in dense_files.FOLDERS}
        return {split: self._generate_examples(files) for split, files in found.items()}

    def _generate_examples(
        self: Any, files: dense_files.DenseFiles
    ) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
        return dense_files.examples(files)

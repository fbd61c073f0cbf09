"""CelebA: 40 binary attributes of faces, official splits, 64x64; see `celeba_files`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from mtl_jax.data import celeba_files as files
from mtl_jax.errors import UserError


class Builder(tfds.core.GeneratorBasedBuilder):
    """TFDS builder of `celeba`."""

    VERSION = tfds.core.Version("1.0.0")
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        "list_attr_celeba.txt, list_eval_partition.txt, img_align_celeba/*.jpg"
    )
    sources: list[str]

    def _info(self) -> tfds.core.DatasetInfo:
        image = tfds.features.Tensor(
            shape=(files.SIZE, files.SIZE, 3), dtype=np.uint8, encoding="zlib"
        )
        label = tfds.features.Tensor(shape=(files.NUM_ATTRIBUTES,), dtype=np.uint8)
        return tfds.core.DatasetInfo(
            builder=self,
            description="Aligned faces at 64x64 with 40 binary attributes.",
            features=tfds.features.FeaturesDict({"image": image, "label": label}),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        folder = Path(str(dl_manager.manual_dir))
        self.sources = [str(folder)]
        _, attributes = files.read_attributes(folder / files.ATTRIBUTE_FILE)
        splits = files.read_partition(folder / files.PARTITION_FILE)
        images = folder / files.IMAGE_FOLDER
        present = {path.name for path in images.iterdir()} if images.is_dir() else set()
        for file in (file for names in splits.values() for file in names):
            if file not in attributes:
                raise UserError(f"{folder / files.ATTRIBUTE_FILE}: no line for {file}")
            if file not in present:
                raise UserError(f"{images / file}: no such file; the partition list names it")
        return {
            split: self._generate_examples(folder, names, attributes)
            for split, names in splits.items()
        }

    def _generate_examples(
        self, folder: Path, names: list[str], attributes: dict[str, np.ndarray]
    ) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
        return files.examples(folder, names, attributes)

"""QM9; see `mtl_jax.data.molecules`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds

from mtl_jax.data.blocks import manual_folder
from mtl_jax.data.molecules import (
    COMMON_FILE,
    ELEMENTS,
    EVERY,
    FILES,
    REFERENCES,
    SPLITS,
    TARGETS,
    Molecules,
    blocks,
    find_qm9,
    split_rows,
)


class Builder(tfds.core.GeneratorBasedBuilder):
    """TFDS builder of `qm9`: train, validation and test, in blocks of molecules.

    A record has `ids` and `counts` [k] int32, `targets` [k, 11] float32, and of the atoms of all
    its molecules, one after the other, `charges` [sum of counts] uint8 and `positions`
    [sum of counts, 3] float32 in Angstrom. `molecules.json` beside the records says what the
    targets are.
    """

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS: ClassVar = [
        tfds.core.BuilderConfig(name="small", description="Every 13th molecule: 10,064."),
        tfds.core.BuilderConfig(name="full", description="All 130,831 molecules."),
    ]
    MANUAL_DOWNLOAD_INSTRUCTIONS = f"Optional: {', '.join(FILES)}."
    sources: list[str]

    def _info(self) -> tfds.core.DatasetInfo:
        shapes: dict[str, tuple[tuple[int | None, ...], Any]] = {
            "ids": ((None,), np.int32),
            "counts": ((None,), np.int32),
            "charges": ((None,), np.uint8),
            "positions": ((None, 3), np.float32),
            "targets": ((None, len(TARGETS)), np.float32),
        }
        features = {
            key: tfds.features.Tensor(shape=shape, dtype=dtype, encoding="bytes")
            for key, (shape, dtype) in shapes.items()
        }
        return tfds.core.DatasetInfo(
            builder=self,
            description="Small molecules with eleven computed properties, energies of atomisation.",
            features=tfds.features.FeaturesDict(features),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        every = EVERY[self.builder_config.name]
        found, origin = find_qm9(manual_folder(dl_manager), every)
        self.sources = [origin]
        splits = split_rows(len(found.ids))
        common = {
            "targets": [target._asdict() for target in TARGETS],
            "references_hartree": REFERENCES,
            "elements": ELEMENTS,
            "positions": "Angstrom",
            "molecules": {split: len(splits[split]) for split in SPLITS},
            "sources": self.sources,
        }
        (Path(str(self.data_path)) / COMMON_FILE).write_text(json.dumps(common, indent=1) + "\n")
        return {split: self._generate_examples(found, splits[split]) for split in SPLITS}

    def _generate_examples(
        self, found: Molecules, rows: np.ndarray
    ) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
        yield from enumerate(blocks(found, rows))

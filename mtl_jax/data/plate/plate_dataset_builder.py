"""The heated plate, solved here; see `plate_solver` for the physics, `plate_set` to load it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds

from mtl_jax.data import plate_geometry, plate_solver
from mtl_jax.data.fetch import say


class Builder(tfds.core.GeneratorBasedBuilder):
    """TFDS builder of `plate`, one record a design; splits are the paper's 24 and 40 designs.

    A record: `design` (its place in `plate_geometry.DESIGNS`), `holes`, `position`, `mask` (bits,
    packed, x slowest and z fastest), `temperature` [n] float32 of the n points inside.
    """

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS: ClassVar = [
        tfds.core.BuilderConfig(name=name, description=f"On {' x '.join(map(str, grid))} points.")
        for name, grid in plate_geometry.GRIDS.items()
    ]
    sources: list[str]

    def _info(self) -> tfds.core.DatasetInfo:
        features = {
            "design": tfds.features.Scalar(np.int32),
            "holes": tfds.features.Scalar(np.int32),
            "position": tfds.features.Scalar(np.float32),
            "mask": tfds.features.Tensor(shape=(None,), dtype=np.uint8, encoding="zlib"),
            "temperature": tfds.features.Tensor(shape=(None,), dtype=np.float32, encoding="bytes"),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            description="Temperature in a disc with 2 to 9 heated bores at 8 positions.",
            features=tfds.features.FeaturesDict(features),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        low, high = plate_solver.LAYERS
        self.sources = [f"solved here: linear prisms, {low} + {high} layers, {_constants()}"]
        trained = [d[1] in plate_geometry.TRAIN_POSITIONS for d in plate_geometry.DESIGNS]
        return {
            "train": self._generate_examples(np.flatnonzero(trained)),
            "test": self._generate_examples(np.flatnonzero(np.logical_not(trained))),
        }

    def _generate_examples(self, designs: np.ndarray) -> Iterator[tuple[int, dict[str, Any]]]:
        grid = plate_geometry.GRIDS[self.builder_config.name]
        start = time.process_time()
        for done, number in enumerate(designs.tolist()):
            holes, position = plate_geometry.DESIGNS[number]
            temperature, mask = plate_solver.solve_design(holes, position, grid)
            record = {
                "design": number,
                "holes": holes,
                "position": position,
                "mask": np.packbits(mask),
                "temperature": temperature[mask],
            }
            yield number, record
            if (done + 1) % 8 == 0:
                each = (time.process_time() - start) / (done + 1)
                say(f"plate: {done + 1} of {len(designs)} designs solved, {each:.2f} CPU s each")


def _constants() -> str:
    return (
        f"k {plate_solver.CONDUCTIVITY:g}, h {plate_solver.TRANSFER:g}, q {plate_solver.FLUX:g}, "
        f"air {plate_solver.AIR:g}"
    )

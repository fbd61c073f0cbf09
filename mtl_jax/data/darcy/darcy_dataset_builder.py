"""Darcy flow on one geometry a config, solved here; see `mtl_jax.data.pde.darcy`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds

from mtl_jax.data.pde import darcy_data
from mtl_jax.data.pde.darcy import LENGTH, STD, Darcy
from mtl_jax.data.pde.mesh import H
from mtl_jax.data.pde.shapes import SHAPES

GEOMETRY_FILE = "geometry.npz"


class Config(tfds.core.BuilderConfig):
    """A geometry at a size: "square" (every third point of the grid) or "square_full"."""

    def __init__(self, shape: str, suffix: str) -> None:
        self.shape = shape
        self.suffix = suffix
        size = darcy_data.SIZES[suffix]
        about = f"{shape}, {size.grid} x {size.grid} points, {sum(size.counts.values())} samples"
        super().__init__(name=shape + suffix, description=about)


class Builder(tfds.core.GeneratorBasedBuilder):
    """TFDS builder of `darcy`.

    Each record: `field` [k, G, G] = log K and `solutions` [k, G * G] = u, float32, k <= 100. What
    all share is in `geometry.npz`: coords [G * G, 2] = (x, y), mask [G * G], the mesh.
    """

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS: ClassVar = [
        Config(shape, suffix) for suffix in darcy_data.SIZES for shape in SHAPES
    ]
    sources: list[str]

    def _info(self) -> tfds.core.DatasetInfo:
        grid = darcy_data.SIZES[self.builder_config.suffix].grid

        def rows(*shape: int) -> Any:
            return tfds.features.Tensor(shape=(None, *shape), dtype=np.float32, encoding="bytes")

        return tfds.core.DatasetInfo(
            builder=self,
            description="-div(K grad u) = 1 with u = 0 on the boundary, log K a Gaussian field.",
            features=tfds.features.FeaturesDict(
                {"field": rows(grid, grid), "solutions": rows(grid * grid)}
            ),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        problem = Darcy(SHAPES[self.builder_config.shape])
        size = darcy_data.SIZES[self.builder_config.suffix]
        self.sources = [
            f"solved here by linear finite elements, h = {H}: log K with RBF length {LENGTH},"
            f" std {STD}, seed 0"
        ]
        common: dict[str, Any] = darcy_data.geometry(problem, size)
        np.savez_compressed(self.data_path / GEOMETRY_FILE, **common)
        return {split: self._generate_examples(problem, size, split) for split in size.counts}

    def _generate_examples(
        self, problem: Darcy, size: darcy_data.Size, split: str
    ) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
        yield from enumerate(darcy_data.samples(problem, size, split))

"""The samples of the Darcy sets: how many, in which splits, on which grid."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from mtl_jax.data.fetch import say
from mtl_jax.data.pde.darcy import GRID, Darcy, grid_points, log_fields

BLOCK = 100
SECONDS_BETWEEN_LINES = 10
# A split has numbers of its own: it can grow without its samples, or another's, changing.
FIRST = {"train": 0, "validation": 1_000_000, "test": 2_000_000}


class Size(NamedTuple):
    """How much of a geometry a set holds.

    Attributes:
      every: keeps every so-manieth point of the 100 x 100 grid, both ends included.
      counts: samples of each split.
    """

    every: int
    counts: dict[str, int]

    @property
    def grid(self) -> int:
        """Points along each side."""
        return (GRID - 1) // self.every + 1


# The larger set's first samples are the smaller one's, seen on the whole grid.
SMALL = Size(3, {"train": 600, "validation": 100, "test": 200})
FULL = Size(1, {"train": 1800, "validation": 200, "test": 500})
SIZES = {"": SMALL, "_full": FULL}
"""By the ending of a config's name."""


def geometry(problem: Darcy, size: Size) -> dict[str, np.ndarray]:
    """Returns what all samples share: coords [N, 2], mask [N], points and triangles of the mesh."""
    kept = np.arange(GRID**2).reshape(GRID, GRID)[:: size.every, :: size.every].ravel()
    return {
        "coords": grid_points()[kept].astype(np.float32),
        "mask": problem.mask.ravel()[kept],
        "points": problem.elements.mesh.points.astype(np.float32),
        "triangles": problem.elements.mesh.triangles,
    }


def samples(problem: Darcy, size: Size, split: str) -> Iterator[dict[str, np.ndarray]]:
    """Yields solved blocks: field [k, G, G] = log K, solutions [k, G * G], float32, k <= 100."""
    total = size.counts[split]
    began = said = time.perf_counter()
    for start in range(0, total, BLOCK):
        stop = min(start + BLOCK, total)
        log_k = log_fields(problem.shape.name, range(FIRST[split] + start, FIRST[split] + stop))
        solutions = problem.solve(log_k)[:, :: size.every, :: size.every]
        yield {
            "field": log_k[:, :: size.every, :: size.every],
            "solutions": solutions.reshape(stop - start, -1),
        }
        now = time.perf_counter()
        if stop == total or now - said > SECONDS_BETWEEN_LINES:
            cost = 1000 * (now - began) / stop
            say(
                f"darcy {problem.shape.name}: {stop} of {total} {split} samples,"
                f" {cost:.1f} s per 1000"
            )
            said = now

"""Random numbers that are the same on every machine and with every numpy."""

from __future__ import annotations

import math

import numpy as np


class Draws:
    """Uniform numbers, a function of two keys only: made of the raw bits of a Philox generator.

    numpy keeps those bits fixed, but not what its own methods make of them.
    """

    def __init__(self, seed: int, stream: int) -> None:
        self._bits = np.random.Philox(key=np.array([seed, stream], np.uint64))

    def uniform(self, *shape: int) -> np.ndarray:
        """Returns float64 of `shape`, in [0, 1)."""
        raw = self._bits.random_raw(math.prod(shape))
        return (raw >> np.uint64(11)).reshape(shape) * 2.0**-53

    def integers(self, below: int, *shape: int) -> np.ndarray:
        """Returns int32 of `shape`, in 0..below-1."""
        return (self.uniform(*shape) * below).astype(np.int32)

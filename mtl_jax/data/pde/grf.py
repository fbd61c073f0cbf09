"""Gaussian random fields with an RBF kernel, and the numbers behind each sample.

On a grid the kernel is a product of one factor an axis, so a field with covariance Kx (x) Ky is
L Z L^T with white noise Z and 1-D Cholesky factors L: exact, without an eigenproblem of the size of
the grid.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

JITTER = 1e-8
"""Added to a kernel's diagonal: an RBF kernel has eigenvalues below the rounding error."""


def sample_rng(seed: int, task: str, index: int) -> np.random.Generator:
    """Returns the generator of one sample: a function of (seed, task, index) alone.

    So a set can be extended, or made in parts, without any other sample changing.
    """
    words = np.random.SeedSequence((seed, zlib.crc32(task.encode()), index))
    return np.random.Generator(np.random.Philox(words))


def white_noise(seed: int, task: str, indices: Iterable[int], shape: Sequence[int]) -> np.ndarray:
    """Returns standard normal numbers [len(indices), *shape] float64, each row from its own rng."""
    return np.stack([sample_rng(seed, task, i).standard_normal(tuple(shape)) for i in indices])


def rbf_kernel(points: np.ndarray, length: float) -> np.ndarray:
    """Returns exp(-d^2 / (2 length^2)) [n, n] of `points` [n] on a line."""
    if length <= 0:
        raise ValueError(f"length = {length} must be positive")
    return np.exp(-0.5 * np.square((points[:, None] - points) / length))


def rbf_factor(points: np.ndarray, length: float) -> np.ndarray:
    """Returns the lower Cholesky factor L [n, n] of the kernel, so that L z has its covariance."""
    return np.linalg.cholesky(rbf_kernel(points, length) + JITTER * np.eye(len(points)))


class Field2D(NamedTuple):
    """A Gaussian field on an n x n grid, as left @ (amplitude * Z) @ left.T of white noise Z.

    Attributes:
      left: [n, n], the same for both axes.
      amplitude: [n, n], or None for 1.
    """

    left: np.ndarray
    amplitude: np.ndarray | None = None

    def sample(self, noise: np.ndarray) -> np.ndarray:
        """Returns fields [..., n, n] of unit variance (less what is truncated) from `noise`."""
        scaled = noise if self.amplitude is None else self.amplitude * noise
        return self.left @ scaled @ self.left.T


def rbf_field(points: np.ndarray, length: float, kl_terms: int | None = None) -> Field2D:
    """Returns the field with an RBF kernel on the square grid of `points` [n] along each axis.

    Args:
      points: coordinates along an axis.
      length: of the correlation, in the same unit.
      kl_terms: keeps so many terms of the Karhunen-Loeve expansion, those with the largest
        eigenvalues, which are products of the eigenvalues along the axes; None for all.
    """
    if kl_terms is None:
        return Field2D(rbf_factor(points, length))
    n = len(points)
    if not 1 <= kl_terms <= n * n:
        raise ValueError(f"kl_terms = {kl_terms}, a grid of {n} x {n} has 1..{n * n}")
    values, vectors = np.linalg.eigh(rbf_kernel(points, length))
    products = np.outer(np.clip(values, 0, None), np.clip(values, 0, None))
    kept = np.zeros(n * n, bool)
    kept[np.argsort(-products, axis=None, kind="stable")[:kl_terms]] = True
    return Field2D(vectors, np.sqrt(np.where(kept.reshape(n, n), products, 0)))

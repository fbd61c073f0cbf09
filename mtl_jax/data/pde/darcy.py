"""Darcy flow, -div(K grad u) = f with u = 0 on the boundary, by linear finite elements.

K = exp(log K), interpolated bilinearly between the points of a grid on the unit square, as in the
generators of TL-DeepONet; u is evaluated on the same grid, row = y, column = x. Everything that
does not depend on K is computed once a mesh: local stiffness matrices, the pattern of the matrix,
an elimination order, the interpolations. TL-DeepONet used quadratic triangles: linear ones with
h = 0.02 are within 0.3 % of the converged solution and much cheaper.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from mtl_jax.data.pde.grf import rbf_field, white_noise
from mtl_jax.data.pde.mesh import (
    TriangleMesh,
    boundary_nodes,
    double_areas,
    interpolation,
    load_mesh,
)
from mtl_jax.data.pde.meshing import mesh_polygon
from mtl_jax.data.pde.shapes import SHAPES, Shape, inside
from mtl_jax.errors import UserError

Array = np.ndarray
GRID = 100
"""Points of the grid along each side, end points included."""
LENGTH, STD = 0.15, 0.6
"""Of log K: RBF correlation length and standard deviation; fitted to the released networks."""


def grid_points(size: int = GRID) -> Array:
    """Returns the points (x, y) [size^2, 2] float64 of the grid on the unit square, row-major."""
    x = np.arange(size) / (size - 1)
    return np.stack([np.tile(x, size), np.repeat(x, size)], axis=1)


class Elements:
    """Linear elements on one mesh, for any coefficient and load; u = 0 on the boundary.

    Attributes:
      mesh: N points, E triangles.
      area: [E] of the triangles.
      local: [E, 3, 3] stiffness of each triangle for K = 1.
      interior: numbers of the free points.
    """

    def __init__(self, mesh: TriangleMesh) -> None:
        self.mesh = mesh
        corners = mesh.points[mesh.triangles]  # [E, 3, 2]
        opposite = np.roll(corners, -1, axis=1) - np.roll(corners, 1, axis=1)
        double = double_areas(mesh)
        self.area = double / 2
        self.local = opposite @ opposite.transpose(0, 2, 1) / (2 * double[:, None, None])
        self.interior = np.setdiff1d(np.arange(len(mesh.points)), boundary_nodes(mesh))
        if not len(self.interior):
            raise UserError("the mesh has no point inside the shape; choose a smaller h")
        self._number(self.interior)
        # The order that keeps the factors sparse follows from the mesh: finding it once saves a
        # fifth of every solution.
        first = self._factor(np.ones(len(self.area)), "MMD_AT_PLUS_A")
        self._number(self.interior[np.argsort(first.perm_c)])

    def _number(self, free: Array) -> None:
        """Numbers the unknowns as in `free`, and finds the place of every local entry."""
        count = len(free)
        number = np.full(len(self.mesh.points), -1)
        number[free] = np.arange(count)
        local = number[self.mesh.triangles]
        rows = np.repeat(local, 3, axis=1).ravel()
        columns = np.tile(local, (1, 3)).ravel()
        self._kept = np.flatnonzero((rows >= 0) & (columns >= 0))
        keys = columns[self._kept] * count + rows[self._kept]  # By columns.
        unique, self._place = np.unique(keys, return_inverse=True)
        self._rows = (unique % count).astype(np.int32)
        self._starts = np.searchsorted(unique // count, np.arange(count + 1)).astype(np.int32)
        self._free = free

    def _factor(self, k: Array, order: str) -> Any:
        from scipy.sparse import csc_matrix
        from scipy.sparse.linalg import splu

        values = (self.local * k[:, None, None]).reshape(-1)[self._kept]
        values = np.bincount(self._place, values, len(self._rows))
        shape = (len(self._free), len(self._free))
        matrix = csc_matrix((values, self._rows, self._starts), shape)
        symmetric = {"SymmetricMode": True}
        return splu(matrix, permc_spec=order, diag_pivot_thresh=0.0, options=symmetric)

    def load(self, f: float | Array = 1.0) -> Array:
        """Returns the integrals of f times each basis function [N]; f constant or at the points."""
        third = np.repeat(self.area / 3, 3)
        shares = np.bincount(self.mesh.triangles.ravel(), third, len(self.mesh.points))
        return shares * f

    def solve(self, k: Array, load: Array) -> Array:
        """Returns u [N] float64 for K = `k` [E] > 0 on the triangles and `load` [N]."""
        u = np.zeros(len(self.mesh.points))
        u[self._free] = self._factor(k, "NATURAL").solve(load[self._free])
        return u


class Darcy:
    """The problem on one shape, from log K on the grid to u on the grid, with f = 1.

    Attributes:
      shape: the polygon.
      elements: the mesh and its matrices.
      mask: [100, 100] bool, which grid points the shape holds, its boundary included.
    """

    def __init__(self, shape: Shape, mesh: TriangleMesh | None = None) -> None:
        """Takes the shape's shipped mesh unless one is given; meshes a polygon of the user's."""
        self.shape = shape
        if mesh is None and shape is SHAPES.get(shape.name):
            mesh = load_mesh(shape.name)
        elif mesh is None:
            mesh = mesh_polygon(shape.outer, shape.holes, name=shape.name)
        self.elements = Elements(mesh)
        held = inside(shape, grid_points())
        if not held.any():
            raise UserError(f"{shape.name}: no point of the {GRID} x {GRID} grid is inside it")
        self.mask = held.reshape(GRID, GRID)
        self._to_grid = interpolation(mesh, GRID, held)
        self._to_triangles = _triangle_means(mesh)
        self._load = self.elements.load()

    def solve(self, log_k: Array) -> Array:
        """Returns u [B, 100, 100] float32, 0 outside the mask, for `log_k` [B, 100, 100]."""
        if log_k.ndim != 3 or log_k.shape[1:] != (GRID, GRID):
            raise ValueError(f"log_k is {list(log_k.shape)}, expected [B, {GRID}, {GRID}]")
        k = np.exp(log_k.reshape(len(log_k), -1).astype(np.float64))
        on_triangles = (self._to_triangles @ k.T).T  # [B, E]
        u = np.stack([self.elements.solve(row, self._load) for row in on_triangles], axis=1)
        return (self._to_grid @ u).T.astype(np.float32).reshape(log_k.shape)


def _triangle_means(mesh: TriangleMesh) -> Any:
    """The sparse [E, GRID^2] matrix of means over triangles of functions bilinear on the grid.

    By the quadrature of three inner points, exact for quadratic functions.
    """
    from scipy.sparse import csr_matrix

    corners = mesh.points[mesh.triangles]  # [E, 3, 2]
    # (4 a + b + c) / 6 and so on.
    at = (corners / 2 + corners.mean(axis=1, keepdims=True) / 2).reshape(-1, 2) * (GRID - 1)
    cell = np.clip(at.astype(int), 0, GRID - 2)
    (x, y), (column, row) = (at - cell).T, cell.T
    weights = np.stack([(1 - y) * (1 - x), (1 - y) * x, y * (1 - x), y * x], axis=1) / 3
    points = (row * GRID + column)[:, None] + np.array([0, 1, GRID, GRID + 1])
    triangles = np.repeat(np.arange(len(corners)), 12)
    shape = (len(corners), GRID**2)
    return csr_matrix((weights.ravel(), (triangles, points.ravel())), shape)


def log_fields(
    task: str, indices: Iterable[int], seed: int = 0, kl_terms: int | None = None
) -> Array:
    """Returns log K [len(indices), 100, 100] float32 of the numbered samples of a task.

    RBF kernel of length 0.15, standard deviation 0.6, mean 0. TL-DeepONet keeps 100 terms of the
    Karhunen-Loeve expansion (`kl_terms=100`); here all are kept.
    """
    field = rbf_field(np.arange(GRID) / (GRID - 1), LENGTH, kl_terms)
    noise = white_noise(seed, task, indices, (GRID, GRID))
    return (STD * field.sample(noise)).astype(np.float32)

"""Triangle meshes in the plane: the built-in ones from files, and what both solvers ask of them."""

from __future__ import annotations

import importlib.resources
import io
from typing import Any, NamedTuple

import numpy as np

H = 0.02
"""Edge length of the built-in meshes."""


class TriangleMesh(NamedTuple):
    """Triangles with straight edges.

    Attributes:
      points: [N, 2] float64.
      triangles: [E, 3] int32 numbers of points, counter-clockwise.
    """

    points: np.ndarray
    triangles: np.ndarray


def load_mesh(name: str) -> TriangleMesh:
    """Returns the built-in mesh of a shape of `shapes.SHAPES`; `meshing` made it."""
    file = importlib.resources.files("mtl_jax.data.pde") / "meshes" / f"{name}.npz"
    with np.load(io.BytesIO(file.read_bytes()), allow_pickle=False) as found:
        return TriangleMesh(found["points"].astype(np.float64), found["triangles"].astype(np.int32))


def double_areas(mesh: TriangleMesh) -> np.ndarray:
    """Returns twice the signed areas of the triangles [E]; positive counter-clockwise."""
    a, b, c = (mesh.points[mesh.triangles[:, k]] for k in range(3))
    (ux, uy), (vx, vy) = (b - a).T, (c - a).T
    return ux * vy - uy * vx


def boundary_nodes(mesh: TriangleMesh) -> np.ndarray:
    """Returns the numbers of the points on edges of a single triangle, in order."""
    t = mesh.triangles
    edges = np.sort(np.concatenate([t[:, [0, 1]], t[:, [1, 2]], t[:, [2, 0]]]), axis=1)
    unique, count = np.unique(edges, axis=0, return_counts=True)
    return np.unique(unique[count == 1])


def interpolation(mesh: TriangleMesh, size: int, wanted: np.ndarray) -> Any:
    """Returns the sparse [size^2, N] matrix that evaluates piecewise linear functions on a grid.

    Every triangle looks at the grid points of its bounding box, so any mesh will do.

    Args:
      mesh: N points.
      size: points along each side of the unit square, end points included; row-major, row = y,
        column = x.
      wanted: [size^2] bool, where values are needed; other rows are empty. A point that is
        outside the mesh by less than a step of the grid (rounding, or between a facet and its
        arc) gets the value at the edge of the nearest triangle.

    Raises:
      ValueError: a wanted point is farther outside.
    """
    from scipy import sparse

    corners = mesh.points[mesh.triangles]  # [E, 3, 2]
    first = np.floor(corners.min(axis=1) * (size - 1)).astype(int)
    last = np.ceil(corners.max(axis=1) * (size - 1)).astype(int)
    steps = np.arange((last - first).max() + 1)
    columns = first[:, 0, None, None] + steps  # [E, 1, m]
    rows = first[:, 1, None, None] + steps[:, None]  # [E, m, 1]
    near = (columns <= last[:, 0, None, None]) & (rows <= last[:, 1, None, None])
    near &= (columns >= 0) & (columns < size) & (rows >= 0) & (rows < size)
    element, row, column = np.nonzero(near)
    row, column = first[element, 1] + row, first[element, 0] + column
    point = row * size + column
    keep = wanted[point]
    element, point = element[keep], point[keep]
    xy = np.stack([column, row], axis=1)[keep] / (size - 1)
    a, b, c = (corners[element, k] for k in range(3))
    area = double_areas(mesh)[element]
    weights = np.stack([_cross(b - xy, c - xy), _cross(c - xy, a - xy), _cross(a - xy, b - xy)], 1)
    weights = weights / area[:, None]
    # The triangle that holds a point has the greatest smallest weight.
    order = np.lexsort((weights.min(axis=1), point))
    best = order[np.append(np.diff(point[order]) > 0, True)] if len(order) else order
    if len(best) != wanted.sum():
        lost = np.setdiff1d(np.flatnonzero(wanted), point)
        raise ValueError(f"{len(lost)} of {wanted.sum()} wanted grid points are outside the mesh")
    value = np.clip(weights[best], 0, None)
    value /= value.sum(axis=1, keepdims=True)
    index = (np.repeat(point[best], 3), mesh.triangles[element[best]].ravel())
    return sparse.csr_matrix((value.ravel(), index), (size**2, len(mesh.points)))


def _cross(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return u[:, 0] * v[:, 1] - u[:, 1] * v[:, 0]

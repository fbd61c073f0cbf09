"""Steady heat conduction in the plate: heat enters at the holes and leaves at the rim and the hub.

    -div(k grad T) = 0,  k dT/dn = q on the holes' walls,  k dT/dn = h (T_air - T) on the rim and on
    the hub's lower face,  k dT/dn = 0 on all other faces.

Finite elements on prisms: linear triangles times linear intervals in z. The matrices of a prism are
Kronecker products of those of its triangle and its interval, so no mesh in 3-D is needed.

Source: MT-DeepONet (Kumar et al. 2024), third problem. Their files hold no physics: the constants
are those that the authors' released network fits, in units of its highest temperature.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp
from scipy.sparse.linalg import splu

from mtl_jax.data import plate_geometry as geometry
from mtl_jax.data.plate_mesh import FlatMesh, load_mesh

CONDUCTIVITY = 1.0
TRANSFER = 2.5  # h
AIR = 0.652  # T_air
FLUX = 0.21  # q, heat per time and area
LAYERS = (4, 12)  # intervals in z of the hub and of the disc
_CHUNK = 1000  # points located at a time: bounds the memory


class Solution(NamedTuple):
    """Temperature of an extruded mesh.

    Attributes:
      mesh: flat, of a half-sector.
      z: [L] heights of the layers of nodes.
      temperature: [L, V] float64; NaN below the disc where there is no hub.
      heat_in: heat per time that enters at the hole's wall.
      heat_out: heat per time that the air takes; equal but for rounding.
    """

    mesh: FlatMesh
    z: np.ndarray
    temperature: np.ndarray
    heat_in: float
    heat_out: float


def layers(counts: tuple[int, int]) -> np.ndarray:
    """Returns the heights of the nodes, denser just above z = 0, where the hub's edge disturbs.

    Args:
      counts: intervals of the hub and of the disc.
    """
    hub = np.linspace(-geometry.HUB_HEIGHT, 0, counts[0] + 1)
    disc = geometry.HEIGHT * np.linspace(0, 1, counts[1] + 1) ** 1.5
    return np.concatenate([hub[:-1], disc])


def solve(mesh: FlatMesh, z: np.ndarray, flux: float = FLUX, air: float = AIR) -> Solution:
    """Returns the temperature of an extruded flat mesh; its faces that are no walls are mirrors.

    Args:
      mesh: flat; its `hub` triangles go on below z = 0.
      z: [L] increasing heights, 0 among them.
      flux: heat per time and area that enters at the hole; a hole that meets the hub is bored
        through it, and its wall there is heated as well.
      air: temperature of the air.
    """
    conduct, cooled, heated = matrices(mesh, z)
    ones = np.ones(len(z) * len(mesh.points))
    heat = flux * (heated @ ones)
    matrix = conduct + cooled
    used = np.flatnonzero(matrix.diagonal() > 0)  # Not the nodes below the disc outside the hub.
    factors = splu(
        matrix[used][:, used].tocsc(),
        permc_spec="MMD_AT_PLUS_A",
        diag_pivot_thresh=0.0,
        options={"SymmetricMode": True},
    )
    nodes = np.full(len(ones), np.nan)
    nodes[used] = factors.solve((air * (cooled @ ones) + heat)[used])
    lost = cooled @ (np.nan_to_num(nodes, nan=air) - air)
    shape = len(z), len(mesh.points)
    return Solution(mesh, z, nodes.reshape(shape), float(heat.sum()), float(lost.sum()))


def matrices(mesh: FlatMesh, z: np.ndarray) -> tuple[Any, Any, Any]:
    """Returns sparse matrices [L V, L V], nodes numbered layer by layer.

    They are k times the integral of grad u grad v over the volume, h times that of u v over the
    cooled faces, and that of u v over the heated ones.
    """
    points, low = mesh.points, mesh.triangles[mesh.hub]
    stiff, mass = _flat(points, mesh.triangles)
    stiff_hub, mass_hub = _flat(points, low)
    stiff_z, mass_z = _line(z, z[:-1] >= 0)
    stiff_low, mass_low = _line(z, z[:-1] < 0)
    bottom = sp.csr_array(([1.0], ([0], [0])), (len(z), len(z)))
    below = np.isin(mesh.hole, low).all(1)
    disc = sp.kron(mass_z, stiff) + sp.kron(stiff_z, mass)
    hub = sp.kron(mass_low, stiff_hub) + sp.kron(stiff_low, mass_hub)
    cooled = sp.kron(mass_z, _edges(points, mesh.rim)) + sp.kron(bottom, mass_hub)
    heated = sp.kron(mass_z, _edges(points, mesh.hole)) + sp.kron(
        mass_low, _edges(points, mesh.hole[below])
    )
    return (CONDUCTIVITY * (disc + hub)).tocsr(), (TRANSFER * cooled).tocsr(), heated.tocsr()


def evaluate(
    found: Solution, x: np.ndarray, y: np.ndarray, z: np.ndarray, holes: int
) -> np.ndarray:
    """Returns the temperature [X, Y, Z] on the grid of the axes x, y and z, of the whole plate.

    Values at points outside the plate mean nothing: mask them. A point that the straight edges of
    the mesh leave outside is extrapolated from the nearest triangle.
    """
    across, along = geometry.fold(np.repeat(x, len(y)), np.tile(y, len(x)), holes)
    radius = np.hypot(across, along)
    mesh, heights = found.mesh, found.z
    values = np.zeros((len(across), len(z)))
    for triangles, reach, rows in (
        (mesh.triangles, geometry.RADIUS, np.flatnonzero(z >= 0)),
        (mesh.triangles[mesh.hub], geometry.HUB_RADIUS, np.flatnonzero(z < 0)),
    ):
        columns = np.flatnonzero(radius <= 1.001 * reach)
        places = np.stack([across, along], 1)[columns]
        corners, weights = _locate(mesh.points, triangles, places)
        nodes = (found.temperature[:, corners] * weights).sum(-1)  # [L, columns]
        k = np.clip(np.searchsorted(heights, z[rows], side="right") - 1, 0, len(heights) - 2)
        share = ((z[rows] - heights[k]) / (heights[k + 1] - heights[k]))[:, None]
        values[np.ix_(columns, rows)] = ((1 - share) * nodes[k] + share * nodes[k + 1]).T
    return values.reshape(len(x), len(y), len(z))


def solve_design(
    holes: int, position: float, grid: tuple[int, int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Returns temperature [X, Y, Z] float32 (0 outside) and mask [X, Y, Z] bool of a design.

    Raises:
      UserError: there is no mesh of that design.
    """
    x, y, z = geometry.axes(grid)
    mask = geometry.inside(x[:, None, None], y[None, :, None], z, holes, position)
    found = solve(load_mesh(holes, position), layers(LAYERS))
    temperature = np.where(mask, evaluate(found, x, y, z, holes), 0)
    return temperature.astype(np.float32), mask


def _locate(
    points: np.ndarray, triangles: np.ndarray, at: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Corners [n, 3] and weights [n, 3] of the triangle that holds each of the places [n, 2].

    Where none does, of the one that is least far from it in barycentric coordinates.
    """
    homogeneous = np.concatenate([points[triangles], np.ones((len(triangles), 3, 1))], axis=2)
    to_weights = np.linalg.inv(homogeneous.transpose(0, 2, 1))  # [E, 3 corners, (x, y, 1)]
    places = np.concatenate([at, np.ones((len(at), 1))], axis=1)
    best = np.zeros(len(at), np.int64)
    for start in range(0, len(at), _CHUNK):
        chunk = places[start : start + _CHUNK]
        least = np.full((len(chunk), len(triangles)), np.inf)
        for corner in range(3):
            np.minimum(least, chunk @ to_weights[:, corner].T, out=least)
        best[start : start + _CHUNK] = least.argmax(1)
    return triangles[best], np.einsum("ncd,nd->nc", to_weights[best], places)


def _flat(points: np.ndarray, triangles: np.ndarray) -> tuple[Any, Any]:
    """Stiffness and mass matrices [V, V] of linear triangles."""
    a, b, c = (points[triangles[:, k]] for k in range(3))
    double = (b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0]
    area = double[:, None, None] / 2
    opposite = np.stack([c - b, a - c, b - a], 1)  # [E, 3, 2], turned by 90 degrees: gradients
    stiff = opposite @ opposite.transpose(0, 2, 1) / (4 * area)
    return (
        _scatter(stiff, triangles, len(points)),
        _scatter(area * (1 + np.eye(3)) / 12, triangles, len(points)),
    )


def _edges(points: np.ndarray, edges: np.ndarray) -> Any:
    """Mass matrix [V, V] of linear functions on edges [., 2]."""
    length = np.hypot(*(points[edges[:, 1]] - points[edges[:, 0]]).T)
    return _scatter(length[:, None, None] * (1 + np.eye(2)) / 6, edges, len(points))


def _line(z: np.ndarray, chosen: np.ndarray) -> tuple[Any, Any]:
    """Stiffness and mass matrices [L, L] of linear functions on the chosen intervals of z."""
    first = np.flatnonzero(chosen)
    length = np.diff(z)[first, None, None]
    intervals = np.stack([first, first + 1], 1)
    return (
        _scatter((2 * np.eye(2) - 1) / length, intervals, len(z)),
        _scatter(length * (1 + np.eye(2)) / 6, intervals, len(z)),
    )


def _scatter(local: np.ndarray, elements: np.ndarray, size: int) -> Any:
    """Sums the matrices [E, k, k] of elements [E, k] into one, sparse [size, size]."""
    rows = np.repeat(elements, elements.shape[1], axis=1).ravel()
    columns = np.tile(elements, (1, elements.shape[1])).ravel()
    return sp.coo_array((local.ravel(), (rows, columns)), (size, size)).tocsr()

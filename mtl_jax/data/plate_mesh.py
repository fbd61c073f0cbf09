"""Triangles of the plate's half-sector, with their walls named.

The meshes of all 64 designs ship as one file, made by `plate_meshing`.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mtl_jax.data.plate_geometry import DESIGNS, HOLE_RADIUS, HUB_RADIUS, RADIUS
from mtl_jax.errors import UserError

FILE = Path(__file__).parent / "plate" / "meshes.npz"
_NEAR = 1e-5  # Points are stored in float32, so this close to a circle means on it.


class FlatMesh(NamedTuple):
    """A flat mesh to be extruded in z.

    Attributes:
      points: [V, 2] float64.
      triangles: [E, 3] int64, counter-clockwise.
      hub: [E] bool, which triangles continue below z = 0.
      rim: [., 2] int64, edges that lose heat to the air.
      hole: [., 2] int64, edges where heat enters.
    """

    points: np.ndarray
    triangles: np.ndarray
    hub: np.ndarray
    rim: np.ndarray
    hole: np.ndarray


def load_mesh(holes: int, position: float) -> FlatMesh:
    """Returns the half-sector of a design: angles 0 .. pi / holes, a hole's axis at (position, 0).

    Raises:
      UserError: not one of the 64 designs.
    """
    found = [k for k, d in enumerate(DESIGNS) if d[0] == holes and abs(d[1] - position) < 1e-6]
    if not found:
        raise UserError(
            f"no mesh of a plate with {holes} holes at {position}; there are meshes of 2..9 holes"
            " at 0.9, 1.0, ... 1.6"
        )
    return sector_mesh(*_shipped()[found[0]], position)


def sector_mesh(points: np.ndarray, triangles: np.ndarray, position: float) -> FlatMesh:
    """Returns the `FlatMesh` of points [V, 2] and triangles [E, 3] of a half-sector.

    Points that are nearly on a curved wall are moved onto it; edges find out which wall is theirs.
    """
    points, triangles = points.astype(np.float64), triangles.astype(np.int64)
    on_wall: dict[str, np.ndarray] = {}
    free = np.ones(len(points), bool)
    # The hole first: where the hub's circle ends at it, the point stays on the hole.
    for wall, centre, circle in (
        ("hole", position, HOLE_RADIUS),
        ("rim", 0.0, RADIUS),
        ("hub", 0.0, HUB_RADIUS),
    ):
        arm = points - (centre, 0.0)
        length = np.hypot(*arm.T)
        on_wall[wall] = np.abs(length - circle) < _NEAR
        move = on_wall[wall] & free
        points[move] = (centre, 0.0) + arm[move] * (circle / length[move])[:, None]
        free &= ~move
    a, b, c = (points[triangles[:, k]] for k in range(3))
    clockwise = (b - a)[:, 0] * (c - a)[:, 1] < (b - a)[:, 1] * (c - a)[:, 0]
    triangles[clockwise] = triangles[clockwise, ::-1]
    within = np.hypot(*points.T) < HUB_RADIUS + _NEAR
    outer = outline(triangles)
    return FlatMesh(
        points,
        triangles,
        hub=within[triangles].all(1),
        rim=outer[on_wall["rim"][outer].all(1)],
        hole=outer[on_wall["hole"][outer].all(1)],
    )


def outline(triangles: np.ndarray) -> np.ndarray:
    """Returns the edges [., 2] that belong to one triangle only."""
    edges = np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]])
    unique, count = np.unique(np.sort(edges, axis=1), axis=0, return_counts=True)
    return unique[count == 1]


@functools.cache
def _shipped() -> list[tuple[np.ndarray, np.ndarray]]:
    """Points and triangles of each design, in the order of `DESIGNS`."""
    with np.load(FILE, allow_pickle=False) as file:
        points, triangles = file["points"], file["triangles"]
        ends = np.cumsum(file["counts"], axis=0)
    return list(
        zip(
            np.split(points, ends[:-1, 0]),
            np.split(triangles, ends[:-1, 1]),
            strict=True,
        )
    )

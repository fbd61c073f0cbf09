"""The geometries of the Darcy family, as polygons in the unit square, and polygons of the user's.

Circles are regular polygons with edges as long as those of the meshes; the area that this leaves
out is a few ten-thousandths. The boundary belongs to a shape, that of its holes too: the solution
is 0 there.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mtl_jax.errors import UserError

TOLERANCE = 1e-9  # Points so near to an edge lie on it.


class Shape(NamedTuple):
    """A polygon with holes.

    Attributes:
      name: of the shape.
      outer: [m, 2] float64 corners (x, y) of the outline, in order, the first not repeated.
      holes: the corners of each hole.
    """

    name: str
    outer: np.ndarray
    holes: tuple[np.ndarray, ...] = ()

    @property
    def area(self) -> float:
        """Of the outline without the holes."""
        return abs(signed_area(self.outer)) - sum(abs(signed_area(hole)) for hole in self.holes)


def _ring(radius: float, corners: int, first: float = 0.0) -> np.ndarray:
    """A regular polygon [corners, 2] around the centre; `first`: angle of its first corner."""
    angles = first + 2 * np.pi * np.arange(corners) / corners
    return 0.5 + radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)


def _corners(*points: tuple[float, float]) -> np.ndarray:
    return np.array(points, np.float64)


_SQUARE = _corners((0, 0), (1, 0), (1, 1), (0, 1))
_L_SHAPE = _corners((0, 0), (1, 0), (1, 0.5), (0.5, 0.5), (0.5, 1), (0, 1))
# A plus sign with arms 0.5 long and 0.1 wide.
_ARM = _corners((0.05, 0.05), (0.25, 0.05), (0.25, -0.05))  # A plus sign's, from the centre.
_QUARTERS = [np.array([[c, -s], [s, c]]) for c, s in ((1, 0), (0, 1), (-1, 0), (0, -1))]
_CROSS = 0.5 + np.concatenate([_ARM[::-1] @ turn.T for turn in _QUARTERS])
_ROWS = (
    Shape("square", _SQUARE),
    Shape("disc", _ring(0.5, 160)),
    Shape("triangle", _corners((0, 0), (1, 0), (0.5, 3**0.5 / 2))),
    Shape("pentagon", _ring(0.5, 5, np.pi / 2)),
    Shape("l_shape", _L_SHAPE),
    Shape("square_cross", _SQUARE, (_CROSS,)),
    Shape("square_hole", _SQUARE, (_ring(0.2, 64),)),
    Shape("right_triangle", _corners((0, 0), (1, 0), (0, 1))),
)
SHAPES = {row.name: row for row in _ROWS}
SOURCES = ("square", "disc", "triangle")
"""The geometries that the MT-DeepONet paper trains on."""
TARGETS = tuple(name for name in SHAPES if name not in SOURCES)
"""Ours to transfer to. The paper has a square with a cross too; its exact shape is not known."""


def signed_area(ring: np.ndarray) -> float:
    """Returns the area inside corners [m, 2], negative where they run clockwise."""
    after = np.roll(ring, -1, axis=0)
    return 0.5 * float(np.sum(ring[:, 0] * after[:, 1] - ring[:, 1] * after[:, 0]))


def inside(shape: Shape, points: np.ndarray) -> np.ndarray:
    """Returns [n] bool: which of `points` [n, 2] lie in the shape, its boundary included."""
    found, edge = _inside_ring(shape.outer, points)
    found |= edge
    for hole in shape.holes:
        in_hole, edge = _inside_ring(hole, points)
        found &= ~in_hole | edge
    return found


def _inside_ring(ring: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns [n] bool twice: inside by counting crossed edges, and on an edge."""
    x, y = points[:, :1], points[:, 1:]  # [n, 1], against [m] edges
    (ax, ay), (bx, by) = ring.T, np.roll(ring, -1, axis=0).T
    along_x, along_y = bx - ax, by - ay
    with np.errstate(divide="ignore", invalid="ignore"):
        crossing = ax + (y - ay) / along_y * along_x
    crossed = ((ay > y) != (by > y)) & (x < crossing)
    place = (x - ax) * along_x + (y - ay) * along_y
    place = np.clip(place / (along_x**2 + along_y**2), 0, 1)
    distance = np.hypot(x - ax - place * along_x, y - ay - place * along_y)
    return crossed.sum(axis=1) % 2 == 1, (distance <= TOLERANCE).any(axis=1)


def check_shape(
    outer: Sequence[Any] | np.ndarray, holes: Sequence[Any] = (), name: str = "polygon"
) -> Shape:
    """Returns a user's polygon as a `Shape` with counter-clockwise rings, once it is sound.

    Args:
      outer: corners (x, y) of the outline; a first corner that is repeated at the end is dropped.
      holes: the corners of each hole.
      name: of the shape, for the errors.

    Raises:
      UserError: fewer than 3 corners, coordinates that are no numbers or outside [0, 1], equal
        neighbours, edges that meet where they should not, a hole outside or in another.
    """
    names = ["the outline", *(f"hole {k + 1}" for k in range(len(holes)))]
    rings = [
        _checked_ring(ring, f"{name}: {what}")
        for ring, what in zip([outer, *holes], names, strict=True)
    ]
    _check_crossings(rings, names, name)
    for ring, what in zip(rings, names, strict=True):
        if abs(signed_area(ring)) < TOLERANCE:  # A triangle; others would touch themselves.
            raise UserError(f"{name}: {what} has no area, its corners are on one line")
    for k, hole in enumerate(rings[1:], start=1):
        if not _inside_ring(rings[0], hole[:1])[0][0]:
            raise UserError(
                f"{name}: {names[k]} lies outside the outline; move it in or leave it out"
            )
        for other, ring in enumerate(rings[1:], start=1):
            if other != k and _inside_ring(ring, hole[:1])[0][0]:
                raise UserError(f"{name}: {names[k]} lies inside {names[other]}; leave one out")
    return Shape(name, rings[0], tuple(rings[1:]))


def _checked_ring(ring: Any, what: str) -> np.ndarray:
    try:
        corners = np.array(ring, np.float64)
    except (TypeError, ValueError):
        raise UserError(f"{what} is not a list of corners [x, y]") from None
    if corners.ndim != 2 or corners.shape[1:] != (2,):
        raise UserError(f"{what} has shape {list(corners.shape)}, it must be corners [m, 2]")
    if len(corners) > 1 and np.array_equal(corners[0], corners[-1]):
        corners = corners[:-1]
    if len(corners) < 3:
        raise UserError(f"{what} has {len(corners)} corners, at least 3 are needed")
    odd = np.flatnonzero(~np.isfinite(corners).all(axis=1))
    if not len(odd):
        odd = np.flatnonzero(((corners < -TOLERANCE) | (corners > 1 + TOLERANCE)).any(axis=1))
    if len(odd):
        raise UserError(
            f"{what} has the corner {corners[odd[0]].tolist()}, coordinates must be in [0, 1];"
            " scale and shift the polygon"
        )
    same = np.flatnonzero((corners == np.roll(corners, -1, axis=0)).all(axis=1))
    if len(same):
        raise UserError(f"{what} has the corner {corners[same[0]].tolist()} twice in a row")
    return corners if signed_area(corners) > 0 else corners[::-1]


def _check_crossings(rings: list[np.ndarray], names: list[str], name: str) -> None:
    """Refuses edges that cross or touch, other than neighbours at their common corner."""
    ring = np.repeat(np.arange(len(rings)), [len(r) for r in rings])
    start = np.concatenate(rings)
    end = np.concatenate([np.roll(r, -1, axis=0) for r in rings])
    after = np.concatenate([np.roll(np.flatnonzero(ring == k), -1) for k in range(len(rings))])
    i, j = np.triu_indices(len(ring), k=1)
    apart = (after[i] != j) & (after[j] != i)
    i, j = i[apart], j[apart]

    def side(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
        u, v = b - a, c - a
        turn = u[:, 0] * v[:, 1] - u[:, 1] * v[:, 0]
        return np.where(np.abs(turn) < 1e-14, 0, np.sign(turn))

    meets = side(start[i], end[i], start[j]) * side(start[i], end[i], end[j]) <= 0
    meets &= side(start[j], end[j], start[i]) * side(start[j], end[j], end[i]) <= 0
    low_i, high_i = np.minimum(start[i], end[i]), np.maximum(start[i], end[i])
    low_j, high_j = np.minimum(start[j], end[j]), np.maximum(start[j], end[j])
    meets &= ((low_i <= high_j) & (low_j <= high_i)).all(axis=1)
    if not meets.any():
        return
    a, b = i[meets][0], j[meets][0]
    places = f"the edges from {start[a].tolist()} and from {start[b].tolist()} meet"
    if ring[a] == ring[b]:
        raise UserError(f"{name}: {names[ring[a]]} crosses or touches itself: {places}")
    raise UserError(
        f"{name}: {names[ring[b]]} crosses or touches {names[ring[a]]}: {places}; keep them apart"
    )


def read_shape(path: str | Path) -> Shape:
    """Returns the polygon in a JSON file {"outer": [[x, y], ...], "holes": [[[x, y], ...], ...]}.

    The file's name without its ending names the shape; "holes" may be left out.

    Raises:
      UserError: no such file, other contents, or what `check_shape` refuses.
    """
    path = Path(path).expanduser()
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not a readable JSON file ({error})") from None
    if not isinstance(found, dict) or not {"outer"} <= found.keys() <= {"outer", "holes"}:
        keys = sorted(found) if isinstance(found, dict) else type(found).__name__
        raise UserError(f'{path}: holds {keys}, expected "outer": [[x, y], ...] and maybe "holes"')
    holes = found.get("holes", [])
    if not isinstance(holes, list):
        raise UserError(f'{path}: "holes" must be a list of polygons')
    shape = check_shape(found["outer"], holes, str(path))
    return shape._replace(name=path.stem)

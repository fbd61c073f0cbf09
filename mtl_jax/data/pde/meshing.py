"""Meshes polygons with netgen (the extra `meshing`): users' own shapes, and the built-in ones.

    python -m mtl_jax.data.pde.meshing FOLDER    # writes the built-in meshes anew

netgen is under the LGPL 2.1. The built-in meshes are shipped as files, so only new shapes need it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mtl_jax.data.pde.mesh import H, TriangleMesh, double_areas
from mtl_jax.data.pde.shapes import SHAPES, check_shape
from mtl_jax.errors import Parser, UserError, run_command

SMALLEST, LARGEST = 0.005, 0.25


def mesh_polygon(
    outer: Sequence[Any] | np.ndarray,
    holes: Sequence[Any] = (),
    h: float = H,
    name: str = "polygon",
) -> TriangleMesh:
    """Returns a triangle mesh of a polygon with holes in the unit square.

    Args:
      outer: corners (x, y) of the outline, in either direction.
      holes: the corners of each hole.
      h: length of most edges, 0.005 .. 0.25; a few are up to twice as long.
      name: of the polygon, for the errors.

    Raises:
      UserError: what `shapes.check_shape` refuses, `h` out of range, netgen is not installed.
    """
    shape = check_shape(outer, holes, name)
    if not SMALLEST <= h <= LARGEST:
        raise UserError(f"{name}: h = {h}, it must be {SMALLEST} .. {LARGEST}")
    try:
        from netgen.geom2d import SplineGeometry
    except (ImportError, OSError) as error:  # OSError: a library of it is missing.
        raise UserError(
            f"{name}: meshing a new shape needs netgen ({error}); pip install 'mtl_jax[meshing]',"
            f" or use a built-in shape: {', '.join(SHAPES)}"
        ) from None
    geometry = SplineGeometry()
    for number, ring in enumerate([shape.outer, *shape.holes]):
        corners = [geometry.AppendPoint(float(x), float(y)) for x, y in ring]
        sides = {"leftdomain": int(number == 0), "rightdomain": int(number > 0)}
        for start, end in zip(corners, corners[1:] + corners[:1], strict=True):
            geometry.Append(["line", start, end], **sides)
    made = geometry.GenerateMesh(maxh=h)
    points = np.asarray(made.Coordinates(), np.float64)[:, :2]
    triangles = [[vertex.nr - 1 for vertex in element.vertices] for element in made.Elements2D()]
    return _tidy(TriangleMesh(points, np.array(triangles, np.int32)))


def _tidy(mesh: TriangleMesh) -> TriangleMesh:
    """Turns every triangle counter-clockwise; numbers the points from left to right.

    Neighbours get near numbers, so the files are smaller.
    """
    x, y = mesh.points.T
    order = np.lexsort((x, y, np.round(x / H)))
    number = np.empty(len(order), np.int32)
    number[order] = np.arange(len(order))
    mesh = TriangleMesh(mesh.points[order], number[mesh.triangles])
    flipped = double_areas(mesh) < 0
    triangles = np.where(flipped[:, None], mesh.triangles[:, ::-1], mesh.triangles)
    # The smallest number first: the same triangle, and a fixed order.
    turn = (triangles.argmin(axis=1)[:, None] + np.arange(3)) % 3
    triangles = np.take_along_axis(triangles, turn, axis=1)
    return TriangleMesh(mesh.points, triangles[np.lexsort(triangles.T[::-1])])


def main(argv: list[str]) -> None:
    """Writes the mesh of every built-in shape to a folder."""
    parser = Parser("python -m mtl_jax.data.pde.meshing", description=__doc__)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args(argv).folder
    for name, shape in SHAPES.items():
        mesh = mesh_polygon(shape.outer, shape.holes, name=name)
        file = folder / f"{name}.npz"
        np.savez_compressed(
            file,
            points=mesh.points.astype(np.float32),
            triangles=mesh.triangles.astype(np.uint16),
        )
        print(f"{file}: {len(mesh.points)} points, {len(mesh.triangles)} triangles")


if __name__ == "__main__":
    run_command(main)

"""Makes `plate/meshes.npz`, the meshes of the 64 designs, with netgen. Users never need it.

pip install netgen-mesher
python -m mtl_jax.data.plate_meshing
"""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np

from mtl_jax.data.plate_geometry import DESIGNS, HOLE_RADIUS, HUB_RADIUS, RADIUS
from mtl_jax.data.plate_mesh import FILE
from mtl_jax.errors import UserError, run_command

SIZE, HOLE_SIZE = 0.06, 0.02


def make_sector(
    holes: int, position: float, size: float = SIZE, hole_size: float = HOLE_SIZE
) -> tuple[np.ndarray, np.ndarray]:
    """Returns points [V, 2] and triangles [E, 3] of a half-sector, conforming to the hub's circle.

    Args:
      holes: their number.
      position: distance of their axes from the plate's.
      size: longest edge.
      hole_size: longest edge at the hole.

    Raises:
      UserError: netgen is not installed.
    """
    occ = _netgen()

    def wedge(radius: float) -> Any:
        path = occ.WorkPlane().MoveTo(0, 0).LineTo(radius, 0).Rotate(90)
        return path.Arc(radius, 180 / holes).LineTo(0, 0).Face()

    hole = occ.WorkPlane().MoveTo(position, 0).Circle(HOLE_RADIUS).Face()
    hub = wedge(HUB_RADIUS) - hole
    shape = occ.Glue([hub, wedge(RADIUS) - hole - hub])
    for edge in shape.edges:
        ends = [np.hypot(p.x - position, p.y) for p in (edge.start, edge.end)]
        if np.allclose(ends, HOLE_RADIUS) and edge.center.y > 1e-4:
            edge.maxh = hole_size
    mesh = occ.OCCGeometry(shape, dim=2).GenerateMesh(maxh=size, grading=0.3)
    triangles = [[vertex.nr - 1 for vertex in e.vertices] for e in mesh.Elements2D()]
    return np.array(mesh.Coordinates())[:, :2], np.array(triangles)


def main(argv: list[str]) -> None:
    """Writes the meshes of all designs into the package."""
    if argv:
        raise UserError(f"unexpected argument {argv[0]!r}; there are none")
    sectors = [make_sector(holes, position) for holes, position in DESIGNS]
    np.savez_compressed(
        FILE,
        points=np.concatenate([points for points, _ in sectors]).astype(np.float32),
        triangles=np.concatenate([triangles for _, triangles in sectors]).astype(np.uint16),
        counts=np.array([(len(points), len(triangles)) for points, triangles in sectors], np.int32),
    )
    print(f"{FILE}: {len(sectors)} meshes, {FILE.stat().st_size / 1e3:.0f} KB")


def _netgen() -> Any:
    try:
        return importlib.import_module("netgen.occ")
    except (ImportError, OSError) as error:  # OSError: a library of it is missing.
        raise UserError(f"meshing needs netgen ({error}); pip install 'mtl_jax[meshing]'") from None


if __name__ == "__main__":
    run_command(main)

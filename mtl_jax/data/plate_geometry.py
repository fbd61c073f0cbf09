"""The heated plate: its shape, its 64 designs, and which grid points lie inside.

A disc with a smaller cylinder, the hub, below it, and `holes` bores on a circle of radius
`position`, equally spaced, the first at angle pi. The plate is unchanged by turning it by 2 pi /
holes and by mirroring it at a hole's axis. So half a sector, from a hole's axis to half-way to the
next hole, says everything: `fold` brings any point there.

Source: MT-DeepONet (Kumar et al. 2024), third problem. The paper's files hold solutions, not the
physics: shape and constants are those that the authors' released network fits.
"""

from __future__ import annotations

from typing import Any

import numpy as np

RADIUS = 2.0
HEIGHT = 1.0  # The disc is 0 <= z <= HEIGHT,
HUB_RADIUS, HUB_HEIGHT = 0.75, 0.25  # the hub -HUB_HEIGHT <= z <= 0.
HOLE_RADIUS = 0.2

HOLES = tuple(range(2, 10))
POSITIONS = (0.9, 1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6)
DESIGNS = tuple((holes, position) for holes in HOLES for position in POSITIONS)
TRAIN_POSITIONS = (0.9, 1.2, 1.6)  # the paper's: 24 designs
VALIDATION_POSITIONS = (1.0, 1.4)

GRIDS = {"default": (50, 50, 32), "full": (100, 100, 100)}
_SLACK = 1e-9  # A grid point on a wall counts as inside, whatever the rounding.


def axes(grid: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns x, y in [-2, 2] and z in [-0.25, 1], float64, the ends included."""
    return (
        np.linspace(-RADIUS, RADIUS, grid[0]),
        np.linspace(-RADIUS, RADIUS, grid[1]),
        np.linspace(-HUB_HEIGHT, HEIGHT, grid[2]),
    )


def fold(x: Any, y: Any, holes: Any, xp: Any = np) -> tuple[Any, Any]:
    """Returns the points of the half-sector 0 <= angle <= pi / holes with the same temperature.

    There a hole's axis is at angle 0: its centre is (position, 0). `xp` may be jax.numpy.
    """
    angle = xp.mod(xp.arctan2(y, x) - xp.pi, 2 * xp.pi / holes)
    angle = xp.minimum(angle, 2 * xp.pi / holes - angle)
    radius = xp.hypot(x, y)
    return radius * xp.cos(angle), radius * xp.sin(angle)


def around_hole(xp: Any, params: Any, y: Any) -> Any:
    """Returns query points as seen from the nearest hole, lengths over the disc's radius.

    In these coordinates designs of any number and position of holes have nearly the same
    temperature around a hole, and all holes of a design exactly the same.

    Args:
      xp: numpy, or jax.numpy.
      params: [B, 2] (holes, position).
      y: [n, 3] points (x, y, z).

    Returns:
      [B, n, 5]: distance from the hole's axis in the direction of the plate's radius (signed) and
      across it, distance from that axis, distance from the plate's axis, height z.
    """
    across, along = fold(y[None, :, 0], y[None, :, 1], params[:, 0, None], xp)
    across = across - params[:, 1, None]
    radius, height = xp.hypot(y[None, :, 0], y[None, :, 1]), y[None, :, 2]
    parts = xp.broadcast_arrays(across, along, xp.hypot(across, along), radius, height)
    return xp.stack(parts, axis=-1) / RADIUS


def inside(x: np.ndarray, y: np.ndarray, z: np.ndarray, holes: int, position: float) -> np.ndarray:
    """Returns which points lie in the plate or on its surface, bool, by its formula, not a mesh.

    Args:
      x: coordinates, of any shapes that broadcast.
      y: likewise.
      z: likewise.
      holes: their number.
      position: distance of their axes from the plate's.
    """
    across, along = fold(x, y, holes)
    radius = np.hypot(x, y)
    free = np.hypot(across - position, along) >= HOLE_RADIUS - _SLACK
    disc = (radius <= RADIUS + _SLACK) & (z >= -_SLACK) & (z <= HEIGHT + _SLACK)
    hub = (radius <= HUB_RADIUS + _SLACK) & (z >= -HUB_HEIGHT - _SLACK) & (z <= _SLACK)
    return free & (disc | hub)


def split_designs(
    holes: np.ndarray, position: np.ndarray, *, paper_split: bool = False
) -> dict[str, np.ndarray]:
    """Returns the sample numbers of "train", "validation" and "test", int32, increasing.

    The paper trains on the positions 0.9, 1.2 and 1.6 of every hole count and judges, and keeps
    its last weights, on the other 40 designs. To choose weights without looking at the test set:

    - default: the 24 designs all train; validation = the 16 at positions 1.0 and 1.4, test = the 24
      at 1.1, 1.3 and 1.5. All are positions between trained ones, as in the paper.
    - `paper_split`: test = the paper's 40, so validation has to come out of the 24: position 1.2 of
      every hole count (between trained positions, as the test set is). 16 train.

    Args:
      holes: [S] hole counts.
      position: [S] hole positions.
      paper_split: see above.
    """

    def at(positions: tuple[float, ...]) -> np.ndarray:
        return np.min(np.abs(position[:, None] - np.array(positions)), axis=1) < 1e-4

    train = at(TRAIN_POSITIONS)
    if paper_split:
        validation = at((1.2,))
        test = ~train
    else:
        validation = at(VALIDATION_POSITIONS)
        test = ~train & ~validation
    chosen = {"train": train & ~validation, "validation": validation, "test": test}
    return {split: np.flatnonzero(which).astype(np.int32) for split, which in chosen.items()}

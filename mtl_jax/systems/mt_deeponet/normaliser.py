"""Scales of inputs, coordinates and solutions, fitted on training samples inside their masks.

A normaliser is a dict of arrays. It is part of the model state, so a checkpoint holds it and a
transferred network goes on with the scales that it was trained with.
"""

from __future__ import annotations

from typing import Any, Literal

import jax.numpy as jnp
import numpy as np

from mtl_jax.data.operators import OperatorSet

ParamScale = Literal["point", "none"]
SolutionScale = Literal["point", "standard", "global", "max", "none"]
CoordScale = Literal["box", "none"]
Tree = Any

# A point that hardly varies, against the one that varies most, would be divided by almost nothing.
MIN_STD = 1e-6


def fit(
    found: OperatorSet,
    *,
    params: ParamScale,
    solution: SolutionScale,
    coords: CoordScale = "box",
    field_masks: np.ndarray | None = None,
) -> dict[str, np.ndarray]:
    """Fits the scales on the training split.

    Args:
      found: the set.
      params: "point" for each number by its smallest and largest value to 0..1, "none" as it is.
      solution: "point" for zero mean and unit variance at every query point, over the samples
        whose geometry it lies in; "standard" for the same over all points together; "global"
        divides by one root mean square, "max" by the largest absolute value; "none".
      coords: "box" for -1..1 over the box of the training coordinates; "none".
      field_masks: [G, ...] masks in the layout of the fields; None where fields have another.

    Returns:
      `params_low`, `params_range` [P]; `field_mean`, `field_std` like a field; `coords_low`,
      `coords_range` [d]; `solution_mean`, `solution_std` [N], or [1] where one number serves all
      points, so that the scales fit the points of another geometry too. The field is standardised
      at each of its points, over the samples whose geometry holds the point.
    """
    train = found.splits["train"]
    numbers, fields = found.params[train], found.field[train]
    u, inside = found.solutions[train], found.masks[found.geometry[train]]
    low = numbers.min(0) if params == "point" else np.zeros(numbers.shape[1])
    width = np.ptp(numbers, axis=0) if params == "point" else np.ones(numbers.shape[1])
    here = np.ones(fields.shape, bool)
    if field_masks is not None:
        here = field_masks[found.geometry[train]]
    field_mean, field_std = _moments(fields, here)
    if solution == "point":
        mean, std = _moments(u, inside)
    else:
        mean, std = np.zeros(1), np.ones(1)
        if solution == "standard":
            together = u[inside][:, None]
            mean, std = _moments(together, np.ones(together.shape, bool))
        elif solution == "global":
            std *= np.sqrt(np.square(u[inside], dtype=np.float64).mean()) or 1.0
        elif solution == "max":
            std *= np.abs(u[inside]).max() or 1.0
    y = found.coords[train][inside] if found.pointwise else found.coords
    low_y, span = y.min(0), np.ptp(y, axis=0)
    if coords == "none":  # -1 .. 1 is the box, and stays as it is
        low_y, span = np.full_like(low_y, -1), np.full_like(span, 2)
    out = {
        "params_low": low,
        "params_range": np.where(width > 0, width, 1),
        "field_mean": field_mean,
        "field_std": field_std,
        "solution_mean": mean,
        "solution_std": std,
        "coords_low": low_y,
        "coords_range": np.where(span > 0, span, 1),
    }
    return {name: np.asarray(value, np.float32) for name, value in out.items()}


def _moments(values: np.ndarray, use: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean (0 where there is none) and standard deviation over axis 0 of the values in use.

    A point without values, and one whose deviation is below 1e-6 of the largest, takes the largest
    one; 1 where all are 0. So what the scales do does not depend on the unit.
    """
    count = use.sum(0)
    safe = np.maximum(count, 1)
    mean = np.where(use, values, 0).sum(0, dtype=np.float64) / safe
    square = np.where(use, np.square(values - mean), 0).sum(0, dtype=np.float64) / safe
    std = np.sqrt(square)
    largest = std.max(initial=0)
    return mean, np.where(std > MIN_STD * largest, std, largest or 1.0)


def inputs(scales: Tree, params: Any, field: Any) -> tuple[Any, Any]:
    """Returns normalised (params [B, P], field [B, ...])."""
    numbers = (params - row(scales["params_low"])) / row(scales["params_range"])
    return numbers, (field - row(scales["field_mean"])) / row(scales["field_std"])


def coordinates(scales: Tree, y: Any) -> Any:
    """Returns coordinates [..., d] as the trunk reads them: the box `fit` chose is -1..1."""
    lead = (1,) * (y.ndim - 1) + (-1,)
    low, span = scales["coords_low"].reshape(lead), scales["coords_range"].reshape(lead)
    return 2 * (y - low) / span - 1


def row(leaf: Any) -> Any:
    """Returns a leaf with a batch axis in front."""
    return jnp.asarray(leaf)[None]

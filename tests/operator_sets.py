"""Small operator sets with closed-form solutions: by family, by geometry, by design, by file."""

from __future__ import annotations

import numpy as np

from mtl_jax.data.operators import OperatorSet, check_operators


def _split(samples: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    order = rng.permutation(samples).astype(np.int32)
    cuts = np.split(order, [int(0.6 * samples), int(0.8 * samples)])
    return dict(zip(("train", "validation", "test"), cuts, strict=True))


def families(each: int = 20, times: int = 5, points: int = 8) -> OperatorSet:
    """Three tasks: an initial value that decays at a rate that the parameters give."""
    rng = np.random.default_rng(0)
    samples = 3 * each
    t, x = np.meshgrid(np.linspace(0, 1, times), np.linspace(0, 1, points), indexing="ij")
    size, rate = rng.uniform(0.5, 1.5, (samples, 1)), rng.uniform(0, 1, (samples, 4))
    field = size * np.sin(np.pi * np.linspace(0, 1, points))[None] + 1
    solution = field[:, None] * np.exp(-rate[:, :1, None] * t[None, :, :1])
    task = np.repeat(np.arange(3), each)
    return _checked(
        ("first", "second", "third"),
        rate,
        field,
        np.stack([t.ravel(), x.ravel()], 1),
        ("t", "x"),
        (times, points),
        np.ones((1, times * points), bool),
        solution.reshape(samples, -1),
        task,
        np.zeros(samples),
        _split(samples, rng),
    )


def geometries(each: int = 10, side: int = 16) -> OperatorSet:
    """Two tasks, a square and a disc: the field times a bump that vanishes at the boundary."""
    rng = np.random.default_rng(1)
    samples = 2 * each
    y, x = np.meshgrid(np.linspace(0, 1, side), np.linspace(0, 1, side), indexing="ij")
    radius = np.hypot(x - 0.5, y - 0.5)
    masks = np.stack([np.ones((side, side), bool), radius <= 0.5])
    task = np.repeat(np.arange(2), each)
    slope = rng.normal(size=(samples, 2, 1, 1))
    field = slope[:, 0] * x[None] + slope[:, 1] * y[None]
    bumps = np.stack([x * (1 - x) * y * (1 - y), 0.25 - radius**2])
    solution = np.where(masks[task], np.exp(-0.2 * field) * bumps[task], 0)
    return _checked(
        ("square", "disc"),
        np.zeros((samples, 0)),
        field,
        np.stack([x.ravel(), y.ravel()], 1),
        ("x", "y"),
        (side, side),
        masks.reshape(2, -1),
        solution.reshape(samples, -1),
        task,
        task,
        _split(samples, rng),
    )


def designs(each: int = 6, side: int = 6) -> OperatorSet:
    """Two tasks of solutions in space given by two numbers, a geometry for every sample."""
    rng = np.random.default_rng(2)
    samples = 2 * each
    axis = np.linspace(-1, 1, side)
    x, y, z = np.meshgrid(axis, axis, axis, indexing="ij")
    params = np.stack([np.repeat([2.0, 3.0], each), rng.uniform(0.5, 1, samples)], 1)
    masks = np.hypot(x, y)[None] <= 0.8 + 0.3 * params[:, 1, None, None, None]
    solution = np.where(masks, 1 + params[:, 0, None, None, None] * z[None] / 10, 0)
    return _checked(
        ("two", "three"),
        params,
        np.zeros((samples, 0)),
        np.stack([x.ravel(), y.ravel(), z.ravel()], 1),
        ("x", "y", "z"),
        (side, side, side),
        masks.reshape(samples, -1),
        solution.reshape(samples, -1),
        np.repeat(np.arange(2), each),
        np.arange(samples),
        _split(samples, rng),
    )


def scattered(each: int = 10, points: int = 12) -> OperatorSet:
    """Two tasks whose samples have query points of their own."""
    rng = np.random.default_rng(3)
    samples = 2 * each
    coords = rng.uniform(0, 1, (samples, points, 2))
    params = rng.uniform(0.5, 1, (samples, 2))
    return _checked(
        ("left", "right"),
        params,
        np.zeros((samples, 0)),
        coords,
        ("x", "y"),
        (),
        np.ones((1, points), bool),
        params[:, :1] * coords[..., 0] + params[:, 1:] * coords[..., 1] + 1,
        np.repeat(np.arange(2), each),
        np.zeros(samples),
        _split(samples, rng),
    )


def _checked(
    names: tuple[str, ...],
    params: np.ndarray,
    field: np.ndarray,
    coords: np.ndarray,
    coord_names: tuple[str, ...],
    grid: tuple[int, ...],
    masks: np.ndarray,
    solutions: np.ndarray,
    task: np.ndarray,
    geometry: np.ndarray,
    splits: dict[str, np.ndarray],
) -> OperatorSet:
    made = OperatorSet(
        names,
        params.astype(np.float32),
        field.astype(np.float32),
        coords.astype(np.float32),
        coord_names,
        grid,
        masks,
        solutions.astype(np.float32),
        task.astype(np.int32),
        geometry.astype(np.int32),
        splits,
    )
    return check_operators(made, "test set")


ALL = {"families": families, "geometries": geometries, "designs": designs, "scattered": scattered}

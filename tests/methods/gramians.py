"""Task gradients of every difficulty, and float64 references for the problems on them."""

from __future__ import annotations

import numpy as np
from scipy.optimize import nnls

# The five families of the specification, then the ones on which solvers broke when tried.
FAMILIES = (
    "iid",
    "scales",
    "aligned",
    "conflict",
    "half_rank",
    "near_duplicates",
    "zero_min_norm",
    "more_tasks_than_parameters",
)


def rows(family: str, num_tasks: int, seed: int = 0) -> np.ndarray:
    """Returns [T, P] float64 task gradients; their mean squared length is 1."""
    rng = np.random.default_rng([seed, num_tasks, FAMILIES.index(family)])
    width = max(4 * num_tasks, 30)
    out = rng.normal(size=(num_tasks, width))
    if family == "scales":
        out *= 10 ** rng.uniform(-1.5, 1.5, (num_tasks, 1))
    if family == "aligned":
        out = 0.3 * out + rng.normal(size=width)
    if family == "conflict" and num_tasks > 1:
        out = out - out.mean(0) + 0.02 * rng.normal(size=width)
    if family == "half_rank":
        rank = max(num_tasks // 2, 1)
        out = rng.normal(size=(num_tasks, rank)) @ rng.normal(size=(rank, width))
    if family == "near_duplicates":
        half = num_tasks // 2
        noise = 1e-3 * rng.normal(size=(num_tasks - half, width))
        out[half:] = np.resize(out[: max(half, 1)], noise.shape) + noise
    if family == "zero_min_norm" and num_tasks > 1:
        out = out - out.mean(0)
    if family == "more_tasks_than_parameters":
        out = rng.normal(size=(num_tasks, max(num_tasks // 3, 1))) + 0.3
    return out / np.sqrt((out**2).sum() / num_tasks)


def root(gram: np.ndarray) -> np.ndarray:
    """Returns J [T, T] with J J^T = gram (as rounded): what a solver given `gram` is judged by."""
    values, vectors = np.linalg.eigh(np.asarray(gram, np.float64))
    return vectors * np.sqrt(values.clip(0))


def min_norm(jacobian: np.ndarray) -> np.ndarray:
    """Min-norm weights [T]: NNLS of |J^T y|^2 + (1 - sum y)^2, normalised (Lawson and Hanson)."""
    num_tasks, width = jacobian.shape
    if not jacobian.any():
        return np.full(num_tasks, 1 / num_tasks)
    scale = 1 / np.linalg.norm(jacobian, axis=1).max()
    system = np.vstack([jacobian.T * scale, np.ones(num_tasks)])
    y, _ = nnls(system, np.append(np.zeros(width), 1.0), maxiter=50 * num_tasks)
    return y / y.sum()


def bent(jacobian: np.ndarray, c: float) -> np.ndarray:
    """CAGrad's dual weights [T]: min-norm weights of the rows g_i + g0 / t, for the right t.

    min g_w.g0 + k |g_w|  =  min over w and t of g_w.g0 + t |g_w|^2 / 2 + k^2 / (2 t), and for
    fixed t that is a min-norm problem of shifted rows; t |g_w(t)| = k at the optimum.
    """
    mean = jacobian.mean(0)
    radius = c * np.linalg.norm(mean)

    def at(t: float) -> np.ndarray:
        return min_norm(jacobian + mean / t)

    low, high = 1e-4, 1e4
    for _ in range(60):
        t = np.sqrt(low * high)
        low, high = (low, t) if t * np.linalg.norm(jacobian.T @ at(t)) > radius else (t, high)
    return at(high)


def in_cone(jacobian: np.ndarray, preference: np.ndarray) -> np.ndarray:
    """UPGrad's weights [T]: one NNLS for each task."""
    out = np.zeros(len(jacobian))
    for row in np.diag(preference):
        z, _ = nnls(jacobian.T, -jacobian.T @ row, maxiter=50 * len(jacobian))
        out += row + z
    return out

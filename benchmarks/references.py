"""The aggregators' weights in float64, by methods that share nothing with `mtl_jax.methods`.

Quadratic problems go to SciPy's non-negative least squares, on the gradients themselves and not on
their Gram matrix, which would square the conditioning.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.optimize import brentq, nnls

Array = np.ndarray


def min_norm(grads: Array) -> Array:
    """Returns argmin over the simplex of |J^T w|, for J [T, P].

    The minimiser y >= 0 of |J^T y|^2 + (1.y - 1)^2 is a multiple of it.
    """
    size = np.abs(grads).max()
    matrix = np.vstack([grads.T / size, np.ones(len(grads))])
    target = np.zeros(len(matrix))
    target[-1] = 1
    y, _ = nnls(matrix, target, maxiter=100 * len(grads))
    return y / y.sum()


def upgrad(grads: Array) -> Array:
    """Every p_i g_i, p = 1 / T, projected on {x: J x >= 0}; the weights of their sum."""
    total = np.zeros(len(grads))
    for i, grad in enumerate(grads):
        z, _ = nnls(grads.T, -grad / len(grads), maxiter=100 * len(grads))
        total += z
        total[i] += 1 / len(grads)
    return total


def cagrad(grads: Array, c: float = 0.4) -> Array:
    """Weights of (g0 + c |g0| g_w / |g_w|) / (1 + c^2).

    The dual min over the simplex of g_w.g0 / (c |g0|) + |g_w| is solved through its length
    r = |g_w|: for a given r its minimiser is the min-norm point of the rows g_i + r g0 / (c |g0|).
    """
    mean = grads.mean(0)
    radius = c * np.linalg.norm(mean)
    shift = mean / radius

    def at(r: float) -> Array:
        return min_norm(grads + r * shift)

    def excess(r: float) -> float:
        return float(np.linalg.norm(at(r) @ grads) - r)

    longest = np.linalg.norm(grads, axis=1).max()
    r: Any = brentq(excess, 0.0, 1.01 * longest, xtol=1e-14 * longest, rtol=1e-14)
    w = at(r)
    share = np.full(len(grads), 1 / len(grads))
    return (share + radius * w / np.linalg.norm(w @ grads)) / (1 + c * c)


def power_equation(grads: Array, alpha: float) -> Array:
    """Returns w > 0 with G w = w ** (-1 / alpha).

    The minimiser of the strictly convex w.G w / 2 - sum F(w), F' = w ** (-1 / alpha), by Newton's
    method with the step halved until the objective falls enough.
    """
    gram = grads @ grads.T
    power = 1 - 1 / alpha

    def objective(w: Array) -> float:
        utility = np.log(w) if power == 0 else w**power / power
        return float(w @ gram @ w / 2 - utility.sum())

    w = np.diag(gram) ** (-alpha / (1 + alpha))
    for _ in range(1000):
        slope = gram @ w - w ** (-1 / alpha)
        if np.abs(slope * w ** (1 / alpha)).max() < 1e-13:
            break
        step = -np.linalg.solve(gram + np.diag(w ** (-1 / alpha - 1) / alpha), slope)
        length = 1.0
        while (w + length * step <= 0).any() or (
            length > 1e-12
            and objective(w + length * step) > objective(w) + 1e-4 * length * (slope @ step)
        ):
            length /= 2
        w = w + length * step
    return w


def pcgrad(grads: Array, orders: Array) -> Array:
    """Algorithm 1 of PCGrad on the gradients themselves; returns weights of the sum."""
    total = np.zeros(len(grads))
    for i in range(len(grads)):
        weights = np.zeros(len(grads))
        weights[i] = 1
        for j in orders[i]:
            inner = weights @ grads @ grads[j]
            if j != i and inner < 0:
                weights[j] -= inner / (grads[j] @ grads[j])
        total += weights
    return total


def imtl_g(grads: Array) -> Array:
    """Weights of sum 1 with equal projections on all unit gradients (pseudo-inverse)."""
    norms = np.linalg.norm(grads, axis=1)
    unit = grads / norms[:, None]
    inverse = np.linalg.pinv(unit, rcond=1e-10)
    v = inverse.T @ (inverse @ np.ones(len(grads))) / norms
    return v / v.sum()


def aligned_mtl(grads: Array) -> Array:
    """Weights of sum of rows of J, all of whose singular values are set to the least one."""
    left, values, _ = np.linalg.svd(grads, full_matrices=False)
    kept = values > 1e-6 * values.max()
    left, values = left[:, kept], values[kept]
    return left @ (values.min() / values * (left.T @ np.ones(len(grads))))


REFERENCES: dict[str, Callable[[Array, Array], Array]] = {
    "mgda": lambda grads, orders: min_norm(grads),
    "upgrad": lambda grads, orders: upgrad(grads),
    "cagrad": lambda grads, orders: cagrad(grads),
    "nash_mtl": lambda grads, orders: power_equation(grads, 1.0),
    "fairgrad": lambda grads, orders: power_equation(grads, 2.0),
    "pcgrad": pcgrad,
    "imtl_g": lambda grads, orders: imtl_g(grads),
    "aligned_mtl": lambda grads, orders: aligned_mtl(grads),
}

"""Writes golden.json: every method straight from its published formula, in float64 NumPy and SciPy.

Nothing is shared with mtl_jax, and no trick of its solvers is used: vectors are projected as
vectors, programs are handed to SciPy as they are printed. Run from the repository root:

    python tests/methods/golden/make_golden.py
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from scipy import optimize

FILE = Path(__file__).with_name("golden.json")
WIDTH = 6


def jacobian(num_tasks: int, seed: int) -> np.ndarray:
    """[T, 6] conflicting gradients of different lengths, short enough to print."""
    rng = np.random.default_rng(seed)
    return np.round(
        rng.normal(size=(num_tasks, WIDTH)) * np.linspace(0.5, 2, num_tasks)[:, None], 3
    )


def on_simplex(objective: Callable[[np.ndarray], float], num_tasks: int) -> np.ndarray:
    """Minimises over the simplex with SLSQP, from the centre and from each corner's side."""
    starts = [np.full(num_tasks, 1 / num_tasks), *(0.5 * np.eye(num_tasks) + 0.5 / num_tasks)]
    found = [
        optimize.minimize(
            objective,
            start,
            method="SLSQP",
            bounds=[(0, 1)] * num_tasks,
            constraints={"type": "eq", "fun": lambda w: w.sum() - 1},
            options={"ftol": 1e-16, "maxiter": 1000},
        )
        for start in starts
    ]
    return min(found, key=lambda result: result.fun).x


def mgda(j: np.ndarray) -> np.ndarray:
    """The shortest convex combination of the gradients (1810.04650, equation 3)."""
    return j.T @ on_simplex(lambda w: np.sum((j.T @ w) ** 2), len(j))


def pcgrad(j: np.ndarray, orders: list[list[int]]) -> np.ndarray:
    """Algorithm 1 of 2001.06782 on vectors, for given orders; the sum of what is left."""
    total = np.zeros(WIDTH)
    for i, order in enumerate(orders):
        v = j[i].copy()
        for k in order:
            if k != i and v @ j[k] < 0:
                v = v - (v @ j[k]) / (j[k] @ j[k]) * j[k]
        total += v
    return total


def cagrad(j: np.ndarray, c: float, rescale: int) -> np.ndarray:
    """Algorithm 1 of 2110.14048, with the rescaling options of the authors' code."""
    g0 = j.mean(0)
    radius = c * np.linalg.norm(g0)
    w = on_simplex(lambda w: (j.T @ w) @ g0 + radius * np.linalg.norm(j.T @ w), len(j))
    gw = j.T @ w
    return (g0 + radius * gw / np.linalg.norm(gw)) / (1, 1 + c**2, 1 + c)[rescale]


def imtl_g(j: np.ndarray) -> np.ndarray:
    """The closed form of the IMTL paper: alpha_2..T = g_1 U^T (D U^T)^-1, D and U differences."""
    if len(j) == 1:
        return j[0]
    units = j / np.linalg.norm(j, axis=1, keepdims=True)
    differences, unit_differences = j[0] - j[1:], units[0] - units[1:]
    rest = j[0] @ unit_differences.T @ np.linalg.inv(differences @ unit_differences.T)
    return j.T @ np.append(1 - rest.sum(), rest)


def nash_mtl(j: np.ndarray, max_norm: float) -> np.ndarray:
    """G w = 1 / w by root finding in log w (claim 3.1 of 2202.01017), then the clip."""
    gram = j @ j.T
    start = -0.5 * np.log(np.diag(gram))
    root = optimize.root(lambda x: gram @ np.exp(x) - np.exp(-x), start, tol=1e-14)
    assert root.success, root.message
    return clip(j.T @ np.exp(root.x), max_norm)


def fairgrad(j: np.ndarray, alpha: float, max_norm: float) -> np.ndarray:
    """The authors' least squares from 1 / T (code of 2402.15638), times T, then the clip."""
    gram = j @ j.T
    w = optimize.least_squares(
        lambda w: gram @ w - (1 / w) ** (1 / alpha),
        np.full(len(j), 1 / len(j)),
        bounds=(1e-12, np.inf),
        xtol=1e-15,
        ftol=1e-15,
        gtol=1e-15,
    ).x
    return clip(len(j) * (j.T @ w), max_norm)


def clip(direction: np.ndarray, max_norm: float) -> np.ndarray:
    """Shortens to `max_norm`; 0 for off."""
    length = np.linalg.norm(direction)
    return direction * min(1, max_norm / length) if max_norm else direction


def upgrad(j: np.ndarray) -> np.ndarray:
    """Mean of the gradients' projections onto {x: J x >= 0} (2406.16232), in parameter space."""
    total = np.zeros(WIDTH)
    for g in j:
        total += optimize.minimize(
            lambda x, g=g: 0.5 * np.sum((x - g) ** 2),
            g,
            jac=lambda x, g=g: x - g,
            method="SLSQP",
            constraints={"type": "ineq", "fun": lambda x: j @ x, "jac": lambda x: j},
            options={"ftol": 1e-16, "maxiter": 1000},
        ).x
    return total / len(j)


def aligned_mtl(j: np.ndarray, scale: str) -> np.ndarray:
    """All singular values of J set to one (2305.19000), then the sum of the rows."""
    left, values, right = np.linalg.svd(j, full_matrices=False)
    square = np.sort(values**2)
    level = {"min": square[0], "median": square[(len(j) - 1) // 2], "rmse": square.mean()}[scale]
    return (np.sqrt(level) * left @ right).sum(0)


def dual_proj(j: np.ndarray) -> np.ndarray:
    """The mean gradient's projection onto {x: J x >= 0} (1706.08840, eq. 8), as a vector."""
    return optimize.minimize(
        lambda x: 0.5 * np.sum((x - j.mean(0)) ** 2),
        j.mean(0),
        jac=lambda x: x - j.mean(0),
        method="SLSQP",
        constraints={"type": "ineq", "fun": lambda x: j @ x, "jac": lambda x: j},
        options={"ftol": 1e-16, "maxiter": 1000},
    ).x


def config(j: np.ndarray) -> np.ndarray:
    """2408.11104: the pseudo-inverse of the unit gradients times 1, of length sum g_i.u."""
    u = np.linalg.pinv(j / np.linalg.norm(j, axis=1, keepdims=True)) @ np.ones(len(j))
    u /= np.linalg.norm(u)
    return (j @ u).sum() * u


def grad_drop(j: np.ndarray, uniform: np.ndarray, leak: float) -> np.ndarray:
    """Algorithm 1 of 2010.06808, coordinate by coordinate."""
    out = np.zeros(WIDTH)
    for k in range(WIDTH):
        p = 0.5 * (1 + j[:, k].sum() / np.abs(j[:, k]).sum())
        for g in j[:, k]:
            kept = (p > uniform[k] and g > 0) or (p < uniform[k] and g < 0)
            out[k] += g if kept else leak * g
    return out


def imtl_l(losses: np.ndarray, lr: float) -> list:
    """Weights exp(s) while s descends on sum exp(s) L - s."""
    s = adam(lambda t, s: np.exp(s) * losses[t] - 1, np.zeros(losses.shape[1]), lr, len(losses))
    return [np.exp(x).tolist() for x in s]


def gls(losses: np.ndarray) -> list:
    """The gradient of the geometric mean (1904.08492), by the product rule."""
    out = []
    for row in losses:
        mean, n = np.prod(row) ** (1 / len(row)), len(row)
        rest = [np.prod(np.delete(row, i)) for i in range(n)]
        out.append([mean ** (1 - n) * r / n for r in rest])
    return out


def stch(losses: np.ndarray, mu: float, warmup: int) -> list:
    """Gradient of T mu log sum exp(log(L / nadir) / mu) (2402.19078); of sum log L before."""
    nadir = losses[warmup - max(1, warmup // 5) : warmup].mean(0)
    out = (1 / losses[:warmup]).tolist()
    for row in losses[warmup:]:
        powers = (row / nadir) ** (1 / mu)
        out.append((len(row) * powers / powers.sum() / row).tolist())
    return out


def group_dro(losses: np.ndarray, lr: float) -> list:
    """Algorithm 1 of 1911.08731 with all groups in a step: q times exp(lr L), scaled to sum 1."""
    q, out = np.ones(losses.shape[1]) / losses.shape[1], []
    for row in losses:
        q = q * np.exp(lr * row)
        q = q / q.sum()
        out.append(q.tolist())
    return out


def adam(
    grads: Callable[[int, np.ndarray], np.ndarray], x: np.ndarray, lr: float, steps: int
) -> list:
    """The values before each of `steps` Adam steps, as in the Adam paper's algorithm 1."""
    m, v, out = np.zeros_like(x), np.zeros_like(x), []
    for t in range(1, steps + 1):
        out.append(x.copy())
        grad = grads(t - 1, x)
        m, v = 0.9 * m + 0.1 * grad, 0.999 * v + 0.001 * grad**2
        x = x - lr * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
    return out


def softmax(x: np.ndarray) -> np.ndarray:
    """exp(x) / sum exp(x)."""
    return np.exp(x) / np.exp(x).sum()


def uncertainty(losses: np.ndarray, lr: float) -> list:
    """Weights exp(-s) / 2 while s descends on sum exp(-s) L / 2 + s / 2 (1705.07115)."""
    s = adam(
        lambda t, s: 0.5 - 0.5 * np.exp(-s) * losses[t], np.zeros(losses.shape[1]), lr, len(losses)
    )
    return [(0.5 * np.exp(-x)).tolist() for x in s]


def famo(losses: np.ndarray, after: np.ndarray, lr: float, gamma: float) -> list:
    """Algorithm 1 of 2306.03792; the gradient of xi by the softmax's Jacobian."""

    def grad(t: int, xi: np.ndarray) -> np.ndarray:
        z = softmax(xi)
        delta = np.log(losses[t] + 1e-8) - np.log(after[t] + 1e-8)
        return (np.diag(z) - np.outer(z, z)) @ delta + gamma * xi

    out = []
    for t, xi in enumerate(adam(grad, np.zeros(losses.shape[1]), lr, len(losses))):
        share = softmax(xi) / (losses[t] + 1e-8)
        out.append((share / share.sum()).tolist())
    return out


def dwa(losses: np.ndarray, temperature: float, window: int) -> list:
    """Equation 7 of 1803.10704 on the means of the last two windows; 1 before there are two."""
    out = []
    for t in range(1, len(losses) + 1):
        ratio = np.ones(losses.shape[1])
        if t >= 2 * window:
            ratio = losses[t - window : t].mean(0) / losses[t - 2 * window : t - window].mean(0)
        out.append((losses.shape[1] * softmax(ratio / temperature)).tolist())
    return out


def cases() -> list[dict[str, Any]]:
    """All golden cases, inputs included."""
    out: list[dict[str, Any]] = []
    for num_tasks, seed in ((2, 0), (2, 1), (3, 2), (5, 3)):
        j = jacobian(num_tasks, seed)
        rng = np.random.default_rng(100 + seed)
        orders = [rng.permutation(num_tasks).tolist() for _ in range(num_tasks)]
        units = j / np.linalg.norm(j, axis=1, keepdims=True)
        results = [
            ("mgda", {}, mgda(j)),
            ("mgda/l2", {}, mgda(units)),
            ("pcgrad", {"orders": orders}, pcgrad(j, orders)),
            ("cagrad", {"c": 0.4, "rescale": 1}, cagrad(j, 0.4, 1)),
            ("cagrad", {"c": 0.8, "rescale": 0}, cagrad(j, 0.8, 0)),
            ("imtl_g", {}, imtl_g(j)),
            ("nash_mtl", {"max_norm": 0.0}, nash_mtl(j, 0.0)),
            ("nash_mtl", {"max_norm": 1.0}, nash_mtl(j, 1.0)),
            ("fairgrad", {"alpha": 2.0, "max_norm": 1.0}, fairgrad(j, 2.0, 1.0)),
            ("fairgrad", {"alpha": 0.5, "max_norm": 0.0}, fairgrad(j, 0.5, 0.0)),
            ("upgrad", {}, upgrad(j)),
            ("aligned_mtl", {"scale": "min"}, aligned_mtl(j, "min")),
            ("aligned_mtl", {"scale": "median"}, aligned_mtl(j, "median")),
            ("aligned_mtl", {"scale": "rmse"}, aligned_mtl(j, "rmse")),
        ]
        if num_tasks == 3:
            results += [
                ("dual_proj", {}, dual_proj(j)),
                ("config", {}, config(j)),
                *(
                    ("grad_drop", {"leak": leak, "uniform": u.tolist()}, grad_drop(j, u, leak))
                    for leak in (0.0, 0.25)
                    for u in [np.round(rng.uniform(size=WIDTH), 3)]
                ),
            ]
        for method, options, direction in results:
            out.append(
                {
                    "method": method,
                    "options": options,
                    "jacobian": j.tolist(),
                    "direction": direction.tolist(),
                }
            )
    rng = np.random.default_rng(7)
    steps = np.exp(-0.2 * np.arange(7))[:, None] * np.array([[0.5, 1.5, 3.0]])
    losses = np.round(steps * rng.uniform(0.8, 1.2, (7, 3)), 3)
    after = np.round(losses * rng.uniform(0.8, 1.02, (7, 3)), 3)
    traces = [
        ("uncertainty", {"lr": 0.025}, uncertainty(losses, 0.025)),
        ("famo", {"lr": 0.025, "gamma": 0.001}, famo(losses, after, 0.025, 0.001)),
        ("dwa", {"temperature": 2.0, "window": 2}, dwa(losses, 2.0, 2)),
        ("scale_invariant", {"reduction": "sum"}, (1 / losses).tolist()),
        ("scale_invariant", {"reduction": "mean"}, (1 / (3 * losses)).tolist()),
        ("imtl_l", {"lr": 0.025}, imtl_l(losses, 0.025)),
        ("gls", {}, gls(losses)),
        ("stch", {"mu": 0.5, "warmup": 5}, stch(losses, 0.5, 5)),
        ("tchebycheff", {}, np.eye(3)[losses.argmax(1)].tolist()),
        ("group_dro", {"lr": 0.3}, group_dro(losses, 0.3)),
    ]
    for method, options, weights in traces:
        out.append(
            {
                "method": method,
                "options": options,
                "losses": losses.tolist(),
                "after": after.tolist(),
                "weights": weights,
            }
        )
    return out


def main() -> None:
    """Writes the file."""
    lines = ",\n".join(json.dumps(case) for case in cases())
    FILE.write_text(f"[\n{lines}\n]\n")


if __name__ == "__main__":
    main()

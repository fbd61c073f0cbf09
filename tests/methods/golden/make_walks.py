"""Writes walks.json: methods with a state, straight from their formulas, in float64 NumPy.

Several steps of each, in some of which a task is absent. Nothing is shared with mtl_jax: loops over
the tasks that are there, plain vectors, weights as they are printed. Run from the repository root:

    python tests/methods/golden/make_walks.py
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

FILE = Path(__file__).with_name("walks.json")
WIDTH = 6


def softmax(x: np.ndarray) -> np.ndarray:
    """exp(x) / sum exp(x)."""
    return np.exp(x) / np.exp(x).sum()


def imtl_g(j: np.ndarray) -> np.ndarray:
    """The closed form of the IMTL paper: alpha_2..T = g_1 U^T (D U^T)^-1, D and U differences."""
    if len(j) == 1:
        return j[0]
    units = j / np.linalg.norm(j, axis=1, keepdims=True)
    differences, unit_differences = j[0] - j[1:], units[0] - units[1:]
    rest = j[0] @ unit_differences.T @ np.linalg.inv(differences @ unit_differences.T)
    return j.T @ np.append(1 - rest.sum(), rest)


def project(v: np.ndarray) -> np.ndarray:
    """The nearest point of the simplex, by bisection for the threshold."""
    low, high = v.min() - 1, v.max()
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if np.maximum(v - middle, 0).sum() > 1 else (low, middle)
    return np.maximum(v - high, 0)


def steps(j: np.ndarray, losses: np.ndarray, on: np.ndarray, one: Callable) -> list:
    """Directions of `one(k, here, j, losses)` for the tasks `here` of every step k = 1, 2, ..."""
    return [one(k + 1, np.flatnonzero(on[k]), j[k], losses[k]).tolist() for k in range(len(losses))]


def dual_proj_sum(_: int, here: np.ndarray, j: np.ndarray, losses: np.ndarray) -> np.ndarray:
    """1706.08840, eq. 8: the sum of the gradients, projected onto {x: J x >= 0} as a vector.

    By Dykstra's alternating projections on the half-spaces.
    """
    x, rest = j[here].sum(0), np.zeros((len(here), WIDTH))
    for _ in range(2000):
        for i, g in enumerate(j[here]):
            y = x + rest[i]
            x = y - min(0, y @ g) / (g @ g) * g
            rest[i] = y - x
    return x


def grad_vac(beta: float, num_tasks: int, orders: list[list[int]], mean: bool = False) -> Callable:
    """Algorithm 1 of 2010.05874 on vectors, for given orders; the sum of what comes out."""
    phi = np.zeros((num_tasks, num_tasks))

    def one(_: int, here: np.ndarray, j: np.ndarray, losses: np.ndarray) -> np.ndarray:
        total = np.zeros(WIDTH)
        for i in here:
            v = j[i].copy()
            for k in [k for k in orders[i] if k != i and k in here]:
                cos = v @ j[k] / np.linalg.norm(v) / np.linalg.norm(j[k])
                if cos < phi[i, k]:
                    up, root = np.sqrt(1 - cos**2), np.sqrt(1 - phi[i, k] ** 2)
                    gain = np.linalg.norm(v) * (phi[i, k] * up - cos * root)
                    v = v + gain / (np.linalg.norm(j[k]) * root) * j[k]
                phi[i, k] = (1 - beta) * phi[i, k] + beta * cos
            total += v
        return total / len(here) if mean else total

    return one


def shares(w: np.ndarray, here: np.ndarray) -> np.ndarray:
    """Weights of sum 1 over the tasks that are there; equal ones where those had none."""
    return w[here] / w[here].sum() if w[here].any() else np.full(len(here), 1 / len(here))


def sdmgrad(num_tasks: int, lam: float, lr: float, iterations: int) -> Callable:
    """2305.18409 with one batch: descent with momentum 0.5 on |g_w + lam g_0|^2 / 2."""
    w = np.full(num_tasks, 1 / num_tasks)

    def one(_: int, here: np.ndarray, j: np.ndarray, losses: np.ndarray) -> np.ndarray:
        g, x, speed = j[here], shares(w, here), np.zeros(len(here))
        scaled = g @ g.T / np.linalg.norm(g, axis=1).mean() ** 2
        for _ in range(iterations):
            speed = 0.5 * speed + scaled @ x + lam * scaled.mean(1)
            x = project(x - lr * speed)
        w[here] = x
        return (x @ g + lam * g.mean(0)) / (1 + lam)

    return one


def modo(num_tasks: int, gamma: float, rho: float) -> Callable:
    """2305.20057 with one batch, the Gram matrix over its mean diagonal."""
    w = np.full(num_tasks, 1 / num_tasks)

    def one(_: int, here: np.ndarray, j: np.ndarray, losses: np.ndarray) -> np.ndarray:
        g, x = j[here], shares(w, here)
        gram = g @ g.T / (g**2).sum(1).mean()
        w[here] = project(x - gamma * (gram @ x + rho * x))
        return w[here] @ g

    return one


def moco(num_tasks: int, beta: float, gamma: float, rho: float, simplex: str) -> Callable:
    """2210.12624 with the scaling and the schedules of the authors' code."""
    y, w = np.zeros((num_tasks, WIDTH)), np.full(num_tasks, 1 / num_tasks)

    def one(k: int, here: np.ndarray, j: np.ndarray, losses: np.ndarray) -> np.ndarray:
        for i in here:
            target = losses[i] * j[i] / np.linalg.norm(j[i])
            y[i] = (1 - beta / np.sqrt(k)) * y[i] + beta / np.sqrt(k) * target
        x = shares(w, here)
        matrix = y[here] @ y[here].T + rho * np.eye(len(here))
        x = x - gamma / np.sqrt(k) * matrix @ x
        w[here] = softmax(x) if simplex == "softmax" else project(x)
        return w[here] @ y[here]

    return one


def db_mtl(num_tasks: int, beta: float, decay: float) -> Callable:
    """Algorithm 1 of 2308.12029: averaged gradients of log losses, all as long as the longest."""
    y = np.zeros((num_tasks, WIDTH))

    def one(k: int, here: np.ndarray, j: np.ndarray, losses: np.ndarray) -> np.ndarray:
        for i in here:
            y[i] = beta / k**decay * y[i] + (1 - beta / k**decay) * j[i] / losses[i]
        norms = np.linalg.norm(y[here], axis=1, keepdims=True)
        return (norms.max() * y[here] / norms).sum(0)

    return one


def excess_mtl(num_tasks: int, lr: float) -> Callable:
    """2402.02009 with the first excess risk as the unit; plain weights, normalised to sum T."""
    squares, w, first = np.zeros((num_tasks, WIDTH)), np.ones(num_tasks), np.zeros(num_tasks)

    def one(k: int, here: np.ndarray, j: np.ndarray, losses: np.ndarray) -> np.ndarray:
        # An absent task moves as the mean of the present ones: their weights alone change.
        rates = np.zeros(num_tasks)
        for i in here:
            squares[i] += j[i] ** 2
            excess = j[i] @ np.diag(1 / np.sqrt(squares[i])) @ j[i]
            first[i] = first[i] or excess
            rates[i] = excess / first[i]
        rates[np.setdiff1d(np.arange(num_tasks), here)] = rates[here].mean()
        w[:] = w * np.exp(lr * rates)
        return len(here) * (w[here] / w[here].sum()) @ j[here]

    return one


class Adam:
    """Adam with one step at a time, each number with moments of its own."""

    def __init__(self, size: int, lr: float) -> None:
        self.x, self.lr, self.count = np.zeros(size), lr, 0
        self.m, self.v = np.zeros(size), np.zeros(size)

    def move(self, here: np.ndarray, grad: np.ndarray) -> None:
        """Moves the numbers `here` along their gradient; the count is that of all steps."""
        self.count += 1
        self.m[here] = 0.9 * self.m[here] + 0.1 * grad
        self.v[here] = 0.999 * self.v[here] + 0.001 * grad**2
        m, v = self.m[here] / (1 - 0.9**self.count), self.v[here] / (1 - 0.999**self.count)
        self.x[here] -= self.lr * m / (np.sqrt(v) + 1e-8)


def gradnorm(num_tasks: int, alpha: float, lr: float) -> Callable:
    """Algorithm 1 of 1711.02257; the gradient of the logits by differences of the objective."""
    s, first = Adam(num_tasks, lr), np.zeros(num_tasks)

    def one(_: int, here: np.ndarray, j: np.ndarray, losses: np.ndarray) -> np.ndarray:
        first[here] = np.where(first[here] > 0, first[here], losses[here])
        # The unit of the gradients is their root mean square length.
        norms = np.linalg.norm(j[here], axis=1)
        norms = norms / np.sqrt((norms**2).mean())
        rates = losses[here] / first[here]
        lengths = len(here) * softmax(s.x[here]) * norms
        targets = lengths.mean() * (rates / rates.mean()) ** alpha

        def objective(x: np.ndarray) -> float:
            return np.abs(len(here) * softmax(x) * norms - targets).sum()

        weights = len(here) * softmax(s.x[here])
        shifts = 1e-6 * np.eye(len(here))
        up, down = ([objective(s.x[here] + sign * d) for d in shifts] for sign in (1, -1))
        s.move(here, (np.array(up) - np.array(down)) / 2e-6)
        return weights @ j[here]

    return one


def imtl(num_tasks: int, lr: float) -> Callable:
    """The closed form of IMTL-G on the gradients of exp(s) L - s, while s descends on it."""
    s = Adam(num_tasks, lr)

    def one(_: int, here: np.ndarray, j: np.ndarray, losses: np.ndarray) -> np.ndarray:
        scales = np.exp(s.x[here])
        s.move(here, scales * losses[here] - 1)
        return imtl_g(scales[:, None] * j[here])

    return one


def cases() -> list[dict[str, Any]]:
    """All golden walks, inputs included."""
    rng = np.random.default_rng(9)
    gradients = np.round(rng.normal(size=(5, 3, WIDTH)) * np.array([[0.5], [1.0], [2.0]]) + 0.2, 3)
    losses = np.round(np.array([0.5, 1.5, 3.0]) * rng.uniform(0.6, 1.2, (5, 3)), 3)
    on = np.array([[1, 1, 1], [1, 1, 1], [1, 0, 1], [1, 1, 1], [0, 1, 1]], bool)
    orders = [[1, 2, 0], [2, 0, 1], [0, 1, 2]]
    made: list[tuple[str, dict[str, Any], Callable]] = [
        ("dual_proj", {"reduction": "sum"}, dual_proj_sum),
        ("grad_vac", {"beta": 0.5, "orders": orders}, grad_vac(0.5, 3, orders)),
        ("sdmgrad", {"lr": 10.0}, sdmgrad(3, 0.3, 10.0, 20)),
        ("sdmgrad", {"lr": 0.1, "lam": 0.6, "iterations": 5}, sdmgrad(3, 0.6, 0.1, 5)),
        ("modo", {"gamma": 0.1, "rho": 0.1}, modo(3, 0.1, 0.1)),
        ("moco", {"rho": 0.0, "simplex": "softmax"}, moco(3, 0.5, 0.1, 0.0, "softmax")),
        ("moco", {"rho": 0.1, "simplex": "projection"}, moco(3, 0.5, 0.1, 0.1, "projection")),
        ("db_mtl", {"beta": 0.9, "decay": 0.0}, db_mtl(3, 0.9, 0.0)),
        ("db_mtl", {"beta": 0.5, "decay": 0.5}, db_mtl(3, 0.5, 0.5)),
        ("excess_mtl", {"lr": 0.1}, excess_mtl(3, 0.1)),
        ("gradnorm", {"alpha": 1.5, "lr": 0.025}, gradnorm(3, 1.5, 0.025)),
        ("imtl", {"lr": 0.1}, imtl(3, 0.1)),
    ]
    # Of two tasks, which meet in one order only.
    pair = grad_vac(0.8, 2, [[1], [0]], mean=True)
    made.append(("grad_vac", {"beta": 0.8, "reduction": "mean"}, pair))
    return [
        {
            "method": method,
            "options": options,
            "gradients": gradients[:, :size].tolist(),
            "losses": losses[:, :size].tolist(),
            "active": on[:, :size].tolist(),
            "directions": steps(gradients[:, :size], losses[:, :size], on[:, :size], one),
        }
        for method, options, one in made
        for size in [2 if one is pair else 3]
    ]


def main() -> None:
    """Writes the file."""
    lines = ",\n".join(json.dumps(case) for case in cases())
    FILE.write_text(f"[\n{lines}\n]\n")


if __name__ == "__main__":
    main()

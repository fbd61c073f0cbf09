"""The largest eigenvalue of a symmetric matrix that is known by its products with vectors.

Lanczos with full reorthogonalisation, twice at each step (Parlett, "The Symmetric Eigenvalue
Problem", chapter 13): without it, rounding brings back directions that have converged, and a
multiple of the same eigenvalue appears. Restarted from the best vector so far: at the end, so that
the residual that is returned comes from a product with that vector and not from the recurrence,
and where a longer basis would not fit in memory.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mtl_jax.layers.platform import cpu_compiler_options

Array = jax.Array
Tree = Any

# Numbers in a basis: 1 GB of float32.
MAX_NUMBERS = 1 << 28


class Top(NamedTuple):
    """The largest eigenvalue, in the algebraic order.

    Attributes:
      value: Rayleigh quotient of `vector`.
      residual: |H v - value v| for the unit `vector` v: some eigenvalue is not farther from
        `value` than this (in exact arithmetic).
      converged: whether `residual` is within the tolerance.
      products: how many products were taken.
      values: [products] estimates after each.
      residuals: [products] their residuals, by the recurrence but for the first of a restart.
      vector: [P] unit eigenvector.
    """

    value: float
    residual: float
    converged: bool
    products: int
    values: np.ndarray
    residuals: np.ndarray
    vector: Array


def make_step(product: Callable[..., Array]) -> Callable[..., tuple[Array, Array, Array]]:
    """Returns the compiled step of `top_eigenpair` for `product(vector [P], *args) -> [P]`."""

    def step(basis: Array, k: Array, *args: Tree) -> tuple[Array, Array, Array]:
        rest = product(basis[k], *args)
        alpha = jnp.sum(basis[k] * rest)
        for _ in range(2):  # Rows that are not yet known are zero.
            found = jnp.matmul(basis, rest, precision="highest")
            rest = rest - jnp.matmul(found, basis, precision="highest")
        beta = jnp.linalg.norm(rest)
        unit = rest / jnp.where(beta > 0, beta, 1)
        return basis.at[k + 1].set(unit), alpha, beta

    return jax.jit(step, donate_argnums=0, compiler_options=cpu_compiler_options())


def top_eigenpair(
    step: Callable[..., tuple[Array, Array, Array]],
    start: Array,
    args: tuple = (),
    *,
    products: int = 40,
    tolerance: float = 5e-3,
    basis: int = 0,
) -> Top:
    """Finds the largest eigenvalue.

    Args:
      step: of `make_step`; compiled once for a shape of `start` and `args`.
      start: [P], not zero; random, so that it has a part along every eigenvector.
      args: of the product.
      products: how many to take at most.
      tolerance: of the residual, relative to the eigenvalue, whose own error is about its square.
      basis: vectors kept before a restart, 2 or more; 0 for as many as `MAX_NUMBERS` allow.

    Returns:
      See `Top`. Nothing but NaN where a product is not finite.
    """
    size = start.shape[0]
    rows = basis or int(np.clip(MAX_NUMBERS // size - 1, 2, products))
    vector = _unit(start)
    values: list[float] = []
    residuals: list[float] = []
    fresh = False  # Whether row 0 is a Ritz vector, whose residual is then a true one.
    while True:
        kept = _basis(vector, rows + 1)
        alphas, betas = [], []
        for k in range(rows):
            kept, alpha, beta = step(kept, k, *args)
            alphas.append(float(alpha))
            betas.append(float(beta))
            if not np.isfinite(alphas[-1] + betas[-1]):
                nan = float("nan")
                return Top(nan, nan, False, len(values) + 1, *_arrays(values, residuals), vector)
            shares, value = _ritz(alphas, betas)
            values.append(value)
            residuals.append(betas[-1] * abs(float(shares[-1])))
            close = residuals[-1] <= tolerance * abs(value)
            spent = len(values) >= products
            if k == 0 and fresh and (close or spent):
                logs = _arrays(values, residuals)
                return Top(value, residuals[-1], close, len(values), *logs, vector)
            # The last product is kept for the true residual.
            if close or len(values) >= products - 1:
                break
        # The last row of the basis is the next direction, which has no share.
        padded = np.zeros(rows + 1)
        padded[: len(shares)] = shares
        vector = _combination(kept, padded.astype(start.dtype))
        fresh = True


@jax.jit
def _unit(vector: Array) -> Array:
    return vector / jnp.linalg.norm(vector)


@functools.partial(jax.jit, static_argnums=1)
def _basis(vector: Array, rows: int) -> Array:
    """Rows of zeros, but for the first."""
    return jnp.zeros((rows, *vector.shape), vector.dtype).at[0].set(vector)


@jax.jit
def _combination(basis: Array, shares: Array) -> Array:
    return _unit(jnp.matmul(shares, basis, precision="highest"))


def _ritz(alphas: list[float], betas: list[float]) -> tuple[np.ndarray, float]:
    """The largest eigenvalue of the tridiagonal matrix and its vector."""
    off = np.asarray(betas[:-1])
    values, vectors = np.linalg.eigh(np.diag(alphas) + np.diag(off, 1) + np.diag(off, -1))
    return vectors[:, -1], float(values[-1])


def _arrays(values: list[float], residuals: list[float]) -> tuple[np.ndarray, np.ndarray]:
    return np.asarray(values), np.asarray(residuals)

"""Small dense linear algebra for the T x T solvers: safe, batched, free of custom calls for T <= 4.

All thresholds are relative to the matrix at hand: nothing here has a unit.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from mtl_jax.methods.base import Array

_UNROLL = 4


def highest_precision(function: Callable[..., Any]) -> Callable[..., Any]:
    """Makes every product inside `function` a full float32 one, on accelerators too."""

    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        with jax.default_matmul_precision("highest"):
            return function(*args, **kwargs)

    return wrapped


def product(matrix: Array, x: Array) -> Array:
    """Returns matrix @ x for x [T]; up to T = 4 as sums that XLA can fuse, not a library call."""
    if x.shape[0] > _UNROLL:
        return jnp.matmul(matrix, x)
    return functools.reduce(operator.add, [matrix[..., k] * x[k] for k in range(x.shape[0])])


def dot(x: Array, y: Array) -> Array:
    """Returns the inner product of x [T] and y [T]; see `product`."""
    if x.shape[0] > _UNROLL:
        return jnp.vdot(x, y)
    return functools.reduce(operator.add, [x[k] * y[k] for k in range(x.shape[0])])


def unit_diagonal(gram: Array, active: Array | None = None) -> tuple[Array, Array]:
    """Returns the cosines [T, T] and inverse norms [T] behind a Gram matrix.

    Solvers work on cosines so that the lengths of the gradients, which differ by orders of
    magnitude, do not enter their conditioning. Rows that are inactive, exactly zero or below
    machine precision beside the longest one get cosines and inverse norm 0: they are left out.
    """
    diag = jnp.diag(gram)
    if active is not None:
        diag = jnp.where(active, diag, 0)
    eps = jnp.finfo(gram.dtype).eps
    # eps ** 2 on squared norms; the comparison is strict, so that an all-zero matrix has no rows.
    live = diag > eps * eps * diag.max()
    inverse = jnp.where(live, lax.rsqrt(jnp.where(live, diag, 1)), 0)
    cosines = gram * inverse[:, None] * inverse[None, :]
    both = live[:, None] & live[None, :]
    return jnp.where(both, cosines, 0), inverse


def spectral_bound(matrix: Array) -> Array:
    """Returns an upper bound of the largest eigenvalue of a symmetric matrix, for step sizes.

    The Collatz-Wielandt bound of the matrix of absolute values: rigorous after any number of
    power iterations, and never worse than the largest row sum by more than their count allows.
    """
    absolute = jnp.abs(matrix)
    vector = jnp.ones(matrix.shape[0], matrix.dtype)
    for _ in range(4):
        vector = product(absolute, vector)
        # The floor keeps left-out (zero) rows from dividing by zero; it only loosens the bound.
        vector = jnp.maximum(vector / jnp.maximum(vector.max(), 1e-30), 1e-6)
    return jnp.maximum((product(absolute, vector) / vector).max(), 1e-30)


def solve(matrix: Array, rhs: Array) -> Array:
    """Returns the solution [T, K] of a symmetric positive definite system.

    Up to T = 4 the elimination is written out, so that XLA fuses it with its surroundings instead
    of calling a library for a handful of numbers; above, a Cholesky factorisation.
    """
    size = matrix.shape[0]
    if size > _UNROLL:
        factor = jnp.linalg.cholesky(matrix)
        half = lax.linalg.triangular_solve(factor, rhs, left_side=True, lower=True)
        return lax.linalg.triangular_solve(
            factor, half, left_side=True, lower=True, transpose_a=True
        )
    rows = [jnp.concatenate([matrix[i], rhs[i]]) for i in range(size)]
    for i in range(size):
        pivot = rows[i] / rows[i][i]
        rows = [pivot if k == i else rows[k] - rows[k][i] * pivot for k in range(size)]
    return jnp.stack([row[size:] for row in rows])


def pseudo_inverse(matrix: Array, rank: Array) -> tuple[Array, Array]:
    """Returns eigenvalues [T] and eigenvectors [T, T] (columns) of the pseudo-inverse.

    Args:
      matrix: [T, T], symmetric positive semi-definite.
      rank: the largest rank it can have; eigenvalues below machine epsilon times `rank` times the
        largest one count as 0.
    """
    values, vectors = jnp.linalg.eigh(matrix)
    kept = values > jnp.finfo(matrix.dtype).eps * jnp.maximum(rank, 1) * values.max()
    return jnp.where(kept, 1 / jnp.where(kept, values, 1), 0), vectors


def ridge(size: int, dtype: Any) -> float:
    """The multiple of the identity under which a matrix with unit diagonal can be factorised."""
    return 4 * max(size, 4) * float(jnp.finfo(dtype).eps)


def solve_face(cosines: Array, rhs: Array, keep: Array) -> Array:
    """Returns x [T, K] with x = 0 off `keep` and (cosines x - rhs) = 0 on `keep`.

    The matrix may be singular: a ridge at rounding level keeps the factorisation alive, and one
    step of iterative refinement against the true matrix takes its bias away again.
    """
    mask = keep.astype(cosines.dtype)
    face = cosines * mask[:, None] * mask[None, :]
    rhs = rhs * mask[:, None]
    diagonal = 1 - mask + ridge(len(mask), cosines.dtype)
    regular = face + jnp.diag(diagonal)
    x = solve(regular, rhs)
    residual = rhs - jnp.stack([product(face, column) for column in x.T], 1)
    x = x + solve(regular, residual)
    return x * mask[:, None]

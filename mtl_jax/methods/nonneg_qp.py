"""S2: quadratic programs with non-negative variables."""

from __future__ import annotations

import jax.numpy as jnp

from mtl_jax.methods import active_set
from mtl_jax.methods.active_set import FacePoint
from mtl_jax.methods.base import Array
from mtl_jax.methods.linalg import (
    highest_precision,
    product,
    solve_face,
    spectral_bound,
    unit_diagonal,
)


@highest_precision
def nonneg_qp(
    matrix: Array, linear: Array, *, active: Array | None = None, iterations: int = 100
) -> Array:
    """Returns z [T] >= 0 that minimises z.H z / 2 + q.z.

    Method: accelerated projected gradient in the metric diag(H), then an exact active-set walk
    (T <= 3: all faces, no loop). For many right-hand sides use `jax.vmap` over `linear`: the
    gradient steps then are one T x T product each.

    Args:
      matrix: [T, T] H, symmetric positive semi-definite; may be singular.
      linear: [T] q, in the range of H (else the problem has no solution).
      active: [T] bool; z = 0 elsewhere. None for all.
      iterations: number of gradient steps before the walk, for T > 3.
    """
    size = matrix.shape[0]
    eps = jnp.finfo(matrix.dtype).eps
    cosines, inverse_norms = unit_diagonal(matrix, active)
    live = inverse_norms > 0
    q = linear * inverse_norms

    def slope(x: Array) -> Array:
        return product(cosines, x) + q

    def merit(x: Array) -> Array:
        """The complementarity residual: 0 at the optimum only."""
        residual = jnp.abs(jnp.minimum(x, slope(x))).max()
        return jnp.where(jnp.isfinite(x).all(), residual, jnp.inf)

    def face(keep: Array) -> FacePoint:
        x = solve_face(cosines, -q[:, None], keep)[:, 0]
        return FacePoint(
            x, slope(x), 4 * eps * (product(jnp.abs(cosines), jnp.abs(x)) + jnp.abs(q))
        )

    if size <= active_set.SMALL:
        x = active_set.try_all_faces(face, merit, live)
    else:
        start = jnp.zeros(size, matrix.dtype)
        bound = spectral_bound(cosines)
        start = active_set.accelerate(slope, lambda x: jnp.maximum(x, 0), start, bound, iterations)
        x = active_set.walk(face, merit, live, start, 2 * size)
    return x * inverse_norms

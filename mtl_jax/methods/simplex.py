"""S1: the shortest convex combination of gradients, with or without a linear term."""

from __future__ import annotations

import jax.numpy as jnp

from mtl_jax.methods import active_set
from mtl_jax.methods.active_set import FacePoint
from mtl_jax.methods.base import Array
from mtl_jax.methods.linalg import (
    dot,
    highest_precision,
    product,
    solve_face,
    spectral_bound,
    unit_diagonal,
)


@highest_precision
def min_norm_simplex(
    gram: Array,
    linear: Array | None = None,
    *,
    active: Array | None = None,
    iterations: int = 100,
) -> Array:
    """Returns w [T] on the simplex of the active tasks that minimises linear.w + |J^T w|.

    Without `linear` this is MGDA's min-norm point; with linear = J g0 / (c |g0|) it is CAGrad's
    dual problem. Method: accelerated projected gradient in the metric diag(G), then an exact
    active-set walk (T <= 3: all faces, no loop). On a face the minimiser is closed form: with
    b = G^-1 1, a = G^-1 q, beta = 1.b, alpha = 1.a, gamma = q.a,

        |J^T w| = r = (beta (1 - gamma) + alpha^2)^(-1/2),  w = (1 + r alpha) / beta b - r a.

    Differs from the authors' solvers (Frank-Wolfe for MGDA, SLSQP for CAGrad): exact to rounding,
    and invariant to the scale of each gradient.

    Args:
      gram: [T, T] inner products G = J J^T, of any scale; may be singular.
      linear: [T] q, in the range of G (linear = J v for some v); None for 0.
      active: [T] bool; None for all.
      iterations: number of gradient steps before the walk, for T > 3.

    Returns:
      [T] weights, 0 for inactive tasks, sum 1 (0 without active tasks).
    """
    size, dtype = gram.shape[0], gram.dtype
    eps = jnp.finfo(dtype).eps
    active = jnp.ones(size, bool) if active is None else active
    # In y = w * norms the matrix has a unit diagonal and the constraint reads s.y = 1. The
    # objective is homogeneous, so that s may be scaled to at most 1.
    cosines, inverse_norms = unit_diagonal(gram, active)
    live = inverse_norms > 0
    s = inverse_norms / jnp.maximum(inverse_norms.max(), jnp.finfo(dtype).tiny)
    q = jnp.zeros(size, dtype) if linear is None else linear * inverse_norms

    def length(y: Array) -> Array:
        return jnp.sqrt(jnp.maximum(dot(y, product(cosines, y)), 0))

    def slope(y: Array) -> Array:
        """The objective's gradient times |J^T w|: smooth, and with the Lipschitz constant of C."""
        at = product(cosines, y)
        return at + jnp.sqrt(jnp.maximum(dot(y, at), 0)) * q

    def merit(y: Array) -> Array:
        """The Frank-Wolfe gap in terms of w: 0 at the optimum only."""
        y = y / dot(s, y)
        at = slope(y)
        gap = dot(y, at) - jnp.where(live, at / jnp.where(live, s, 1), jnp.inf).min()
        return jnp.where(jnp.isfinite(y).all(), gap, jnp.inf)

    def face(keep: Array) -> FacePoint:
        solution = solve_face(cosines, jnp.stack([s, q], 1), keep)
        b, a = solution[:, 0], solution[:, 1]
        beta, alpha, gamma = dot(s, b), dot(s, a), dot(q, a)
        # Not positive where the objective has no minimum on the affine hull: then a far point in
        # the direction of descent, from which the walk turns back at the boundary.
        square = jnp.maximum(beta * (1 - gamma) + alpha * alpha, eps * eps * beta)
        r = 1 / jnp.sqrt(square)
        level = (1 + r * alpha) / beta
        y = level * b - r * a
        noise = product(jnp.abs(cosines), jnp.abs(y)) + r * jnp.abs(q) + jnp.abs(level) * s
        return FacePoint(y, product(cosines, y) + r * q - level * s, 4 * eps * noise)

    def project(v: Array) -> Array:
        """The nearest y >= 0 with s.y = 1: max(v - tau s, 0), tau the largest of T candidates."""
        inside = (v[None, :] * s[:, None] >= v[:, None] * s[None, :]).astype(dtype)
        tau = ((product(inside, s * v) - 1) / jnp.maximum(product(inside, s * s), eps * eps)).max()
        y = jnp.maximum(v - tau * s, 0)
        return y / jnp.maximum(dot(s, y), jnp.finfo(dtype).tiny)

    if size <= active_set.SMALL:
        y = active_set.try_all_faces(face, merit, live)
    else:
        start = s / jnp.maximum(dot(s, s), 1)  # w ~ 1 / G_ii: optimal for orthogonal rows
        start = active_set.accelerate(slope, project, start, spectral_bound(cosines), iterations)
        y = active_set.walk(face, merit, live, start, 2 * size)
    # Rows of length 0 make the value 0 attainable; by homogeneity it is either that or y.
    zero = active & ~live
    take_zero = zero.any() & ~(dot(q, y) + length(y) < 0)
    weights = jnp.where(take_zero, zero.astype(dtype), y * s)
    total = weights.sum()
    return jnp.where(total > 0, weights / jnp.where(total > 0, total, 1), 0)

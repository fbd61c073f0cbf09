"""S3: the equation G w = w ** (-1 / alpha) of Nash-MTL (alpha = 1) and FairGrad."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from mtl_jax.methods.base import Array
from mtl_jax.methods.linalg import dot, highest_precision, product, ridge, solve, unit_diagonal

_TRIALS = 2.0 ** -np.arange(8)


@highest_precision
def power_equation(
    gram: Array, alpha: float = 1.0, *, active: Array | None = None, iterations: int = 20
) -> tuple[Array, Array]:
    """Returns w [T] > 0 with G w = w ** (-1 / alpha), and the largest relative residual.

    The equation is the stationarity of a strictly convex function (w.G w / 2 plus a barrier), so
    that damped Newton finds its only solution. There is none when 0 is a convex combination of the
    gradients (for T = 2: opposite gradients): w then grows without bound and the residual stays
    near 1; solved cases end below 1e-3 even in float32.

    Differs from the authors' solvers (a sequence of convex programs, and bounded least squares):
    runs on the device and is invariant to the scale of each gradient.

    Args:
      gram: [T, T] G = J J^T, of any scale.
      alpha: exponent, > 0.
      active: [T] bool; None for all. Inactive rows and rows of length 0 get w = 0 and are left
        out of the equation and the residual.
      iterations: number of Newton steps.
    """
    size, dtype = gram.shape[0], gram.dtype
    cosines, inverse_norms = unit_diagonal(gram, active)
    live = inverse_norms > 0
    diag = jnp.where(live, jnp.diag(gram), 1)
    scale = jnp.where(live, diag, 0).sum() / jnp.maximum(live.sum(), 1)
    diag = jnp.where(live, diag / jnp.where(scale > 0, scale, 1), 1)
    # With w = t v and t = G_ii ** (-alpha / (1 + alpha)), orthogonal gradients have v = 1. With
    # rho = t ** ((1 - 1 / alpha) / 2) it is one of cosines: C (rho v) = rho v ** (-1 / alpha).
    t = diag ** (-alpha / (1 + alpha))
    rho = jnp.where(live, t ** ((1 - 1 / alpha) / 2), 0)
    largest = rho.max()
    rho = jnp.where(live, rho / jnp.where(largest > 0, largest, 1), 0)
    safe_rho = jnp.where(live, rho, 1)

    def excess(v: Array) -> Array:
        return product(cosines, rho * v) - rho * v ** (-1 / alpha)

    def body(_: Array, v: Array) -> Array:
        at = excess(v)
        hessian = cosines + jnp.diag(v ** (-1 - 1 / alpha) / alpha + ridge(size, dtype))
        step = -solve(hessian, at[:, None])[:, 0]
        dv = jnp.where(live, step / safe_rho, 0)
        room = jnp.where(dv < 0, -v / jnp.where(dv < 0, dv, -1), jnp.inf).min()
        lengths = jnp.minimum(1, 0.95 * room) * jnp.asarray(_TRIALS, dtype)
        points = v[None, :] + lengths[:, None] * dv[None, :]
        # Along the line the slope rises from at.step < 0: the longest step after which it is not
        # steep uphill. Slopes, unlike values, keep their digits near the solution.
        slopes = jax.vmap(lambda point: dot(excess(point), step))(points)
        new = points[jnp.argmax(slopes <= 0.5 * jnp.abs(dot(at, step)))]
        return jnp.where(jnp.isfinite(new).all() & (new > 0).all(), new, v)

    # The best multiple of v = 1.
    share = dot(rho, product(cosines, rho)) / jnp.maximum(dot(rho, rho), jnp.finfo(dtype).tiny)
    first = jnp.maximum(share, 1e-3) ** (-alpha / (1 + alpha))
    v = lax.fori_loop(0, iterations, body, jnp.full(size, first, dtype))
    wanted = rho * v ** (-1 / alpha)
    residual = jnp.where(live, jnp.abs(excess(v) / jnp.where(live, wanted, 1)), 0).max()
    overall = jnp.where(scale > 0, scale, 1) ** (-alpha / (1 + alpha))
    return jnp.where(live, overall * t * v, 0), residual

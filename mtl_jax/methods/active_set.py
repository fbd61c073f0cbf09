"""Exact solutions of small convex problems over x >= 0, once the zero set can be guessed.

Both simplex and non-negative problems have a cheap minimiser on a *face* (the points that are zero
off a given set of tasks). For T <= 3 all faces are tried. For larger T a monotone active-set
method starts at an approximate solution: it walks to the minimiser of its face, drops the first
coordinate that becomes negative on the way, adds the most violated one on arrival, and stops at
the optimum (the scheme of Lawson and Hanson, "Solving Least Squares Problems", 1974, chapter 23,
with any convex function in the place of a least-squares one).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from mtl_jax.methods.base import Array

SMALL = 3
"""Up to this many tasks all faces are tried."""


class FacePoint(NamedTuple):
    """The minimiser on a face.

    Attributes:
      x: [T], 0 off the face; may be negative on it.
      slope: [T] how fast the objective falls (< 0) or rises when an absent coordinate grows.
      noise: [T] the rounding error of `slope`.
    """

    x: Array
    slope: Array
    noise: Array


Face = Callable[[Array], FacePoint]
Merit = Callable[[Array], Array]
"""Distance of x >= 0 from optimality in first-order terms; infinity for what is not a point."""


def try_all_faces(face: Face, merit: Merit, live: Array) -> Array:
    """Returns the best face minimiser [T] over all 2 ** T faces."""
    size = live.shape[0]
    masks = np.array(list(itertools.product([False, True], repeat=size)))
    points = jax.vmap(lambda keep: jnp.maximum(face(keep & live).x, 0))(jnp.asarray(masks))
    return points[jnp.argmin(jax.vmap(merit)(points))]


class _Walk(NamedTuple):
    x: Array
    keep: Array
    refused: Array
    best: Array
    best_merit: Array
    steps: Array
    done: Array


def walk(face: Face, merit: Merit, live: Array, start: Array, limit: int) -> Array:
    """Returns the optimum [T], walking from `start` [T] >= 0 over at most `limit` faces.

    The best point met (by `merit`) is returned, so that the result is never worse than `start`:
    rounding, a singular face or the limit cannot do harm.
    """
    indices = jnp.arange(live.shape[0])

    def step(c: _Walk) -> _Walk:
        x, slope, noise = face(c.keep)
        sound = jnp.isfinite(x).all()
        blocked = c.keep & (x <= 0)
        arrived = ~blocked.any()
        # On the way: as far as the first coordinate that would become negative.
        gap = c.x - x
        share = jnp.where(blocked, jnp.where(gap > 0, c.x / jnp.where(gap > 0, gap, 1), 0), jnp.inf)
        first = jnp.minimum(share.min(), 1)
        dropped = blocked & (share <= first)
        part = jnp.where(c.keep & ~dropped, jnp.maximum(c.x + first * (x - c.x), 0), 0)
        # On arrival: the coordinate whose growth helps most, if any helps beyond rounding.
        gain = jnp.where(live & ~c.keep & ~c.refused, slope + noise, 0)
        wanted = jnp.argmin(gain)
        found = gain[wanted] < 0
        x = jnp.where(arrived, x, part)
        keep = jnp.where(arrived, c.keep | ((indices == wanted) & found), c.keep & ~dropped)
        # A coordinate that was added and falls out at once was wanted by rounding only: not again
        # before something else has moved.
        stuck = ~arrived & (first <= 0)
        refused = jnp.where(stuck, c.refused | dropped, c.refused & arrived)
        value = merit(x)
        better = value < c.best_merit
        return _Walk(
            x,
            keep,
            refused,
            jnp.where(better, x, c.best),
            jnp.where(better, value, c.best_merit),
            c.steps + 1,
            (arrived & ~found) | ~sound,
        )

    nothing = jnp.zeros_like(live)
    begin = _Walk(
        start, start > 0, nothing, start, merit(start), jnp.int32(0), ~jnp.isfinite(start).all()
    )
    return lax.while_loop(lambda c: ~c.done & (c.steps < limit), step, begin).best


def accelerate(
    gradient: Callable[[Array], Array],
    project: Callable[[Array], Array],
    start: Array,
    bound: Array,
    iterations: int,
) -> Array:
    """Returns x [T] after `iterations` accelerated projected gradient steps of length 1 / bound.

    Momentum restarts whenever it points uphill (O'Donoghue and Candes, arXiv 1204.3982), which
    makes the convergence linear on the final face without knowing its conditioning.
    """

    def body(_: Array, carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        x, z, t = carry
        new = project(z - gradient(z) / bound)
        uphill = jnp.vdot(z - new, new - x) > 0
        t_new = jnp.where(uphill, 1, (1 + jnp.sqrt(1 + 4 * t * t)) / 2).astype(x.dtype)
        momentum = jnp.where(uphill, 0, (t - 1) / t_new).astype(x.dtype)
        return new, new + momentum * (new - x), t_new

    one = jnp.ones((), start.dtype)
    return lax.fori_loop(0, iterations, body, (start, start, one))[0]

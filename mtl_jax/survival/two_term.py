"""Two heads for one lifetime: a short and a long term (Kitada et al. 2022), made one curve.

The long head's first bin is the whole horizon of the short head, so that
1 - h^L_1 = prod_k (1 - h^S_k) if they agree. `stitch` takes the short head there and the long head
after; `coherence` is a penalty on how far they disagree. Neither is in the paper.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from mtl_jax.errors import UserError
from mtl_jax.survival.intervals import Grid
from mtl_jax.survival.logspace import as_float, bin_hazard, log_bin_hazard, log_event, log_sum

Array = jax.Array


def stitch_grids(short: Grid, long: Grid) -> Grid:
    """The grid of the stitched curve: the short bins, then the long ones but the first.

    Raises:
      UserError: the long grid's first bin is not the whole short grid.
    """
    if (long.start, long.edges[1]) != (short.start, short.end):
        raise UserError(
            f"the long grid's first bin is [{long.start:g}, {long.edges[1]:g}); it must be the "
            f"short grid's horizon [{short.start:g}, {short.end:g})"
        )
    return Grid(short.edges + long.edges[2:])


def stitch(
    short_logits: Any, long_logits: Any, short_grid: Grid, long_grid: Grid
) -> tuple[Array, Grid]:
    """Joins two heads: S(t) = S_S(t) up to the short horizon, then times prod_{k >= 2} (1 - h^L_k).

    Args:
      short_logits: [..., K_S].
      long_logits: [..., K_L].
      short_grid: K_S bins.
      long_grid: K_L bins, the first of them the horizon of `short_grid`.

    Returns:
      (logits [..., K_S + K_L - 1], their grid), for the functions of `curves` and `scores`.

    Raises:
      UserError: grids that do not join.
    """
    grid = stitch_grids(short_grid, long_grid)
    short, long = as_float(short_logits), as_float(long_logits)
    return jnp.concatenate([short, long[..., 1:]], axis=-1), grid


def coherence(short_logits: Any, long_logits: Any, *, short_share: Any = None) -> Array:
    """How far the two heads disagree on the event before the short horizon: a divergence, [...].

    KL(Bern(1 - prod_k (1 - h^S_k)) || Bern(h^L_1)), from logarithms alone; 0 where they agree.

    Args:
      short_logits: [..., K_S].
      long_logits: [..., K_L], of which the first is used.
      short_share: [..., K_S] shares of the short bins that count, for rows alive at a landmark:
        `short_grid.share(landmark, short_grid.end)`. None: all.
    """
    short, long, share = _heads(short_logits, long_logits, short_share)
    # A and B: cumulative hazards over the short horizon by the two heads. KL is
    # (1 - e^-A) (log(1 - e^-A) - log(1 - e^-B)) + e^-A (B - A).
    lived = jnp.sum(share * bin_hazard(short), axis=-1)
    some = jnp.any(share > 0, axis=-1)
    died = log_event(log_sum(log_bin_hazard(short), jnp.where(some[..., None], share, 1)))
    ended = -jnp.expm1(-lived) * (died - jax.nn.log_sigmoid(long))
    return jnp.where(some, ended, 0) + jnp.exp(-lived) * (bin_hazard(long) - lived)


def coherence_gap(short_logits: Any, long_logits: Any, *, short_share: Any = None) -> Array:
    """Chance of the event before the short horizon, the short head's minus the long head's; [...].

    Arguments are those of `coherence`.
    """
    short, long, share = _heads(short_logits, long_logits, short_share)
    # exp(-B) - exp(-A), and not a difference of two numbers that are both nearly 1 or nearly 0.
    lived, other = jnp.sum(share * bin_hazard(short), axis=-1), bin_hazard(long)
    low, apart = jnp.minimum(lived, other), lived - other
    return jnp.sign(apart) * jnp.exp(-low) * -jnp.expm1(-jnp.abs(apart))


def _heads(short_logits: Any, long_logits: Any, share: Any) -> tuple[Array, Array, Array]:
    short, long = as_float(short_logits), as_float(long_logits)[..., 0]
    if short.shape[:-1] != long.shape:
        raise UserError(f"short logits {short.shape} and long logits' rows {long.shape} differ")
    share = jnp.ones_like(short) if share is None else jnp.asarray(share).astype(short.dtype)
    return short, long, jnp.broadcast_to(share, short.shape)

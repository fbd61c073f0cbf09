"""One number for a curve, by name: what a concordance index or a ranking is computed from.

All are larger for rows that are expected to live longer. Concordance is not a proper score: which
map does best depends on the data, so choose it on validation rows and compare models under one.

  rmst               expected time lived from `lo` to `hi`
  log_rmst           expected log of the time lived, up to `hi`
  median             time by which half have ended, at most `hi`
  survival@10        chance to live to 10 (any time of the grid)
  cumulative_hazard  minus the cumulative hazard up to `hi`; orders as survival@hi, without ties
                     where chances round to 0 or 1

The paper does not say how hazards become a score. For its terms: the short one is
`score("rmst", ..., hi=10)`, the long one `score("rmst", ..., lo=10, given=10)`.
"""

from __future__ import annotations

import math
from typing import Any

import jax

from mtl_jax.errors import UserError, did_you_mean
from mtl_jax.survival import curves
from mtl_jax.survival.intervals import Grid

Array = jax.Array

SCORES = ("rmst", "log_rmst", "median", "survival@TIME", "cumulative_hazard")


def check_score(name: str, grid: Grid) -> tuple[str, float | None]:
    """Splits `"survival@10"` into ("survival", 10.0) and other names into (name, None).

    Raises:
      UserError: an unknown name, or a time outside the grid.
    """
    kind, at, time = name.partition("@")
    if kind != "survival" or not at:
        if name not in SCORES[:3] + SCORES[4:]:
            raise UserError(f"score {name!r} is unknown; {did_you_mean(name, SCORES)}")
        return name, None
    try:
        tau = float(time)
    except ValueError:
        tau = math.nan
    if not grid.start < tau <= grid.end:
        inside = f"above {grid.start:g} and up to {grid.end:g}"
        raise UserError(f"score {name!r}: the time must be {inside}, as in survival@{grid.end:g}")
    return kind, tau


def score(
    name: str, logits: Any, grid: Grid, *, lo: Any = None, hi: Any = None, given: Any = None
) -> Array:
    """Returns the score of every row; [...].

    Args:
      name: see the module.
      logits: [..., K] hazards.
      grid: K bins.
      lo: for `rmst` alone: a time or [...]; None: the first edge.
      hi: a time or [...]; None: the last edge. `survival@TIME` has its own.
      given: a time, [...] or None: rows are known to be alive then.

    Raises:
      UserError: an unknown name, or times outside the grid.
    """
    kind, tau = check_score(name, grid)
    if kind == "rmst":
        return curves.rmst(logits, grid, lo, hi, given=given)
    if kind == "log_rmst":
        return curves.log_rmst(logits, grid, hi, given=given)
    if kind == "median":
        return curves.restricted_median(logits, grid, given=given, hi=hi)
    if kind == "survival":
        return curves.survival_at(logits, grid, tau, given=given)
    return -curves.hazard_until(logits, grid, hi, given=given)

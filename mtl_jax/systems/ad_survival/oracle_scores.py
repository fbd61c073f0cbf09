"""The best that can be known of generated creatives, as concordances beside a model's.

A model that has no more than a creative and its first L days cannot order lifetimes better than
`data.survival.oracles` does with the same knowledge. Concordance is no proper score, so that the
best depends on the map from curves to numbers: of three maps the best one counts.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any

import numpy as np

from mtl_jax.data.lifetimes import LifetimeSet
from mtl_jax.data.survival.oracles import CREATIVE, oracle
from mtl_jax.metrics.survival import concordance

if TYPE_CHECKING:
    from mtl_jax.systems.ad_survival.scores import Forecast

SET = "creatives"
MAPS = ("mean", "mean_log", "chance")
_SMALL = 1e-12


def _maps(first: int, last: int) -> dict[str, Callable[[np.ndarray], np.ndarray]]:
    """Scores of curves [..., days] for what happens after day `first` and up to `last`."""

    def lived(curves: np.ndarray) -> np.ndarray:
        """Mean days lived from `first` on, of who is alive then."""
        given = curves[..., first - 1] if first else np.ones(curves.shape[:-1])
        return curves[..., first : last - 1].sum(-1) / np.maximum(given, _SMALL) + 1

    def chance(curves: np.ndarray) -> np.ndarray:
        given = curves[..., first - 1] if first else np.ones(curves.shape[:-1])
        middle = min(first + 10, last) - 1
        return curves[..., middle] / np.maximum(given, _SMALL)

    return {"mean": lived, "mean_log": lambda curves: np.log(lived(curves)), "chance": chance}


def oracle_concordance(
    data: LifetimeSet,
    rows: np.ndarray,
    time: np.ndarray,
    event: np.ndarray,
    *,
    landmark: int,
    first: int,
    last: int,
    known: Collection[str] = CREATIVE,
    history: bool = True,
) -> float:
    """Returns the concordance of the best that can be known, the best of `MAPS`.

    Args:
      data: a set of `data.survival.creatives`.
      rows: [k] rows that are ranked.
      time: [k], as they are ranked.
      event: [k].
      landmark: L, days on record.
      first: day after which it counts.
      last: day up to which it counts.
      known: latents that are known, see `oracles`.
      history: whether the days up to L are known.
    """
    best = 0.0
    for of in _maps(first, last).values():
        # The score of each case of what is hidden, averaged: better than that of the mean curve.
        found = oracle(
            data, known, landmark=landmark, history=history and landmark > 0, rows=rows, of=of
        )
        best = max(best, concordance(time, event, -found).value)
    return best


def oracle_values(
    config: Any, data: LifetimeSet, found: Forecast, values: dict[str, float]
) -> dict[str, float]:
    """Returns "TERM/oracle_c@L" and "TERM/attained@L" for the values "TERM/c@L" of a split.

    {} for sets that were not generated, and for landmarks that are no whole days.
    """
    if config.name.partition("/")[0] != SET or any(day % 1 for day in found.days):
        return {}
    out = {}
    rows = tuple(found.rows.tolist())
    for day in found.days:
        for term in ("short", "long", "overall"):
            name = f"{term}/c@{day:g}"
            if name not in values:
                continue
            best = _cached(config, rows, found.horizon, int(day), term)
            out[f"{term}/oracle_c@{day:g}"] = best
            out[f"{term}/attained@{day:g}"] = (values[name] - 0.5) / (best - 0.5)
    return out


@functools.lru_cache(maxsize=64)  # validation and test of the best and of the last checkpoint
def _cached(config: Any, rows: tuple[int, ...], horizon: float, day: int, term: str) -> float:
    # Imported late: the builders draw on this package.
    from mtl_jax.systems.ad_survival.builders import load
    from mtl_jax.systems.ad_survival.scores import cut

    data = load(config)
    own = cut(data, np.asarray(rows), term, float(day), horizon)
    last = int(horizon) if term == "short" else 120
    return oracle_concordance(
        data,
        own.rows,
        own.time,
        own.event,
        landmark=day,
        first=int(own.start),
        last=last,
    )

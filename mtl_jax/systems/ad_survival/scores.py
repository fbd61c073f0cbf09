"""Scores that need all predictions of a split at once: concordance by term and time, calibration.

For each time of prediction L and of the rows alive then,

    overall  everything after L
    short    what ends before the short horizon, times cut there
    long     what ends after it, among those alive at it

Concordance is Harrell's, on times as they are and never on bins, which would tie most of them. Its
score is the map that the config names, restricted to the term: what orders the times after L and
before the horizon, or from the horizon on. Any head is scored on all three terms that its bins
reach, so that one head over everything and two heads can be compared. With protocol "paper" nobody
is left out: the short term is scored as it is seen after 3 days, the whole after 10.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mtl_jax import survival
from mtl_jax.data.lifetimes import LifetimeSet
from mtl_jax.metrics.survival import concordance
from mtl_jax.survival import Grid
from mtl_jax.systems.ad_survival.forecasting import curves_of
from mtl_jax.systems.ad_survival.terms import alive_at

if TYPE_CHECKING:
    from mtl_jax.engine.state import TrainState
    from mtl_jax.run import Run

Array = np.ndarray
TERMS = ("short", "long", "overall")


class Forecast(NamedTuple):
    """What a model says of the rows of a split.

    Attributes:
      rows: [n] numbers of the rows in the set.
      hazards: [n, M, K] logits on `grid`; of two heads the stitched ones.
      grid: K bins.
      days: the M times of prediction.
      horizon: the short term's end.
      conditional: whether rows are predicted only while alive; else each term has one view.
      looked: what encoders looked at, {name: [n, ...]}.
    """

    rows: Array
    hazards: Array
    grid: Grid
    days: tuple[float, ...]
    horizon: float
    conditional: bool
    looked: dict[str, Array]


class Cut(NamedTuple):
    """Lifetimes of one term, seen from one time.

    Attributes:
      inside: [n] bool: which of the rows asked for are part of it.
      rows: [k] their numbers in the set.
      time: [k], cut at the horizon for the short term.
      event: [k], 0 or 1.
      entry: [k], from where on each was under observation.
      start: from where on it counts.
    """

    inside: Array
    rows: Array
    time: Array
    event: Array
    entry: Array
    start: float


def forecast(run: Run, state: TrainState, split: str) -> Forecast:
    """Predicts a whole split. In one process only."""
    # Imported late: `mtl_jax.run` stands above the systems.
    from mtl_jax import run as runs

    config: Any = run.config
    rows, found, looked = [], [], {}
    for batch, out in runs.predictions(run, state, split):
        rows.append(batch["row"])
        found.append(out.pop("risk" if config.model.head == "cox" else "hazards"))
        for name, value in out.items():
            looked.setdefault(name, []).append(value)
    views = config.data.views
    logits, grid = curves_of(run, state, np.concatenate(found))
    return Forecast(
        np.concatenate(rows),
        logits,
        grid,
        views.days,
        float(config.data.short[-1]),
        views.conditional,
        {name: np.concatenate(parts) for name, parts in looked.items()},
    )


def terms_of(found: Forecast, m: int) -> tuple[str, ...]:
    """Terms that can be scored at view m: those that the grid reaches and that lie after it."""
    late = found.grid.end > found.horizon
    early = found.grid.start < found.horizon and found.grid.bins > 1
    if not found.conditional:
        # Each term has its view, and nobody is left out: "long" is the whole of the curve.
        return ("short",) if m == 0 and early else ("long",) if m > 0 and late else ()
    early = early and found.days[m] < found.horizon
    return ("short",) * early + ("long",) * late + ("overall",) * late


def cut(
    data: LifetimeSet,
    rows: Array,
    term: str,
    day: float,
    horizon: float,
    conditional: bool = True,
) -> Cut:
    """Returns the lifetimes of a term among those of some rows that are alive.

    Args:
      data: the set.
      rows: numbers of rows.
      term: short, long or overall.
      day: time of prediction.
      horizon: the short term's end.
      conditional: False for the paper's protocol, in which nobody is left out.
    """
    start = (max(day, horizon) if term == "long" else day) if conditional else 0.0
    inside = alive_at(data, start)[rows]
    rows = rows[inside]
    time, event = data.time[rows].astype(np.float64), (data.event[rows] > 0).astype(np.int32)
    if term == "short":
        event = np.where(time < horizon, event, 0)
        time = np.minimum(time, horizon)
    entry = np.minimum(np.maximum(data.entry[rows], start), time)
    return Cut(inside, rows, time, event, entry, start)


def ranked(found: Forecast, data: LifetimeSet, term: str, m: int, score: str) -> tuple[Cut, Array]:
    """Returns the lifetimes of a term at view m and their scores, larger for longer lives.

    Args:
      found: of `forecast`.
      data: the set.
      term: short, long or overall.
      m: number of the view.
      score: a name of `survival.score`.
    """
    own = cut(data, found.rows, term, found.days[m], found.horizon, found.conditional)
    end = found.horizon if term == "short" else found.grid.end
    # Of all rows, those that are not alive too: one shape for all terms and times.
    values = term_score(score, jnp.asarray(found.hazards[:, m]), found.grid, own.start, end)
    return own, np.asarray(values, np.float64)[own.inside]


def concordance_of(own: Cut, score: Array) -> float:
    """Returns Harrell's C of a score that is larger for longer lives; NaN without a pair."""
    return concordance(own.time, own.event, -score, entry=own.entry).value


def term_score(name: str, logits: Any, grid: Grid, start: float, end: float) -> Any:
    """Returns the score of rows alive at `start` for what happens up to `end`, [n].

    A chance to live up to a time that lies outside (start, end] is taken at `end`.
    """
    kind, tau = survival.check_score(name, grid)
    begin = max(start, grid.start)
    if kind == "survival":
        at = tau if tau is not None and begin < tau <= end else end
        return survival.score(f"survival@{at:g}", logits, grid, given=begin)
    return _score(name, logits, grid, begin, end)


@functools.partial(jax.jit, static_argnames=("name", "grid"))
def _score(name: str, logits: Any, grid: Grid, begin: Any, end: Any) -> Any:
    """The score within (begin, end]; compiled once for all terms and times of prediction."""
    low = begin if name == "rmst" else None
    return survival.score(name, logits, grid, lo=low, hi=end, given=begin)


def scores(run: Run, state: TrainState, split: str) -> dict[str, float]:
    """Returns concordances of a split: "TERM/c" and, by time of prediction, "TERM/c@L".

    "TERM/c" is the mean over times. On generated creatives "TERM/oracle_c@L" is that of the best
    that can be known of the same rows, under the best of several maps, and "TERM/attained@L" the
    share of it above 0.5 that the model reaches.
    """
    from mtl_jax.systems.ad_survival.builders import load
    from mtl_jax.systems.ad_survival.oracle_scores import oracle_values

    config: Any = run.config
    data, found = load(config.data), forecast(run, state, split)
    out: dict[str, float] = {}
    by_term: dict[str, list[float]] = {term: [] for term in TERMS}
    for m, day in enumerate(found.days):
        for term in terms_of(found, m):
            value = concordance_of(*ranked(found, data, term, m, config.model.score))
            out[f"{term}/c@{day:g}"] = value
            by_term[term].append(value)
    for term, values in by_term.items():
        if values:
            out[f"{term}/c"] = float(np.mean(values))
    if found.conditional:
        out.update(oracle_values(config.data, data, found, out))
    return out

"""Terms and views: which bins each task has, and what each row says of them at each prediction.

A term is a task: a grid of bins with a head of its own. Kitada et al. (JSAI 2020, Applied Sciences
2022) have a short one (up to day 10, "cut-out") and a long one (up to day 120, "wear-out"), and one
over both grids, "overall", to compare with.

A view is a time at which a lifetime is predicted, and what is known by then.

    landmark  (ours, default) a row is seen at each landmark L that it was alive at, with its
              history up to L; bins before L say nothing (entry at L)
    paper     the short term sees the first 3 days, the long one the first 10, of every row. A row
              that ended on day 2 then has 2 days of history: its length tells the network who
              ended early, in training and in the scores. The paper does not say whether rows
              that had ended were left out. For comparison only.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import numpy as np

from mtl_jax.data.lifetimes import LifetimeSet
from mtl_jax.survival import Grid, hazard_targets, stitch_grids
from mtl_jax.survival.credit import Credit

PAPER_DAYS = (3.0, 10.0)  # of history that the short and the long term see, protocol "paper"


class Term(NamedTuple):
    """A task.

    Attributes:
      name: short, long or overall.
      grid: its bins.
    """

    name: str
    grid: Grid


class Views(NamedTuple):
    """When lifetimes are predicted.

    Attributes:
      days: M times; the history up to each is known.
      conditional: whether rows count only if they are alive then.
    """

    days: tuple[float, ...]
    conditional: bool


class Targets(NamedTuple):
    """What N rows say of T terms at M views; K is the number of bins of the longest grid.

    Attributes:
      event: [N, T, M, K] shares of bins in which the event lies, see `survival.HazardTargets`.
      exposure: [N, T, M, K] shares of bins lived through.
      counts: [N, T, M] bool: the row is part of the term's loss at this view.
      alive: [N, M] bool: the row is predicted at this view.
      entry: [N, M] float32: under observation from here on.
    """

    event: np.ndarray
    exposure: np.ndarray
    counts: np.ndarray
    alive: np.ndarray
    entry: np.ndarray


def make_terms(kind: str, short: tuple[float, ...], long: tuple[float, ...]) -> tuple[Term, ...]:
    """Returns the tasks of "two", "overall", "short" or "long".

    Raises:
      UserError: grids that do not join.
    """
    first, second = Term("short", Grid(short)), Term("long", Grid(long))
    joined = Term("overall", stitch_grids(first.grid, second.grid))
    chosen = {"two": (first, second), "overall": (joined,), "short": (first,), "long": (second,)}
    return chosen[kind]


def make_views(protocol: str, landmarks: tuple[float, ...]) -> Views:
    """Returns the views of a protocol."""
    return Views(PAPER_DAYS, False) if protocol == "paper" else Views(tuple(landmarks), True)


def alive_at(found: LifetimeSet, day: float) -> np.ndarray:
    """Whether each row was under observation at `day` and its event had not come, [N] bool.

    An event between `time` and `upper` may be told from one at `day` only if it lies later.
    """
    later = np.where(found.upper > found.time, found.time >= day, found.time > day)
    return np.where(day == 0, True, later)


def make_targets(
    found: LifetimeSet, terms: tuple[Term, ...], views: Views, censoring: Credit
) -> Targets:
    """Returns what each row says of each term at each view; on the host."""
    rows, bins = len(found.time), max(term.grid.bins for term in terms)
    shape = (rows, len(terms), len(views.days))
    event, exposure = (np.zeros((*shape, bins), np.float32) for _ in range(2))
    counts = np.zeros(shape, bool)
    alive = np.ones((rows, len(views.days)), bool)
    entry = np.tile(found.entry[:, None].astype(np.float32), (1, len(views.days)))
    # Not on the accelerator: it is not the step's business.
    with jax.default_device(jax.devices("cpu")[0]):
        for m, day in enumerate(views.days):
            if views.conditional:
                alive[:, m] = alive_at(found, day)
                entry[:, m] = np.maximum(entry[:, m], day)
            for t, term in enumerate(terms):
                said = hazard_targets(
                    found.time.astype(np.float32),
                    found.event,
                    term.grid,
                    censoring=censoring,
                    entry=entry[:, m],
                    upper=found.upper.astype(np.float32),
                )
                own = slice(0, term.grid.bins)
                event[:, t, m, own], exposure[:, t, m, own] = map(np.asarray, said)
                counts[:, t, m] = np.asarray(said.informative) & alive[:, m]
                if not views.conditional:
                    counts[:, t, m] &= m == view_of(term, views)
    event *= alive[:, None, :, None]
    exposure *= alive[:, None, :, None]
    return Targets(event, exposure, counts, alive, entry)


def view_of(term: Term, views: Views) -> int:
    """The view of a term where each has one only, protocol "paper"."""
    return 0 if term.name == "short" else len(views.days) - 1

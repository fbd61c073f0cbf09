"""What a trained network says of rows that are not in its data: new ones, or what was not lived."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from mtl_jax import survival
from mtl_jax.data.lifetimes import LifetimeSet, take_rows
from mtl_jax.systems.ad_survival.baseline import cox_logits
from mtl_jax.systems.ad_survival.terms import Term, Views, view_of

if TYPE_CHECKING:
    from mtl_jax.engine.state import TrainState
    from mtl_jax.run import Run

BATCH = 1024


def outputs(
    run: Run, state: TrainState, ready: Any, cases: LifetimeSet, days: np.ndarray
) -> np.ndarray:
    """Returns hazard logits [n, T, M, K] of rows, or of head cox their log risks [n, M].

    Args:
      run: of the network.
      state: the checkpoint.
      ready: `builders.prepared` of the run.
      cases: rows with the columns of the run's set; its list of words goes on behind the set's.
      days: [n, M] int32, days of history seen at each view.
    """
    # Imported late: the builders draw on this package.
    from mtl_jax.systems.ad_survival.builders import inputs_of, make_network
    from mtl_jax.systems.ad_survival.model import make_system
    from mtl_jax.systems.ad_survival.text_tables import extend_tables
    from mtl_jax.systems.ad_survival.word_vectors import vectors_for

    config: Any = run.config
    fresh = list(cases.words[len(ready.found.words) :])
    if ready.words is not None and fresh:
        vectors = ready.word_vectors
        if vectors is not None:
            more, _ = vectors_for(fresh, config.model.word_vectors)
            vectors = np.concatenate([vectors, more])
        ready = ready._replace(words=extend_tables(ready.words, fresh), word_vectors=vectors)
    ready = ready._replace(found=cases)
    system = make_system(make_network(ready, config))
    assert system.predict is not None
    inputs = {**inputs_of(ready), "days": days.astype(np.int32)}
    compiled, whole, parts = jax.jit(system.predict), run.export(state), []
    rows = len(cases.time)
    for first in range(0, rows, BATCH):
        at = np.minimum(np.arange(first, first + min(BATCH, rows)), rows - 1)
        batch = {name: leaf[at] for name, leaf in inputs.items()}
        out = compiled(whole.params, whole.model_state, batch)
        found = np.asarray(out["risk" if config.model.head == "cox" else "hazards"])
        parts.append(found[: rows - first])
    return np.concatenate(parts)


def curves_of(run: Run, state: TrainState, found: np.ndarray) -> tuple[np.ndarray, survival.Grid]:
    """Returns one curve of each row and view: hazard logits [n, M, K] and their grid.

    Args:
      run: of the network.
      state: the checkpoint.
      found: [n, T, M, K] hazards of T heads; of head cox [n, M] log risks.
    """
    config: Any = run.config
    if config.model.head == "cox":
        grid = config.terms[0].grid
        return cox_logits(run, state, found, grid), grid
    return joined(found, config.terms, config.data.views)


def joined(
    hazards: np.ndarray, terms: tuple[Term, ...], views: Views
) -> tuple[np.ndarray, survival.Grid]:
    """Returns the logits [n, M, K] of one curve, and its grid, from those of T heads [n, T, M, K].

    Where each term has a view of its own, all views get the same curve.
    """
    if len(terms) == 1:
        return hazards[:, 0, :, : terms[0].grid.bins], terms[0].grid
    short, long = (hazards[:, t, :, : term.grid.bins] for t, term in enumerate(terms))
    if not views.conditional:
        at = [view_of(term, views) for term in terms]
        short, long = (
            np.repeat(head[:, m, None], head.shape[1], 1)
            for head, m in zip((short, long), at, strict=True)
        )
    logits, grid = survival.stitch(short, long, terms[0].grid, terms[1].grid)
    return np.asarray(logits), grid


def daily_curves(logits: np.ndarray, grid: survival.Grid, days: int) -> np.ndarray:
    """Returns S [n, days] at the ends of days 1, 2, ... of hazard logits [n, K]."""
    at = jnp.minimum(jnp.arange(1, days + 1, dtype=jnp.float32), grid.end)
    return np.asarray(survival.survival_at(logits, grid, at))


def as_if_kept(found: LifetimeSet, rows: np.ndarray) -> LifetimeSet:
    """Returns rows of a generated set as if nobody had stopped them: history is their whole path.

    What a policy that keeps a creative longer than its operator would see.
    """
    length = found.history.shape[1]
    own = take_rows(found, rows)
    return own._replace(
        history=own.path[:, :length],
        history_days=np.full(len(rows), length, np.int32),
    )

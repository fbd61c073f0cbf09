"""Scores that need all predictions of a split at once: exact ranks, ranks within users."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mtl_jax.data.impressions import ImpressionSet
from mtl_jax.metrics.ranking import auc, bayes_auc, expected_auc, gauc, ndcg

if TYPE_CHECKING:
    from mtl_jax.engine.state import TrainState
    from mtl_jax.run import Run

AT = 10


class Scored(NamedTuple):
    """A split and what a model says of it.

    Attributes:
      rows: [n] numbers of the rows in the set.
      logits: [n, T].
      labels, weights: [n, T].
      group: [n].
      truth: [n, T] or [n, 0].
    """

    rows: np.ndarray
    logits: np.ndarray
    labels: np.ndarray
    weights: np.ndarray
    group: np.ndarray
    truth: np.ndarray


def scored(run: Run, state: TrainState, split: str) -> Scored:
    """Predicts a whole split. In one process only."""
    # Imported late: `mtl_jax.run` stands above the systems.
    from mtl_jax import run as runs
    from mtl_jax.systems.dtrn.builders import load

    config: Any = run.config
    found: ImpressionSet = load(config.data)
    parts = [(b["row"], out["logit"]) for b, out in runs.predictions(run, state, split)]
    rows = np.concatenate([part[0] for part in parts])
    logits = np.concatenate([part[1] for part in parts])
    return Scored(
        rows,
        logits,
        found.labels[rows],
        found.label_mask[rows],
        found.group[rows],
        found.truth[rows],
    )


def scores(run: Run, state: TrainState, split: str) -> dict[str, float]:
    """Returns exact metrics of a split, to be put over the streamed ones.

    By task: auc; where some user has more than one row, gauc, its mean over users weighed by their
    rows, and ndcg@10 by user. On generated sets also bayes_auc, the best that anyone can do, and
    attained, the share of it above chance that the model reaches: both in expectation over the
    labels.
    """
    found = scored(run, state, split)
    by_user = len(np.unique(found.group)) < len(found.group)
    out: dict[str, float] = {}
    for t, task in enumerate(run.system.task_names):
        score, label, weight = found.logits[:, t], found.labels[:, t], found.weights[:, t]
        out[f"{task}/auc"] = auc(score, label, weight)
        if by_user:
            out[f"{task}/gauc"] = gauc(score, label, found.group, weight).value
            out[f"{task}/ndcg@{AT}"] = ndcg(score, label, found.group, AT, weight != 0).value
        if found.truth.shape[1]:
            truth = found.truth[:, t]
            best, reached = bayes_auc(truth, weight), expected_auc(score, truth, weight)
            out[f"{task}/bayes_auc"] = best
            out[f"{task}/attained"] = (reached - 0.5) / (best - 0.5)
    return out

"""From the log risks of a Cox head to curves: the baseline hazard of the training rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mtl_jax import survival
from mtl_jax.survival import Grid
from mtl_jax.systems.ad_survival.terms import alive_at

if TYPE_CHECKING:
    from mtl_jax.engine.state import TrainState
    from mtl_jax.run import Run


def cox_logits(run: Run, state: TrainState, risks: np.ndarray, grid: Grid) -> np.ndarray:
    """Returns hazard logits [n, M, K] of log risks [n, M].

    The baseline is Efron's, of the training rows alive at each view, with the risks that the
    network gives them; `survival.cox_hazards` puts it into bins.

    Args:
      run: of head cox.
      state: the checkpoint.
      risks: [n, M].
      grid: K bins.
    """
    # Imported late: `mtl_jax.run` stands above the systems.
    from mtl_jax import run as runs
    from mtl_jax.systems.ad_survival.builders import load

    config: Any = run.config
    data = load(config.data)
    rows, own = [], []
    for batch, out in runs.predictions(run, state, "train"):
        rows.append(batch["row"])
        own.append(out["risk"])
    row, risk = np.concatenate(rows), np.concatenate(own)
    logits = []
    for m, day in enumerate(config.data.landmarks):
        inside = alive_at(data, day)[row]
        at = row[inside]
        baseline = survival.cox_baseline(
            risk[inside, m],
            data.time[at],
            data.event[at] > 0,
            entry=np.maximum(data.entry[at], day if day else -np.inf),
        )
        logits.append(np.asarray(survival.cox_hazards(baseline, risks[:, m], grid)))
    return np.stack(logits, 1)

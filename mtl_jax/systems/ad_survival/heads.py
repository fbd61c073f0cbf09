"""What the outputs of a head mean: hazards, hazards of causes, or another likelihood of the bins.

    hazard   logits of the hazards of the bins (Gensheimer and Narasimhan 2019)
    cause    the same for each of C competing causes, a softmax with "none" in each bin
    pmf      softmax over the bins and "later" (Kvamme and Borgan 2021)
    mtlr     cumulative sums of scores (Yu et al. 2011), without their penalty on roughness
    deephit  the pmf with a ranking loss (Lee et al. 2018)
    cox      log risk of proportional hazards (Cox 1972; of a network: DeepSurv, Katzman et al.)

All but cox are turned into hazards, so that losses, curves, scores and calibration are the same
for all. Tasks are vmapped over a traced number but have grids of their own: outputs are padded to
the longest grid, and what needs a grid's own bins is in a `lax.switch`.

Shapes: B rows, M views, K bins of the longest grid, C causes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp

from mtl_jax import survival
from mtl_jax.survival import HazardTargets
from mtl_jax.systems.ad_survival.terms import Term

Array = jax.Array
Tree = Any
Head = Literal["hazard", "cause", "pmf", "mtlr", "deephit", "cox"]

RANK_WEIGHT, SIGMA = 1.0, 0.1  # of DeepHit's ranking loss, as in `survival.deephit_loss`


def outputs(head: Head, bins: int, causes: int) -> int:
    """Returns how many numbers a head puts out."""
    return {"cox": 1, "cause": bins * causes}.get(head, bins)


def hazards(head: Head, term: Term, bins: int, causes: int, found: Array) -> Array:
    """Returns the logits of the hazards of all causes together.

    Args:
      head: see the module; not cox.
      term: the task.
      bins: K.
      causes: C.
      found: [..., outputs] of the head.

    Returns:
      [..., K]; what is beyond the term's own bins means nothing.
    """
    if head == "hazard":
        return found
    if head == "cause":
        return survival.all_causes(found.reshape(*found.shape[:-1], bins, causes))
    turn = survival.mtlr_hazards if head == "mtlr" else survival.pmf_hazards
    own = turn(found[..., : term.grid.bins])
    return jnp.pad(own, [(0, 0)] * (own.ndim - 1) + [(0, bins - term.grid.bins)])


def row_losses(
    head: Head, terms: Sequence[Term], causes: int, found: Array, batch: Tree, t: Any
) -> Array:
    """Returns the loss of each row at each view, [B, M]; 0 where it says nothing of the term.

    Args:
      head: see the module.
      terms: the tasks.
      causes: C.
      found: [B, M, outputs] of task t's head, float32.
      batch: has event and exposure [B, T, M, K], counts [B, T, M], time and occurred [B], entry
        [B, M].
      t: number of the task, may be traced.
    """
    if head == "cox":
        return _cox(found[..., 0], batch, t)
    targets = HazardTargets(batch["event"][:, t], batch["exposure"][:, t])
    bins = batch["event"].shape[-1]
    if head == "hazard":
        return survival.targets_loss(found, targets)
    if head == "cause":
        logits = found.reshape(*found.shape[:-1], bins, causes)
        occurred = jnp.broadcast_to(batch["occurred"][:, None], found.shape[:-1])
        return survival.cause_targets_loss(logits, occurred, targets)

    def of(term: Term) -> Any:
        def loss(found: Array) -> Array:
            logits = hazards(head, term, bins, causes, found)
            out = survival.targets_loss(logits, targets)
            if head == "deephit":
                out += RANK_WEIGHT * _ranking(logits[..., : term.grid.bins], term, batch, t)
            return out

        return loss

    return jax.lax.switch(t, [of(term) for term in terms], found)


def _ranking(logits: Array, term: Term, batch: Tree, t: Any) -> Array:
    """DeepHit's ranking loss among the rows of a batch that are seen at the same view, [B, M]."""

    def at_view(logits: Array, counts: Array, entry: Array) -> Array:
        incidence = survival.single_incidence(logits)
        event = (batch["occurred"] > 0).astype(jnp.int32)
        weights = counts.astype(logits.dtype)
        return survival.ranking_loss(
            incidence, batch["time"], event, term.grid, sigma=SIGMA, weights=weights, entry=entry
        )

    by_view = jax.vmap(at_view, in_axes=(1, 1, 1), out_axes=1)
    return by_view(logits, batch["counts"][:, t], batch["entry"])


def _cox(eta: Array, batch: Tree, t: Any) -> Array:
    """The partial likelihood among the rows of a batch; a view is a stratum. [B, M]."""
    rows, views = eta.shape
    strata = jnp.broadcast_to(jnp.arange(views)[None], eta.shape)

    def flat(x: Array) -> Array:
        wide = x if x.ndim == 2 else jnp.broadcast_to(x[:, None], (rows, views))
        return wide.reshape(-1)

    # Entry is exclusive there: who is under observation from the beginning may end at 0.
    entry = jnp.where(batch["entry"] > 0, batch["entry"], -1.0)
    loss = survival.cox_loss(
        flat(eta),
        flat(batch["time"]),
        flat(batch["occurred"]),
        weights=flat(batch["counts"][:, t].astype(eta.dtype)),
        entry=flat(entry),
        strata=flat(strata),
    )
    return loss.reshape(eta.shape)

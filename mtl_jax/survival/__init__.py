"""Survival analysis in plain JAX: losses, curves and scores, usable without the rest.

    grid = survival.OVERALL.from_zero()
    loss = survival.hazard_loss(logits, time, event, grid)          # [B], to be averaged
    days = survival.rmst(logits, grid, 0, 10)                       # [B]

Everything is a pure function of arrays, works under jit, grad and vmap in float32 or float64, and
returns one number a row. Times are in any unit, the grid's.

  intervals   grids: the paper's, uniform, by quantiles
  credit      what a lifetime says about each bin: censoring, late entry, events between two times
  hazards     likelihood of discrete hazards, and of piecewise constant rates in continuous time
  causes      competing risks
  curves      survival, restricted mean, median, expected time left
  scores      one number a curve, by name
  two_term    short and long heads as one curve, and how far they disagree
  weights     click-through and impression weights
  pmf         PMF and MTLR heads
  cox         Cox and DeepSurv: partial likelihood, baseline, curves
  deephit     DeepHit: likelihood and ranking
"""

from mtl_jax.survival.causes import (
    all_causes,
    cause_loss,
    cause_targets_loss,
    cumulative_incidence,
    cumulative_incidence_at,
)
from mtl_jax.survival.cox import Baseline, cox_baseline, cox_hazards, cox_loss, cox_survival
from mtl_jax.survival.credit import CREDITS, HazardTargets, hazard_targets
from mtl_jax.survival.curves import (
    cumulative_hazard,
    cumulative_hazard_at,
    expected_remaining,
    hazard_until,
    log_pmf,
    log_pmf_hazards,
    log_rmst,
    mean_curve,
    median,
    restricted_median,
    rmst,
    survival,
    survival_at,
)
from mtl_jax.survival.deephit import (
    deephit_hazards,
    deephit_loss,
    ranking_loss,
    single_incidence,
)
from mtl_jax.survival.hazards import hazard_loss, piecewise_exponential_loss, targets_loss
from mtl_jax.survival.intervals import (
    LONG,
    OVERALL,
    SHORT,
    Grid,
    quantile_grid,
    uniform_grid,
)
from mtl_jax.survival.pmf import (
    mtlr_hazards,
    mtlr_loss,
    mtlr_smoothness,
    pmf_hazards,
    pmf_loss,
)
from mtl_jax.survival.scores import SCORES, check_score, score
from mtl_jax.survival.two_term import coherence, coherence_gap, stitch, stitch_grids
from mtl_jax.survival.weights import (
    TRANSFORMS,
    CtrWeights,
    ImpressionWeights,
    apply_ctr,
    apply_impressions,
    fit_ctr,
    fit_impressions,
)

__all__ = [
    "CREDITS",
    "LONG",
    "OVERALL",
    "SCORES",
    "SHORT",
    "TRANSFORMS",
    "Baseline",
    "CtrWeights",
    "Grid",
    "HazardTargets",
    "ImpressionWeights",
    "all_causes",
    "apply_ctr",
    "apply_impressions",
    "cause_loss",
    "cause_targets_loss",
    "check_score",
    "coherence",
    "coherence_gap",
    "cox_baseline",
    "cox_hazards",
    "cox_loss",
    "cox_survival",
    "cumulative_hazard",
    "cumulative_hazard_at",
    "cumulative_incidence",
    "cumulative_incidence_at",
    "deephit_hazards",
    "deephit_loss",
    "expected_remaining",
    "fit_ctr",
    "fit_impressions",
    "hazard_loss",
    "hazard_targets",
    "hazard_until",
    "log_pmf",
    "log_pmf_hazards",
    "log_rmst",
    "mean_curve",
    "median",
    "mtlr_hazards",
    "mtlr_loss",
    "mtlr_smoothness",
    "piecewise_exponential_loss",
    "pmf_hazards",
    "pmf_loss",
    "quantile_grid",
    "ranking_loss",
    "restricted_median",
    "rmst",
    "score",
    "single_incidence",
    "stitch",
    "stitch_grids",
    "survival",
    "survival_at",
    "targets_loss",
    "uniform_grid",
]

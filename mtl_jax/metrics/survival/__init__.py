"""Metrics of predicted lifetimes with censoring, ties, weights, late entries and causes.

`concordance_index` states the contract of pairs, `inputs` what all functions take.
"""

from mtl_jax.metrics.survival.auc import DynamicAUC, dynamic_auc
from mtl_jax.metrics.survival.brier import (
    brier_score,
    incidence_brier_score,
    integrated_brier_score,
    integrated_incidence_brier_score,
    integrated_negative_log_likelihood,
    negative_log_likelihood,
)
from mtl_jax.metrics.survival.calibration import (
    Calibration,
    aj_calibration,
    d_calibration,
    km_calibration,
    one_calibration,
)
from mtl_jax.metrics.survival.concordance_index import (
    Concordance,
    concordance,
    concordance_sums,
    concordance_value,
    uno_concordance,
)
from mtl_jax.metrics.survival.curves import curves_at, integrate_curves, mean_over_time
from mtl_jax.metrics.survival.intervals import (
    bootstrap_concordance,
    compare_concordance,
    concordance_interval,
)
from mtl_jax.metrics.survival.nonparametric import (
    IncidenceCurve,
    SurvivalCurve,
    aalen_johansen,
    censoring_curve,
    censoring_probability,
    kaplan_meier,
    nelson_aalen,
)
from mtl_jax.metrics.survival.pairs import PairCounts, count_pairs, pair_sums, total
from mtl_jax.metrics.survival.rmst import (
    curve_restricted_mean,
    restricted_mean,
    restricted_mean_error,
)
from mtl_jax.metrics.survival.time_dependent import antolini_concordance

__all__ = [
    "Calibration",
    "Concordance",
    "DynamicAUC",
    "IncidenceCurve",
    "PairCounts",
    "SurvivalCurve",
    "aalen_johansen",
    "aj_calibration",
    "antolini_concordance",
    "bootstrap_concordance",
    "brier_score",
    "censoring_curve",
    "censoring_probability",
    "compare_concordance",
    "concordance",
    "concordance_interval",
    "concordance_sums",
    "concordance_value",
    "count_pairs",
    "curve_restricted_mean",
    "curves_at",
    "d_calibration",
    "dynamic_auc",
    "incidence_brier_score",
    "integrate_curves",
    "integrated_brier_score",
    "integrated_incidence_brier_score",
    "integrated_negative_log_likelihood",
    "kaplan_meier",
    "km_calibration",
    "mean_over_time",
    "negative_log_likelihood",
    "nelson_aalen",
    "one_calibration",
    "pair_sums",
    "restricted_mean",
    "restricted_mean_error",
    "total",
    "uno_concordance",
]

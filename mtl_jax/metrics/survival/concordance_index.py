"""Concordance of a risk with lifetimes: Harrell's C, Uno's C, with causes and late entries.

The contract, for a row i with an event of the cause at T_i and any other row j:

- The pair is comparable if j is known to live longer: T_i < T_j, or T_i = T_j and j is censored.
  Two events of the cause at one time are not comparable.
- It is concordant if risk_i > risk_j, discordant if lower. Equal risks are tied: they count half,
  or as `tied_risk` says. Equal means equal: scikit-survival ties risks within 1e-8.
- With entries, j must be at risk when i has its event: entry_j < T_i. (R's survival does so for
  (start, stop] data. lifelines and scikit-survival take no entries.)
- An event of another cause never makes a pair as the earlier one. As the later one it is, with
  competing="censor", censored at its time; with "never", a row that lives for ever, since the
  event of the cause will not come (Wolbers et al. 2009).
- A pair weighs w_i w_j.

Without weights, causes and entries the counts equal those of lifelines (whose scores point the
other way: give it minus the risk) and scikit-survival. Everything takes O(n log n), see `pairs`.
Arguments are as in `metrics.survival.inputs`; the higher the risk, the earlier the event.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mtl_jax.metrics.survival import pairs
from mtl_jax.metrics.survival.inputs import (
    Rows,
    check_cause,
    check_choice,
    check_rows,
    check_scores,
    dense_rank,
    warn_nan,
)
from mtl_jax.metrics.survival.nonparametric import SurvivalCurve
from mtl_jax.metrics.survival.passes import (
    Pass,
    harrell_passes,
    total_counts,
    uno_passes,
    uno_weights,
)

TIES = ("half", "zero", "drop")
COMPETING = ("censor", "never")


class Concordance(NamedTuple):
    """A concordance and the pairs behind it.

    The counts are weights of pairs: int where rows count once or by integer weights, else float.

    Attributes:
      value: (concordant + tied_risk / 2) / comparable, or as `tied_risk` said; NaN without pairs.
      concordant: the risk has the right order.
      discordant: the risk has the wrong order.
      tied_risk: the risks are equal.
      comparable: the sum of these three.
      tied_time: of the comparable pairs, those of an event and a row censored at the same time.
    """

    value: float
    concordant: Any
    discordant: Any
    tied_risk: Any
    comparable: Any
    tied_time: Any


def concordance(
    time: Any,
    event: Any,
    risk: Any,
    *,
    weights: Any = None,
    entry: Any = None,
    cause: int = 1,
    competing: str = "censor",
    tied_risk: str = "half",
) -> Concordance:
    """Harrell's C (Harrell et al. 1982) under the contract of the module; host, exact.

    Args:
      time: [N].
      event: [N].
      risk: [N]; a NaN makes the value NaN.
      weights: [N] or None.
      entry: [N] or None.
      cause: whose events are ranked.
      competing: "censor" or "never", what other causes are.
      tied_risk: "half", "zero" (equal risks count as discordant in the value) or "drop" (they are
        left out of it; if all are equal, it is NaN).
    """
    check_choice("competing", competing, COMPETING)
    rows, risk = _checked(time, event, risk, weights, entry)
    own = rows.event == check_cause(cause)
    unit = np.ones(len(own), np.int64)
    passes = harrell_passes(rows, dense_rank(risk), own, competing)
    return _summary("concordance", passes, rows, own, risk, (unit, unit), competing, tied_risk)


def uno_concordance(
    time: Any,
    event: Any,
    risk: Any,
    censoring: SurvivalCurve,
    *,
    tau: float | None = None,
    weights: Any = None,
    entry: Any = None,
    cause: int = 1,
    competing: str = "censor",
    tied_risk: str = "half",
    limit: str = "left",
) -> Concordance:
    """Uno's C(tau): pairs weighted so that the value does not depend on the censoring.

    A pair whose event is at T_i < tau weighs G(T_i-)^-2 besides w_i w_j (Uno et al. 2011).
    With entries the chances are conditional on what was seen: G(T_i-)^2 / (G(a_i) G(a_j)) for
    entries a. With competing="never", j with another cause at T_j <= T_i weighs
    1 / (G(T_i-) G(T_j-)) (Wolbers et al. 2014). scikit-survival takes G(T_i) instead of
    the left limit: `limit="right"` gives its numbers.

    Args:
      time: [N].
      event: [N].
      risk: [N].
      censoring: of training rows, by `censoring_curve`; with competing="censor", of rows in which
        other causes are censored, `censoring_curve(time, event == cause)`.
      tau: events at or after it do not count; None for all.
      weights: [N] or None.
      entry: [N] or None.
      cause: see `concordance`.
      competing: see `concordance`.
      tied_risk: see `concordance`.
      limit: "left" or "right", see `censoring_probability`.

    Raises:
      UserError: tau, or without it an event, lies beyond the last training time.
    """
    check_choice("competing", competing, COMPETING)
    rows, risk = _checked(time, event, risk, weights, entry)
    own, queries, points = uno_weights(rows, cause, censoring, tau, limit)
    both = queries, points
    passes = uno_passes(rows, dense_rank(risk), own, cause, competing, *both, censoring, limit)
    return _summary("Uno's concordance", passes, rows, own, risk, both, competing, tied_risk)


def concordance_sums(
    time: jax.Array,
    event: jax.Array,
    risk: jax.Array,
    weights: jax.Array | None = None,
    entry: jax.Array | None = None,
) -> pairs.PairCounts:
    """The counts of `concordance` on the device, sorting included: for jit and vmap.

    Nothing is checked and nothing is NaN. Rows of weight 0 count for nothing, which makes padding.

    Args:
      time: [N].
      event: [N], true for events of the cause; `competing="never"` is an infinite time.
      risk: [N], finite.
      weights: [N]; integers and booleans give exact counts, see `pairs.pair_sums`.
      entry: [N]; -inf or below all times for none.
    """
    time, risk, own = jnp.asarray(time), jnp.asarray(risk), jnp.asarray(event).astype(bool)
    if weights is None:
        weights = jnp.ones(time.shape, jnp.int32)
    weights = jnp.asarray(weights)
    if weights.dtype == jnp.bool_:
        weights = weights.astype(jnp.int32)
    none = jnp.zeros_like(weights)
    rank = _device_rank(risk)
    order = jnp.lexsort((-rank, own, -time))
    block = jnp.cumsum(_moves(time[order]) | _moves(own[order])).astype(jnp.int32)
    query = jnp.where(own, weights, none)
    counts = pairs.pair_sums(rank[order], block, query[order], weights[order])
    if entry is None:
        return counts
    # Rows that enter at T_i or later: all of them live longer than T_i.
    entry = jnp.asarray(entry)
    asks = jnp.concatenate([jnp.zeros(time.shape, bool), jnp.ones(time.shape, bool)])
    order = jnp.lexsort((asks, -jnp.concatenate([entry, time])))
    late = pairs.pair_sums(
        jnp.concatenate([rank, rank])[order],
        jnp.arange(len(order), dtype=jnp.int32),
        jnp.concatenate([none, query])[order],
        jnp.concatenate([weights, none])[order],
        levels=max(time.shape[0] - 1, 1).bit_length(),
    )
    return pairs.subtract_sums(counts, late)


def concordance_value(counts: pairs.PairCounts) -> jax.Array:
    """C of device counts, float32, ties half; NaN without comparable pairs."""
    concordant, tied, comparable = (pairs.as_float(field) for field in counts)
    some = comparable > 0
    value = (concordant + tied / 2) / jnp.where(some, comparable, 1)
    return jnp.where(some, value, jnp.nan)


def tie_value(counts: pairs.PairCounts, tied_risk: str) -> Any:
    """C of host counts, numbers or arrays; NaN without pairs."""
    concordant, tied, comparable = (np.asarray(field) for field in counts)
    above = concordant + tied / 2 if tied_risk == "half" else concordant
    pairs_used = comparable - tied if tied_risk == "drop" else comparable
    return np.where(pairs_used > 0, above / np.where(pairs_used > 0, pairs_used, 1), np.nan)


def _checked(time: Any, event: Any, risk: Any, weights: Any, entry: Any) -> tuple:
    rows = check_rows(time, event, weights, entry)
    return rows, check_scores(risk, rows)


def _summary(
    name: str,
    passes: list[Pass],
    rows: Rows,
    own: np.ndarray,
    risk: np.ndarray,
    factors: tuple[np.ndarray, np.ndarray],
    competing: str,
    tied_risk: str,
) -> Concordance:
    check_choice("tied_risk", tied_risk, TIES)
    counts = total_counts(passes, rows.weights)
    tied_time = _same_time(rows, own, factors, competing)
    discordant = counts.comparable - counts.concordant - counts.tied
    value = float(tie_value(counts, tied_risk))
    if not counts.comparable > 0:
        value = warn_nan(
            name, f"no pair is comparable among {len(own)} rows with {int(own.sum())} events"
        )
    elif np.isnan(risk).any():
        value = warn_nan(name, f"{int(np.isnan(risk).sum())} of {len(risk)} risks are NaN")
    elif np.isnan(value):
        value = warn_nan(name, 'all comparable pairs are tied in risk, and tied_risk is "drop"')
    return Concordance(
        value, counts.concordant, discordant, counts.tied, counts.comparable, tied_time
    )


def _same_time(
    rows: Rows, own: np.ndarray, factors: tuple[np.ndarray, np.ndarray], competing: str
) -> Any:
    censored = ~own if competing == "censor" else rows.event == 0
    ends = dense_rank(rows.time)
    size = int(ends.max(initial=0)) + 1
    query, point = rows.weights * factors[0] * own, rows.weights * factors[1] * censored
    both = np.bincount(ends, query, size) * np.bincount(ends, point, size)
    exact = query.dtype.kind == "i" and point.dtype.kind == "i"
    return round(both.sum().item()) if exact else float(both.sum())


def _moves(values: jax.Array) -> jax.Array:
    return jnp.concatenate([jnp.ones(1, bool), values[1:] != values[:-1]])


def _device_rank(values: jax.Array) -> jax.Array:
    order = jnp.argsort(values)
    ranks = jnp.cumsum(_moves(values[order]).astype(jnp.int32)) - 1
    return jnp.zeros(values.shape, jnp.int32).at[order].set(ranks, unique_indices=True)

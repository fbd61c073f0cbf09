"""The best that can be known of the lifetimes of `creatives`, from any part of what there is.

An oracle knows the formulas, some of the latent numbers of each creative and, if asked, what it
delivered up to a landmark. What it does not know it averages over, and it returns survival curves

    S[:, t - 1] = P(not stopped on days 1..t | what is known, alive after day `landmark`)

so that a score map (mean lifetime, median, ...) can be applied alike to a model and to an oracle.
A concordance has no one best score, so compare under the same map.

Hidden latents of quality add up to one normal number, but for x, which has two values; hidden
latents of fatigue add up to another. Averages over them are Gauss-Hermite sums, whose error is
below 1e-4. With a history the nodes of each creative are centred at its posterior mode and scaled
by its curvature (adaptive quadrature): many clicks make the posterior narrower than the gap between
nodes of the prior. The sums take hidden latents as normal. b, e and f_n are; those of words, pixels
and tables (a_t, f_t, a_i, f_i, c, f_c) are nearly so, which is of account where they are hidden.
Latents of seen parts are known exactly: the noise of pixels is taken as nothing.

In feedback mode a stop depends on clicks to come. For each node `paths` runs of daily clicks are
drawn and averaged (Monte Carlo): the standard error of a point of a curve is at most
0.5 / sqrt(paths). After `_NOISY_DAYS` days cut-outs are so rare (less than 1 in 4,000 in all) that
the expected clicks stand for them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

import numpy as np

from mtl_jax.data.lifetimes import LifetimeSet
from mtl_jax.data.survival import creatives_delivery as delivery
from mtl_jax.data.survival.creatives_world import (
    BACKGROUND,
    CUT_DECAY,
    DAYS,
    FATIGUE,
    FATIGUE_OF_QUALITY,
    LATENTS,
    MATCH_CHANCE,
    QUALITY,
    WEAR_ODDS,
    cut_out,
    is_feedback,
    require_truth,
    wear_out_odds,
)
from mtl_jax.errors import UserError, did_you_mean

PARTS: Mapping[str, tuple[str, ...]] = {
    "text": ("a_t", "f_t"),
    "image": ("a_i", "f_i"),
    "categories": ("c", "f_c"),
    "numbers": ("f_n",),
}
FULL = frozenset(LATENTS)
CREATIVE = FULL - {"b", "e"}
ADDITIVE = CREATIVE - {"x"}
NODES = 21
_PLANE_NODES = 9  # In each direction, where quality and fatigue are both hidden.
_RATE_NODES = 7  # Over the noise of a conversion rate.
_NOISY_DAYS = 40
_NUMBERS_AT_ONCE = 4_000_000


class _Nodes(NamedTuple):
    """G cases of what is hidden, for each of n rows: [n, G] each."""

    quality: np.ndarray
    fatigue: np.ndarray
    log_weight: np.ndarray


def known_of(parts: Collection[str]) -> frozenset[str]:
    """Returns the latents that `parts` of a creative tell; x needs text and image.

    Raises:
      UserError: an unknown part.
    """
    for part in parts:
        if part not in PARTS:
            raise UserError(f"unknown part {part!r} of a creative; {did_you_mean(part, PARTS)}")
    both = {"x"} if {"text", "image"} <= set(parts) else set()
    return frozenset(name for part in parts for name in PARTS[part]) | both


def oracle_full(found: LifetimeSet, landmark: int = 0, **options: Any) -> np.ndarray:
    """Returns curves [N, DAYS] of who knows all latents; in feedback mode not the clicks to come.

    Args:
      found: a set of `creatives.generate`.
      landmark: L, see the module; clicks up to it are known.
      **options: `rows`, `of`, `paths`, `seed` of `oracle`.
    """
    return oracle(found, FULL, landmark=landmark, history=landmark > 0, **options)


def oracle_creative(found: LifetimeSet, landmark: int = 0, **options: Any) -> np.ndarray:
    """Returns curves [N, DAYS] of who knows the creative, but neither b nor e nor its history.

    Args:
      found: a set of `creatives.generate`.
      landmark: L, see the module: to be alive tells something of b and e, too.
      **options: of `oracle`.
    """
    return oracle(found, CREATIVE, landmark=landmark, **options)


def oracle_landmark(found: LifetimeSet, landmark: int, **options: Any) -> np.ndarray:
    """Returns curves [N, DAYS] of who knows the creative and its first L days.

    Args:
      found: a set of `creatives.generate`.
      landmark: L, see the module.
      **options: of `oracle`.
    """
    return oracle(found, CREATIVE, landmark=landmark, history=True, **options)


def oracle_parts(
    found: LifetimeSet, parts: Collection[str], landmark: int = 0, **options: Any
) -> np.ndarray:
    """Returns curves [N, DAYS] of who sees some `PARTS` of a creative; see `oracle_creative`."""
    return oracle(found, known_of(parts), landmark=landmark, **options)


def oracle_additive(found: LifetimeSet, landmark: int = 0, **options: Any) -> np.ndarray:
    """Returns curves [N, DAYS] of who sees every part but not the match of text and image.

    That is as far as a sum of one score for each part can go; see `oracle_creative`.
    """
    return oracle(found, ADDITIVE, landmark=landmark, **options)


def oracle(
    found: LifetimeSet,
    known: Collection[str],
    *,
    landmark: int = 0,
    history: bool = False,
    conversions: bool = True,
    plug_in: bool = False,
    nodes: int = NODES,
    rows: np.ndarray | None = None,
    of: Callable[[np.ndarray], np.ndarray] | None = None,
    paths: int = 64,
    seed: int = 0,
) -> np.ndarray:
    """Returns survival curves given some latents and, if asked, the first days.

    Args:
      found: a set of `creatives.generate`.
      known: of `creatives_world.LATENTS`.
      landmark: L in 0..DAYS - 1; S is 1 up to day L.
      history: whether clicks of days 1..L are known. They are those of `path`, so that creatives
        stopped before L have curves too: what would be known of them, had they been kept.
      conversions: whether conversions of those days are known as well.
      plug_in: puts the mean of what is hidden in its place, and neither averages nor learns of
        hidden latents by the history: the simple score, not the best.
      nodes: of the sum over hidden quality; 9 in each direction where fatigue is hidden, too.
      rows: which rows; all by default.
      of: takes curves [n, G, DAYS] of G cases to scores [n, G], which are averaged in place of the
        curves: `lambda s: np.log(s.sum(-1))` gives E[log mean lifetime].
      paths: of clicks for each row, in feedback mode; at least one for each node.
      seed: of those paths.

    Returns:
      [n, DAYS] float64 curves, or [n] averages of `of`.

    Raises:
      UserError: a set that was not generated, an unknown latent, a landmark out of range.
    """
    require_truth(found)
    if unknown := [name for name in known if name not in LATENTS]:
        raise UserError(f"unknown latent {unknown[0]!r}; {did_you_mean(unknown[0], LATENTS)}")
    if not 0 <= landmark < DAYS:
        raise UserError(f"landmark {landmark}; it must be in 0..{DAYS - 1}")
    chosen = np.arange(len(found.time)) if rows is None else np.asarray(rows)
    hidden = _Hidden(known, plug_in, nodes)
    repeats = -(-paths // hidden.count) if is_feedback(found) else 1
    rng = np.random.default_rng(seed)
    step = max(1, _NUMBERS_AT_ONCE // (hidden.count * repeats * DAYS))
    made = []
    for block in (chosen[first : first + step] for first in range(0, len(chosen), step)):
        truth = {name: found.truth[name][block].astype(np.float64) for name in found.truth}
        path = found.path[block].astype(np.float64)
        seen = path[:, : landmark if history else 0]
        cases = hidden.cases(truth, seen)
        if history and landmark and not plug_in:
            cases = cases._replace(log_weight=cases.log_weight + _fit(cases, seen, conversions))
        cut_base, cut_slope, wear_base, wear_slope = (h[:, None] for h in truth["hazard"].T)
        odds = wear_out_odds(cases.fatigue, wear_base, wear_slope)[..., None]
        signal = cases.quality[..., None]
        weights = cases.log_weight
        if is_feedback(found):
            cases = _Nodes(*(np.repeat(values, repeats, axis=1) for values in cases))
            odds, weights = np.repeat(odds, repeats, axis=1), cases.log_weight
            signal = _signals(rng, cases, truth, found.start[block], seen)
        cut = cut_out(signal, cut_base[..., None], cut_slope[..., None])
        daily = (1 - cut * CUT_DECAY) / (1 + odds * WEAR_ODDS) * (1 - BACKGROUND)
        alive = daily[..., :landmark].prod(-1)
        daily[..., :landmark] = 1
        curves = np.cumprod(daily, -1, out=daily)
        weights = np.exp(weights - weights.max(1, keepdims=True)) * alive
        weights /= weights.sum(1, keepdims=True)
        if of is None:
            mean = (weights[:, None] @ curves)[:, 0]
            mean[:, :landmark] = 1  # As weights do not add up to 1 to the last digit.
            made.append(mean)
        else:
            made.append((weights * of(curves)).sum(1))
    return np.concatenate(made)


class _Hidden:
    """Which latents are hidden, and the nodes that stand for them."""

    def __init__(self, known: Collection[str], plug_in: bool, nodes: int) -> None:
        self._known = frozenset(known)
        # x is seen, or it has its two values.
        low = -np.sqrt(MATCH_CHANCE / (1 - MATCH_CHANCE))
        self._matches = [(low, 1 - MATCH_CHANCE), (-1 / low, MATCH_CHANCE)]
        if "x" in self._known or plug_in:
            self._matches = [(0.0, 1.0)]
        gauss = {name: w for name, w in QUALITY.items() if name not in self._known and name != "x"}
        self._quality_sd = 0.0 if plug_in else float(np.sqrt(sum(w**2 for w in gauss.values())))
        left = [w for name, w in FATIGUE.items() if name not in self._known]
        self._fatigue_sd = 0.0 if plug_in else float(np.sqrt(sum(w**2 for w in left)))
        if self._fatigue_sd > 0 and self._quality_sd > 0:
            nodes = min(nodes, _PLANE_NODES)
        self._quality_nodes = _gauss_hermite(nodes if self._quality_sd > 0 else 1)
        self._fatigue_nodes = _gauss_hermite(nodes if self._fatigue_sd > 0 else 1)
        self.count = len(self._matches) * len(self._quality_nodes[0]) * len(self._fatigue_nodes[0])

    def cases(self, truth: Mapping[str, np.ndarray], seen: np.ndarray) -> _Nodes:
        """Returns the cases of n rows; `seen` [n, L, 4] says where to put them, not their weight.

        Args:
          truth: of these rows.
          seen: amounts of the first L days.
        """
        rows = len(truth["q"])
        quality, fatigue = (
            sum((w * truth[n] for n, w in weights.items() if n in self._known), np.zeros(rows))
            for weights in (QUALITY, FATIGUE)
        )
        made = []
        for match, chance in self._matches:
            base = quality + QUALITY["x"] * match
            at, log_weight = self._place(base, fatigue, seen)  # [n, K]
            q = base[:, None] + at
            f = fatigue[:, None, None] + FATIGUE_OF_QUALITY * q[..., None]
            f = f + self._fatigue_sd * self._fatigue_nodes[0]
            weight = np.log(chance) + log_weight[..., None] + self._fatigue_nodes[1]
            made.append(_Nodes(np.broadcast_to(q[..., None], f.shape), f, weight))
        return _Nodes(
            *(np.concatenate(values, 1).reshape(rows, -1) for values in zip(*made, strict=True))
        )

    def _place(
        self, base: np.ndarray, fatigue: np.ndarray, seen: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Nodes of the hidden quality and their log weights, [n, K] each."""
        if self._quality_sd == 0:
            return np.zeros((len(base), 1)), np.zeros((len(base), 1))
        fatigue = fatigue + FATIGUE_OF_QUALITY * base
        rates = delivery.click_rates(base, fatigue, seen.shape[1])
        expected, clicks = (seen[..., 0] * rates).sum(1), seen[..., 1].sum(1)
        sd, nodes = self._quality_sd, self._quality_nodes
        return _placed(clicks, expected, delivery.CLICK_SLOPE, sd, nodes)


def _placed(
    count: np.ndarray,
    expected: np.ndarray,
    slope: float,
    sd: float,
    nodes: tuple[np.ndarray, np.ndarray],
) -> tuple[np.ndarray, np.ndarray]:
    """Moves the nodes of an average over u ~ N(0, sd^2) to where a count k says that u is.

    If k is nearly Poisson around A exp(s u), log P(k, u) is k s u - A exp(s u) - u^2 / (2 sd^2) and
    a constant: its mode and curvature place the nodes. The average stays that over the prior.

    Args:
      count: [...], k.
      expected: [...], A.
      slope: s.
      sd: of u.
      nodes: [K] nodes and log weights of a standard normal number.

    Returns:
      u [..., K] and log weights [..., K].
    """
    z, log_weight = nodes
    mode = np.zeros(expected.shape)
    for _ in range(25):
        now = expected * np.exp(slope * mode)
        curve = slope**2 * now + 1 / sd**2
        mode += np.clip((slope * (count - now) - mode / sd**2) / curve, -1.0, 1.0)
    scale = 1 / np.sqrt(slope**2 * expected * np.exp(slope * mode) + 1 / sd**2)
    at = mode[..., None] + scale[..., None] * z
    return at, log_weight + np.log(scale / sd)[..., None] + (z**2 - (at / sd) ** 2) / 2


def _gauss_hermite(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and log weights of an average over a standard normal number."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(count)
    return nodes, np.log(weights / weights.sum())


def _fit(cases: _Nodes, seen: np.ndarray, conversions: bool) -> np.ndarray:
    """Log likelihood [n, G] of the days seen, without what all cases share."""
    shown, clicked, converted, _ = (amounts[:, None] for amounts in np.moveaxis(seen, -1, 0))
    rates = delivery.click_rates(cases.quality, cases.fatigue, seen.shape[1])
    found = (clicked * np.log(rates) + (shown - clicked) * np.log1p(-rates)).sum(-1)
    if conversions:
        sold, clicks = converted.sum(-1), clicked.sum(-1)
        expected = clicks * delivery.conversion_rate(cases.quality, np.zeros(1))
        noise, log_weight = _placed(
            sold, expected, delivery.CONVERSION_NOISE, 1.0, _gauss_hermite(_RATE_NODES)
        )
        rate = delivery.conversion_rate(cases.quality[..., None], noise)
        sold, others = sold[..., None], (clicks - sold)[..., None]
        log = sold * np.log(rate) + others * np.log1p(-rate) + log_weight
        found += np.logaddexp.reduce(log, -1)
    return found


def _signals(
    rng: np.random.Generator,
    cases: _Nodes,
    truth: Mapping[str, np.ndarray],
    start: np.ndarray,
    seen: np.ndarray,
) -> np.ndarray:
    """What the operator of each case would go by on each day, [n, G, DAYS]; one path each."""
    expected = delivery.expected_impressions(truth["impressions_per_day"], start, DAYS)[:, None]
    rates = delivery.click_rates(cases.quality, cases.fatigue, DAYS)
    clicked, others = expected * rates, expected * (1 - rates)
    for counts in (clicked, others):
        counts[..., :_NOISY_DAYS] = rng.poisson(counts[..., :_NOISY_DAYS])
    shown, days = clicked + others, seen.shape[1]
    shown[..., :days], clicked[..., :days] = seen[:, None, :, 0], seen[:, None, :, 1]
    mean, sd = truth["ctr_mean"][:, None], truth["ctr_sd"][:, None]
    return delivery.operator_signal(shown, clicked, mean, sd)

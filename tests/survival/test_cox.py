"""Cox against risk sets built as N x N matrices in float64."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtl_jax import survival as sv
from mtl_jax.errors import UserError
from tests.survival.reference import assert_finite

loss_of = jax.jit(sv.cox_loss, static_argnames="ties")
baseline_of = jax.jit(sv.cox_baseline, static_argnames="ties")

N = 45
RNG = np.random.default_rng(0)
ETA = RNG.normal(0, 1.5, N)
TIME = RNG.integers(1, 9, N).astype(float)  # Five rows a time.
EVENT = RNG.integers(0, 2, N)
WEIGHTS = np.where(RNG.random(N) < 0.15, 0.0, RNG.uniform(0.5, 3, N))
ENTRY = np.where(RNG.random(N) < 0.4, TIME - RNG.integers(1, 5, N), -5.0)
STRATA = RNG.integers(0, 3, N)
CASES = {
    "plain": {},
    "weights": {"weights": WEIGHTS},
    "entry": {"entry": ENTRY},
    "all": {"weights": WEIGHTS, "entry": ENTRY, "strata": STRATA},
    "strata": {"strata": STRATA},
}


def brute_force(eta, ties, weights=None, entry=None, strata=None):
    """Negative log partial likelihood and its gradient, from masks [N] and loops over ties."""
    weights = np.ones(N) if weights is None else weights
    entry = np.full(N, -np.inf) if entry is None else entry
    strata = np.zeros(N) if strata is None else strata
    risk, total, slope = weights * np.exp(eta), 0.0, np.zeros(N)
    for s, t in sorted({(s, t) for s, t in zip(strata, TIME, strict=True)}):
        here = strata == s
        at_risk = here & (entry < t) & (t <= TIME)
        dead = here & (t == TIME) & (EVENT == 1) & (weights > 0)
        total -= np.sum(weights[dead] * eta[dead])
        slope -= weights * dead
        for before in range(dead.sum()):
            share = before / dead.sum() if ties == "efron" else 0.0
            left = risk * at_risk - share * risk * dead
            total += weights[dead].mean() * np.log(left.sum())
            slope += weights[dead].mean() * left / left.sum()
    return total, slope


@jax.jit(static_argnames="ties")
def step(eta, ties="efron", **known):
    """((sum, losses), gradient); data are arguments, as XLA would sort constants very slowly."""

    def total(eta):
        losses = sv.cox_loss(eta, ties=ties, **known)
        return jnp.sum(known["weights"] * losses), losses

    return jax.value_and_grad(total, has_aux=True)(eta)


@pytest.mark.parametrize("ties", ["breslow", "efron"])
@pytest.mark.parametrize("case", CASES)
def test_loss_and_gradient(case, ties):
    known = {"weights": np.ones(N), **CASES[case]}
    if "entry" in known or "strata" in known:  # Two programs for all cases.
        known = {"entry": np.full(N, -np.inf), "strata": np.zeros(N, int), **known}
    with jax.enable_x64(True):
        (value, losses), grads = step(ETA, ties, time=TIME, event=EVENT, **known)
    exact, slope = brute_force(ETA, ties, **CASES[case])
    np.testing.assert_allclose(value, exact, rtol=1e-11)
    np.testing.assert_allclose(grads, slope, rtol=1e-9, atol=1e-12)
    assert np.all(np.asarray(losses)[EVENT == 0] == 0)


def test_strata_without_entries():
    losses = loss_of(ETA, TIME, EVENT, strata=STRATA)
    np.testing.assert_allclose(losses.sum(), brute_force(ETA, "efron", strata=STRATA)[0], rtol=1e-5)


def test_ties_share_their_terms():
    """Rows that are alike have the same loss, whatever their place."""
    time, event = np.array([2.0, 1, 1, 1]), np.array([1, 0, 1, 1])
    efron, breslow = (np.log(4) + np.log(3)) / 2, np.log(4)
    for ties, expected in (("efron", efron), ("breslow", breslow)):
        losses = loss_of(np.zeros(4), time, event, ties=ties)
        np.testing.assert_allclose(losses, [0, 0, expected, expected], rtol=1e-6)


def test_a_large_late_entry_does_not_cancel():
    """Risk at early times, when a row of enormous risk has not yet entered, keeps its digits."""
    time, event = np.arange(1.0, 9.0), np.ones(8)
    eta, entry = np.zeros(8, np.float32), np.zeros(8)
    eta[-1], entry[-1] = 60.0, 6.5
    losses = np.asarray(loss_of(eta, time, event, entry=entry))
    np.testing.assert_allclose(losses[:6], np.log(7 - np.arange(6)), rtol=1e-5)
    np.testing.assert_allclose(losses[6:], [60, 0], atol=1e-5)


def test_extremes():
    """Risks of exp(+-80), rows of weight 0 and rows that enter when they end: all finite."""
    eta = np.resize(np.float32([80, -80, -80]), N)
    weights, entry = np.where(np.arange(N) < 40, 1.0, 0.0), np.where(EVENT, TIME, 0.0)
    for event in (EVENT, 0 * EVENT):
        for known in ({}, {"entry": entry}):
            assert_finite(step(eta, time=TIME, event=event, weights=weights, **known))


def test_padding_has_no_influence():
    """Rows of weight 0 may hold anything."""
    real = np.arange(N) < 40
    weights = np.where(real, 1.0, 0.0)
    first = np.asarray(loss_of(ETA, TIME, EVENT, weights=weights))
    other = [np.where(real, values, 3) for values in (ETA, TIME, EVENT)]
    second = np.asarray(loss_of(*other, weights=weights))
    np.testing.assert_allclose(second, first, rtol=1e-5, atol=1e-6)
    assert not np.any(second[40:])


@pytest.mark.parametrize("size", [1, 9])
def test_any_number_of_rows(size):
    """Risk sets by tree are those by cumulative sums when nobody enters late."""
    eta, time, event = ETA[:size], TIME[:size], np.ones(size)
    plain, tree = loss_of(eta, time, event), loss_of(eta, time, event, entry=np.zeros(size))
    np.testing.assert_allclose(plain, tree, rtol=1e-5, atol=1e-6)


def baseline(eta, ties, weights=None, entry=None) -> sv.Baseline:
    """In float64, always with weights and entries, so that it is compiled once for each ties."""
    weights = np.ones(N) if weights is None else weights
    entry = np.full(N, -5.0) if entry is None else entry
    with jax.enable_x64(True):
        found = baseline_of(eta, TIME, EVENT, ties=ties, weights=weights, entry=entry)
        return jax.tree.map(np.asarray, found)


def test_baseline():
    """With eta = 0 and breslow this is Nelson-Aalen; eta multiplies it by exp(eta)."""
    times = np.arange(0.5, 9.5)
    expected = []
    for t in times:
        total = 0.0
        for u in np.unique(TIME[(EVENT == 1) & (t >= TIME)]):
            at_risk = WEIGHTS[(u > ENTRY) & (u <= TIME)].sum()
            total += WEIGHTS[(u == TIME) & (EVENT == 1)].sum() / at_risk
        expected.append(total)
    base = baseline(np.zeros(N), "breslow", WEIGHTS, ENTRY)
    with jax.enable_x64(True):
        found = np.asarray(sv.cox_survival(base, np.array([0.0, 1.0]), times))
    np.testing.assert_allclose(-np.log(found[0]), expected, rtol=1e-10)
    np.testing.assert_allclose(-np.log(found[1]), np.e * np.array(expected), rtol=1e-10)


def test_martingale_residuals_sum_to_zero():
    """Sum of events = sum over rows of H_0(time) exp(eta), for Breslow's ties."""
    expected = {}
    for ties in ("breslow", "efron"):
        base = baseline(ETA, ties)
        place = np.searchsorted(base.time, TIME, side="right") - 1
        expected[ties] = np.sum(np.exp(base.log_hazard[place] + ETA))
    np.testing.assert_allclose(expected["breslow"], EVENT.sum(), rtol=1e-10)
    assert expected["efron"] > EVENT.sum()  # Its denominators are smaller.


def test_efron_baseline_by_hand():
    """With equal risks, d deaths of n add 1 / n + 1 / (n - 1) + ... + 1 / (n - d + 1)."""
    base = baseline(np.zeros(N), "efron")
    expected, total = [], 0.0
    for t in np.unique(TIME):
        n, d = np.sum(t <= TIME), np.sum((t == TIME) & (EVENT == 1))
        total += np.sum(1 / (n - np.arange(d)))
        expected.append(total)
    with jax.enable_x64(True):
        found = np.asarray(sv.cox_survival(base, 0.0, np.unique(TIME)))
    np.testing.assert_allclose(-np.log(found), expected, rtol=1e-10)


def test_curves_on_a_grid():
    """At the edges, the grid's curve is the step function just before them."""
    base, grid = baseline(ETA, "efron"), sv.Grid((0, 2, 5, 5.5, 9))

    def scores(eta):
        logits = sv.cox_hazards(base, eta, grid)
        return sv.rmst(logits, grid).sum(), sv.survival(logits)

    with jax.enable_x64(True):
        (_, curve), slopes = jax.jit(jax.value_and_grad(scores, has_aux=True))(ETA)
        before = sv.cox_survival(base, ETA, np.array(grid.edges) - 1e-3)
        np.testing.assert_allclose(curve, before, rtol=1e-9)
    assert np.all(np.asarray(slopes) < 0)  # And finite.
    assert_finite(slopes)


def test_recovers_the_coefficient():
    """The root of the slope is the log hazard ratio of simulated rows with late entries."""
    rng = np.random.default_rng(3)
    x = rng.normal(size=4000)
    entry, life = rng.exponential(0.3, 4000), rng.exponential(np.exp(-0.7 * x))
    kept = life > entry
    x, entry, life = x[kept], entry[kept], life[kept]
    time, event = np.minimum(life, entry + 1.0), life <= entry + 1.0
    ones = np.ones(len(x))

    def slope(beta):
        known = {"time": time, "event": event, "entry": entry, "weights": ones}
        return np.sum(x * step((beta * x).astype(np.float32), **known)[1])

    low, high = 0.5, 0.9
    for _ in range(4):  # False position: the slope is nearly a line.
        at_low, at_high = float(slope(low)), float(slope(high))
        assert at_low < 0 < at_high
        middle = (low * at_high - high * at_low) / (at_high - at_low)
        low, high = (middle - 0.01, middle + 0.01)
    error = np.sqrt(0.02 / (at_high - at_low))
    assert middle == pytest.approx(0.7, abs=3.5 * error)
    assert error < 0.05


def test_bad_arguments():
    with pytest.raises(UserError, match="ties 'exact' is unknown; known: breslow, efron"):
        sv.cox_loss(ETA, TIME, EVENT, ties="exact")
    with pytest.raises(UserError, match=r"entry has shape \(3,\)"):
        sv.cox_loss(ETA, TIME, EVENT, entry=np.zeros(3))
    with pytest.raises(UserError, match=r"eta has shape \(45, 1\)"):
        sv.cox_loss(ETA[:, None], TIME, EVENT)

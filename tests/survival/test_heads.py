"""PMF, MTLR and DeepHit against softmaxes and pair loops written out in float64."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from scipy.special import logsumexp

from mtl_jax import survival as sv
from mtl_jax.errors import UserError
from tests.survival.reference import assert_finite

GRID = sv.uniform_grid(4, 4)
N, CAUSES = 30, 2
RNG = np.random.default_rng(0)
X = RNG.normal(0, 2, (N, 4))
JOINT = RNG.normal(0, 2, (N, 4, CAUSES))
# Ties, times beyond the grid, and censored rows at the time of an event.
TIME = RNG.choice([0.5, 1.0, 1.5, 2.5, 3.5, 4.0, 7.0], N)
EVENT = RNG.integers(0, CAUSES + 1, N)
INDEX = np.minimum(TIME.astype(int), 4)


def masses(scores: np.ndarray) -> np.ndarray:
    """Log softmax over bins and none; [N, 5]."""
    scores = np.concatenate([scores, np.zeros((N, 1))], axis=1)
    return scores - logsumexp(scores, axis=1, keepdims=True)


@pytest.mark.parametrize("head", ["pmf", "mtlr"])
def test_pmf_and_mtlr(head):
    hazards, loss = {
        "pmf": (sv.pmf_hazards, sv.pmf_loss),
        "mtlr": (sv.mtlr_hazards, sv.mtlr_loss),
    }[head]
    scores = X if head == "pmf" else np.stack([X[:, k:].sum(1) for k in range(4)], axis=1)
    expected = masses(scores)
    with jax.enable_x64(True):
        mass = np.asarray(jax.jit(lambda x: sv.log_pmf(hazards(x)))(X))
        got = jax.jit(lambda x: loss(x, TIME, EVENT, GRID, censoring="index"))(X)
    np.testing.assert_allclose(mass, expected, rtol=1e-11)
    np.testing.assert_allclose(np.exp(mass).sum(1), 1, rtol=1e-12)
    nll = np.zeros(N)
    for i, j in enumerate(INDEX):
        if j == 4:
            nll[i] = -expected[i, 4]
        else:
            nll[i] = -(expected[i, j] if EVENT[i] else logsumexp(expected[i, j + 1 :]))
    np.testing.assert_allclose(got, nll, rtol=1e-11)


def test_mtlr_smoothness():
    assert float(sv.mtlr_smoothness(np.array([[1.0, 3.0, 2.0], [0.0, 0.0, 4.0]]))) == 4 + 1 + 16


def test_deephit_likelihood():
    flat = masses(JOINT.reshape(N, -1))
    mass, none = np.exp(flat[:, :-1]).reshape(N, 4, CAUSES), np.exp(flat[:, -1])
    with jax.enable_x64(True):
        hazards = jax.jit(sv.deephit_hazards)(JOINT)
        incidence = np.asarray(jax.jit(sv.cumulative_incidence)(hazards))
        got = jax.jit(
            lambda x: sv.deephit_loss(x, TIME, EVENT, GRID, censoring="index", rank_weight=0.0)
        )(JOINT)
        one = jax.jit(sv.deephit_hazards)(JOINT[..., :1])[..., 0]
        np.testing.assert_allclose(one, jax.jit(sv.pmf_hazards)(JOINT[..., 0]), rtol=1e-12)
    np.testing.assert_allclose(np.diff(incidence, axis=1), mass, rtol=1e-9)
    for i, j in enumerate(INDEX):
        if j == 4:
            p = none[i]
        elif EVENT[i]:
            p = mass[i, j, EVENT[i] - 1]
        else:
            p = none[i] + mass[i, j + 1 :].sum()
        assert float(got[i]) == pytest.approx(-np.log(p), rel=1e-9)


@pytest.mark.parametrize("late", [False, True])
def test_ranking_loss(late):
    entry = np.where(RNG.random(N) < 0.3, TIME, 0.0) if late else None
    weights = np.where(np.arange(N) < 25, 1.0 + np.arange(N) % 3, 0.0) if late else None
    incidence = jax.jit(lambda x: sv.cumulative_incidence(sv.deephit_hazards(x)))(JOINT)
    incidence = np.asarray(incidence, np.float64)
    w = np.ones(N) if weights is None else weights
    expected = np.zeros(N)
    for i in range(N):
        if not EVENT[i] or TIME[i] >= 4 or not w[i]:
            continue
        own = incidence[:, INDEX[i] + 1, EVENT[i] - 1]
        for j in range(N):
            longer = TIME[i] < TIME[j] or (TIME[i] == TIME[j] and not EVENT[j])
            if longer and (entry is None or entry[j] < TIME[i]):
                expected[i] += w[j] * np.exp(-(own[i] - own[j]) / 0.2) / w.sum()
    with jax.enable_x64(True):
        loss = jax.jit(
            lambda f: sv.ranking_loss(f, TIME, EVENT, GRID, sigma=0.2, weights=weights, entry=entry)
        )
        np.testing.assert_allclose(loss(incidence), expected, rtol=1e-10)
    assert (expected > 0).sum() > 5


def test_ranking_prefers_the_right_order():
    """One cause: rows that end early with high early hazards beat the reverse."""
    time, event = np.array([0.5, 2.5]), np.ones(2)
    early, late = np.array([2.0, 0, 0, 0]), np.array([-2.0, 0, 2, 0])

    @jax.jit
    def ranking(x):
        return sv.ranking_loss(sv.single_incidence(x), time, event, GRID).sum()

    assert ranking(np.stack([early, late])) < 0.1 * ranking(np.stack([late, early]))


def test_extremes_are_finite_with_gradients():
    signs = np.random.default_rng(1).choice([-80.0, 80.0], JOINT.shape).astype(np.float32)

    def total(x):
        parts = sv.deephit_loss(x, TIME, EVENT, GRID)
        parts += sv.pmf_loss(x[..., 0], TIME, EVENT, GRID)
        return (parts + sv.mtlr_loss(x[..., 1], TIME, EVENT, GRID)).sum()

    assert_finite(jax.jit(jax.value_and_grad(total))(signs))


def test_bad_arguments():
    incidence = np.zeros((N, 5, CAUSES))
    with pytest.raises(UserError, match="sigma 0"):
        sv.ranking_loss(incidence, TIME, EVENT, GRID, sigma=0.0)
    with pytest.raises(UserError, match=r"incidences have shape \(30, 4, 2\)"):
        sv.ranking_loss(incidence[:, 1:], TIME, EVENT, GRID)

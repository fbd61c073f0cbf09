"""Click-through and impression weights."""

from __future__ import annotations

import hypothesis
import jax
import numpy as np
import pytest
from hypothesis import strategies as st

from mtl_jax.errors import UserError
from mtl_jax.survival import TRANSFORMS, apply_ctr, apply_impressions, fit_ctr, fit_impressions

RNG = np.random.default_rng(0)
SHOWN = np.concatenate([[0, 1, 50], RNG.integers(100, 5000, 97)]).astype(float)
CLICKS = RNG.binomial(SHOWN.astype(int), RNG.beta(2, 150, 100)).astype(float)
RATES = np.divide(CLICKS, SHOWN, out=np.zeros(100), where=SHOWN > 0)


def test_raw_is_the_papers():
    found = apply_ctr(fit_ctr(CLICKS, SHOWN), CLICKS, SHOWN)
    np.testing.assert_allclose(found, 1 + RATES, rtol=1e-6)


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_transforms(transform):
    state = fit_ctr(CLICKS, SHOWN, transform)
    found = np.asarray(jax.jit(lambda c, n: apply_ctr(state, c, n))(CLICKS, SHOWN))
    assert found.min() >= 1
    assert found.max() <= 2
    many = SHOWN[3] == SHOWN  # Any one row, then the same impressions with more clicks.
    more = np.asarray(apply_ctr(state, CLICKS[many] + 1, SHOWN[many]))
    assert np.all(more >= found[many])
    if transform in ("minmax", "log"):
        assert found.min() == 1
        assert found.max() == pytest.approx(2)
    if transform == "rank":
        order = np.argsort(RATES, kind="stable")
        assert np.all(np.diff(found[order]) >= 0)
        assert found.mean() == pytest.approx(1.5, rel=1e-6)
    mean_one = fit_ctr(CLICKS, SHOWN, transform, mean_one=True)
    scaled = np.asarray(apply_ctr(mean_one, CLICKS, SHOWN))
    assert scaled.mean() == pytest.approx(1, rel=1e-5)
    np.testing.assert_allclose(scaled * mean_one.scale, found, rtol=1e-5)


def test_empirical_bayes_moves_small_counts_to_the_mean():
    rng = np.random.default_rng(1)
    shown = rng.integers(20, 4000, 20000).astype(float)
    truth = rng.beta(3, 200, 20000)
    clicks = rng.binomial(shown.astype(int), truth).astype(float)
    state = fit_ctr(clicks, shown, "eb")
    np.testing.assert_allclose(state.prior, (3, 200), rtol=0.1)
    smooth = np.asarray(apply_ctr(state, clicks, shown)) - 1
    raw = clicks / shown
    few = shown < 200
    assert np.mean((smooth - truth)[few] ** 2) < 0.3 * np.mean((raw - truth)[few] ** 2)
    unseen = float(apply_ctr(state, 0.0, 0.0)) - 1
    assert unseen == pytest.approx(state.mean, rel=0.05)


@hypothesis.given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=5, max_size=5),
    st.sampled_from(TRANSFORMS),
)
def test_any_counts_give_finite_weights(rows, transform):
    shown = np.array([a + b for a, b in rows], float)
    clicks = np.array([a for a, _ in rows], float)
    found = np.asarray(apply_ctr(fit_ctr(clicks, shown, transform, mean_one=True), clicks, shown))
    assert np.isfinite(found).all()
    assert found.min() > 0
    assert found.mean() == pytest.approx(1, rel=1e-4)


def test_impressions():
    found = apply_impressions(fit_impressions(SHOWN), SHOWN)
    np.testing.assert_allclose(found, SHOWN / SHOWN.max(), rtol=1e-6)
    fixed = apply_impressions(fit_impressions(SHOWN, 30000), SHOWN)
    np.testing.assert_allclose(fixed, SHOWN / 30000, rtol=1e-6)
    scaled = np.asarray(apply_impressions(fit_impressions(SHOWN, 30000, mean_one=True), SHOWN))
    assert scaled.mean() == pytest.approx(1, rel=1e-5)


def test_bad_arguments():
    for call, says in [
        (lambda: fit_ctr(CLICKS, SHOWN, "ranks"), "did you mean 'rank'"),
        (lambda: fit_ctr([3.0], [2.0]), "row 0 has 3 clicks of 2 impressions"),
        (lambda: fit_ctr([-1.0], [2.0]), "from 0 to the impressions"),
        (lambda: fit_ctr([], []), "N >= 1"),
        (lambda: fit_impressions([-1.0]), "not negative"),
        (lambda: fit_impressions([0.0]), "no row has impressions"),
        (lambda: fit_impressions([1.0], 0), "normaliser 0"),
    ]:
        with pytest.raises(UserError, match=says):
            call()

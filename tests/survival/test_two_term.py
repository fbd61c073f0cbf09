"""Stitched curves and coherence of a short and a long head."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from mtl_jax import survival as sv
from mtl_jax.errors import UserError
from tests.survival.reference import assert_finite

coherence, coherence_gap = jax.jit(sv.coherence), jax.jit(sv.coherence_gap)
RNG = np.random.default_rng(0)
SHORT, LONG = RNG.normal(-1, 1, (9, 4)), RNG.normal(-1, 1, (9, 5))


def agreeing_long() -> np.ndarray:
    """Long logits whose first bin has the short head's chance: 1 - h_1 = prod (1 - h^S)."""
    hazard = np.logaddexp(0, SHORT).sum(1)
    return np.concatenate([np.log(np.expm1(hazard))[:, None], LONG[:, 1:]], axis=1)


def test_stitched_curve():
    logits, grid = sv.stitch(SHORT, LONG, sv.SHORT, sv.LONG)
    assert grid == sv.OVERALL
    short, long = (1 - 1 / (1 + np.exp(-x)) for x in (SHORT, LONG))
    found = np.asarray(sv.survival(logits))
    np.testing.assert_allclose(found[:, 1:5], np.cumprod(short, 1), rtol=1e-5)
    later = np.prod(short, 1)[:, None] * np.cumprod(long[:, 1:], 1)
    np.testing.assert_allclose(found[:, 5:], later, rtol=1e-5)


def test_heads_that_agree_give_the_long_curve():
    logits, grid = sv.stitch(SHORT, agreeing_long(), sv.SHORT, sv.LONG)
    times = np.array([10.0, 20, 60, 119])
    at = jax.jit(sv.survival_at, static_argnums=1)
    stitched = at(logits, grid, times)
    np.testing.assert_allclose(stitched, at(agreeing_long(), sv.LONG, times), rtol=1e-5)
    np.testing.assert_allclose(coherence(SHORT, agreeing_long()), 0, atol=1e-6)
    np.testing.assert_allclose(coherence_gap(SHORT, agreeing_long()), 0, atol=1e-6)


@pytest.mark.parametrize("landmark", [None, 3.0, 10.0])
def test_coherence_is_the_divergence(landmark):
    share = np.ones(4) if landmark is None else np.asarray(sv.SHORT.share(landmark, 10.0))
    p = 1 - np.prod((1 / (1 + np.exp(SHORT))) ** share, axis=1)
    q = 1 / (1 + np.exp(-LONG[:, 0]))
    some = np.where(p > 0, p, 1)
    expected = p * np.log(some / q) + (1 - p) * np.log((1 - p) / (1 - q))
    rows = np.broadcast_to(share, SHORT.shape)
    with jax.enable_x64(True):
        found = np.asarray(coherence(SHORT, LONG, short_share=rows))
        gap = np.asarray(coherence_gap(SHORT, LONG, short_share=rows))
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(gap, p - q, rtol=1e-6, atol=1e-9)
    assert np.all(found >= 0)


def test_coherence_of_extremes():
    """The divergence grows with the logits, where probabilities would all be 0 or 1."""
    sizes = np.array([20.0, 40, 80], np.float32)
    step = jax.jit(jax.value_and_grad(lambda s, g: sv.coherence(s, g).sum(), argnums=(0, 1)))
    values = []
    for sign in (-1, 1):
        for size in sizes:
            short, long = np.full((1, 4), -sign * size), np.full((1, 5), sign * size)
            value, grads = step(short, long)
            assert_finite((value, grads))
            values.append(float(value))
    # A sure event that the long head denies costs its log odds; a survival, all its hazard.
    np.testing.assert_allclose(values[:3], sizes, rtol=1e-5)
    np.testing.assert_allclose(values[3:], sizes, rtol=1e-5)


def test_grids_that_do_not_join():
    with pytest.raises(UserError, match=r"first bin is \[0, 10\)"):
        sv.stitch(SHORT, LONG, sv.SHORT, sv.LONG.from_zero())
    assert sv.stitch_grids(sv.SHORT.from_zero(), sv.LONG.from_zero()).edges[:2] == (0, 3)
    with pytest.raises(UserError, match="differ"):
        sv.coherence(SHORT, LONG[:3])

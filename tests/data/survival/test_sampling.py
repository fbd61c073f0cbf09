import math
from statistics import NormalDist

import numpy as np
import pytest

from mtl_jax.data.recommendation.draws import Draws
from mtl_jax.data.survival.sampling import log_factorial, normal, poisson

COUNT = 200_000


@pytest.mark.parametrize("mean", [0.02, 0.7, 4.0, 9.99, 10.0, 11.5, 60.0, 3000.0])
def test_poisson_numbers_have_the_probabilities_of_poisson(mean):
    found = poisson(Draws(5, 6), np.full(COUNT, mean))
    counts = np.bincount(found)
    number = np.arange(len(counts))
    log_chance = number * math.log(mean) - mean - [math.lgamma(n + 1) for n in number]
    expected = COUNT * np.exp(log_chance)
    tail = COUNT - expected.sum()
    assert abs(tail) < 20  # What was never drawn is rare.
    # Cells of at least a hundred, so that a normal error is a fair yardstick.
    width = max(1, int(np.sqrt(mean) / 4))
    edges = np.arange(0, len(counts), width)
    seen, want = (np.add.reduceat(values, edges) for values in (counts, expected))
    common = want > 100
    error = (seen - want)[common] / np.sqrt(want[common])
    assert np.abs(error).max() < 4.5
    assert (error**2).mean() < 1 + 5 * np.sqrt(2 / common.sum())
    assert abs(found.mean() - mean) < 4.5 * np.sqrt(mean / COUNT)
    variance_error = np.sqrt((mean + 2 * mean**2) / COUNT)
    assert abs(found.var() - mean) < 4.5 * variance_error


def test_poisson_keeps_shape_and_each_element_has_its_own_mean():
    mean = np.array([[0.0, 5.0], [200.0, 0.0]])
    found = np.stack([poisson(Draws(seed, 0), mean) for seed in range(400)])
    assert found.shape == (400, 2, 2)
    assert (found[:, [0, 1], [0, 1]] == 0).all()
    np.testing.assert_allclose(found.mean(0)[[0, 1], [1, 0]], [5, 200], rtol=0.06)
    assert poisson(Draws(0, 0), np.zeros((0, 3))).shape == (0, 3)


def test_log_factorial():
    numbers = np.array([0, 1, 2, 20, 31, 32, 33, 100, 10_000, 10_000_000])
    want = [math.lgamma(n + 1) for n in numbers]
    np.testing.assert_allclose(log_factorial(numbers.astype(float)), want, rtol=1e-13)


def test_normal_numbers_are_normal():
    drawn = normal(Draws(1, 2), 3, 33_333)
    assert drawn.shape == (3, 33_333)
    ordered = np.sort(drawn.ravel())
    inner = NormalDist()
    chance = np.array([inner.cdf(float(x)) for x in ordered[::37]])
    gap = np.abs(chance - np.arange(0, len(ordered), 37) / len(ordered)).max()
    assert gap < 1.95 / np.sqrt(len(ordered))  # Kolmogorov: 1 in 1000.
    assert abs(np.corrcoef(drawn)[0, 1]) < 4 / np.sqrt(33_333)

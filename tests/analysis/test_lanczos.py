"""The largest eigenvalue by Lanczos against LAPACK's, and what it says of its own error."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtl_jax.analysis.lanczos import make_step, top_eigenpair

SIZE = 40
step = make_step(lambda v, matrix: matrix @ v)


@pytest.fixture(autouse=True)
def _float64():
    with jax.enable_x64(True):
        yield


def matrix_of(values: np.ndarray, seed: int = 0) -> np.ndarray:
    """A symmetric matrix with these eigenvalues."""
    q, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(len(values),) * 2))
    return (q * values) @ q.T


def top_of(matrix: np.ndarray, **options):
    start = jnp.asarray(np.random.default_rng(1).normal(size=len(matrix)))
    return top_eigenpair(step, start, (jnp.asarray(matrix),), **options)


SPECTRA = {
    "spread": np.linspace(-3, 5, SIZE),
    "clustered": np.concatenate([np.linspace(0, 1, SIZE - 3), [4.99, 5.0, 5.01]]),
    "multiple": np.concatenate([np.zeros(SIZE - 3), [2.0, 2.0, 2.0]]),
    "negative": -np.linspace(1, 9, SIZE),
    "tiny": 1e-9 * np.linspace(-3, 5, SIZE),
    "most negative": np.concatenate([[-1e3], np.linspace(0, 1, SIZE - 1)]),
}


@pytest.mark.parametrize("name", SPECTRA)
@pytest.mark.parametrize("basis", [0, 6])
def test_it_finds_the_largest_eigenvalue(name, basis):
    matrix = matrix_of(SPECTRA[name])
    found = top_of(matrix, products=600, tolerance=1e-7, basis=basis)
    assert found.converged
    np.testing.assert_allclose(found.value, SPECTRA[name].max(), rtol=1e-9)
    vector = np.asarray(found.vector)
    np.testing.assert_allclose(np.linalg.norm(vector), 1, rtol=1e-12)
    # The residual is what it is said to be, and bounds the error.
    true = np.linalg.norm(matrix @ vector - found.value * vector)
    scale = np.abs(SPECTRA[name]).max()
    np.testing.assert_allclose(found.residual, true, rtol=1e-3, atol=1e-14 * scale)
    assert found.residual <= 1e-7 * abs(found.value)


def test_it_stops_at_the_given_number_of_products_and_says_so():
    matrix = matrix_of(SPECTRA["spread"])
    for products in (2, 3, 7):
        found = top_of(matrix, products=products, tolerance=1e-12, basis=30)
        assert not found.converged
        assert found.products == products == len(found.values) == len(found.residuals)
        vector = np.asarray(found.vector)
        true = np.linalg.norm(matrix @ vector - found.value * vector)
        np.testing.assert_allclose(found.residual, true, rtol=1e-9)
        assert abs(np.linalg.eigvalsh(matrix) - found.value).min() <= found.residual


def test_estimates_rise_within_a_basis():
    found = top_of(matrix_of(SPECTRA["spread"]), products=20, tolerance=1e-12, basis=30)
    assert (np.diff(found.values) >= -1e-12).all()


def test_a_zero_matrix_and_one_that_is_not_finite():
    zero = top_of(np.zeros((SIZE, SIZE)), basis=6)
    assert zero.converged
    assert zero.value == zero.residual == 0
    broken = top_of(np.full((SIZE, SIZE), np.nan), basis=6)
    assert not broken.converged
    assert np.isnan(broken.value)

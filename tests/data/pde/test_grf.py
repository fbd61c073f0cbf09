"""Gaussian fields: their covariance, exactly, and the numbers behind a sample."""

import numpy as np
import pytest

from mtl_jax.data.pde.grf import rbf_factor, rbf_field, rbf_kernel, sample_rng, white_noise

POINTS = np.linspace(0, 1, 6)
PINNED = [0.09792079416476848, 1.8777632341538646, -0.3532958396517829]


def covariance(field):
    """Of the flattened field [n^2, n^2]: what the field makes of each unit vector of noise."""
    n = len(POINTS)
    columns = field.sample(np.eye(n * n).reshape(-1, n, n)).reshape(n * n, n * n).T
    return columns @ columns.T


def kernel_2d(length):
    x, y = (axis.ravel() for axis in np.meshgrid(POINTS, POINTS))
    distance = np.hypot(x[:, None] - x, y[:, None] - y)
    return np.exp(-0.5 * (distance / length) ** 2)


@pytest.mark.parametrize("length", [0.05, 0.15, 0.4])
def test_the_covariance_is_the_kernel_of_the_distance_in_the_plane(length):
    np.testing.assert_allclose(covariance(rbf_field(POINTS, length)), kernel_2d(length), atol=1e-7)


def test_samples_have_that_covariance():
    noise = white_noise(0, "any", range(4000), (6, 6))
    fields = rbf_field(POINTS, 0.3).sample(noise).reshape(4000, -1)
    error = fields.T @ fields / len(fields) - kernel_2d(0.3)
    assert np.abs(error).max() < 6 * np.sqrt(2 / len(fields))
    assert np.abs(fields.mean(0)).max() < 5 / np.sqrt(len(fields))


def test_truncation_keeps_the_largest_terms_of_the_expansion():
    values, vectors = np.linalg.eigh(kernel_2d(0.4))
    terms = 8
    assert values[-terms] > 1.5 * values[-terms - 1]  # Else the choice would not be unique.
    want = vectors[:, -terms:] * values[-terms:] @ vectors[:, -terms:].T
    found = covariance(rbf_field(POINTS, 0.4, kl_terms=terms))
    np.testing.assert_allclose(found, want, atol=1e-9)
    assert np.linalg.matrix_rank(found, 1e-9) == terms


def test_all_terms_are_the_whole_kernel():
    np.testing.assert_allclose(
        covariance(rbf_field(POINTS, 0.3, kl_terms=36)), kernel_2d(0.3), atol=1e-9
    )


def test_the_factor_is_lower_triangular():
    factor = rbf_factor(POINTS, 0.2)
    np.testing.assert_array_equal(factor, np.tril(factor))
    np.testing.assert_allclose(factor @ factor.T, rbf_kernel(POINTS, 0.2), atol=1e-7)


def test_noise_is_a_function_of_seed_task_and_index_alone():
    many = white_noise(3, "disc", range(20), (4, 5))
    np.testing.assert_array_equal(many[7:9], white_noise(3, "disc", [7, 8], (4, 5)))
    for other in ((4, "disc", 7), (3, "square", 7), (3, "disc", 8)):
        assert (many[7] != sample_rng(*other).standard_normal((4, 5))).all()


def test_the_stream_never_changes():
    # Pinned: sets that were made before must be the ones that are made now.
    found = sample_rng(0, "square", 0).standard_normal(3)
    np.testing.assert_allclose(found, PINNED, rtol=1e-12)


@pytest.mark.parametrize("length", [0.0, -1.0])
def test_a_length_that_is_not_positive(length):
    with pytest.raises(ValueError, match="length"):
        rbf_factor(POINTS, length)


@pytest.mark.parametrize("terms", [0, 37])
def test_more_or_fewer_terms_than_there_are(terms):
    with pytest.raises(ValueError, match="kl_terms"):
        rbf_field(POINTS, 0.2, kl_terms=terms)

"""Reaction and diffusion on a line against closed forms, LSODA and its own refinement."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from numpy.polynomial import Polynomial

from mtl_jax.data.pde import fisher
from mtl_jax.data.pde.fisher import DEFAULT, PAPER, TASKS


def relative(found, want):
    return np.linalg.norm(found - want) / np.linalg.norm(want)


# The equations


@pytest.mark.parametrize("task", ["kpp", "nws"])
def test_coefficients_are_those_of_the_reaction(task):
    a, b, u = np.array([0.3, 1.0]), np.array([0.5, 2.0]), np.linspace(0, 3, 7)
    for row, one, other in zip(fisher.coefficients(task, a, b), a, b, strict=True):
        want = fisher.reaction(task, u, one, other)
        np.testing.assert_allclose(Polynomial([0, *row])(u), want, atol=1e-12)


def test_coefficients_of_zfk_come_from_the_quadratic_expansion_of_the_exponential():
    a, b = 0.7, 1.3
    expansion = Polynomial([1, b, b * b / 2]) * np.exp(-b)
    want = a * Polynomial([0, 1, -1]) * expansion
    found = fisher.coefficients("zfk", np.array([a]), np.array([b]))[0]
    np.testing.assert_allclose([0, *found], want.coef, atol=1e-14)
    u = 0.2  # The data has the exponential itself.
    assert fisher.reaction("zfk", u, a, b) == pytest.approx(
        a * u * (1 - u) * np.exp(-b * (1 - u)), rel=1e-14
    )
    assert abs(want(u) / fisher.reaction("zfk", u, a, b) - 1) > 1e-3


def test_diffusion_matrix_is_the_exponential_of_the_laplacian_with_no_flux():
    n, spacing, time = 12, 0.25, 0.07
    laplacian = np.diag(np.ones(n - 1), 1) + np.diag(np.ones(n - 1), -1)
    laplacian -= np.diag(laplacian.sum(1))
    found = fisher.diffusion_matrix(n, time, spacing)
    np.testing.assert_allclose(found, scipy.linalg.expm(laplacian * time / spacing**2), atol=1e-14)
    np.testing.assert_allclose(found.sum(0), 1, atol=1e-14)  # Nothing is lost.
    assert found.min() > 0


# The solvers


@pytest.mark.parametrize("solver", [fisher.strang, fisher.lsoda])
@pytest.mark.parametrize("task", ["kpp", "nws"])
def test_without_diffusion_every_point_follows_the_logistic_law(solver, task):
    u, a, times = np.array([0.1, 0.5, 2.0, 4.0]), 1.5, np.linspace(0, 1.0, 5)
    power = 1 if task == "kpp" else 2
    growth = np.exp(power * a * times)[:, None]
    want = (u**power * growth / (1 + u**power * (growth - 1))) ** (1 / power)
    if solver is fisher.lsoda:
        found = solver(task, a, 1.0, u, 0.0, 1.0, 5, rtol=1e-9)
    else:
        found = solver(task, np.array([a]), np.array([1.0]), u[None], 0.0, 1.0, 5, substeps=80)[0]
    np.testing.assert_allclose(found, want, rtol=2e-7)


@pytest.mark.parametrize("task", TASKS)
def test_strang_agrees_with_lsoda(task):
    a, b, initial = fisher.draw(DEFAULT, task, range(3))
    found = fisher.solve(DEFAULT, task, a, b, initial)
    args = (DEFAULT.diffusion, DEFAULT.end_time, fisher.SNAPSHOTS)
    for row, *sample in zip(found, a, b, initial, strict=True):
        assert relative(row, fisher.lsoda(task, *sample, *args, rtol=1e-9)) < 1e-6


@pytest.mark.parametrize("task", TASKS)
def test_strang_is_of_second_order_in_time(task):
    a, b, initial = fisher.draw(DEFAULT, task, range(2))
    runs = [
        fisher.strang(task, a, b, initial, 0.01, 1.0, 3, substeps) for substeps in (10, 20, 40, 640)
    ]
    errors = [relative(run, runs[-1]) for run in runs[:-1]]
    orders = np.log2(np.array(errors[:-1]) / errors[1:])
    assert (np.abs(orders - 2) < 0.1).all(), (errors, orders)


def test_the_travelling_wave_of_ablowitz_and_zeppetella():
    """The exact u = (1 + exp((x - 5 t / sqrt 6) / sqrt 6))^-2 solves u_t = u_xx + u (1 - u)."""
    errors = []
    for n in (100, 200, 400):
        spacing = 100 / n
        x = -40 + spacing * (np.arange(n) + 0.5)
        want = [(1 + np.exp((x - 5 * t / 6**0.5) / 6**0.5)) ** -2 for t in (0.0, 5.0)]
        one = np.ones(1)
        found = fisher.strang("kpp", one, one, want[0][None], 1.0, 5.0, 2, 1000, spacing)
        errors.append(np.abs(found[0, -1] - want[1]).max())
    assert errors[0] < 3e-3
    assert errors[1] < errors[0] / 3.6
    assert errors[2] < errors[1] / 3.8


def test_diffusion_alone_keeps_the_mass():
    initial = np.random.default_rng(0).random((2, 64))
    zero = np.zeros(2)
    found = fisher.strang("kpp", zero, zero, initial, 0.05, 1.0, 4)
    np.testing.assert_allclose(found.sum(2), np.repeat(initial.sum(1)[:, None], 4, 1), rtol=1e-12)
    assert found[:, -1].std() < 0.2 * initial.std()


def test_double_precision_does_not_leak():
    found = fisher.solve(DEFAULT, "kpp", *fisher.draw(DEFAULT, "kpp", range(2)))
    assert found.dtype == np.float64
    assert not jax.config.read("jax_enable_x64")
    assert jnp.ones(1).dtype == jnp.float32


# The samples


def test_a_sample_depends_on_its_number_alone():
    many = fisher.make_samples(DEFAULT, "zfk", range(fisher.BLOCK + 5))
    for index in (3, fisher.BLOCK + 1):
        for whole, one in zip(many, fisher.make_samples(DEFAULT, "zfk", [index]), strict=True):
            np.testing.assert_array_equal(whole[index], one[0])
    other = fisher.make_samples(DEFAULT, "zfk", [3], seed=1)
    assert (many.initial[3] != other.initial[0]).all()


def test_blocks_have_one_size(monkeypatch):
    """One program for all of them, and no other order of summation for the last."""
    sizes = []

    def recorded(task, a, b, initial, *args):
        sizes.append({len(a), len(b), len(initial)})
        return np.repeat(initial[:, None], fisher.SNAPSHOTS, axis=1)

    monkeypatch.setattr(fisher, "strang", recorded)
    found = fisher.make_samples(DEFAULT, "kpp", range(fisher.BLOCK + 5))
    assert sizes == [{fisher.BLOCK}] * 2
    np.testing.assert_array_equal(found.solutions[:, 3], found.initial)


def test_initial_values_of_the_paper_setting_have_the_fitted_moments():
    a, b, initial = fisher.draw(PAPER, "kpp", range(1500))
    assert initial.mean() == pytest.approx(5.146, abs=0.15)
    assert initial.std() == pytest.approx(1.418, rel=0.05)
    assert initial.min() >= 0.05
    np.testing.assert_allclose(np.unique(a), np.linspace(0.1, 1, 10))
    np.testing.assert_allclose(np.unique(b), np.linspace(0.5, 2, 10))
    near, far = (np.corrcoef(initial[:, 0], initial[:, k])[0, 1] for k in (13, 51))
    assert near == pytest.approx(np.exp(-0.5 * (13 / 64 / 0.2) ** 2), abs=0.08)
    assert abs(far) < 0.12


@pytest.mark.parametrize("setting", [DEFAULT, PAPER])
@pytest.mark.parametrize("task", TASKS)
def test_samples_start_at_u0_and_approach_1(setting, task):
    found = fisher.make_samples(setting, task, range(4))
    assert [array.shape for array in found] == [(4, 4), (4, 64), (4, 20, 64)]
    assert {array.dtype for array in found} == {np.dtype(np.float32)}
    np.testing.assert_array_equal(found.solutions[:, 0], found.initial)
    distance = np.abs(found.solutions - 1).max(2)
    assert (np.diff(distance, axis=1) <= 1e-6).all()
    assert (distance[:, -1] < distance[:, 0]).all()
    assert found.solutions.min() > 0


@pytest.mark.filterwarnings("ignore:(overflow|invalid value) encountered:RuntimeWarning")
def test_lsoda_says_where_it_failed():
    with pytest.raises(RuntimeError, match=r"LSODA failed at kpp, a = 1\.0"):
        fisher.lsoda("kpp", 1.0, 1.0, np.full(8, -50.0), 0.0, 1.0, 3)  # Blows up at t = 0.02.

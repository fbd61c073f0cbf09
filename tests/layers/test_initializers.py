"""The initialisers draw from the distributions they name."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from mtl_jax.layers.initializers import kaiming_normal_fan_out, torch_bias, torch_kernel


@pytest.mark.parametrize("shape", [(400, 300), (5, 5, 20, 64)])
def test_torch_kernel_fills_its_interval(shape) -> None:
    limit = 1 / np.sqrt(np.prod(shape[:-1]))
    values = np.asarray(torch_kernel()(jax.random.key(0), shape)) / limit
    assert np.abs(values).max() <= 1
    assert np.abs(values).max() > 0.999
    assert values.std() == pytest.approx(1 / np.sqrt(3), rel=0.02)  # uniform


def test_torch_bias_goes_by_the_fan_in_of_its_kernel() -> None:
    values = np.asarray(torch_bias(25)(jax.random.key(0), (20000,))) * 5
    assert 0.999 < np.abs(values).max() <= 1
    assert values.std() == pytest.approx(1 / np.sqrt(3), rel=0.02)


def test_kaiming_normal_goes_by_fan_out() -> None:
    values = np.asarray(kaiming_normal_fan_out()(jax.random.key(0), (3, 3, 16, 128)))
    assert values.std() == pytest.approx(np.sqrt(2 / (9 * 128)), rel=0.02)
    assert np.abs(values).max() > 3.5 * values.std()  # not truncated

"""The network sees what a molecule is, and not how it is written down."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtl_jax.systems.molecules.network import LENGTH, MessagePassing, edges, from_centre

NETWORK = MessagePassing(width=8, messages=4, layers=2, basis=5, cutoff=4.0)


@pytest.fixture(scope="module")
def molecules() -> tuple[np.ndarray, np.ndarray]:
    """Three molecules of 7, 4 and 1 atoms [3, 7]."""
    rng = np.random.default_rng(0)
    charges = rng.choice([1, 6, 7, 8, 9], (3, 7)).astype(np.uint8)
    positions = rng.normal(0, 1.5, (3, 7, 3)).astype(np.float32)
    for row, count in enumerate((7, 4, 1)):
        charges[row, count:], positions[row, count:] = 0, 0
    return charges, positions


@pytest.fixture(scope="module")
def network(molecules: Any) -> Callable[..., np.ndarray]:
    """Returns `network(charges, positions) -> features`, with parameters that are not small."""
    params = jax.jit(NETWORK.init)(jax.random.key(1), *molecules)
    rng = np.random.default_rng(2)
    params = jax.tree.map(
        lambda leaf: np.asarray(leaf) + rng.normal(0, 0.3, leaf.shape).astype(np.float32), params
    )
    apply = jax.jit(NETWORK.apply)
    return lambda charges, positions: np.asarray(apply(params, charges, positions))


def same(one: np.ndarray, two: np.ndarray) -> None:
    np.testing.assert_allclose(one, two, rtol=1e-5, atol=1e-5)


def turn(seed: int) -> np.ndarray:
    """A rotation, or for an odd seed a reflection."""
    q, r = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    q = q * np.sign(np.diag(r))[None]
    q[:, 0] *= np.sign(np.linalg.det(q)) * (-1) ** seed
    return q.astype(np.float32)


def test_order_place_and_turn_do_not_matter(network: Any, molecules: Any) -> None:
    charges, positions = molecules
    base = network(charges, positions)
    assert np.abs(base[0] - base[1]).max() > 0.1
    assert np.isfinite(base).all()
    order = np.random.default_rng(1).permutation(7)  # padding comes between the atoms
    same(network(charges[:, order], positions[:, order]), base)
    real = (charges > 0)[:, :, None]
    moved = np.where(real, positions + np.array([1.0, -2.0, 3.0], np.float32), 0)
    same(network(charges, moved), base)
    for seed in (0, 1):
        matrix = turn(seed)
        assert np.linalg.det(matrix) == pytest.approx(1 - 2 * seed, abs=1e-5)
        same(network(charges, positions @ matrix), base)


def test_padding_changes_nothing(network: Any, molecules: Any) -> None:
    charges, positions = molecules
    base = network(charges, positions)
    # Wherever the padding lies, and however much there is of it.
    anywhere = np.where((charges > 0)[:, :, None], positions, 5.0).astype(np.float32)
    same(network(charges, anywhere), base)
    more = network(np.pad(charges, ((0, 0), (0, 3))), np.pad(positions, ((0, 0), (0, 3), (0, 0))))
    same(more, base)


def test_what_a_molecule_is_matters(network: Any, molecules: Any) -> None:
    charges, positions = molecules
    base = network(charges, positions)
    other = charges.copy()
    other[0, 0] = 1 + other[0, 0] % 9
    assert np.abs(network(other, positions) - base)[0].max() > 1e-3
    bent = positions.copy()
    bent[0, 0] += 0.3
    assert np.abs(network(charges, bent) - base)[0].max() > 1e-3
    same(network(charges, bent)[1:], base[1:])


def test_edges_against_numpy(molecules: Any) -> None:
    charges, positions = molecules
    count, cutoff = 5, 4.0
    found = np.asarray(jax.jit(edges, static_argnums=(2, 3))(charges, positions, count, cutoff))
    lowest = np.exp(-cutoff / LENGTH)
    centres = np.linspace(lowest, 1, count)
    want = np.zeros((3, 7, count, 7))
    for b in range(3):
        for i in range(7):
            for j in range(7):
                gap = positions[b, i].astype(np.float64) - positions[b, j]
                d = np.sqrt(np.square(gap).sum())
                if i != j and charges[b, i] and charges[b, j] and d < cutoff:
                    x = (np.exp(-d / LENGTH) - centres) / (centres[1] - centres[0])
                    want[b, i, :, j] = np.exp(-0.5 * x**2) * (1 + np.cos(np.pi * d / cutoff)) / 2
    np.testing.assert_allclose(found, want, atol=2e-5)
    assert (want[0] > 0.1).any()
    np.testing.assert_array_equal(found, np.swapaxes(found, 1, 3))


def test_distances_from_the_centre_and_gradients_are_finite(molecules: Any) -> None:
    charges, positions = molecules
    centred = jax.jit(from_centre, static_argnums=(2, 3))
    seen = np.asarray(centred(charges, positions, 5, 4.0))
    weights = charges[0].astype(np.float64)
    centre = (weights[:, None] * positions[0]).sum(0) / weights.sum()
    square = np.square(positions[0] - centre).sum(1)
    np.testing.assert_allclose(seen[0, :, -1], square / 10, rtol=1e-4)
    assert np.isfinite(seen).all()

    def total(positions: jax.Array) -> jax.Array:
        own = edges(jnp.asarray(charges), positions, 5, 4.0)
        return jnp.sum(own) + jnp.sum(from_centre(jnp.asarray(charges), positions, 5, 4.0))

    # An atom on its own lies in the centre, and padding lies on padding: distances of 0.
    assert np.isfinite(jax.jit(jax.grad(total))(jnp.asarray(positions))).all()

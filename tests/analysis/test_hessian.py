"""Hessian-vector products against dense float64 Hessians of the toy systems."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from mtl_jax.analysis import hessian
from mtl_jax.analysis.lanczos import make_step, top_eigenpair
from mtl_jax.analysis.subject import bind_host, stack
from mtl_jax.methods.ownership import owner_tree
from mtl_jax.systems.base import Data
from tests import toys

AS_READ = Data({}, lambda step: {}, lambda split: iter(()), lambda r, host, key: host, 1, ())


@jax.custom_vjp
def by_hand(x):
    """The identity with a gradient of its own, through which no forward derivative goes."""
    return x


by_hand.defvjp(lambda x: (x, None), lambda _, g: (by_hand(g),))


@pytest.fixture(autouse=True)
def _float64():
    with jax.enable_x64(True):
        yield


@pytest.mark.parametrize("name", ["heads", "table"])  # of their own, and stacked
def test_the_largest_eigenvalue_is_that_of_the_dense_hessian(name):
    """And the products go through gradients that are written by hand."""
    system, batch = toys.ALL[name](2)
    params, state = system.init(jax.random.key(0), batch)
    owners = owner_tree(params, system.owner, 2)
    free = jax.tree.map(lambda _: True, params)
    # Unequal weights of the two batches: the mean is over examples, not over batches.
    batch["label_mask"][:12, 0] = 0
    hosts = [jax.tree.map(lambda leaf, k=k: leaf[8 * k : 8 * k + 8], batch) for k in (0, 1)]
    flat, unravel = ravel_pytree(params)
    batch = jax.tree.map(jnp.asarray, batch)

    def losses(flat):
        bound = bind_host(system, AS_READ, unravel(flat), state, {}, batch)
        return bound.losses(unravel(flat))[0]

    dense = np.asarray(jax.jit(jax.hessian(losses))(flat))

    def features(*args):
        z, state = system.features(*args)
        return by_hand(z), state

    same = system._replace(features=features)
    with pytest.raises(TypeError, match="custom_vjp"):
        jax.jvp(by_hand, (flat,), (flat,))
    step = make_step(hessian.hessian_product(same, AS_READ, owners))
    for t in range(2):
        for scope in hessian.SCOPES:
            mask = hessian.task_mask(params, owners, free, t, scope)
            whole = jax.tree.map(lambda m, w: m * np.ones(w.shape), mask, params)
            kept = np.concatenate([leaf.ravel() for leaf in jax.tree.leaves(whole)]) == 1
            assert kept.any()
            start = hessian.start_vector(params, mask, jax.random.key(t))
            args = (params, state, {}, stack(hosts), mask, np.int32(t))
            found = top_eigenpair(step, start, args, products=80, tolerance=1e-8)
            values, vectors = np.linalg.eigh(dense[t][np.ix_(kept, kept)])
            assert found.converged
            np.testing.assert_allclose(found.value, values[-1], rtol=1e-9)
            vector = np.asarray(found.vector)
            assert (vector[~kept] == 0).all()
            if values[-1] - values[-2] > 1e-3 * values[-1]:
                np.testing.assert_allclose(abs(vector[kept] @ vectors[:, -1]), 1, rtol=1e-6)


def test_masks_part_the_parameters_and_leave_out_what_was_not_trained():
    for name in ("heads", "stacked"):
        system, batch = toys.ALL[name](3)
        params, _ = system.init(jax.random.key(0), batch)
        owners = owner_tree(params, system.owner, 3)
        free = jax.tree.map(lambda _: True, params)
        shared = [hessian.task_mask(params, owners, free, t, "shared") for t in range(3)]
        own = [hessian.task_mask(params, owners, free, t, "own") for t in range(3)]
        heads = [jax.tree.map(np.subtract, b, a) for a, b in zip(shared, own, strict=True)]
        # Every parameter is shared or in exactly one head.
        everything = jax.tree.map(lambda *leaves: sum(leaves), shared[0], *heads)
        whole = jax.tree.map(lambda leaf, w: leaf * np.ones(w.shape), everything, params)
        assert all((leaf == 1).all() for leaf in jax.tree.leaves(whole))
        frozen = hessian.task_mask(params, owners, {**free, "trunk": {"w": False}}, 0, "own")
        assert frozen["trunk"]["w"] == 0
        assert any(leaf.any() for leaf in jax.tree.leaves(frozen))


def test_a_task_without_labels_has_no_hessian():
    system, batch = toys.table(2)
    params, state = system.init(jax.random.key(0), batch)
    owners = owner_tree(params, system.owner, 2)
    batch["label_mask"][:, 1] = 0
    mask = hessian.task_mask(params, owners, jax.tree.map(lambda _: True, params), 1, "own")
    product = jax.jit(hessian.hessian_product(system, AS_READ, owners))
    v = hessian.start_vector(params, mask, jax.random.key(0))
    out = product(v, params, state, {}, stack([batch]), mask, np.int32(1))
    assert not np.isfinite(out).all()

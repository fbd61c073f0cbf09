"""LSTMs against a float64 loop, their derivative against JAX's, and what masks leave alone."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtl_jax.systems.ad_survival.sequence import (
    attention_pool,
    bilstm,
    init_attention_pool,
    init_bilstm,
    init_lstm,
    init_transformer,
    lstm,
    sinusoids,
    transformer,
)

B, L, D, H = 4, 6, 3, 5
KEYS = jax.random.split(jax.random.key(0), 8)
X = jax.random.normal(KEYS[0], (B, L, D))
# A full row, one that ends early, one with gaps, one with nothing.
MASK = jnp.array(
    [[1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0], [0, 1, 0, 1, 1, 0], [0, 0, 0, 0, 0, 0]], bool
)


def moved(params: Any) -> Any:
    """Parameters away from their first values, so that no bias is zero."""
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: leaf + 0.3 * jnp.asarray(rng.normal(size=leaf.shape)), params)


PARAMS = moved(init_lstm(KEYS[1], D, H))


def loop(params: Any, x: Any, mask: Any, reverse: bool) -> np.ndarray:
    """The LSTM as textbooks write it, row by row and place by place, in float64."""
    wx, wh, b = (np.asarray(params[name], np.float64) for name in ("input", "state", "bias"))
    x, out = np.asarray(x, np.float64), np.zeros((B, L, H))
    for row in range(B):
        c, h = np.zeros(H), np.zeros(H)
        for t in reversed(range(L)) if reverse else range(L):
            if mask[row, t]:
                i, f, g, o = np.split(x[row, t] @ wx + h @ wh + b, 4)
                c = c / (1 + np.exp(-f)) + np.tanh(g) / (1 + np.exp(-i))
                h = np.tanh(c) / (1 + np.exp(-o))
            out[row, t] = h
    return out


def by_scan(params: Any, x: Any, mask: Any, reverse: bool) -> Any:
    """The same in plain JAX operations, for its derivatives."""

    def step(carry: Any, now: Any) -> Any:
        (c, h), (x, live) = carry, now
        z = x @ params["input"] + h @ params["state"] + params["bias"][None]
        i, f, g, o = jnp.split(z, 4, axis=-1)
        new = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        h = jnp.where(live, jax.nn.sigmoid(o) * jnp.tanh(new), h)
        return (jnp.where(live, new, c), h), h

    places = jnp.swapaxes(x, 0, 1), jnp.swapaxes(mask, 0, 1)[..., None]
    start = jnp.zeros((B, H))
    return jnp.swapaxes(jax.lax.scan(step, (start, start), places, reverse=reverse)[1], 0, 1)


@pytest.mark.parametrize("reverse", [False, True])
def test_lstm_is_the_textbook_loop(reverse: bool) -> None:
    out = jax.jit(lstm, static_argnums=3)(PARAMS, X, MASK, reverse)
    np.testing.assert_allclose(out, loop(PARAMS, X, MASK, reverse), atol=2e-6)


@pytest.mark.parametrize("reverse", [False, True])
def test_first_and_second_derivatives_are_those_of_plain_operations(reverse: bool) -> None:
    weights = jax.random.normal(KEYS[2], (B, L, H))

    def loss(run: Any) -> Any:
        return lambda params, x: (jnp.sin(run(params, x, MASK, reverse)) * weights).sum()

    def bent(run: Any) -> Any:
        """A gradient's squared norm, whose gradient is of second order."""
        grad = jax.grad(loss(run), argnums=(0, 1))
        square = lambda params, x: sum(  # noqa: E731
            jnp.square(leaf).sum() for leaf in jax.tree.leaves(grad(params, x))
        )
        return jax.jit(lambda *a: (grad(*a), jax.grad(square, argnums=(0, 1))(*a)))

    ours, theirs = bent(lstm)(PARAMS, X), bent(by_scan)(PARAMS, X)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=3e-5, rtol=3e-5), ours, theirs)
    assert not np.any(ours[0][1][~np.asarray(MASK)])  # What is masked has no gradient.


def test_rows_of_cotangents_map() -> None:
    """The engine pulls several tasks' cotangents back at once."""
    many = jax.random.normal(KEYS[3], (2, B, L, H))

    def pull(params: Any, cotangent: Any) -> Any:
        return jax.vjp(lambda p: lstm(p, X, MASK), params)[1](cotangent)[0]

    both = jax.jit(jax.vmap(pull, in_axes=(None, 0)))(PARAMS, many)
    single = jax.jit(pull)(PARAMS, many[1])
    np.testing.assert_allclose(both["state"][1], single["state"], atol=1e-5)


def test_masked_places_repeat_the_state() -> None:
    out = np.asarray(lstm(PARAMS, X, MASK))
    np.testing.assert_array_equal(out[1, 3:], np.broadcast_to(out[1, 2], (3, H)))
    np.testing.assert_array_equal(out[2, 0], 0)
    np.testing.assert_array_equal(out[2, 2], out[2, 1])
    np.testing.assert_array_equal(out[3], 0)


def test_first_parameters() -> None:
    params = init_lstm(KEYS[4], D, H)
    np.testing.assert_array_equal(params["bias"], np.repeat([0.0, 1.0, 0.0, 0.0], H))
    for gate in np.split(np.asarray(params["state"]), 4, axis=1):
        np.testing.assert_allclose(gate @ gate.T, np.eye(H), atol=1e-5)


def test_reverse_is_the_mirror() -> None:
    mirrored = lstm(PARAMS, X[:, ::-1], MASK[:, ::-1])[:, ::-1]
    np.testing.assert_allclose(lstm(PARAMS, X, MASK, reverse=True), mirrored, atol=1e-6)


TRANSFORMER = moved(init_transformer(KEYS[5], 8, 2, length=L + 2))
BILSTM = moved(init_bilstm(KEYS[5], 8, H))
POOL = moved(init_attention_pool(KEYS[6], 8, 4))


@pytest.mark.parametrize("kind", ["bilstm", "transformer", "sinusoids", "pool"])
def test_padding_changes_nothing(kind: str) -> None:
    """Neither more of it behind the text nor what stands there."""
    x = jax.random.normal(KEYS[7], (B, L, 8))
    mask = jnp.arange(L)[None] < jnp.array([6, 3, 1, 0])[:, None]
    wide = jnp.concatenate([jnp.where(mask[..., None], x, 7.0), jnp.full((B, 2, 8), -9.0)], axis=1)
    wide_mask = jnp.pad(mask, ((0, 0), (0, 2)))

    def run(x: Any, mask: Any) -> Any:
        if kind == "bilstm":
            return jnp.where(mask[..., None], bilstm(BILSTM, x, mask), 0)
        if kind == "pool":
            return attention_pool(POOL, x, mask)[0][:, None]
        params = dict(TRANSFORMER)
        if kind == "sinusoids":
            del params["positions"]
        return transformer(params, x, mask, heads=2)

    short, long = run(x, mask), run(wide, wide_mask)
    np.testing.assert_allclose(short, long[:, : short.shape[1]], atol=2e-6)
    assert not np.any(long[3])
    grad = jax.grad(lambda x: jnp.square(run(x, wide_mask)).sum())(wide)
    assert np.isfinite(grad).all()
    assert not np.any(grad[~np.asarray(wide_mask)])
    assert np.any(grad[0])


def test_transformer_heeds_order_and_bilstm_both_sides() -> None:
    x = jax.random.normal(KEYS[7], (1, L, 8))
    mask = jnp.ones((1, L), bool)
    swapped = x[:, jnp.array([1, 0, 2, 3, 4, 5])]
    first, second = (transformer(TRANSFORMER, each, mask, 2)[:, 5] for each in (x, swapped))
    assert np.abs(first - second).max() > 1e-3
    grad = jax.grad(lambda x: bilstm(BILSTM, x, mask)[0, 2].sum())(x)
    assert (np.abs(grad[0]).max(1) > 1e-5).all()


def test_transformer_refuses_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match="3 heads"):
        transformer(TRANSFORMER, jnp.zeros((1, L, 8)), jnp.ones((1, L)), 3)
    with pytest.raises(ValueError, match="up to 8"):
        transformer(TRANSFORMER, jnp.zeros((1, L + 3, 8)), jnp.ones((1, L + 3)), 2)


def test_sinusoids_tell_distance() -> None:
    """The product of two positions depends on how far apart they are, and on nothing else."""
    product = np.asarray(sinusoids(20, 16) @ sinusoids(20, 16).T)
    for far in range(5):
        np.testing.assert_allclose(np.diag(product, far), product[0, far], atol=1e-4)


def test_attention_pool_is_a_softmax_over_valid_places() -> None:
    x = jax.random.normal(KEYS[7], (B, L, 8))
    pooled, weights = attention_pool(POOL, x, MASK)
    kernel, bias = (np.asarray(POOL["hidden"][name], np.float64) for name in ("kernel", "bias"))
    hidden = np.tanh(np.asarray(x, np.float64) @ kernel + bias)
    raw = np.exp(hidden @ np.asarray(POOL["query"], np.float64)) * np.asarray(MASK)
    expected = raw / np.maximum(raw.sum(1, keepdims=True), 1e-300)
    np.testing.assert_allclose(weights, expected, atol=1e-6)
    np.testing.assert_allclose(pooled, np.einsum("bl,bld->bd", expected, x), atol=1e-5)
    np.testing.assert_array_equal(weights[3], 0)

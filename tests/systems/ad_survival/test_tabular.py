"""The tabular encoder against numpy in float64; rows of tables; unknown numbers."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtl_jax.systems.ad_survival.tabular import (
    TabularSetting,
    embedding_size,
    encode_tabular,
    init_tabular,
)

SETTING = TabularSetting(numbers=3, levels=(4, 0), hidden=5, out=2, rate=0.5)


def columns(rows=6, seed=0):
    rng = np.random.default_rng(seed)
    numbers = rng.normal(size=(rows, 3)).astype(np.float32)
    missing = (rng.random((rows, 3)) < 0.4).astype(np.float32)
    codes = np.stack([rng.integers(-1, 6, rows), rng.integers(-1, 2, rows)], 1).astype(np.int32)
    return numbers, missing, codes


def gelu64(x):
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def test_encoder_is_that_of_its_definition():
    params = init_tabular(jax.random.key(0), SETTING)
    numbers, missing, codes = columns()
    p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    expected = []
    for n, m, c in zip(numbers, missing, codes, strict=True):
        first = {-1: 5, 0: 0, 1: 1, 2: 2, 3: 3}.get(int(c[0]), 4)
        second = 1 if c[1] == -1 else 0
        x = np.concatenate([n * (1 - m), m, p["tables"][0][first], p["tables"][1][second]])
        hidden = gelu64(x @ p["hidden"]["kernel"] + p["hidden"]["bias"])
        expected.append(hidden @ p["out"]["kernel"] + p["out"]["bias"])
    found = encode_tabular(params, numbers, missing, codes, SETTING)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_an_unknown_number_is_not_looked_at():
    params = init_tabular(jax.random.key(0), SETTING)
    numbers, missing, codes = columns()
    holes = np.where(missing > 0, np.nan, numbers)

    def loss(params, numbers):
        return jnp.square(encode_tabular(params, numbers, missing, codes, SETTING)).sum()

    np.testing.assert_array_equal(loss(params, numbers), loss(params, holes))
    grads = jax.grad(loss, (0, 1))(params, holes)
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(grads))
    # That it is not known is seen, though.
    known = encode_tabular(params, 0 * numbers, 0 * missing, codes, SETTING)
    unknown = encode_tabular(params, 0 * numbers, 0 * missing + 1, codes, SETTING)
    assert float(jnp.abs(known - unknown).min()) > 0


def test_missing_rare_and_known_levels_are_three_things():
    params = init_tabular(jax.random.key(0), SETTING)
    codes = np.array([[-1, 0], [4, 0], [99, 0], [-7, 0], [2, 0]], np.int32)
    none = np.zeros((5, 3), np.float32)
    a, b, c, d, e = np.asarray(encode_tabular(params, none, none, codes, SETTING))
    np.testing.assert_array_equal(b, c)
    np.testing.assert_array_equal(b, d)
    for x, y in ((a, b), (b, e), (a, e)):
        assert np.abs(x - y).max() > 1e-4


def test_either_kind_of_column_may_be_absent():
    numbers, missing, codes = columns()
    none = np.zeros((6, 0), np.float32)
    for setting, inputs in (
        (SETTING._replace(levels=()), (numbers, missing, none.astype(np.int32))),
        (SETTING._replace(numbers=0), (none, none, codes)),
    ):
        params = init_tabular(jax.random.key(0), setting)
        assert encode_tabular(params, *inputs, setting).shape == (6, 2)
    with pytest.raises(ValueError, match="must be a column"):
        init_tabular(jax.random.key(0), TabularSetting())
    with pytest.raises(ValueError, match="do not fit"):
        encode_tabular(params, numbers, missing, codes, SETTING._replace(numbers=2))


def test_dropout_goes_with_the_key_of_the_example():
    params = init_tabular(jax.random.key(0), SETTING)
    inputs, keys = columns(), jax.random.split(jax.random.key(5), 6)
    order = np.array([2, 0, 5, 3, 1, 4])
    dropped = encode_tabular(params, *inputs, SETTING, keys)
    again = encode_tabular(params, *(each[order] for each in inputs), SETTING, keys[order])
    np.testing.assert_allclose(dropped[order], again, rtol=1e-5, atol=1e-6)
    plain = encode_tabular(params, *inputs, SETTING)
    assert float(jnp.abs(dropped - plain).max()) > 1e-3


def test_embeddings_grow_slowly_to_a_limit():
    # 1.6 * 12^0.56 = 6.43, 1.6 * 100^0.56 = 21.09.
    assert [embedding_size(k) for k in (0, 1, 12, 100, 10**6)] == [2, 2, 7, 22, 50]

"""Embeddings of words against their definition; encoders: padding, order, dropout, no text."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtl_jax.systems.ad_survival.text import (
    TextSetting,
    embed_ids,
    embed_words,
    encode_embedded,
    encode_text,
    init_tables,
    init_text,
)
from mtl_jax.systems.ad_survival.text_tables import UNSEEN, extend_tables, lookup_words, word_tables

WORDS = ("", "buy", "buying", "sell", "seller", "now", "広告", "停止")
TABLES = word_tables(WORDS, ngrams=(3, 4), most=5)
DIM = 6
KEYS = jax.random.split(jax.random.key(0), 6)
VECTORS = np.random.default_rng(0).normal(size=(len(WORDS), 3)).astype(np.float32)
IDS = jnp.array([[1, 2, 3, 4, 5], [7, 3, 0, 0, 0], [2, 0, 0, 0, 0], [0, 0, 0, 0, 0]])
KINDS = ("bilstm", "lstm", "transformer", "bag")


def setting(kind: Any, **changes: Any) -> TextSetting:
    return TextSetting(dim=DIM, hidden=4, out=3, kind=kind, heads=2, rate=0.5)._replace(**changes)


def filled(params: Any) -> Any:
    """Nothing is zero, so that rows that must not be read would show."""
    return jax.tree.map(lambda leaf: leaf + 0.5, params)


@pytest.mark.parametrize("pretrained", [False, True])
def test_a_word_is_its_row_and_the_mean_of_its_ngrams(pretrained: bool) -> None:
    params = filled(init_tables(KEYS[0], TABLES, DIM, 3 if pretrained else 0))
    vectors = VECTORS if pretrained else None
    out = np.asarray(jax.jit(embed_words)(params, TABLES, vectors))
    word, ngram = (np.asarray(params[name], np.float64) for name in ("word", "ngram"))
    for place in range(1, len(WORDS)):
        rows = TABLES.ngram[place, : TABLES.count[place]]
        expected = word[TABLES.word[place]] + ngram[rows].mean(0)
        if pretrained:
            expected += VECTORS[place] @ np.asarray(params["vectors"], np.float64)
        np.testing.assert_allclose(out[place], expected, atol=1e-5)
    np.testing.assert_array_equal(out[0], 0)
    picked = jax.jit(embed_ids)(params, TABLES, IDS, vectors)
    np.testing.assert_allclose(picked, out[np.asarray(IDS)], atol=1e-6)


def test_padding_has_no_gradient_and_every_other_row_one() -> None:
    params = init_tables(KEYS[0], TABLES, DIM, 3)

    def loss(params: Any, vectors: Any) -> Any:
        return jnp.sin(embed_words(params, TABLES, vectors)).sum()

    grads, frozen = jax.grad(loss, argnums=(0, 1))(params, VECTORS)
    for name in ("word", "ngram"):
        touched = np.abs(grads[name]).max(1) > 0
        assert not touched[: UNSEEN + 1].any()
        assert touched[UNSEEN + 1 :].all()
    assert np.abs(grads["vectors"]).max() > 0
    assert not np.any(frozen)


def test_first_tables() -> None:
    tables = word_tables(["", *(f"word{k}" for k in range(400))])
    params = init_tables(KEYS[1], tables, 16)
    for name, rows in (("word", tables.word_rows), ("ngram", tables.ngram_rows)):
        assert params[name].shape == (rows, 16)
        assert not np.any(params[name][: UNSEEN + 1])
        np.testing.assert_allclose(np.square(params[name]).sum(1)[2:].mean(), 1, rtol=0.1)


def test_vectors_and_their_map_go_together() -> None:
    with pytest.raises(ValueError, match="go together"):
        embed_words(init_tables(KEYS[0], TABLES, DIM), TABLES, VECTORS)
    with pytest.raises(ValueError, match="go together"):
        embed_words(init_tables(KEYS[0], TABLES, DIM, 3), TABLES)


def test_new_words_take_what_is_known_of_them() -> None:
    params = init_tables(KEYS[0], TABLES, DIM)
    longer = extend_tables(TABLES, ["sells", "qqqq", "NOW"])
    out = np.asarray(embed_words(params, longer))
    np.testing.assert_array_equal(out[: len(WORDS)], embed_words(params, TABLES))
    new = lookup_words(TABLES, ["sells"])
    known = new.ngram[0][new.ngram[0] > UNSEEN]
    assert len(known)
    expected = np.asarray(params["ngram"])[known].sum(0) / new.count[0]
    np.testing.assert_allclose(out[-3], expected, atol=1e-6)
    np.testing.assert_array_equal(out[-2], 0)  # Nothing is known of it.
    np.testing.assert_allclose(out[-1], out[WORDS.index("now")], atol=1e-7)


def encoder(kind: Any, length: int | None = None, **changes: Any) -> tuple[Any, Any, TextSetting]:
    one = setting(kind, **changes)
    words = embed_words(init_tables(KEYS[0], TABLES, DIM), TABLES)
    return filled(init_text(KEYS[2], one, length)), words, one


@pytest.mark.parametrize("kind", KINDS)
def test_texts(kind: str) -> None:
    """Padding changes nothing, weights are shares, no text is 0, and gradients are finite."""
    params, words, one = encoder(kind, layers=2)
    run = jax.jit(encode_text, static_argnums=3)
    out, weights = run(params, words, IDS, one)
    assert out.shape == (4, 3)
    wide = jnp.pad(IDS, ((0, 0), (0, 3)))
    np.testing.assert_allclose(out, run(params, words, wide, one)[0], atol=2e-5)
    np.testing.assert_array_equal(np.asarray(weights) > 0, np.asarray(IDS) > 0)
    np.testing.assert_allclose(np.asarray(weights).sum(1), [1, 1, 1, 0], atol=1e-6)
    np.testing.assert_array_equal(out[3], 0)
    x, mask = words[IDS], (IDS > 0).astype(jnp.float32)
    np.testing.assert_allclose(encode_embedded(params, x, mask, one)[0], out, atol=2e-5)

    def loss(params: Any, words: Any) -> Any:
        return jnp.square(encode_text(params, words, IDS, one)[0]).sum()

    grads, of_words = jax.jit(jax.grad(loss, argnums=(0, 1)))(params, words)
    for leaf in jax.tree.leaves(grads):
        assert np.isfinite(leaf).all()
    assert not np.any(of_words[0])
    assert not np.any(of_words[6])  # No text has this word.
    assert np.abs(of_words[1:6]).max(1).all()


@pytest.mark.parametrize("kind", KINDS)
def test_order_matters_except_to_the_bag(kind: str) -> None:
    params, words, one = encoder(kind)
    ids = jnp.array([[1, 3, 5, 2], [3, 1, 5, 2]])
    out = np.asarray(encode_text(params, words, ids, one)[0])
    far = np.abs(out[0] - out[1]).max()
    assert far < 1e-6 if kind == "bag" else far > 1e-5


@pytest.mark.parametrize("kind", ["bilstm", "transformer"])
def test_dropout_follows_the_examples_own_keys(kind: str) -> None:
    params, words, one = encoder(kind)
    ids = jnp.tile(IDS[:1], (3, 1))
    keys = jax.random.split(KEYS[4], 3)
    run = jax.jit(encode_text, static_argnums=3)
    out, _ = run(params, words, ids, one, keys)
    alone, _ = run(params, words, ids[1:2], one, keys[1:2])
    np.testing.assert_allclose(out[1], alone[0], atol=2e-5)
    assert np.abs(out[0] - out[1]).max() > 1e-4
    still, _ = run(params, words, ids, one._replace(rate=0.0), keys)
    np.testing.assert_allclose(still, encode_text(params, words, ids, one)[0], atol=2e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layers", [1, 3])
def test_sites_are_apart_and_as_many_as_promised(
    kind: str, layers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    used: list[int] = []

    def note(x: Any, keys: Any, rate: float, site: int) -> Any:
        used.append(site)
        return x

    for module in ("text", "sequence"):
        monkeypatch.setattr(f"mtl_jax.systems.ad_survival.{module}.dropout", note)
    params, words, one = encoder(kind, layers=layers)
    encode_text(params, words, IDS, one, site=10)
    assert len(set(used)) == len(used) >= 2
    assert min(used) >= 10
    assert max(used) < 10 + one.sites


def test_learned_positions_take_the_longest_text() -> None:
    params, words, one = encoder("transformer", length=5)
    assert params["encoder"]["positions"].shape == (5, 4)
    assert encode_text(params, words, IDS, one)[0].shape == (4, 3)
    with pytest.raises(ValueError, match="up to 5"):
        encode_text(params, words, jnp.pad(IDS, ((0, 0), (0, 1))), one)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_negator_is_learnt_where_order_is_seen(kind: str) -> None:
    """The label is whether "buy" stands right behind "now" or "sell" does: a question of order."""
    import optax

    rng = np.random.default_rng(0)
    ids = rng.permuted(np.tile([1, 3, 5, 6], (512, 1)), axis=1)
    at = np.argmax(ids == 5, axis=1)
    behind = np.append(ids, np.zeros((512, 1), int), axis=1)[np.arange(512), at + 1]
    ids, label = ids[(behind == 1) | (behind == 3)], (behind == 1)[(behind == 1) | (behind == 3)]
    one = TextSetting(dim=16, hidden=16, out=1, kind=kind, rate=0.0)
    params = {"words": init_tables(KEYS[0], TABLES, 16), "text": init_text(KEYS[1], one)}
    optimiser = optax.adam(1e-2)

    def loss(params: Any) -> Any:
        words = embed_words(params["words"], TABLES)
        logits = encode_text(params["text"], words, jnp.asarray(ids), one)[0][:, 0]
        right = jnp.mean((logits > 0) == label)
        return optax.sigmoid_binary_cross_entropy(logits, jnp.asarray(label, float)).mean(), right

    @jax.jit
    def step(params: Any, state: Any) -> Any:
        (_, right), grads = jax.value_and_grad(loss, has_aux=True)(params)
        updates, state = optimiser.update(grads, state)
        return optax.apply_updates(params, updates), state, right

    state, right = optimiser.init(params), jnp.zeros(())
    for _ in range(150):
        params, state, right = step(params, state)
    assert right < 0.65 if kind == "bag" else right > 0.97

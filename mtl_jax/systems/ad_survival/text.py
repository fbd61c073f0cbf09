"""The text encoder: hashed embeddings of words, a network over a text's words, attention pooling.

Titles and descriptions share one set of embeddings (`init_tables`); each has an encoder of its own
(`init_text`). The paper's text encoder is an LSTM (JSAI 2020) over pretrained Japanese word
vectors; that of its ancestor (KDD 2019) ends in additive attention. Hashed words with character
n-grams, the bidirectional default, the widths and the other kinds are ours: they need no download
and no dictionary. Pretrained vectors of words are an optional input (`word_vectors`).

A word's vector is its own row plus the mean of the rows of its n-grams, plus a learned linear map
of its pretrained vector where there is one. It is made for the whole list of words once a step
(`embed_words`); beyond some 50,000 words, or a list far longer than a batch, `embed_ids` makes the
same vectors for the words of a batch only.

Shapes: V words, G n-grams a word, B examples, L places, d the width of a word's vector.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from mtl_jax.layers.dropout import dropout
from mtl_jax.layers.embedding import PAD, init_table
from mtl_jax.layers.nets import dense, init_dense
from mtl_jax.systems.ad_survival.sequence import (
    attention_pool,
    bilstm,
    init_attention_pool,
    init_bilstm,
    init_lstm,
    init_transformer,
    lstm,
    transformer,
)
from mtl_jax.systems.ad_survival.text_tables import UNSEEN, WordTables

Array = jax.Array
Tree = Any
Kind = Literal["bilstm", "lstm", "transformer", "bag"]

_kernel = nn.initializers.glorot_uniform()


class TextSetting(NamedTuple):
    """What an encoder of texts is made of.

    Attributes:
      dim: d.
      hidden: units of an LSTM (each direction), or width of the transformer.
      out: width of what comes out.
      kind: bilstm, lstm (the paper's), transformer, or bag (the mean of the words, for which order
        does not matter).
      layers: of LSTMs or of the transformer.
      heads: of the transformer, a divisor of `hidden`.
      rate: of dropout, of words' vectors, between layers and of the pooled text.
    """

    dim: int = 64
    hidden: int = 64
    out: int = 64
    kind: Kind = "bilstm"
    layers: int = 1
    heads: int = 4
    rate: float = 0.2

    @property
    def sites(self) -> int:
        """Dropout sites of a text: the next one may begin this far behind `site`."""
        return 2 + 2 * self.layers


def init_tables(key: Array, tables: WordTables, dim: int, vectors: int = 0) -> dict[str, Array]:
    """Returns the embeddings that all texts share.

    Args:
      key: to draw them.
      tables: of `text_tables`.
      dim: d.
      vectors: width of pretrained vectors; 0 for none.

    Returns:
      {"word" [word_rows, d], "ngram" [ngram_rows, d]} of variance 1 / d, rows `PAD` and `UNSEEN`
      zero; with pretrained vectors also "vectors" [vectors, d].
    """
    a, b, c = jax.random.split(key, 3)
    params = {
        name: init_table(k, rows, dim, dim**-0.5).at[UNSEEN].set(0)
        for name, k, rows in (("word", a, tables.word_rows), ("ngram", b, tables.ngram_rows))
    }
    if vectors:
        params["vectors"] = _kernel(c, (vectors, dim))
    return params


def embed_words(params: Tree, tables: WordTables, vectors: Array | None = None) -> Array:
    """Returns the vectors [V, d] of all words of `tables`; that of "" is 0.

    Args:
      params: of `init_tables`.
      tables: of the words; arrays of the host or of the device.
      vectors: [V, d'] pretrained, of `word_vectors.vectors_for`; they are not trained.
    """
    return _embed(params, tables.word, tables.ngram, tables.count, vectors)


def embed_ids(params: Tree, tables: WordTables, ids: Array, vectors: Array | None = None) -> Array:
    """Returns embed_words(params, tables, vectors)[ids], [..., d], without the other words."""
    word, ngram, count = (jnp.asarray(each)[ids] for each in tables[:3])
    own = None if vectors is None else jnp.asarray(vectors)[ids]
    return _embed(params, word, ngram, count, own)


def _embed(params: Tree, word: Any, ngram: Any, count: Any, vectors: Array | None) -> Array:
    parts = _take(params["ngram"], jnp.asarray(ngram)).sum(-2)
    share = 1 / jnp.maximum(jnp.asarray(count), 1).astype(parts.dtype)
    out = _take(params["word"], jnp.asarray(word)) + parts * share[..., None]
    if (vectors is None) == ("vectors" in params):
        raise ValueError("pretrained vectors and init_tables(vectors=...) go together")
    if vectors is None:
        return out
    # The word "" has no vector, whatever the file said.
    valid = (jnp.asarray(word) != PAD)[..., None]
    fixed = jax.lax.stop_gradient(jnp.where(valid, vectors, 0))
    return out + fixed.astype(out.dtype) @ params["vectors"]


def _take(table: Array, rows: Array) -> Array:
    """Rows of a table; zeros, without a gradient, for row 0 and outside of it."""
    at = jnp.where(rows == PAD, table.shape[0], rows)
    return table.at[at].get(mode="fill", fill_value=0, wrap_negative_indices=False)


def init_text(key: Array, setting: TextSetting, length: int | None = None) -> Tree:
    """Returns the parameters of one text's encoder.

    Args:
      key: to draw them.
      setting: see `TextSetting`.
      length: L, to learn the transformer's positions; None for sinusoids.
    """
    keys = jax.random.split(key, setting.layers + 4)
    hidden, params = setting.hidden, {}
    width = setting.dim
    if setting.kind in ("lstm", "bilstm"):
        init = init_bilstm if setting.kind == "bilstm" else init_lstm
        ways = 2 if setting.kind == "bilstm" else 1
        widths = [width] + [ways * hidden] * setting.layers
        params["layers"] = [
            init(k, inputs, hidden) for k, inputs in zip(keys[4:], widths[:-1], strict=True)
        ]
        width = widths[-1]
    elif setting.kind == "transformer":
        params["inputs"] = init_dense(keys[0], width, hidden)
        params["encoder"] = init_transformer(keys[1], hidden, setting.layers, length)
        width = hidden
    if setting.kind != "bag":
        params["pool"] = init_attention_pool(keys[3], width, hidden)
    params["out"] = init_dense(keys[2], width, setting.out)
    return params


def encode_text(
    params: Tree,
    words: Array,
    ids: Array,
    setting: TextSetting,
    keys: Array | None = None,
    site: int = 0,
) -> tuple[Array, Array]:
    """Encodes texts given as places in a list of words.

    Args:
      params: of `init_text`.
      words: [V, d] of `embed_words`.
      ids: [B, L], 0 for padding.
      setting: see `TextSetting`.
      keys: one an example for dropout; None for evaluation.
      site: number of the first dropout; the text takes `setting.sites`.

    Returns:
      ([B, out], [B, L] weights of the words in the pooling, which add to 1). Both are 0 for a row
      without a text.
    """
    return encode_embedded(params, _take(words, ids), ids != PAD, setting, keys, site)


def encode_embedded(
    params: Tree,
    x: Array,
    mask: Array,
    setting: TextSetting,
    keys: Array | None = None,
    site: int = 0,
) -> tuple[Array, Array]:
    """Encodes vectors [B, L, d] of words (`embed_ids`) with a mask [B, L]: see `encode_text`."""
    h = dropout(x, keys, setting.rate, site)
    if setting.kind == "transformer":
        h = dense(params["inputs"], h)
        h = transformer(params["encoder"], h, mask, setting.heads, keys, setting.rate, site + 2)
    for number, layer in enumerate(params.get("layers", ())):
        if number:
            h = dropout(h, keys, setting.rate, site + 1 + number)
        h = bilstm(layer, h, mask) if setting.kind == "bilstm" else lstm(layer, h, mask)
    if setting.kind == "bag":
        valid = mask.astype(h.dtype)
        weights = valid / jnp.maximum(valid.sum(-1, keepdims=True), 1)
        pooled = (h * weights[..., None]).sum(1)
    else:
        pooled, weights = attention_pool(params["pool"], h, mask)
    out = dense(params["out"], dropout(pooled, keys, setting.rate, site + 1))
    # Without this the bias would be the text of a row that has none.
    return jnp.where((mask > 0).any(-1, keepdims=True), out, 0), weights

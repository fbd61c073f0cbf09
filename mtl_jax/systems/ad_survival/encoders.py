"""All kinds of input of a row as vectors: which encoder reads what, and what a row does not have.

A batch has, where the set has such columns and the run uses them,

    text/NAME [B, L] int32            places in the set's list of words
    image [B, H, W, 3] uint8, has_image [B]
    numbers, missing [B, K], codes [B, C]   see `preprocess.apply`
    history [B, D, F] float32, days [B, M]  features of the first days, how many are seen
    vectors/NAME [B, d] float32
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mtl_jax.layers.nets import dense, init_dense
from mtl_jax.layers.precision import like
from mtl_jax.systems.ad_survival.history import HistorySetting, encode_history, init_history
from mtl_jax.systems.ad_survival.image import ImageSetting, augment, encode_image, init_image
from mtl_jax.systems.ad_survival.tabular import TabularSetting, encode_tabular, init_tabular
from mtl_jax.systems.ad_survival.text import (
    TextSetting,
    embed_ids,
    embed_words,
    encode_embedded,
    encode_text,
    init_tables,
    init_text,
)
from mtl_jax.systems.ad_survival.text_tables import WordTables

Array = jax.Array
Tree = Any

# With more words than this only those of a batch are embedded in a step.
FEW_WORDS = 50_000
AUGMENT = 99  # site of the keys that move images


class Encoders(NamedTuple):
    """The encoders of one set; None and () for kinds of input that it does not have.

    Attributes:
      texts: names of the texts.
      text: of each of them.
      tables: the words' rows.
      word_vectors: [V, d] pretrained, not trained; None for none.
      image: of the image.
      move: pixels by which images are moved in training; 0 for never.
      categories: of the categories.
      numbers: of the numbers.
      totals: F, features of a day, whose second half are totals so far; 0 for none.
      history: of the days.
      vectors: (name, d) of vectors computed elsewhere.
      out: numbers that each kind brings along.
    """

    texts: tuple[str, ...]
    text: TextSetting | None
    tables: WordTables | None
    word_vectors: Any
    image: ImageSetting | None
    move: int
    categories: TabularSetting | None
    numbers: TabularSetting | None
    totals: int
    history: HistorySetting | None
    vectors: tuple[tuple[str, int], ...]
    out: int

    @property
    def sizes(self) -> dict[str, int]:
        """How many numbers each kind brings to the trunk, in order."""
        found = {f"text/{name}": self.out for name in self.texts}
        kinds = {
            "image": self.image,
            "categories": self.categories,
            "numbers": self.numbers,
            "totals": self.totals,
            "history": self.history,
        }
        found |= {kind: self.out for kind, setting in kinds.items() if setting}
        return found | {f"vectors/{name}": self.out for name, _ in self.vectors}


def init_encoders(key: Array, setting: Encoders) -> Tree:
    """Returns the parameters, {kind: ...} and {"words": the tables that texts share}."""
    keys = iter(jax.random.split(key, 8 + 2 * len(setting.texts) + len(setting.vectors)))
    params: dict[str, Any] = {}
    if setting.text is not None and setting.tables is not None:
        width = 0 if setting.word_vectors is None else setting.word_vectors.shape[1]
        params["words"] = init_tables(next(keys), setting.tables, setting.text.dim, width)
        for name in setting.texts:
            params[f"text/{name}"] = init_text(next(keys), setting.text)
    if setting.image is not None:
        params["image"] = init_image(next(keys), setting.image)
    if setting.categories is not None:
        params["categories"] = init_tabular(next(keys), setting.categories)
    if setting.numbers is not None:
        params["numbers"] = init_tabular(next(keys), setting.numbers)
    if setting.totals:
        params["totals"] = init_dense(next(keys), setting.totals, setting.out)
    if setting.history is not None:
        params["history"] = init_history(next(keys), setting.history)
    for name, width in setting.vectors:
        params[f"vectors/{name}"] = init_dense(next(keys), width, setting.out)
    return params


def encode(
    params: Tree, setting: Encoders, batch: Tree, keys: Array | None = None
) -> tuple[dict[str, Array], dict[str, Array], dict[str, Array]]:
    """Encodes all inputs of a batch.

    Args:
      params: of `init_encoders`.
      setting: see `Encoders`.
      batch: see the module.
      keys: one an example for dropout and moved images; None for evaluation.

    Returns:
      ({kind: [B, out], or [B, M, out] for what depends on the time of prediction},
       {kind: [B] or [B, M], above 0 where the row has it},
       {"attention/NAME": [B, L] weights of the words of a text}).
    """
    found: dict[str, Array] = {}
    present: dict[str, Array] = {}
    looked: dict[str, Array] = {}
    site = 0
    if setting.text is not None and setting.tables is not None:
        many = len(setting.tables.word) > FEW_WORDS
        shared = (params["words"], setting.tables)
        words = None if many else embed_words(*shared, setting.word_vectors)
        for name in setting.texts:
            kind, ids = f"text/{name}", batch[f"text/{name}"]
            own = params[kind]
            if words is None:
                x = embed_ids(*shared, ids, setting.word_vectors)
                out = encode_embedded(own, x, ids > 0, setting.text, keys, site)
            else:
                out = encode_text(own, words, ids, setting.text, keys, site)
            found[kind], looked[f"attention/{name}"] = out
            present[kind] = (ids > 0).any(-1)
            site += setting.text.sites
    if setting.image is not None:
        image = batch["image"]
        if keys is not None and setting.move:
            own = jax.vmap(jax.random.fold_in, (0, None))(keys, AUGMENT)
            image = jax.vmap(lambda key, one: augment(key, one, setting.move))(own, image)
        found["image"] = encode_image(params["image"], image, setting.image, keys, site)
        present["image"] = batch["has_image"]
    everyone = jnp.ones(len(batch["days"]), bool)
    none = jnp.zeros((len(everyone), 0))
    if setting.categories is not None:
        own = (none, none, batch["codes"], setting.categories, keys, site + 1)
        found["categories"] = encode_tabular(params["categories"], *own)
        present["categories"] = everyone
    if setting.numbers is not None:
        own = (batch["numbers"], batch["missing"], none.astype(jnp.int32), setting.numbers)
        found["numbers"] = encode_tabular(params["numbers"], *own, keys, site + 2)
        present["numbers"] = everyone
    if setting.totals:
        last = jnp.clip(batch["days"] - 1, 0, batch["history"].shape[1] - 1)[..., None]
        sums = batch["history"][..., -setting.totals :]
        sums = jnp.take_along_axis(sums, last, axis=1)
        found["totals"] = dense(params["totals"], like(sums, params["totals"]))
        present["totals"] = batch["days"] > 0
    if setting.history is not None:
        own = (batch["history"], batch["days"], setting.history, keys, site + 3)
        found["history"] = encode_history(params["history"], *own)
        present["history"] = batch["days"] > 0
    for name, _ in setting.vectors:
        kind = f"vectors/{name}"
        found[kind] = dense(params[kind], like(batch[kind], params[kind]))
        present[kind] = (batch[kind] != 0).any(-1)
    order = setting.sizes
    return {kind: found[kind] for kind in order}, {kind: present[kind] for kind in order}, looked

"""From a config to the survival network with its data."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np

from mtl_jax.data.lifetimes import LifetimeSet
from mtl_jax.data.lifetimes_io import load_lifetimes
from mtl_jax.engine import parallel
from mtl_jax.errors import UserError, did_you_mean
from mtl_jax.systems.ad_survival.config import FILES, INPUTS, Config, DataConfig, ModelConfig
from mtl_jax.systems.ad_survival.data import columns_of, gather, loss_weights, split_of
from mtl_jax.systems.ad_survival.encoders import Encoders
from mtl_jax.systems.ad_survival.history import HistorySetting
from mtl_jax.systems.ad_survival.image import ImageSetting
from mtl_jax.systems.ad_survival.model import Network, make_system
from mtl_jax.systems.ad_survival.preprocess import Fitted, apply, fit
from mtl_jax.systems.ad_survival.tabular import TabularSetting
from mtl_jax.systems.ad_survival.terms import make_targets
from mtl_jax.systems.ad_survival.text import TextSetting
from mtl_jax.systems.ad_survival.text_tables import WordTables, word_tables
from mtl_jax.systems.ad_survival.word_vectors import vectors_for
from mtl_jax.systems.base import Data, System
from mtl_jax.systems.row_data import row_data


class Prepared(NamedTuple):
    """A set as a run sees it.

    Attributes:
      found: the set, without what the config leaves out.
      splits: row numbers of each split.
      fitted: preprocessing, of the training rows.
      words: rows of the set's words in the tables; None without texts.
      word_vectors: [V, d] pretrained; None for none.
      days: days of history that are ever looked at.
    """

    found: LifetimeSet
    splits: Any
    fitted: Fitted
    words: WordTables | None
    word_vectors: np.ndarray | None
    days: int


def build(config: Config) -> tuple[System, Data]:
    """Checks the config, loads its set, making it where it is missing, builds the system.

    Raises:
      UserError: what the user can mend; a wrong config before any data is touched.
    """
    config.check()
    ready = prepared(config.data, config.model.word_vectors)
    found = ready.found
    terms, views = config.terms, config.data.views
    targets = make_targets(found, terms, views, config.model.censoring)
    train = ready.splits["train"]
    for t, term in enumerate(terms):
        if not targets.event[train, t].any():
            later = views.conditional and max(views.days) > 0
            alive = f" alive at config.data.landmarks {views.days}" if later else ""
            raise UserError(
                f"{found.name}: no training row{alive} has an event in the {term.name} term's bins"
                f" {term.grid.edges}; choose config.data.short and config.data.long for its times"
                f"{', or earlier landmarks' if later else ''}"
            )
    # Of the whole history: `prepared` leaves none where no view looks at a day.
    weights = loss_weights(load(config.data), views, train, config.weights)
    columns = columns_of(found, inputs_of(ready), targets, views, weights)
    data = row_data(
        columns,
        ready.splits,
        gather,
        batch_size=config.train.batch_size,
        eval_batch_size=config.data.eval_batch_size,
        seed=config.seed,
        shard=parallel.process_index(),
        shards=parallel.process_count(),
        resident=config.data.resident,
    )
    return make_system(make_network(ready, config)), data


def make_network(ready: Prepared, config: Config) -> Network:
    """Builds the network of a set."""
    model, data, share = config.model, config.data, config.weights.share
    return Network(
        make_encoders(ready, data, model),
        model.trunk,
        model.dropout,
        model.modality_dropout,
        model.head,
        len(ready.found.causes),
        config.terms,
        data.views.days,
        (2 * share, 2 - 2 * share) if model.terms == "two" else (1.0,),
        model.coherence,
        model.share,
    )


@functools.lru_cache(maxsize=1)  # the report and the scores read it again
def load(data: DataConfig) -> LifetimeSet:
    """Loads the set that a config names, without the columns that it leaves out."""
    folder = data.data_dir or None
    if data.name in FILES:
        from mtl_jax.data.survival.table_loading import load_file

        found = load_file(data.name, data.path, data.table, folder, snapshot=data.snapshot)
    else:
        found = load_lifetimes(data.name, folder, data.manual_dir or None)
    return without(found, data.drop)


def without(found: LifetimeSet, names: tuple[str, ...]) -> LifetimeSet:
    """Returns the set without some columns.

    Raises:
      UserError: a column that the set does not have.
    """
    lists = {
        "numbers": found.numbers,
        "categories": found.categories,
        "texts": found.texts,
    }
    known = [column.name for columns in lists.values() for column in columns]
    known += list(found.vectors)
    for name in names:
        if name not in known:
            raise UserError(f"config.data.drop has {name!r}; {did_you_mean(name, known)}")
    left: dict[str, Any] = {
        kind: tuple(column for column in columns if column.name not in names)
        for kind, columns in lists.items()
    }
    left["vectors"] = {name: v for name, v in found.vectors.items() if name not in names}
    return found._replace(**left)


@functools.lru_cache(maxsize=1)
def prepared(data: DataConfig, word_vectors: str = "") -> Prepared:
    """Returns the set of a config and what is fitted to its training rows.

    Args:
      data: the config.
      word_vectors: file of pretrained vectors of words; "" for none.

    Raises:
      UserError: a kind of input that the set does not have.
    """
    found = only_inputs(load(data), data.inputs)
    splits = split_of(found, data.split)
    days = int(min(max(data.views.days), found.history.shape[1]))
    if not days:
        found = found._replace(history_names=(), history=found.history[:, :0, :0])
    fitted = fit(found, splits["train"], data.min_count, days or None)
    words = word_tables(found.words) if found.texts else None
    vectors = None
    if words is not None and word_vectors:
        vectors, _ = vectors_for(found.words, word_vectors)
    return Prepared(found, splits, fitted, words, vectors, days)


def only_inputs(found: LifetimeSet, kinds: tuple[str, ...]) -> LifetimeSet:
    """Returns the set with some kinds of input only; () for all.

    Raises:
      UserError: a kind that the set does not have.
    """
    there = {
        "text": bool(found.texts),
        "image": bool(found.image.shape[1]),
        "categories": bool(found.categories),
        "numbers": bool(found.numbers),
        "totals": bool(found.history_names),
        "history": bool(found.history_names),
        "vectors": bool(found.vectors),
    }
    has = [kind for kind in INPUTS if there[kind]]
    for kind in kinds:
        if kind not in has:
            raise UserError(
                f"config.data.inputs has {kind}, but {found.name} has none; it has"
                f" {', '.join(has) or 'nothing to predict from'}"
            )
    if not has:
        raise UserError(
            f"{found.name} has nothing to predict from: no text, image, category, number, history"
            " or vector is left; drop fewer columns, or name more in config.data.table"
        )
    chosen = kinds or has
    if "text" not in chosen:
        found = found._replace(texts=())
    if "image" not in chosen:
        found = found._replace(image=found.image[:, :0, :0])
    if "categories" not in chosen:
        found = found._replace(categories=())
    if "numbers" not in chosen:
        found = found._replace(numbers=())
    if "vectors" not in chosen:
        found = found._replace(vectors={})
    return found


def inputs_of(ready: Prepared) -> dict[str, np.ndarray]:
    """Returns the arrays that the encoders read, a row for each lifetime."""
    found, made = ready.found, apply(ready.fitted, ready.found, ready.days or None)
    made.pop("history_days", None)
    for text in found.texts:
        made[f"text/{text.name}"] = text.words.astype(np.int32)
    if found.image.shape[1]:
        made["image"], made["has_image"] = found.image, found.has_image
    return {name: leaf for name, leaf in made.items() if leaf.size}


def make_encoders(ready: Prepared, data: DataConfig, model: ModelConfig) -> Encoders:
    """Builds the encoders of a set."""
    found, fitted = ready.found, ready.fitted
    rate, out = model.dropout, model.out
    levels = tuple(len(category.kept) for category in fitted.categories)
    features = len(fitted.history.mean) if fitted.history is not None else 0
    wanted = data.inputs or INPUTS
    return Encoders(
        texts=tuple(text.name for text in found.texts),
        text=TextSetting(model.text_dim, model.text_hidden, out, model.text, rate=rate)
        if found.texts
        else None,
        tables=ready.words,
        word_vectors=ready.word_vectors,
        image=ImageSetting(
            model.image_widths, model.image_blocks, model.image_stride, out=out, rate=rate
        )
        if found.image.shape[1]
        else None,
        move=model.augment,
        categories=TabularSetting(0, levels, out, out, rate) if levels else None,
        numbers=TabularSetting(len(fitted.numbers), (), out, out, rate) if fitted.numbers else None,
        totals=features // 2 if "totals" in wanted else 0,
        history=HistorySetting(features, model.history_hidden, out, rate=rate)
        if features and "history" in wanted
        else None,
        vectors=tuple((own.name, len(own.centre)) for own in fitted.vectors),
        out=out,
    )

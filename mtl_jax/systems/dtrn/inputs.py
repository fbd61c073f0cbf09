"""From ids to embeddings: fields of the impression, tokens of the histories.

Every column and item attribute has a table of `dim` numbers an id, and events are looked up in the
same tables as candidates. A batch has

    fields [B, F] int32      columns of the impression
    attributes [B, A, k]     the candidate's attributes, padded (missing where there is none)
    dense [B, N]             numbers, and the sizes of the histories where they are shown
    history [B, S, L]        ids, most recent last, 0 in front of a short history
    age [B, S, L]            time from the event to the impression, in the set's unit of time
    count [B, S, L]          how many equal events one stands for
    event_attributes [B, S, L, A, k]  of the events' items; missing where `embed_events` is given
                             those of all items
    time, labels, ...        not read here
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from mtl_jax.data.impressions import UNSEEN, ImpressionSet
from mtl_jax.layers.dropout import dropout
from mtl_jax.layers.embedding import init_table, lookup
from mtl_jax.layers.nets import dense, init_dense
from mtl_jax.layers.precision import like

Array = jax.Array
Tree = Any

# Ages and counts are looked up by the power of two that they reach.
AGES, COUNTS = 32, 8


class Spec(NamedTuple):
    """What the columns of a set are, and how wide their embeddings.

    Attributes:
      columns: (name, size) of each column.
      attributes: (name, size, k) of each item attribute.
      item: name of the item's column, or "".
      vocabularies: of the histories: the column whose ids each holds.
      histories: names of the behaviour types.
      numbers: how many dense inputs.
      times: whether all histories have times.
      dim: d.
      length: L.
      std: standard deviation of the first embeddings.
    """

    columns: tuple[tuple[str, int], ...]
    attributes: tuple[tuple[str, int, int], ...]
    item: str
    vocabularies: tuple[str, ...]
    histories: tuple[str, ...]
    numbers: int
    times: bool
    dim: int
    length: int
    std: float = 0.05

    @property
    def fields(self) -> tuple[str, ...]:
        """Names of the embeddings that are no interests."""
        names = [name for name, *_ in (*self.columns, *self.attributes)]
        return (*names, "dense") if self.numbers else tuple(names)


def spec_of(
    found: ImpressionSet, dim: int, length: int, std: float = 0.05, history_sizes: bool = False
) -> Spec:
    """Returns the description of a set, `history_sizes` as in `data.gather`."""
    return Spec(
        tuple((column.name, column.size) for column in found.columns),
        tuple((a.name, a.size, a.ids.shape[1]) for a in found.attributes),
        found.item,
        tuple(history.vocabulary for history in found.histories),
        tuple(history.name for history in found.histories),
        len(found.dense_names) + (len(found.histories) if history_sizes else 0),
        all(len(history.times) == len(history.ids) for history in found.histories),
        dim,
        length,
        std,
    )


def init_tables(key: Array, spec: Spec) -> Tree:
    """Returns {name: table [size, d]} of every column and attribute."""
    sizes = {name: size for name, size, *_ in (*spec.columns, *spec.attributes)}
    keys = jax.random.split(key, len(sizes))
    pairs = zip(sizes.items(), keys, strict=True)
    return {name: init_table(k, size, spec.dim, spec.std) for (name, size), k in pairs}


def init_inputs(key: Array, spec: Spec, width: int) -> Tree:
    """Returns the other parameters: of numbers, and of tokens of `width` numbers."""
    keys = iter(jax.random.split(key, 4 + len(spec.histories)))
    params: dict[str, Any] = {}
    if spec.numbers:
        params["dense"] = init_dense(next(keys), spec.numbers, spec.dim)
    if not spec.histories or not width:
        return params
    kernel = nn.initializers.glorot_uniform()
    for name in sorted(set(spec.vocabularies)):
        parts = 1 + (len(spec.attributes) if name == spec.item else 0)
        params[f"token_{name}"] = kernel(next(keys), (parts * spec.dim, width))
    small = nn.initializers.normal(0.05)
    params["count"] = small(next(keys), (COUNTS, width))
    if spec.times:
        params["rank"] = small(next(keys), (spec.length, width))
        params["age"] = small(next(keys), (AGES, width))
    params["same"] = jnp.zeros(width)
    return params


def table_ids(spec: Spec, batch: Tree) -> dict[str, dict[str, Array]]:
    """Returns every lookup of a batch: {table: {use: ids}}, see `systems.base.System`."""
    found: dict[str, dict[str, Array]] = {}
    for f, (name, _) in enumerate(spec.columns):
        found.setdefault(name, {})["field"] = batch["fields"][:, f]
    for a, (name, _, width) in enumerate(spec.attributes):
        found.setdefault(name, {})["candidate"] = batch["attributes"][:, a, :width]
        if "event_attributes" in batch:
            found[name]["events"] = batch["event_attributes"][:, :, :, a, :width]
    for name in sorted(set(spec.vocabularies)):
        own = [s for s, vocabulary in enumerate(spec.vocabularies) if vocabulary == name]
        found[name]["events"] = batch["history"][:, jnp.array(own)]
    return found


def _mean(vectors: Array, ids: Array) -> Array:
    """Returns the mean over valid ids: vectors [..., k, d], ids [..., k] to [..., d]."""
    count = jnp.maximum((ids != 0).sum(-1, keepdims=True), 1)
    return vectors.sum(-2) / count


def embed_fields(
    params: Tree, spec: Spec, batch: Tree, keys: Array | None = None, rate: float = 0.0
) -> Array:
    """Returns the embeddings of the impression, [B, F + A (+ 1 of the numbers), d].

    Args:
      params: has "tables" and "inputs".
      spec: of the set.
      batch: see the module.
      keys: one an example for dropout; None for evaluation.
      rate: of dropout.
    """
    ids = table_ids(spec, batch)
    found = [lookup(params, batch, n, "field", ids[n]["field"]) for n, _ in spec.columns]
    for name, *_ in spec.attributes:
        own = ids[name]["candidate"]
        found.append(_mean(lookup(params, batch, name, "candidate", own), own))
    if spec.numbers:
        own = params["inputs"]["dense"]
        found.append(dense(own, like(batch["dense"], own)))
    return dropout(jnp.stack(found, 1), keys, rate, 1)


def embed_events(
    params: Tree, spec: Spec, batch: Tree, items: Tree | None = None
) -> tuple[Array, Array, Array]:
    """Returns the tokens of the histories.

    Args:
      params: has "tables" and "inputs".
      spec: of the set.
      batch: see the module.
      items: attributes of all items, {name: [V, k]}, where the batch has none of its events: then
        a vector is made for each item once, which is cheaper as long as there are fewer items than
        events in a batch.

    Returns:
      ([S, B, L, D] tokens, [S, B, L] 1 for an event, 0 for padding, [S, B, D] the candidates in
      the same space).
    """
    inputs = params["inputs"]
    place = {name: f for f, (name, _) in enumerate(spec.columns)}
    tokens: dict[int, Array] = {}
    candidates: dict[int, Array] = {}
    for name in sorted(set(spec.vocabularies)):
        own = [s for s, vocabulary in enumerate(spec.vocabularies) if vocabulary == name]
        vectors, candidate = _vocabulary(params, spec, batch, items, name, own)
        for k, s in enumerate(own):
            tokens[s], candidates[s] = vectors[:, k], candidate
    x = jnp.stack([tokens[s] for s in range(len(spec.histories))])
    history = jnp.swapaxes(batch["history"], 0, 1)
    valid = (history != 0).astype(jnp.float32)
    met = jnp.stack([batch["fields"][:, place[name]] for name in spec.vocabularies])
    same = (history == met[..., None]) & (history > UNSEEN)
    x += jnp.where(same[..., None], inputs["same"].reshape(1, 1, 1, -1), 0)
    x += inputs["count"][_power(jnp.swapaxes(batch["count"], 0, 1), COUNTS)]
    if spec.times:
        x += inputs["age"][_power(jnp.swapaxes(batch["age"], 0, 1), AGES)]
        x += inputs["rank"][None, None]
    stacked = jnp.stack([candidates[s] for s in range(len(spec.histories))])
    return x * valid[..., None].astype(x.dtype), valid, stacked


def _vocabulary(
    params: Tree, spec: Spec, batch: Tree, items: Tree | None, name: str, own: list[int]
) -> tuple[Array, Array]:
    """The events [B, s, L, D] of the histories `own` of one vocabulary, the candidates [B, D]."""
    ids = table_ids(spec, batch)
    kernel, dim = params["inputs"][f"token_{name}"], spec.dim
    parts = spec.attributes if name == spec.item else ()
    rows, events = params["tables"][name], ids[name]["events"]
    candidate = lookup(params, batch, name, "field", ids[name]["field"]) @ kernel[:dim]
    by_item = items is not None and "event_attributes" not in batch
    if not parts:
        by_item = "slots" not in batch and rows.shape[0] <= events.size
    if by_item:
        vectors = rows.at[0].set(0) @ kernel[:dim]
    else:
        vectors = lookup(params, batch, name, "events", events) @ kernel[:dim]
    for a, (attribute, *_) in enumerate(parts):
        part = kernel[(1 + a) * dim : (2 + a) * dim]
        which = ids[attribute]["candidate"]
        candidate += _mean(lookup(params, batch, attribute, "candidate", which), which) @ part
        if by_item and items is not None:
            table = params["tables"][attribute].at[0].set(0)
            vectors += _mean(table[items[attribute]], items[attribute]) @ part
        else:
            which = ids[attribute]["events"][:, jnp.array(own)]
            vectors += _mean(lookup(params, batch, attribute, "events", which), which) @ part
    return vectors[events] if by_item else vectors, candidate


def _power(x: Array, size: int) -> Array:
    """Returns floor(log2(x)) for x >= 1, 0 below, at most size - 1."""
    found = jnp.log(jnp.maximum(x, 1).astype(jnp.float32)) / math.log(2) + 1e-5
    return jnp.clip(found.astype(jnp.int32), 0, size - 1)

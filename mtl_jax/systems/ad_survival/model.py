"""The survival network: encoders of each kind of input, a trunk, a head of hazards for each term.

After Kitada, Iyatomi and Seki (JSAI 2020, figure 1; Applied Sciences 2022): an encoder for each
kind of input, joined, an MLP, hazards. The sizes, the missing inputs, the landmarks and the choice
of likelihoods are ours.

Parameters:

    encoders  {kind: ...}   text (tables, one encoder a text), image, history, ... }
    missing   {kind: [d]}   what stands for an input that a row does not have      } shared
    trunk     list of layers                                                       }
    heads     rows [T, ...]: a layer to the K bins of the longest grid

With `share=False` all of it is under `apart`, in rows [T, ...]: two networks side by side.

What does not depend on when a row is predicted (texts, images, categories) is encoded once for
all M views; the history at all views comes out of one pass over its days.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mtl_jax.layers.dropout import dropout
from mtl_jax.layers.nets import dense, init_dense, normalise
from mtl_jax.metrics.base import mean, unstack
from mtl_jax.survival import coherence
from mtl_jax.systems.ad_survival.encoders import Encoders, encode, init_encoders
from mtl_jax.systems.ad_survival.heads import Head, hazards, outputs, row_losses
from mtl_jax.systems.ad_survival.terms import Term
from mtl_jax.systems.base import System

Array = jax.Array
Tree = Any

TRUNK, SEEN = 40, 90  # sites of dropout masks; `encoders` has those below


class Network(NamedTuple):
    """The network of one set.

    Attributes:
      encoders: of the inputs.
      trunk: hidden widths.
      rate: dropout.
      hide: chance that a kind of input is hidden from a training row.
      head: what the outputs mean, see `heads`.
      causes: C, of head "cause".
      terms: the tasks.
      views: M, times of prediction, as inputs.
      shares: weight of each task's loss; they sum to T.
      coherence: weight of the penalty on heads that disagree.
      share: whether tasks have one trunk.
    """

    encoders: Encoders
    trunk: tuple[int, ...]
    rate: float
    hide: float
    head: Head
    causes: int
    terms: tuple[Term, ...]
    views: tuple[float, ...]
    shares: tuple[float, ...]
    coherence: float = 0.0
    share: bool = True

    @property
    def outputs(self) -> int:
        """Numbers that a head puts out."""
        bins = max(term.grid.bins for term in self.terms)
        return outputs(self.head, bins, self.causes)


def init_network(net: Network, key: Array) -> Tree:
    """Returns the parameters of encoders, missing inputs and trunk."""
    a, b = jax.random.split(key)
    params = init_encoders(a, net.encoders)
    sizes = net.encoders.sizes
    inputs = sum(sizes.values()) + len(net.views)
    layers, keys = [], jax.random.split(b, len(net.trunk))
    for own, width in zip(keys, net.trunk, strict=True):
        layers.append(
            {**init_dense(own, inputs, width), "scale": jnp.ones(width), "shift": jnp.zeros(width)}
        )
        inputs = width
    missing = {kind: jnp.zeros(size) for kind, size in sizes.items()}
    return {"encoders": params, "missing": missing, "trunk": layers}


def represent(
    net: Network, params: Tree, batch: Tree, keys: Array | None
) -> tuple[Array, dict[str, Array]]:
    """Returns what the heads read, [B, M, H], and what the encoders looked at.

    Args:
      net: the network.
      params: of `init_network`.
      batch: see `data.gather`.
      keys: one an example for dropout; None for evaluation.
    """
    found, present, looked = encode(params["encoders"], net.encoders, batch, keys)
    views = len(net.views)
    parts = []
    for number, (kind, vector) in enumerate(found.items()):
        here = present[kind]
        if keys is not None and net.hide and len(found) > 1:
            here = here * _kept(keys, net.hide, SEEN + number).reshape(
                (-1,) + (1,) * (here.ndim - 1)
            )
        stand_in = params["missing"][kind].reshape((1,) * (vector.ndim - 1) + (-1,))
        vector = jnp.where(here[..., None] > 0, vector, stand_in)
        if vector.ndim == 2:
            vector = jnp.broadcast_to(vector[:, None], (len(vector), views, vector.shape[-1]))
        parts.append(vector)
    eye = jnp.eye(views, dtype=parts[0].dtype)
    when = jnp.broadcast_to(eye[None], (len(parts[0]), views, views))
    x = jnp.concatenate([*parts, when], -1)
    for number, layer in enumerate(params["trunk"]):
        x = normalise(dense(layer, x))
        x = jax.nn.gelu(x * layer["scale"].reshape(1, 1, -1) + layer["shift"].reshape(1, 1, -1))
        x = dropout(x, keys, net.rate, TRUNK + number)
    return x, looked


def _kept(keys: Array, rate: float, site: int) -> Array:
    """[B] 1 or 0: whether a row keeps an input; follows from its own key as in `dropout`."""

    def one(key: Array) -> Array:
        return jax.random.bernoulli(jax.random.fold_in(key, site), 1 - rate)

    return jax.vmap(one)(keys).astype(jnp.float32)


def make_system(net: Network) -> System:
    """Returns the system of a network.

    A batch has what `encoders` reads; `event` and `exposure` [B, T, M, K], `counts` [B, T, M],
    `time`, `occurred` and `upper` [B], `entry` [B, M]; `weight` [B, M]; in training `keys` [B],
    in evaluation `mask` [B], 0 for rows of padding.
    """
    terms = net.terms
    num_tasks = len(terms)
    names = tuple(term.name for term in terms)
    bins = max(term.grid.bins for term in terms)

    def init_heads(key: Array) -> Tree:
        keys = jax.random.split(key, num_tasks)
        return jax.vmap(lambda k: init_dense(k, net.trunk[-1], net.outputs))(keys)

    def init(key: Array, batch: Tree) -> tuple[Tree, Tree]:
        del batch
        a, b = jax.random.split(key)
        if net.share:
            return {**init_network(net, a), "heads": init_heads(b)}, {}
        apart = jax.vmap(lambda k: init_network(net, k))(jax.random.split(a, num_tasks))
        return {"apart": {**apart, "heads": init_heads(b)}}, {}

    def owner(path: tuple[str, ...]) -> str:
        if path[0] == "apart":
            return "stacked"
        # With a penalty on both heads at once each is part of both tasks' losses.
        return "stacked" if path[0] == "heads" and not net.coherence else "shared"

    def features(
        params: Tree, model_state: Tree, batch: Tree, keys: Array | None, train: bool
    ) -> tuple[Tree, Tree]:
        if not net.share:
            return (), model_state
        return represent(net, params, batch, keys if train else None)[0], model_state

    def task_loss(params_t: Tree, z: Tree, batch: Tree, t: Any) -> tuple[Array, Array]:
        keys = batch.get("keys")
        if not net.share:
            own = params_t["apart"]
            z, head = represent(net, own, batch, keys)[0], own["heads"]
        elif net.coherence:
            head = jax.tree.map(lambda leaf: leaf[t], params_t["heads"])
        else:
            head = params_t["heads"]
        logits = dense(head, z).astype(jnp.float32)
        loss = row_losses(net.head, terms, net.causes, logits, batch, t)
        counts = batch["counts"][:, t].astype(jnp.float32)
        weight = batch["weight"] * counts
        total = jnp.sum(jnp.where(weight > 0, weight * loss, 0))
        if net.coherence:
            apart = _disagreement(
                net, jax.vmap(lambda head: dense(head, z))(params_t["heads"]), batch
            )
            total += net.coherence * jnp.sum(jnp.where(batch["counts"][:, 0], apart, 0))
        # Weights of rows change what counts how much, not the step: divide by the rows.
        scale = jnp.asarray(net.shares, jnp.float32)[t]
        return scale * total, jnp.sum(counts)

    def everything(params: Tree, batch: Tree) -> tuple[Array, dict[str, Array]]:
        """Outputs of all heads [T, B, M, K] and what the encoders looked at."""
        if net.share:
            z, looked = represent(net, params, batch, None)
            return jax.vmap(lambda head: dense(head, z))(params["heads"]), looked

        def one(own: Tree) -> tuple[Array, dict[str, Array]]:
            z, looked = represent(net, own, batch, None)
            return dense(own["heads"], z), looked

        found, looked = jax.vmap(one)(params["apart"])
        return found, jax.tree.map(lambda leaf: leaf.mean(0), looked)

    def metrics(params: Tree, model_state: Tree, batch: Tree) -> dict[str, Tree]:
        found, _ = everything(params, batch)
        real = jnp.asarray(batch.get("mask", 1)).reshape(-1, 1)

        def one(logits: Array, t: Array) -> Tree:
            logits = logits.astype(jnp.float32)
            loss = row_losses(net.head, terms, net.causes, logits, batch, t)
            return {"nll": mean(loss, batch["weight"] * batch["counts"][:, t] * real)}

        return unstack(jax.vmap(one)(found, jnp.arange(num_tasks)), names)

    def predict(params: Tree, model_state: Tree, batch: Tree) -> Tree:
        """`hazards` [B, T, M, K], logits; of head cox `risk` [B, M], its log. And attention.

        With head cause `causes` [B, T, M, K, C] as well.
        """
        found, looked = everything(params, batch)
        found = found.astype(jnp.float32)
        if net.head == "cox":
            return {"risk": found[0, ..., 0], **looked}
        if net.head == "cause":
            by_cause = found.reshape(*found.shape[:-1], bins, net.causes)
            looked = {"causes": jnp.moveaxis(by_cause, 0, 1), **looked}
        turned = [
            hazards(net.head, term, bins, net.causes, own)
            for term, own in zip(terms, found, strict=True)
        ]
        return {"hazards": jnp.stack(turned, 1), **looked}

    return System(names, init, features, task_loss, owner, metrics, predict)


def _disagreement(net: Network, both: Array, batch: Tree) -> Array:
    """How far two heads [2, B, M, K] disagree about the short term, see `survival.coherence`."""
    short = net.terms[0]
    logits = [head[..., : term.grid.bins] for head, term in zip(both, net.terms, strict=True)]
    share = short.grid.share(batch["entry"], jnp.full_like(batch["entry"], short.grid.end))
    return coherence(*logits, short_share=share)

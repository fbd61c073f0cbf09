"""DTRN around any upper network: inputs, TIM, TRM, top, and the losses of T binary tasks.

Parameters:

    tables   {name: [V, d]}                embedding tables, read by every task
    inputs   tokens, numbers               }
    tim      transformer, hypernetwork     } shared
    top      experts, bottom               }
    task     rows [T, ...]: task embedding, TRM
    coupled  rows [T, ...] that other tasks' losses reach too (PLE, ESMM, AITM; own in STEM)
    heads    rows [T, ...]: gate, experts of the task, tower

What does not depend on the task is computed once, in `features`: the embeddings, the normalised
tokens, and the whole top as far as the tasks read one bottom representation. With TIM or TRM every
task has a bottom of its own, which `task_loss` makes for its task alone: neither a task gradient
nor a perturbed pass then goes through the others' bottoms.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from mtl_jax.layers.dropout import dropout
from mtl_jax.layers.embedding import lookup
from mtl_jax.layers.nets import normalise
from mtl_jax.layers.precision import wide
from mtl_jax.methods.ownership import is_stacked
from mtl_jax.metrics.base import unstack
from mtl_jax.metrics.binary import binary_scores
from mtl_jax.systems.base import System
from mtl_jax.systems.dtrn import inputs as embed
from mtl_jax.systems.dtrn import interest
from mtl_jax.systems.dtrn.inputs import Spec
from mtl_jax.systems.dtrn.refine import Gate, Granularity, Squeeze, init_refine, refine_weights
from mtl_jax.systems.dtrn.tops import Top

Array = jax.Array
Tree = Any
Encoder = Literal["none", "mean", "transformer"]


class Refine(NamedTuple):
    """TRM's options, see `refine`."""

    reduction: int = 2
    granularity: Granularity = "field"
    gate: Gate = "2sigmoid"
    squeeze: Squeeze = "mean"


class Network(NamedTuple):
    """The network of one set.

    Attributes:
      spec: of the inputs.
      encoder: none (no histories), mean of the events, or transformer.
      tim: of the transformer; None without one.
      refine: TRM; None without.
      top: the upper network.
      rate: dropout of embeddings.
      items: {name: [V, k]} attributes of all items, for `inputs.embed_events`.
      calibrator: AITM's weight of max(0, p_t - p_{t-1}); 0 for none.
    """

    spec: Spec
    encoder: Encoder
    tim: interest.Setting | None
    refine: Refine | None
    top: Top
    rate: float
    items: Tree
    calibrator: float = 0.0

    @property
    def behaviours(self) -> int:
        """S, 0 where histories are not read."""
        return 0 if self.encoder == "none" else len(self.spec.histories)

    @property
    def embeddings(self) -> tuple[str, ...]:
        """Names of the n embeddings that make a bottom representation."""
        return (*self.spec.fields, *self.spec.histories[: self.behaviours])

    @property
    def common(self) -> bool:
        """Whether all tasks read the same bottom representation."""
        conditioned = self.tim is not None and self.tim.conditioning != "none"
        return self.refine is None and not (conditioned and self.behaviours)


def init_network(net: Network, key: Array, num_tasks: int) -> Tree:
    """Returns the parameters, see the module."""
    keys = jax.random.split(key, 8)
    size = len(net.embeddings) * net.spec.dim
    width = net.tim.width if net.tim is not None else net.spec.dim
    params: dict[str, Any] = {
        "tables": embed.init_tables(keys[0], net.spec),
        "inputs": embed.init_inputs(keys[1], net.spec, width if net.behaviours else 0),
        "top": net.top.init_shared(keys[2], size),
    }
    if net.tim is not None:
        params["tim"] = interest.init_shared(keys[3], net.tim)

    def rows(init: Callable[[Array], Tree], key: Array) -> Tree:
        return jax.vmap(init)(jax.random.split(key, num_tasks))

    def own(key: Array) -> Tree:
        found, (a, b) = {}, jax.random.split(key)
        if net.tim is not None:
            found["tim"] = interest.init_own(a, net.tim)
        if net.refine is not None:
            count, options = len(net.embeddings), net.refine._asdict()
            found["refine"] = init_refine(b, count, net.spec.dim, **options)
        return found

    params["task"] = rows(own, keys[4])
    params["heads"] = rows(lambda k: net.top.init_own(k, size), keys[5])
    if net.top.own_tables:
        columns = net.spec._replace(attributes=())
        mine = len(columns.columns) * columns.dim
        init_coupled = net.top.init_coupled
        assert init_coupled is not None
        params["coupled"] = rows(lambda k: init_coupled(k, (size, mine, num_tasks)), keys[6])
        params["coupled"]["tables"] = rows(lambda k: embed.init_tables(k, columns), keys[7])
    elif net.top.init_coupled is not None:
        init_coupled = net.top.init_coupled
        params["coupled"] = rows(lambda k: init_coupled(k, size), keys[6])
    return params


def base(net: Network, params: Tree, batch: Tree, keys: Array | None) -> dict[str, Array]:
    """Returns what every task's bottom is made from; float arrays only."""
    found = {"fields": embed.embed_fields(params, net.spec, batch, keys, net.rate)}
    if not net.behaviours:
        return found
    x, valid, candidate = embed.embed_events(params, net.spec, batch, net.items)
    if net.tim is None:
        mean = (x.sum(2) / jnp.maximum(valid.sum(-1, keepdims=True), 1)).astype(x.dtype)
        return {**found, "mean": dropout(jnp.swapaxes(mean, 0, 1), keys, net.rate, 2)}
    if net.tim.pool == "cand_token":
        x = jnp.concatenate([candidate[:, :, None], x], 2)
        valid = jnp.concatenate([jnp.ones_like(valid[:, :, :1]), valid], 2)
    x = jnp.swapaxes(dropout(jnp.swapaxes(x, 0, 1), keys, net.tim.rate, 3), 0, 1)
    return {
        **found,
        "x": x,
        "xhat": normalise(x),
        "valid": valid,
        "candidate": candidate,
    }


def bottom(
    net: Network, params: Tree, own: Tree, z: dict[str, Array], keys: Array | None
) -> tuple[Array, dict[str, Array]]:
    """Returns one task's bottom representation [B, n d], and what it looked at.

    Args:
      net: the network.
      params: the shared parameters.
      own: row of params["task"].
      z: of `base`.
      keys: one an example for dropout; None for evaluation.

    Returns:
      The representation; {"weights" [B, n]} of TRM, the mean over elements, and {"attention"
      [B, S, L]} of TIM, where there are such.
    """
    looked = {}
    found = [z["fields"]]
    if net.tim is not None:
        shared, rest = params["tim"], (z["x"], z["xhat"], z["valid"], z["candidate"])
        pooled, attention = interest.interests(shared, own["tim"], *rest, net.tim, keys)
        found.append(pooled)
        looked["attention"] = attention
    elif net.behaviours:
        found.append(z["mean"])
    embeddings = jnp.concatenate(found, 1)
    if net.refine is not None:
        options = {k: v for k, v in net.refine._asdict().items() if k != "reduction"}
        weights = refine_weights(own["refine"], embeddings, **options)
        embeddings = embeddings * weights
        looked["weights"] = weights.mean(-1)
    return embeddings.reshape(len(embeddings), -1), looked


def make_system(
    net: Network, task_names: Sequence[str], *, sparse: bool = False, weighted: bool = False
) -> System:
    """Returns the system of a network.

    A batch has what `inputs` reads, `labels` and `label_mask` [B, T], in training `keys` [B], and
    in evaluation may have `mask` [B] (0 for padding rows).

    Args:
      net: the network.
      task_names: T names.
      sparse: whether tables may be updated row by row.
      weighted: whether label_mask holds weights other than 0 and 1; else counts stay exact.
    """
    num_tasks, top = len(task_names), net.top
    joint = top.joint

    def init(key: Array, batch: Tree) -> tuple[Tree, Tree]:
        del batch
        return init_network(net, key, num_tasks), {}

    def owner(path: tuple[str, ...]) -> str:
        if path[0] == "heads" or (path[0] == "coupled" and top.apart):
            return "stacked"
        return "stacked" if path[0] == "task" and joint is None else "shared"

    def row(tree: Tree, t: Any) -> Tree:
        return jax.tree.map(lambda leaf: leaf[t], tree)

    def coupled(params: Tree, batch: Tree, z: Tree, keys: Array | None) -> Tree:
        """What a coupling top makes of all bottoms."""
        assert joint is not None
        if net.common:
            b, _ = bottom(net, params, row(params["task"], 0), z, keys)
            everyone = jnp.broadcast_to(b, (num_tasks, *b.shape))
        else:
            everyone = jax.vmap(lambda own: bottom(net, params, own, z, keys)[0])(params["task"])
        if not top.own_tables:
            return joint(params["top"], params["coupled"], everyone, keys)

        def mine(tables: Tree) -> Array:
            ids = embed.table_ids(net.spec, batch)
            parts = [
                lookup({"tables": tables}, {}, name, "field", ids[name]["field"])
                for name, _ in net.spec.columns
            ]
            return jnp.concatenate(parts, -1)

        own = jax.vmap(mine)(params["coupled"]["tables"])
        return joint(params["top"], params["coupled"], (everyone, own), keys)

    def features(
        params: Tree, model_state: Tree, batch: Tree, keys: Array | None, train: bool
    ) -> tuple[Tree, Tree]:
        keys = keys if train else None
        z = base(net, params, batch, keys)
        if joint is not None:
            return coupled(params, batch, z, keys), model_state
        if not net.common:
            return z, model_state
        b, _ = bottom(net, params, row(params["task"], 0), z, keys)
        return (b, top.bottom(params["top"], b, keys)), model_state

    def logit(params_t: Tree, z: Tree, keys: Array | None, t: Any) -> Array:
        """Task t's logits [B]; in `params_t` its rows are cut out where they are its own."""
        if joint is not None:
            mine = jax.tree.map(lambda leaf: leaf[t], z)
            return top.logit(params_t["top"], params_t["heads"], mine, mine, keys)
        if net.common:
            b, shared = z
        else:
            b, _ = bottom(net, params_t, params_t["task"], z, keys)
            shared = top.bottom(params_t["top"], b, keys)
        return top.logit(params_t["top"], params_t["heads"], shared, b, keys)

    def task_loss(params_t: Tree, z: Tree, batch: Tree, t: Any) -> tuple[Array, Array]:
        keys = batch.get("keys")
        found = logit(params_t, z, keys, t).astype(jnp.float32)
        weight = batch["label_mask"][:, t]
        loss = optax.sigmoid_binary_cross_entropy(found, batch["labels"][:, t])
        if net.calibrator and joint is not None:
            before = jax.nn.sigmoid(wide(logit(params_t, z, keys, jnp.maximum(t - 1, 0))))
            above = jax.nn.relu(jax.nn.sigmoid(found) - before)
            loss += net.calibrator * jnp.where(t > 0, above, 0)
        return jnp.sum(jnp.where(weight > 0, loss * weight, 0)), jnp.sum(weight)

    def everything(params: Tree, model_state: Tree, batch: Tree) -> Array:
        z, _ = features(params, model_state, batch, None, False)
        stacked = {k: v for k, v in params.items() if is_stacked(owner((k,)))}
        rest = {k: v for k, v in params.items() if k not in stacked}

        def one(t: Array, rows: Tree) -> Array:
            return logit({**rest, **rows}, z, None, t)

        return jax.vmap(one)(jnp.arange(num_tasks), stacked).astype(jnp.float32)

    def metrics(params: Tree, model_state: Tree, batch: Tree) -> dict[str, Tree]:
        logits = everything(params, model_state, batch)
        weights = batch["label_mask"] * jnp.asarray(batch.get("mask", 1)).reshape(-1, 1)
        weights = weights if weighted else weights != 0
        return unstack(jax.vmap(binary_scores)(logits, batch["labels"].T, weights.T), task_names)

    def predict(params: Tree, model_state: Tree, batch: Tree) -> Tree:
        """Logits [B, T]; what TRM and TIM look at, [B, T, n] and [B, T, S, L]."""
        out = {"logit": everything(params, model_state, batch).T}
        if net.common:
            return out
        z = base(net, params, batch, None)
        looked = jax.vmap(lambda own: bottom(net, params, own, z, None)[1])(params["task"])
        return {**out, **{name: jnp.moveaxis(leaf, 0, 1) for name, leaf in looked.items()}}

    def table_ids(batch: Tree) -> dict[str, dict[str, Array]]:
        return embed.table_ids(net.spec, batch)

    return System(
        tuple(task_names),
        init,
        features,
        task_loss,
        owner,
        metrics,
        predict,
        table_ids=table_ids if sparse else None,
    )


def single_task(net: Network, task_names: Sequence[str], weighted: bool = False) -> System:
    """Returns T networks of one task each, trained side by side: nothing is shared.

    Every parameter, tables included, has a leading task axis.
    """
    num_tasks = len(task_names)
    one = make_system(net, ("alone",), weighted=weighted)

    def init(key: Array, batch: Tree) -> tuple[Tree, Tree]:
        rows = jax.vmap(lambda k: init_network(net, k, 1))(jax.random.split(key, num_tasks))
        return {"apart": rows}, {}

    def features(
        params: Tree, model_state: Tree, batch: Tree, keys: Array | None, train: bool
    ) -> tuple[Tree, Tree]:
        return (), model_state

    def of_task(batch: Tree, t: Any) -> Tree:
        columns = {k: batch[k][:, t, None] for k in ("labels", "label_mask")}
        return {**batch, **columns}

    def alone(own: Tree) -> Tree:
        """The tree in which the rows of the one task are cut out."""
        cut = ("task", "heads")
        return {k: jax.tree.map(lambda x: x[0], v) if k in cut else v for k, v in own.items()}

    def task_loss(params_t: Tree, z: Tree, batch: Tree, t: Any) -> tuple[Array, Array]:
        own, mine = params_t["apart"], of_task(batch, t)
        keys = batch.get("keys")
        z, _ = one.features(own, {}, mine, keys, keys is not None)
        return one.task_loss(alone(own), z, mine, 0)

    def over_tasks(fn: Callable) -> Callable:
        def apply(params: Tree, model_state: Tree, batch: Tree) -> Tree:
            def each(own: Tree, t: Array) -> Tree:
                return fn(own, model_state, of_task(batch, t))

            return jax.vmap(each)(params["apart"], jnp.arange(num_tasks))

        return apply

    def metrics(params: Tree, model_state: Tree, batch: Tree) -> dict[str, Tree]:
        return unstack(over_tasks(one.metrics)(params, model_state, batch)["alone"], task_names)

    def predict(params: Tree, model_state: Tree, batch: Tree) -> Tree:
        assert one.predict is not None
        found = over_tasks(one.predict)(params, model_state, batch)
        return {name: jnp.moveaxis(leaf[:, :, 0], 0, 1) for name, leaf in found.items()}

    return System(
        tuple(task_names), init, features, task_loss, lambda path: "stacked", metrics, predict
    )

"""Per-task sharpness-aware perturbations around any aggregator or loss weighting (FS-MTL).

Source: "Improving Multi-task Learning via Seeking Task-based Flat Regions", arXiv 2211.13723,
equations 6-16 and algorithm 1. For task i with loss L_i(theta, phi_i), shared theta, own head
phi_i and gradients g_i, q_i:

1. the worst points nearby: theta + rho_shared g_i / |g_i| and phi_i + rho_heads q_i / |q_i|;
2. the gradients there, s_i and r_i; the flat part of the shared one is h_i = s_i - g_i;
3. theta moves along agg(g_1..g_T) + agg(h_1..h_T), phi_i along r_i.

Deliberate choices where the paper and its released code leave room:

* one clean pass owns the model state (batch statistics); the perturbed passes drop theirs;
* both passes see the same dropout key, so h_i is a true finite difference;
* h_i is formed explicitly, in the parameters' dtype, and never as a difference of Gram matrices;
* for aggregators that are not of degree 1 (Nash-MTL, FairGrad) agg(h) has a length that has
  nothing to do with rho; `flat_scale="match"` gives it the length of the mean of the h_i;
* a loss weighting uses the same weights for g and h, so that "decompose" equals "direct".

Cheaper ways to the flat parts are in `flat_efficient`; SAMO, a rival, is in `samo`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp

from mtl_jax.methods import gram, ownership
from mtl_jax.methods.base import (
    AfterStepFn,
    Aggregator,
    Array,
    Info,
    LossWeighting,
    Method,
    Problem,
    Tree,
    Update,
)
from mtl_jax.methods.flat_efficient import FlatPass, FlatSource
from mtl_jax.methods.perturbation import Norm, Perturbation

Combine = Literal["erm", "direct", "decompose", "second", "each"]
FlatScale = Literal["auto", "native", "match"]


class FlatState(NamedTuple):
    """State of `flat_regions`: one copy of the base method's state for each use of it.

    Attributes:
      grads: for agg(g), or for the weights of a loss weighting.
      flat: for agg(h).
      pairs: for aggregating {agg(g), agg(h)} or the T pairs {g_i, h_i}.
    """

    grads: Tree
    flat: Tree
    pairs: Tree


class KeptState(NamedTuple):
    """State of `flat_regions` with `every` > 1.

    Attributes:
      base: the state as it is without.
      kept: flat parts of the last perturbed pass, see `flat_efficient.Kept`.
    """

    base: Tree
    kept: Tree


def flat_regions(
    base: Aggregator | LossWeighting,
    rho: float = 0.05,
    rho_heads: float | None = None,
    *,
    norm: Norm = "joint",
    adaptive: bool = False,
    eta: float = 0.0,
    eps: float = 1e-12,
    combine: Combine = "decompose",
    flat_scale: FlatScale = "auto",
    every: int = 1,
    rows: float = 1.0,
    synced: bool = True,
) -> Method:
    """Wraps `base` in per-task flat-region seeking.

    Cost, where a backward pass is two forward passes, a step of an aggregator without flat regions
    (one forward, T backward) is 1 and heads are cheap beside what is shared; e = 3T / (1 + 2T) is
    that of the perturbed pass (T forward, T backward), 1.2 for two tasks and 1.5 for many:

    * 1 + e in all: 2.2 to 2.5. A loss weighting needs task gradients too, and its own step is
      3 / (1 + 2T): beside that, (1 + 5T) / 3.
    * `every` = k: 1 + e / k on average. Steps without a perturbed pass cost 1.
    * `rows` = r below 1: 1 + r (1 + e), as the leading rows need a clean pass of their own; with
      micro-batches the clean pass has their gradients already, which leaves 1 + r e. Where rows do
      not meet (no batch statistics, no risk sets) that is the same run for less.
    * both: what exceeds 1, divided by k.
    * `synced` changes nothing: the gradients are summed over the devices all the same.

    Memory: T vectors of the parameters' size for each of g and s; with `every` > 1 as many in the
    state, for h; without `synced`, or with `rows` below 1, as many again.

    Args:
      base: any aggregator or loss weighting.
      rho: radius for the shared parameters; about ten times larger when `adaptive`.
      rho_heads: radius for the heads; None for the same.
      norm: see `Perturbation`. It also says which norms rescale flat parts that are used again.
      adaptive: see `Perturbation`.
      eta: see `Perturbation`.
      eps: see `Perturbation`.
      combine: "erm" agg(g), nothing perturbed; "direct" agg(s); "decompose" agg(g) + agg(h), the
        paper's method; "second" agg({agg(g), agg(h)}); "each" agg over i of agg({g_i, h_i}).
      flat_scale: "native" takes agg(h) as it comes; "match" gives it the length of mean(h);
        "auto" matches only for aggregators whose degree is not 1. Used by "decompose" and "second".
      every: the perturbed pass runs in the first of every so many steps; the others take its flat
        parts again, rescaled, see `flat_efficient`. A task without labels in that first step has
        no flat part until the next one. The state then holds h, which tables that are updated row
        by row cannot have.
      rows: share, in (0, 1], of the rows that flat parts come from: the first ones of each
        device's batch, rounded up to whole rows; with micro-batches, the first of these, and the
        share must be a whole number of them. So a run depends on how many devices share a batch,
        and a loader must not sort batches by task. A task without labels in those rows has no flat
        part in this step: h_i = 0, which aggregations leave out, and its head takes q_i.
      synced: False perturbs each device's parameters by the task gradients of its own rows alone
        (m-sharpness, the default of the SAM authors' code); the gradients there are averaged over
        all labelled rows. A run then depends on the number of devices; on one device nothing
        changes. Layers that average over the devices (synchronised batch normalisation) still do.

    Returns:
      A `Method`.

    Raises:
      ValueError: a negative radius, an unknown option, a share or a number of steps out of range,
        or "second" / "each" around a loss weighting, which has no aggregation to apply twice.
      UserError: where a step is traced: a share of the rows that a batch does not have.
    """
    rho_heads = rho if rho_heads is None else rho_heads
    for name, value in (("rho", rho), ("rho_heads", rho_heads), ("eta", eta), ("eps", eps)):
        if not value >= 0:
            raise ValueError(f"{name} must be non-negative, found {value}")
    for name, value, known in (
        ("norm", norm, get_args(Norm)),
        ("combine", combine, get_args(Combine)),
        ("flat_scale", flat_scale, get_args(FlatScale)),
    ):
        if value not in known:
            raise ValueError(f"{name} must be one of {', '.join(known)}; found {value!r}")
    if isinstance(every, bool) or not isinstance(every, int) or every < 1:
        raise ValueError(f"every must be a whole number of steps from 1 on, found {every!r}")
    if not 0 < rows <= 1:
        raise ValueError(f"rows must be a share above 0 and up to 1, found {rows}")
    source = FlatSource(Perturbation(rho, rho_heads, norm, adaptive, eta, eps), every, rows, synced)
    if isinstance(base, LossWeighting) and combine in ("second", "each"):
        raise ValueError(f"combine={combine!r} needs an aggregator; a loss weighting has none")
    if combine == "erm":
        return as_method(base)
    if isinstance(base, LossWeighting):
        return _method(source, *_around_weighting(base), base.after_step)
    match = flat_scale == "match" or (flat_scale == "auto" and base.traits.degree != 1)
    return _method(source, *_around_aggregator(base, combine, match))


def _method(
    source: FlatSource, start: Callable, use: Callable, ending: AfterStepFn | None = None
) -> Method:
    """Makes a `Method` of what a step does with its flat parts.

    Args:
      source: of the flat parts.
      start: `init` of a `Method`.
      use: `use(problem, flat_pass, state, key) -> Update`.
      ending: `after_step` of a `Method`.
    """
    if source.every == 1:

        def plain(problem: Problem, params: Tree, state: Tree, key: Array) -> Update:
            found, _ = source.step(problem, params, ())
            return use(problem, found, state, key)

        return Method(start, plain, ending)

    def init(params: Tree, owners: Tree, num_tasks: int) -> KeptState:
        return KeptState(start(params, owners, num_tasks), source.init(params, owners, num_tasks))

    def update(problem: Problem, params: Tree, state: KeptState, key: Array) -> Update:
        found, kept = source.step(problem, params, state.kept)
        out = use(problem, found, state.base, key)
        return out._replace(state=KeptState(out.state, kept))

    if ending is None:
        return Method(init, update)

    def after_step(state: KeptState, before: Array, after: Array, *, active: Array) -> KeptState:
        return state._replace(base=ending(state.base, before, after, active=active))

    return Method(init, update, after_step)


def _around_weighting(base: LossWeighting) -> tuple[Callable, Callable]:
    """Weights come from the clean losses; the direction is sum_i w_i s_i, the heads' w_i r_i."""

    def init(params: Tree, owners: Tree, num_tasks: int) -> Tree:
        del params, owners
        return base.init(num_tasks)

    def use(problem: Problem, found: FlatPass, state: Tree, key: Array) -> Update:
        losses, active, owners = found.losses, found.active, problem.owners
        weights, state = base.weights(losses, state, active=active, key=key)
        scaled = ownership.scale_heads(found.heads, owners, weights)
        info = Info(
            weights,
            _gram_or_none(found.grads.shared),
            weights,
            _gram_or_none(found.flat),
            found.perturbed_losses,
        )
        direction = ownership.merge(gram.combine(found.perturbed, weights), scaled)
        return Update(direction, state, losses, active, found.aux, info)

    return init, use


def _around_aggregator(
    base: Aggregator, combine: Combine, match: bool
) -> tuple[Callable, Callable]:
    def init(params: Tree, owners: Tree, num_tasks: int) -> FlatState:
        shared = ownership.select(params, owners, ownership.is_shared)
        pair = base.init(shared, 2)
        if combine == "each":
            pair = jax.tree.map(lambda leaf: jnp.stack([jnp.asarray(leaf)] * num_tasks), pair)
        return FlatState(base.init(shared, num_tasks), base.init(shared, num_tasks), pair)

    def both(first: Tree, second: Tree, axis: int) -> Tree:
        return jax.tree.map(lambda a, b: jnp.stack([a, b], axis), first, second)

    def use(problem: Problem, found: FlatPass, state: FlatState, key: Array) -> Update:
        losses, active, present = found.losses, found.active, found.present
        g, flat = found.grads.shared, found.flat
        at_g, at_h, at_pair = state
        keys = jax.random.split(key, 3)
        ones = jnp.ones(2, losses.dtype)

        def aggregate(rows: Tree, part: Tree, on: Array, key: Array) -> tuple[Tree, Tree, Info]:
            return base.update(rows, part, losses=losses, active=on, key=key)

        if combine == "direct":
            direction, at_g, info = aggregate(found.perturbed, at_g, active, keys[0])
            h_info = Info(info.weights, _gram_or_none(flat))
            info = info._replace(gram=_gram_or_none(g))
        elif combine == "each":

            def one(pair: Tree, part: Tree, on: Array, key: Array) -> tuple[Tree, Tree]:
                out, part, _ = base.update(pair, part, losses=ones, active=on, key=key)
                return out, part

            pair_keys = jax.random.split(keys[2], problem.num_tasks)
            pairs_on = jnp.stack([active, present], 1)
            rows, at_pair = jax.vmap(one)(both(g, flat, 1), at_pair, pairs_on, pair_keys)
            direction, at_g, info = aggregate(rows, at_g, active, keys[0])
            info = info._replace(gram=_gram_or_none(g))
            h_info = Info(info.weights, _gram_or_none(flat))
        else:
            from_g, at_g, info = aggregate(g, at_g, active, keys[0])
            from_h, at_h, h_info = aggregate(flat, at_h, present, keys[1])
            if match:
                from_h = _with_length_of(from_h, flat, present)
            if combine == "decompose":
                direction = jax.tree.map(jnp.add, from_g, from_h)
            else:
                direction, at_pair, _ = base.update(
                    both(from_g, from_h, 0),
                    at_pair,
                    losses=ones,
                    active=jnp.stack([active.any(), present.any()]),
                    key=keys[2],
                )
        info = info._replace(
            flat_weights=h_info.weights,
            flat_gram=h_info.gram,
            perturbed_losses=found.perturbed_losses,
        )
        out = ownership.merge(direction, found.heads)
        return Update(out, FlatState(at_g, at_h, at_pair), losses, active, found.aux, info)

    return init, use


def _gram_or_none(rows: Tree) -> Array | None:
    return gram.gram(rows) if jax.tree.leaves(rows) else None


def _with_length_of(direction: Tree, rows: Tree, active: Array) -> Tree:
    """Returns `direction` [tree like one row] with the length of the mean active row."""
    share = active / jnp.maximum(active.sum(), 1)
    wanted = gram.squared_norms(jax.tree.map(lambda a: a[None], gram.combine(rows, share)), 1)
    length = gram.squared_norms(jax.tree.map(lambda a: a[None], direction), 1)
    factor = jnp.sqrt(jnp.where(length > 0, wanted / jnp.where(length > 0, length, 1), 0))[0]
    return jax.tree.map(lambda a: (factor * a).astype(a.dtype), direction)


def as_method(base: Aggregator | LossWeighting) -> Method:
    """Makes a `Method` of an aggregator or a loss weighting, without perturbations."""
    if isinstance(base, LossWeighting):

        def init_weighting(params: Tree, owners: Tree, num_tasks: int) -> Tree:
            del params, owners
            return base.init(num_tasks)

        def weigh(problem: Problem, params: Tree, state: Tree, key: Array) -> Update:
            def from_losses(losses: Array, active: Array) -> tuple[Array, Tree]:
                return base.weights(losses, state, active=active, key=key)

            grads, losses, active, (weights, new_state), aux = problem.weighted_grads(
                params, from_losses
            )
            return Update(grads, new_state, losses, active, aux, Info(weights))

        return Method(init_weighting, weigh, base.after_step)

    def init(params: Tree, owners: Tree, num_tasks: int) -> Tree:
        shared = ownership.select(params, owners, ownership.is_shared)
        return base.init(shared, num_tasks)

    def update(problem: Problem, params: Tree, state: Tree, key: Array) -> Update:
        grads, losses, active, aux = problem.task_grads(params)
        # The same key as the first aggregation of flat_regions: rho = 0 is the base method.
        direction, state, info = base.update(
            grads.shared, state, losses=losses, active=active, key=jax.random.split(key, 3)[0]
        )
        return Update(ownership.merge(direction, grads.heads), state, losses, active, aux, info)

    return Method(init, update)

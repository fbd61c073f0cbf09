"""Upper networks: from each task's bottom representation [B, n] to its logit [B].

A top is a set of pure functions. In one that does not couple tasks, logit t is

    logit(shared, own_t, bottom(shared, b_t), b_t)

and where all tasks read the same b, `bottom` is computed once. One that couples them (PLE of more
than one level, ESMM, AITM, STEM) maps the bottoms of all tasks at once, `joint`, to what the
tasks' `logit`s read.

`init_own` makes what only task t's loss depends on, `init_coupled` what belongs to a task by name
but reaches other losses too (rows of a leading task axis): it counts as shared.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from mtl_jax.layers import nets
from mtl_jax.layers.precision import wide

Array = jax.Array
Tree = Any
TopName = Literal["single", "shared_bottom", "mmoe", "ple", "esmm", "aitm", "stem"]

# Sites of dropout masks, see `nets.mlp`.
BOTTOM, OWN, TOWER = 10, 20, 30


class Top(NamedTuple):
    """An upper network for T tasks.

    Attributes:
      init_shared: `init_shared(key, n) -> params`.
      init_own: `init_own(key, n) -> params` of one task.
      bottom: `bottom(shared, b, keys) -> z`: what of b [B, n] does not depend on the task.
      logit: `logit(shared, own, z, b, keys) -> [B]`.
      init_coupled: `init_coupled(key, n) -> params` of one task; None unless `joint`.
      joint: `joint(shared, coupled, b [T, B, n], keys) -> z`, every leaf [T, B, ...]; None where
        tasks are apart. Then `logit` gets row t of z.
      own_tables: every task has embedding tables of its own besides the shared ones; then b is
        (shared bottoms [T, B, n], own embeddings [T, B, m]), and `init_coupled(key, (n, m, T))`.
      apart: `joint` lets no gradient through to other tasks, so that what is coupled forwards is
        task t's own all the same.
    """

    init_shared: Callable[[Array, int], Tree]
    init_own: Callable[[Array, int], Tree]
    bottom: Callable[[Tree, Array, Array | None], Tree]
    logit: Callable[..., Array]
    init_coupled: Callable[[Array, Any], Tree] | None = None
    joint: Callable[..., Tree] | None = None
    own_tables: bool = False
    apart: bool = False


def _tower(widths: tuple[int, ...], rate: float) -> tuple[Callable, Callable]:
    """Returns (init(key, n), apply(params, h, keys) -> [B]): an MLP to one logit."""

    def init(key: Array, inputs: int) -> Tree:
        a, b = jax.random.split(key)
        last = widths[-1] if widths else inputs
        return {"hidden": nets.init_mlp(a, inputs, widths), "out": nets.init_dense(b, last, 1)}

    def apply(params: Tree, h: Array, keys: Array | None) -> Array:
        return nets.dense(params["out"], nets.mlp(params["hidden"], h, keys, rate, TOWER))[:, 0]

    return init, apply


def shared_bottom(widths: tuple[int, ...], tower: tuple[int, ...], rate: float) -> Top:
    """One MLP for all tasks, a tower for each (Caruana 1997)."""
    init_tower, apply_tower = _tower(tower, rate)
    return Top(
        lambda key, n: nets.init_mlp(key, n, widths),
        lambda key, n: {"tower": init_tower(key, widths[-1])},
        lambda shared, b, keys: nets.mlp(shared, b, keys, rate, BOTTOM),
        lambda shared, own, z, b, keys: apply_tower(own["tower"], z, keys),
    )


def mmoe(widths: tuple[int, ...], tower: tuple[int, ...], rate: float, count: int) -> Top:
    """Experts that all tasks share, weighed by a gate of each task (Ma et al. 2018)."""
    init_tower, apply_tower = _tower(tower, rate)

    def init_own(key: Array, n: int) -> Tree:
        a, b = jax.random.split(key)
        return {"gate": nets.init_dense(a, n, count), "tower": init_tower(b, widths[-1])}

    def logit(shared: Tree, own: Tree, z: Array, b: Array, keys: Array | None) -> Array:
        return apply_tower(own["tower"], nets.mix(own["gate"], b, z), keys)

    return Top(
        lambda key, n: nets.init_experts(key, count, n, widths),
        init_own,
        lambda shared, b, keys: nets.experts(shared, b, keys, rate, BOTTOM),
        logit,
    )


def cgc(widths: tuple[int, ...], tower: tuple[int, ...], rate: float, count: int, own: int) -> Top:
    """Shared experts and experts of each task: PLE of one level (Tang et al. 2020).

    Args:
      widths: of an expert.
      tower: hidden widths of a tower.
      rate: of dropout.
      count: shared experts.
      own: experts of each task.
    """
    init_tower, apply_tower = _tower(tower, rate)

    def init_own(key: Array, n: int) -> Tree:
        a, b, c = jax.random.split(key, 3)
        return {
            "experts": nets.init_experts(a, own, n, widths),
            "gate": nets.init_dense(b, n, own + count),
            "tower": init_tower(c, widths[-1]),
        }

    def logit(shared: Tree, own: Tree, z: Array, b: Array, keys: Array | None) -> Array:
        mine = nets.experts(own["experts"], b, keys, rate, OWN)
        mixed = nets.mix(own["gate"], b, jnp.concatenate([mine, z]))
        return apply_tower(own["tower"], mixed, keys)

    return Top(
        lambda key, n: nets.init_experts(key, count, n, widths),
        init_own,
        lambda shared, b, keys: nets.experts(shared, b, keys, rate, BOTTOM),
        logit,
    )


def ple(
    widths: tuple[int, ...],
    tower: tuple[int, ...],
    rate: float,
    count: int,
    own: int,
    levels: int,
    num_tasks: int,
) -> Top:
    """Progressive layered extraction of two levels or more (Tang et al. 2020).

    At the first level the bottoms may differ: task t's gate sees the shared experts on b_t, the
    shared stream is made from the mean bottom, and its gate chooses among all experts of the level.
    With equal bottoms this is PLE as published. Later levels are as published.
    """
    init_tower, apply_tower = _tower(tower, rate)
    width = widths[-1]

    def sizes(n: int) -> list[int]:
        return [n] + [width] * (levels - 1)

    def init_shared(key: Array, n: int) -> Tree:
        out = []
        for level, k in enumerate(jax.random.split(key, levels)):
            a, b = jax.random.split(k)
            one = {"experts": nets.init_experts(a, count, sizes(n)[level], widths)}
            if level < levels - 1:  # nobody reads the last level's shared stream
                choices = count + num_tasks * own
                one["gate"] = nets.init_dense(b, sizes(n)[level], choices)
            out.append(one)
        return out

    def init_coupled(key: Array, n: int) -> Tree:
        out = []
        for level, k in enumerate(jax.random.split(key, levels)):
            a, b = jax.random.split(k)
            size = sizes(n)[level]
            experts = nets.init_experts(a, own, size, widths)
            out.append({"experts": experts, "gate": nets.init_dense(b, size, own + count)})
        return out

    def joint(shared: Tree, coupled: Tree, b: Array, keys: Array | None) -> Array:
        x, common = b, b.mean(0)
        for level in range(levels):
            here, site = shared[level], 100 * (level + 1)
            mine = jax.vmap(lambda p, x, s=site: nets.experts(p, x, keys, rate, s + OWN))(
                coupled[level]["experts"], x
            )  # [T, own, B, width]
            on_common = nets.experts(here["experts"], common, keys, rate, site + BOTTOM)
            if level == 0:
                seen = jax.vmap(
                    lambda x, h=here, s=site: nets.experts(h["experts"], x, keys, rate, s + BOTTOM)
                )(x)
            else:
                seen = jnp.broadcast_to(on_common, (num_tasks, *on_common.shape))
            choices = jnp.concatenate([mine, seen], 1)
            if level < levels - 1:
                flat = mine.reshape(-1, *mine.shape[2:])
                everything = jnp.concatenate([flat, on_common])
                common = nets.mix(here["gate"], common, everything)
            x = jax.vmap(nets.mix)(coupled[level]["gate"], x, choices)
        return x

    return Top(
        init_shared,
        lambda key, n: {"tower": init_tower(key, width)},
        lambda shared, b, keys: (),
        lambda shared, own, z, b, keys: apply_tower(own["tower"], z, keys),
        init_coupled,
        joint,
    )


def log_not(log_p: Array) -> Array:
    """Returns log(1 - p) from log p < 0 without cancellation."""
    return jnp.where(log_p > -0.693, jnp.log(-jnp.expm1(log_p)), jnp.log1p(-jnp.exp(log_p)))


def esmm(widths: tuple[int, ...], rate: float, num_tasks: int) -> Top:
    """Entire-space funnel (Ma et al. 2018): p_t is the product of the towers' outputs up to t.

    Click and click-through conversion are both learned over all impressions; conversion given a
    click, sigmoid of the second tower, follows. More than two tasks make a longer funnel.
    """
    init_tower, apply_tower = _tower(widths, rate)

    def joint(shared: Tree, coupled: Tree, b: Array, keys: Array | None) -> Array:
        raw = wide(jax.vmap(lambda p, b: apply_tower(p["tower"], b, keys))(coupled, b))
        # Just below 0: log(1 - p) of a certain event would be infinite.
        log_p = jnp.minimum(jnp.cumsum(jax.nn.log_sigmoid(raw), axis=0), -1e-7)
        return log_p - log_not(log_p)

    return Top(
        lambda key, n: {},
        lambda key, n: {},
        lambda shared, b, keys: (),
        lambda shared, own, z, b, keys: z,
        lambda key, n: {"tower": init_tower(key, n)},
        joint,
    )


def aitm(widths: tuple[int, ...], tower: tuple[int, ...], rate: float, num_tasks: int) -> Top:
    """Adaptive information transfer along a funnel of tasks (Xi et al. 2021).

    Task t attends over its own hidden vector and what task t - 1 hands on. Tasks are in the order
    of the funnel. The calibrator is a loss, see `model`.
    """
    init_tower, apply_tower = _tower(tower, rate)
    width = widths[-1]

    def init_coupled(key: Array, n: int) -> Tree:
        keys = jax.random.split(key, 6)
        names = ("query", "key", "value", "pass")
        square = {
            name: nets.init_dense(k, width, width) for name, k in zip(names, keys, strict=False)
        }
        return {
            "bottom": nets.init_mlp(keys[4], n, widths),
            "tower": init_tower(keys[5], width),
            **square,
        }

    def joint(shared: Tree, coupled: Tree, b: Array, keys: Array | None) -> Array:
        logits, handed = [], None
        for t in range(num_tasks):
            own = jax.tree.map(lambda leaf, t=t: leaf[t], coupled)
            h = nets.mlp(own["bottom"], b[t], keys, rate, BOTTOM)
            if handed is not None:
                both = jnp.stack([handed, h], 1)  # [B, 2, width]
                query, key = nets.dense(own["query"], both), nets.dense(own["key"], both)
                scores = (query * key).sum(-1) / jnp.sqrt(jnp.float32(width))
                weights = jax.nn.softmax(scores, axis=1).astype(h.dtype)
                h = (weights[..., None] * nets.dense(own["value"], both)).sum(1)
            handed = jax.nn.relu(nets.dense(own["pass"], h))
            logits.append(apply_tower(own["tower"], h, keys))
        return jnp.stack(logits)

    return Top(
        lambda key, n: {},
        lambda key, n: {},
        lambda shared, b, keys: (),
        lambda shared, own, z, b, keys: z,
        init_coupled,
        joint,
    )


def stem(widths: tuple[int, ...], tower: tuple[int, ...], rate: float, count: int, own: int) -> Top:
    """Shared and task-specific embeddings (Su et al. 2024): experts on each task's own tables.

    A task's gate, which sees its own embeddings, chooses among the experts of all tasks and the
    shared ones; gradients go to its own and to the shared experts only.

    Args:
      widths: of an expert.
      tower: hidden widths of a tower.
      rate: of dropout.
      count: shared experts.
      own: experts of each task.
    """
    init_tower, apply_tower = _tower(tower, rate)

    def init_coupled(key: Array, sizes: tuple[int, int, int]) -> Tree:
        a, b = jax.random.split(key)
        _, inputs, num_tasks = sizes
        choices = count + num_tasks * own
        return {
            "experts": nets.init_experts(a, own, inputs, widths),
            "gate": nets.init_dense(b, inputs, choices),
        }

    def joint(shared: Tree, coupled: Tree, b: tuple[Array, Array], keys: Array | None) -> Array:
        bottoms, mine = b
        num_tasks = len(mine)
        outs = jax.vmap(lambda p, x: nets.experts(p, x, keys, rate, OWN))(coupled["experts"], mine)
        still = jax.lax.stop_gradient(outs)  # [T, own, B, width]

        def one(t: Array, gate: Tree, bottom: Array, own_b: Array) -> Array:
            is_own = (jnp.arange(num_tasks) == t)[:, None, None, None]
            everyone = jnp.where(is_own, outs, still)
            everyone = everyone.reshape(-1, *everyone.shape[2:])
            common = nets.experts(shared, bottom, keys, rate, BOTTOM)
            return nets.mix(gate, own_b, jnp.concatenate([everyone, common]))

        return jax.vmap(one)(jnp.arange(num_tasks), coupled["gate"], bottoms, mine)

    return Top(
        lambda key, n: nets.init_experts(key, count, n, widths),
        lambda key, n: {"tower": init_tower(key, widths[-1])},
        lambda shared, b, keys: (),
        lambda shared, own, z, b, keys: apply_tower(own["tower"], z, keys),
        init_coupled,
        joint,
        own_tables=True,
        apart=True,
    )

"""Optimisers from plain arguments: schedule, groups for shared parameters and heads, clipping.

Clipping and weight decay see the aggregated gradient. Accumulation is not here: micro-batches
are summed task by task before aggregation (`methods.task_grads`), because aggregating first and
averaging after is another algorithm.
"""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Hashable, Sequence
from typing import Any

import jax
import optax

from mtl_jax.errors import UserError
from mtl_jax.methods.ownership import Owner, is_shared, is_stacked

Tree = Any


def make_schedule(
    name: str,
    peak: float,
    total_steps: int,
    *,
    warmup_steps: int = 0,
    step_every: int = 1000,
    step_factor: float = 0.5,
    boundaries: Sequence[int] = (),
    factors: Sequence[float] = (),
) -> optax.Schedule:
    """Returns step -> learning rate: a linear warm-up, then the named shape.

    Args:
      name: "constant"; "cosine" or "linear" to 0 at `total_steps`; "step" multiplies by
        `step_factor` every `step_every` steps; "piecewise" is factors[i] times the peak from step
        boundaries[i] on.
      peak: learning rate after the warm-up.
      total_steps: length of the run, warm-up included.
      warmup_steps: length of the warm-up.
      step_every: see name.
      step_factor: see name.
      boundaries: see name; they rise, and count from the end of the warm-up.
      factors: see name.

    Raises:
      UserError: an unknown name, a warm-up as long as the run, or boundaries that do not fit, or
        that the named shape does not have.
    """
    if warmup_steps and warmup_steps >= total_steps:
        raise UserError(
            f"optim.warmup_steps is {warmup_steps}, but the run has {total_steps} steps;"
            " give fewer of the former or more of the latter"
        )
    if name != "piecewise" and (boundaries or factors):
        raise UserError(
            f"optim.boundaries and optim.factors belong to the piecewise schedule, not to {name};"
            " choose optim.schedule=piecewise, or leave them out"
        )
    rest = max(total_steps - warmup_steps, 1)
    if name == "constant":
        after = optax.constant_schedule(peak)
    elif name == "cosine":
        after = optax.cosine_decay_schedule(peak, rest)
    elif name == "linear":
        after = optax.linear_schedule(peak, 0.0, rest)
    elif name == "step":
        after = optax.exponential_decay(peak, step_every, step_factor, staircase=True)
    elif name == "piecewise":
        fits = len(boundaries) == len(factors) and list(boundaries) == sorted(set(boundaries))
        if not fits or not all(0 <= factor < math.inf for factor in factors):
            raise UserError(
                f"optim.boundaries is {list(boundaries)} and optim.factors {list(factors)}; give"
                " rising steps, and a factor of 0 or more for each"
            )
        rates = [optax.constant_schedule(peak * factor) for factor in (1.0, *factors)]
        after = optax.join_schedules(rates, list(boundaries))
    else:
        raise UserError(
            f"unknown schedule {name!r}; known: constant, cosine, linear, piecewise, step"
        )
    if not warmup_steps:
        return after
    warmup = optax.linear_schedule(peak / (warmup_steps + 1), peak, warmup_steps)
    return optax.join_schedules([warmup, after], [warmup_steps])


def _rule(
    name: str, lr: optax.Schedule, weight_decay: float, b1: float, b2: float
) -> optax.GradientTransformation:
    if name == "adamw":
        return optax.adamw(lr, b1, b2, weight_decay=weight_decay)
    if name == "lion":
        return optax.lion(lr, weight_decay=weight_decay)
    if name == "muon":
        return optax.contrib.muon(lr, weight_decay=weight_decay, adam_b1=b1, adam_b2=b2)
    coupled = optax.add_decayed_weights(weight_decay) if weight_decay else optax.identity()
    rules = {
        "adam": lambda lr: optax.adam(lr, b1, b2),
        "sgd": optax.sgd,
        "momentum": lambda lr: optax.sgd(lr, momentum=0.9),
    }
    if name not in rules:
        raise UserError(
            f"unknown optimiser {name!r}; known: adam, adamw, lion, momentum, muon, sgd"
        )
    return optax.chain(coupled, rules[name](lr))


def make_optimizer(
    name: str,
    shared_lr: optax.Schedule,
    heads_lr: optax.Schedule,
    owners: Tree,
    *,
    clip_norm: float = 0.0,
    weight_decay: float = 0.0,
    b1: float = 0.9,
    b2: float = 0.999,
    free: Tree = None,
) -> optax.GradientTransformation:
    """Returns the optimiser for one parameter tree.

    Args:
      name: adam (eps 1e-8), adamw, lion, momentum (0.9), muon or sgd. Muon orthogonalises the
        momentum of matrices, and treats all other parameters as Adam does; stacked heads among
        them, whose rows belong to different tasks.
      shared_lr: learning rate of the shared parameters.
      heads_lr: learning rate of the heads.
      owners: tree like the parameters, see `methods.ownership`.
      clip_norm: global norm over all parameters to clip to; 0 for no clipping.
      weight_decay: decoupled for adamw, lion and muon; for the others added to the gradient (L2).
      b1: decay of the first moment of adam, adamw and muon's Adam part.
      b2: decay of their second moment.
      free: tree of bool like the parameters, False for those that stay as they are; None for all.
    """
    clip = optax.clip_by_global_norm(clip_norm) if clip_norm else optax.identity()
    if free is None:
        free = jax.tree.map(lambda _: True, owners)

    def group(who: Owner, is_free: bool) -> str:
        if not is_free:
            return "frozen"
        if name == "muon" and is_stacked(who):
            return "rows"
        return "shared" if is_shared(who) else "heads"

    rules: dict[Hashable, optax.GradientTransformation] = {
        "shared": _rule(name, shared_lr, weight_decay, b1, b2),
        "heads": _rule(name, heads_lr, weight_decay, b1, b2),
    }
    # A rule that nothing needs would still have a place in every checkpoint.
    if not all(jax.tree.leaves(free)):
        rules["frozen"] = optax.set_to_zero()
    if name == "muon" and any(map(is_stacked, jax.tree.leaves(owners))):
        rules["rows"] = _rule("adam", heads_lr, 0.0, b1, b2)
    return optax.chain(clip, optax.multi_transform(rules, jax.tree.map(group, owners, free)))


def free_tree(params: Tree, patterns: str, presets: Sequence[str] = ()) -> Tree:
    """Returns a tree of bool like `params`: which parameters are trained.

    Args:
      params: the parameter tree.
      patterns: "all", or globs on paths such as branch/dense_2/*, with commas between them; * also
        matches slashes.
      presets: names of the system's own, for the error.

    Raises:
      UserError: a pattern that matches no parameter.
    """
    if patterns == "all":
        return jax.tree.map(lambda _: True, params)
    globs = [glob.strip() for glob in patterns.split(",")]
    paths = jax.tree_util.tree_map_with_path(lambda path, _: path_name(path), params)
    for glob in globs:
        if not any(fnmatch.fnmatchcase(path, glob) for path in jax.tree.leaves(paths)):
            known = ", ".join(sorted({f"{p.rpartition('/')[0]}/*" for p in jax.tree.leaves(paths)}))
            others = f", and the presets {', '.join(presets)}" if presets else ""
            raise UserError(
                f"config.optim.trainable: {glob!r} matches no parameter; there are {known}{others}"
            )
    return jax.tree.map(lambda path: any(fnmatch.fnmatchcase(path, glob) for glob in globs), paths)


def path_name(path: tuple) -> str:
    """Returns "branch/dense_0/kernel" of a key path."""
    return "/".join(str(getattr(p, "key", getattr(p, "name", getattr(p, "idx", p)))) for p in path)

"""Optimisers from plain arguments: schedule, groups for shared parameters and heads, clipping.

Clipping and weight decay see the aggregated gradient. Accumulation is not here: micro-batches
are summed task by task before aggregation (`methods.task_grads`), because aggregating first and
averaging after is another algorithm.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import jax
import optax

from mtl_jax.errors import UserError
from mtl_jax.methods.ownership import is_shared

Tree = Any


def make_schedule(
    name: str,
    peak: float,
    total_steps: int,
    *,
    warmup_steps: int = 0,
    step_every: int = 1000,
    step_factor: float = 0.5,
) -> optax.Schedule:
    """Returns step -> learning rate: a linear warm-up, then the named shape.

    Args:
      name: "constant"; "cosine" or "linear" to 0 at `total_steps`; "step" multiplies by
        `step_factor` every `step_every` steps.
      peak: learning rate after the warm-up.
      total_steps: length of the run, warm-up included.
      warmup_steps: length of the warm-up.
      step_every: see name.
      step_factor: see name.

    Raises:
      UserError: an unknown name, or a warm-up as long as the run.
    """
    if warmup_steps and warmup_steps >= total_steps:
        raise UserError(
            f"optim.warmup_steps is {warmup_steps}, but the run has {total_steps} steps;"
            " give fewer of the former or more of the latter"
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
    else:
        raise UserError(f"unknown schedule {name!r}; known: constant, cosine, linear, step")
    if not warmup_steps:
        return after
    warmup = optax.linear_schedule(peak / (warmup_steps + 1), peak, warmup_steps)
    return optax.join_schedules([warmup, after], [warmup_steps])


def _rule(name: str, lr: optax.Schedule, weight_decay: float) -> optax.GradientTransformation:
    if name == "adamw":
        return optax.adamw(lr, weight_decay=weight_decay)
    if name == "lion":
        return optax.lion(lr, weight_decay=weight_decay)
    coupled = optax.add_decayed_weights(weight_decay) if weight_decay else optax.identity()
    rules = {
        "adam": optax.adam,
        "sgd": optax.sgd,
        "momentum": lambda lr: optax.sgd(lr, momentum=0.9),
    }
    if name not in rules:
        raise UserError(f"unknown optimiser {name!r}; known: adam, adamw, lion, momentum, sgd")
    return optax.chain(coupled, rules[name](lr))


def make_optimizer(
    name: str,
    shared_lr: optax.Schedule,
    heads_lr: optax.Schedule,
    owners: Tree,
    *,
    clip_norm: float = 0.0,
    weight_decay: float = 0.0,
) -> optax.GradientTransformation:
    """Returns the optimiser for one parameter tree.

    Args:
      name: adam (eps 1e-8), adamw, lion, momentum (0.9) or sgd.
      shared_lr: learning rate of the shared parameters.
      heads_lr: learning rate of the heads.
      owners: tree like the parameters, see `methods.ownership`.
      clip_norm: global norm over all parameters to clip to; 0 for no clipping.
      weight_decay: decoupled for adamw and lion; for the others added to the gradient (L2).
    """
    clip = optax.clip_by_global_norm(clip_norm) if clip_norm else optax.identity()
    groups = jax.tree.map(lambda who: "shared" if is_shared(who) else "heads", owners)
    rules: dict[Hashable, optax.GradientTransformation] = {
        "shared": _rule(name, shared_lr, weight_decay),
        "heads": _rule(name, heads_lr, weight_decay),
    }
    return optax.chain(clip, optax.multi_transform(rules, groups))

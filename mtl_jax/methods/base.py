"""The contracts of `mtl_jax.methods`: what a method is given, what it gives back.

Three kinds of method share one package:

* an `Aggregator` turns the stacked task gradients of the shared parameters into one direction;
* a `LossWeighting` turns the task losses into weights, so that one backward pass is enough;
* a `Method` is what a training loop calls: `as_method` makes one of either kind, and
  `flat_regions` wraps either kind in per-task sharpness-aware perturbations.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax

Array = jax.Array
Tree = Any
"""A pytree of arrays."""


class Traits(NamedTuple):
    """What is known of an aggregator in closed form; the common test checks every row.

    Attributes:
      degree: scaling all task gradients by s > 0 scales the direction by s ** degree; NaN for a
        method that has none (a clipped one), which counts as "not 1".
      on_equal: `on_equal(num_tasks, norm)` is |direction| / |g| when every one of `num_tasks`
        gradients is the same g with |g| = norm (1 for a mean, num_tasks for a sum).
      symmetric: permuting the tasks permutes the weights. False for methods that draw a random
        order or random weights; they are symmetric in distribution only.
      linear: the direction is linear in the gradients for fixed losses and state.
    """

    degree: float = 1.0
    on_equal: Callable[[int, float], float] = lambda num_tasks, norm: 1.0
    symmetric: bool = True
    linear: bool = False


class Info(NamedTuple):
    """What an aggregation can tell about itself; None where it does not apply.

    Attributes:
      weights: [T] weight of each task's gradient in the direction.
      gram: [T, T] float32 inner products of the task gradients.
      flat_weights: [T] the same for the flat parts h_i of `flat_regions`.
      flat_gram: [T, T] the same for the flat parts.
      perturbed_losses: [T] losses at the perturbed points; minus the losses, the surrogate gap.
        Where the perturbed pass sees fewer rows, or not every step, the losses plus its last gap.
    """

    weights: Array | None = None
    gram: Array | None = None
    flat_weights: Array | None = None
    flat_gram: Array | None = None
    perturbed_losses: Array | None = None


class AggregatorUpdate(Protocol):
    """`update(grads, state, *, losses, active, key) -> (direction, state, info)`.

    Args:
      grads: tree of task gradients; every leaf has a leading task axis [T, ...].
      state: what `init` or the last call returned.
      losses: [T] float32, the task losses at the point of the gradients.
      active: [T] bool; False for a task without labels in this batch. An absent task is not a
        zero gradient: it is left out, as if it had not been listed.
      key: a PRNG key, the same on every device.
    """

    def __call__(
        self, grads: Tree, state: Tree, *, losses: Array, active: Array, key: Array
    ) -> tuple[Tree, Tree, Info]: ...


GramFn = Callable[[Array, Tree, Array, Array, Array], tuple[Array, Tree]]
"""`gram_weights(gram, state, losses, active, key) -> (weights [T], state)`; `gram` [T, T] as the
gradients give it, rows and columns of absent tasks 0."""


class Aggregator(NamedTuple):
    """Stacked task gradients to one direction.

    Attributes:
      init: `init(shared, num_tasks) -> state`, from the shared parameters (no task axis).
      update: see `AggregatorUpdate`.
      traits: what holds for it in closed form.
      gram_weights: see `GramFn`; the direction is sum_t weights_t g_t. None for a method that looks
        at more of the gradients than their inner products.
    """

    init: Callable[[Tree, int], Tree]
    update: AggregatorUpdate
    traits: Traits = Traits()
    gram_weights: GramFn | None = None


class WeightsFn(Protocol):
    """`weights(losses, state, *, active, key) -> (w [T], state)`."""

    def __call__(
        self, losses: Array, state: Tree, *, active: Array, key: Array
    ) -> tuple[Array, Tree]: ...


class AfterStepFn(Protocol):
    """`after_step(state, before, after, *, active) -> state`; losses [T] around the update."""

    def __call__(self, state: Tree, before: Array, after: Array, *, active: Array) -> Tree: ...


class LossWeighting(NamedTuple):
    """Task losses to weights: the gradient is that of sum_t w_t L_t, heads included.

    Attributes:
      init: `init(num_tasks) -> state`.
      weights: see `WeightsFn`; inactive tasks get weight 0.
      after_step: for methods that look at the losses on the same batch after the parameter
        update (FAMO); None for all others, and then nothing is evaluated.
    """

    init: Callable[[int], Tree]
    weights: WeightsFn
    after_step: AfterStepFn | None = None


class TaskGrads(NamedTuple):
    """Gradients of all task losses, each with respect to what it may move.

    Attributes:
      shared: the parameter tree with None at head leaves; every leaf [T, ...].
      heads: the parameter tree with None at shared leaves; a leaf owned by task k is the
        gradient of loss k; a stacked leaf [T, ...] holds row t of loss t.
    """

    shared: Tree
    heads: Tree


class Spread(NamedTuple):
    """How devices share out a sum over them; for one device all of it is the identity.

    Attributes:
      devices: how many there are.
      sum_to_owners: `sum_to_owners(x [T, devices n]) -> [T, n]`: this device's columns of the sum.
      all_gather: `all_gather(x [n]) -> [devices n]`: the parts of all devices.
    """

    devices: int = 1
    sum_to_owners: Callable[[Array], Array] = lambda x: x
    all_gather: Callable[[Array], Array] = lambda x: x


class Shards(NamedTuple):
    """Task gradients whose sum over devices no device holds whole.

    Attributes:
      rows: [T, n] this device's columns of the stacked gradients of all shared parameters, one
        behind the other; zeros at the end.
      heads: as in `TaskGrads`, whole.
      total: `total(x)`: the sum over devices.
      whole: `whole(part [n]) -> tree`: what all devices made of their columns, as the shared part
        of the parameter tree.
    """

    rows: Array
    heads: Tree
    total: Callable[[Tree], Tree]
    whole: Callable[[Array], Tree]


class Problem(NamedTuple):
    """One batch seen as a multi-task objective: functions of the parameters only.

    Losses are already global means (over devices, micro-batches and labelled examples).

    Attributes:
      num_tasks: T.
      owners: tree like the parameters with "shared", "stacked" or a task index at each leaf.
      losses: `losses(params) -> (losses [T], active [T], aux)`, forward only.
      weighted_grads: `weighted_grads(params, weigh) -> (grads, losses, active, (weights, out),
        aux)` with `weigh(losses, active) -> (weights [T], out)`: one backward pass of the
        weighted sum.
      task_grads: `task_grads(params) -> (TaskGrads, losses, active, aux)`.
      grad_at: `grad_at(point, moves, heads) -> (TaskGrads, losses)`: every task at a point of its
        own. `point(move_t)` makes the shared parameters of task t from row t of `moves` [T, ...]
        inside the loop over tasks, so that T points never exist at once; `heads` as in the
        parameters, each leaf already moved for its own task.
      losses_at: `losses_at(point, moves, heads) -> losses [T]`: as `grad_at`, forward only.
      leading: `leading(share) -> Problem` on the leading share of each device's rows. With
        micro-batches the share is one of whole micro-batches.
      grads_with_lead: `grads_with_lead(params, share, synced) -> (TaskGrads, losses, active, aux,
        lead)`: as `task_grads`, and `lead() -> (TaskGrads, TaskGrads, losses, active)` of the
        leading share of the rows. Its first gradients are those of this device's rows alone (0 for
        a task without labels there), or with `synced` the same as its second ones, which are
        global. Calling it costs nothing for a share of 1 and with micro-batches, else a clean pass
        over the leading rows.
      task_shards: `task_shards(params) -> (Shards, losses, active, aux)`: as `task_grads`, each
        device with its share of the sum. There must be shared parameters.
    """

    num_tasks: int
    owners: Tree
    losses: Callable[..., Any]
    weighted_grads: Callable[..., Any]
    task_grads: Callable[..., Any]
    grad_at: Callable[..., Any]
    losses_at: Callable[..., Any]
    leading: Callable[[float], Problem]
    grads_with_lead: Callable[..., Any]
    task_shards: Callable[..., Any]


class Update(NamedTuple):
    """What a method hands the optimiser.

    Attributes:
      grads: tree like the parameters, to be used as their gradient.
      state: the method's next state.
      losses: [T] clean losses; active: [T]; aux: what the clean forward pass returned.
      info: see `Info`.
    """

    grads: Tree
    state: Tree
    losses: Array
    active: Array
    aux: Any
    info: Info


class Method(NamedTuple):
    """What a training loop calls.

    Attributes:
      init: `init(params, owners, num_tasks) -> state`.
      update: `update(problem, params, state, key) -> Update`.
      after_step: see `LossWeighting.after_step`; None when not needed.
    """

    init: Callable[[Tree, Tree, int], Tree]
    update: Callable[[Problem, Tree, Tree, Array], Update]
    after_step: AfterStepFn | None = None

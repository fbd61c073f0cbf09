"""SAMO against a walk in numpy, SAM, and the base method."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtl_jax.config import FlatConfig, MethodConfig
from mtl_jax.engine.step import bind
from mtl_jax.errors import UserError
from mtl_jax.methods import as_method, gram, make, samo
from mtl_jax.methods.base import Aggregator, Info, LossWeighting, Method, Problem
from mtl_jax.methods.task_grads import objective, problem
from tests import toys

KEY, RHO, BETA, ZO, LR, UNREAD = jax.random.key(7), 0.4, 0.3, 0.05, 0.3, 6


def _mean() -> Aggregator:
    """The mean over the tasks that are there."""

    def update(grads: Any, state: Any, *, losses: Any, active: Any, key: Any) -> tuple:
        weights = active / jnp.maximum(active.sum(), 1)
        return gram.combine(grads, weights), state, Info(weights)

    return Aggregator(lambda shared, num_tasks: (), update)


def _batches(steps: int, absent: int | None = None) -> dict[str, Any]:
    """Random batches [steps, 16, ...] of `toys.table`, in which nothing reads row `UNREAD`."""
    rng, shape = np.random.default_rng(4), (steps, toys.BATCH)
    mask = (rng.random((*shape, 3)) < 0.7).astype(float)
    if absent is not None:
        mask[..., absent] = 0
    return {
        "x": rng.normal(size=(*shape, toys.WIDTH)),
        "ids": rng.integers(0, UNREAD, shape),
        "y": rng.normal(size=(*shape, 3)),
        "label_mask": mask,
    }


def _bind(params: Any, batch: Any, **options: Any) -> Problem:
    keys = jax.random.split(jax.random.key(1), toys.BATCH)
    return bind(toys.table().system, params, {}, batch, keys, **options)


def _params() -> Any:
    toy = toys.table()
    return toy.system.init(jax.random.key(0), toy.batch)[0]


# The walk in numpy: parameters are (table, trunk, heads).


def _loss_and_grads(point: tuple, batch: dict, t: int) -> tuple[float, tuple]:
    """The loss of task t and its gradients: for the table, the trunk and head t."""
    table, trunk, heads = point
    x, mask = batch["x"] + table[batch["ids"]], batch["label_mask"][:, t]
    z = np.tanh(x @ trunk)
    miss, count = z @ heads[t][:, 0] - batch["y"][:, t], max(mask.sum(), 1)
    slope = 2 * mask * miss / count
    inner = slope[:, None] * heads[t][:, 0] * (1 - z**2)
    rows = np.zeros_like(table)
    np.add.at(rows, batch["ids"], inner @ trunk.T)
    return float((mask * miss**2).sum() / count), (rows, x.T @ inner, (z.T @ slope)[:, None])


def _draws(step_key: Any, t: int, means: list[np.ndarray]) -> list[np.ndarray]:
    """The noise of task t: standard normal, 0 on what the batch does not depend on."""
    task_key = jax.random.split(jax.random.split(step_key, 3)[1], 3)[t]
    draws = np.split(jax.random.normal(task_key, (sum(m.size for m in means),)), [means[0].size])
    return [np.where(m != 0, u.reshape(m.shape), 0) for m, u in zip(means, draws, strict=True)]


def _reference(point: tuple, batch: dict, weights: Any, adaptive: bool) -> tuple:
    """One step in numpy; returns the direction and the losses at the worst points."""
    active = batch["label_mask"].sum(0) > 0
    clean = [_loss_and_grads(point, batch, t)[1] for t in range(3)]
    means = [sum(g[i] for g in clean) / active.sum() for i in (0, 1)]
    away, after, heads = [], [], np.zeros_like(point[2])
    for t in range(3):
        noise = _draws(KEY, t, means)

        def loss(sign: float, t: int = t, noise: list = noise) -> float:
            moved = tuple(p + sign * ZO * u for p, u in zip(point, noise, strict=False))
            return _loss_and_grads((*moved, point[2]), batch, t)[0]

        slope = (loss(1) - loss(-1)) / (2 * ZO)
        mixed = []
        for m, u in zip(means, noise, strict=True):
            local = slope * u
            length = np.linalg.norm(local)
            unit = local / length if length > 0 else 0 * local
            mixed.append((1 - BETA) * m + BETA * np.linalg.norm(m) * unit)
        moved = _moved(list(point[:2]), mixed, adaptive)
        head = _moved([point[2][t]], [clean[t][2] / active.sum()], adaptive)[0]
        own = point[2].copy()
        own[t] = head
        value, grads = _loss_and_grads((*moved, own), batch, t)
        away.append(grads)
        after.append(value)
        heads[t] = grads[2]
    shared = [sum(weights(active)[t] * away[t][i] for t in range(3)) for i in (0, 1)]
    return (*shared, heads), np.array(after)


def _moved(leaves: list, grads: list, adaptive: bool) -> list:
    metric = [np.abs(p) if adaptive else np.ones_like(p) for p in leaves]
    norm = np.sqrt(sum(((m * g) ** 2).sum() for m, g in zip(metric, grads, strict=True)))
    size = RHO / norm if norm > 0 else 0.0
    return [p + size * m**2 * g for p, m, g in zip(leaves, metric, grads, strict=True)]


@pytest.mark.parametrize(
    ("base", "adaptive", "absent", "strategy"),
    [
        (_mean(), False, None, "unroll"),
        (make("linear_scalarization", reduction="sum"), True, 1, "scan"),
    ],
)
def test_a_walk_is_that_of_numpy(
    base: Aggregator | LossWeighting, adaptive: bool, absent: int | None, strategy: str
) -> None:
    with jax.enable_x64(True):
        params, batches = _params(), _batches(3, absent)
        method = samo(base, RHO, BETA, ZO, adaptive)

        def step(carry: tuple, batch: Any) -> tuple:
            out = method.update(_bind(carry[0], batch, strategy=strategy), carry[0], carry[1], KEY)
            moved = jax.tree.map(lambda p, g: p - LR * g, carry[0], out.grads)
            return (moved, out.state), (moved, out.info.perturbed_losses, out.losses)

        start = params, method.init(params, _bind(params, _first(batches)).owners, 3)
        walk, after, before = jax.device_get(
            jax.jit(lambda xs: jax.lax.scan(step, start, xs)[1])(batches)
        )
        point = tuple(
            np.asarray(leaf)
            for leaf in (params["table"], params["trunk"]["w"], params["heads"]["w"])
        )

        def weights(active: np.ndarray) -> np.ndarray:
            return active / (active.sum() if isinstance(base, Aggregator) else 1)

        for k in range(3):
            batch = {name: leaf[k] for name, leaf in batches.items()}
            direction, losses = _reference(point, batch, weights, adaptive)
            point = tuple(p - LR * d for p, d in zip(point, direction, strict=True))
            np.testing.assert_allclose(walk["table"][k], point[0], atol=1e-10)
            np.testing.assert_allclose(walk["trunk"]["w"][k], point[1], atol=1e-10)
            np.testing.assert_allclose(walk["heads"]["w"][k], point[2], atol=1e-10)
            np.testing.assert_allclose(after[k], losses, atol=1e-10)
            assert np.abs(after[k] - before[k]).max() > 1e-2
        np.testing.assert_array_equal(walk["table"][-1][UNREAD], params["table"][UNREAD])


def _first(batches: dict) -> dict:
    return {name: leaf[0] for name, leaf in batches.items()}


def test_what_changes_nothing() -> None:
    """Radius 0, labels of an absent task, micro-batches, and the way over the tasks."""
    with jax.enable_x64(True):
        params, batch = _params(), _first(_batches(1, absent=1))
        other = {**batch, "y": batch["y"] * np.array([1, 1e6, 1])}
        method = samo(_mean(), RHO, BETA, ZO)

        @jax.jit
        def run(params: Any, batch: Any) -> dict[str, Any]:
            def grads(method: Method, **options: Any) -> Any:
                bound = _bind(params, batch, **{"strategy": "scan", **options})
                state = method.init(params, bound.owners, 3)
                return method.update(bound, params, state, KEY).grads

            return {
                "zero": grads(samo(_mean(), 0.0)),
                "erm": grads(as_method(_mean())),
                "micro": grads(method, microbatches=4),
                "vmap": grads(method, strategy="vmap"),
            }

        found = jax.device_get(run(params, batch))
        found["other"] = jax.device_get(run(params, other))["vmap"]
        for a, b in (("zero", "erm"), ("vmap", "other"), ("vmap", "micro")):
            jax.tree.map(
                lambda x, y: np.testing.assert_allclose(x, y, atol=1e-12), found[a], found[b]
            )
        apart = jax.tree.map(lambda x, y: np.abs(x - y).max(), found["vmap"], found["erm"])
        assert min(jax.tree.leaves(apart)) > 1e-3


def test_one_task_without_noise_is_sam_and_frozen_parameters_stay() -> None:
    """`frozen` has no gradient, and must not be perturbed: the loss would see it."""
    with jax.enable_x64(True):
        rng = np.random.default_rng(0)
        batch = {"x": jnp.asarray(rng.normal(size=(8, 4))), "y": jnp.asarray(rng.normal(size=8))}
        params = {name: jnp.asarray(rng.normal(size=4)) for name in ("free", "frozen")}

        def task_loss(params: Any, z: Any, batch: Any, t: Any) -> tuple:
            weights = params["free"] * jax.lax.stop_gradient(params["frozen"])
            return jnp.square(jnp.tanh(batch["x"] @ weights) - batch["y"]).sum(), jnp.float32(8)

        model = objective(params, lambda params, batch: ((), ()), task_loss, 1)

        @jax.jit
        def run(params: Any, batch: Any) -> list[Any]:
            bound = problem(model, batch)
            return [
                method.update(bound, params, method.init(params, model.owners, 1), KEY).grads
                for method in (samo(_mean(), RHO, beta=0.0), samo(_mean(), RHO, beta=1.0))
            ]

        ours, noisy = jax.device_get(run(params, batch))

        @jax.jit
        def value_and_grad(free: Any) -> Any:
            def loss(free: Any) -> Any:
                return task_loss({**params, "free": free}, (), batch, 0)[0] / 8

            return jax.value_and_grad(loss)(free)

        at, (_, grad) = params["free"], value_and_grad(params["free"])
        _, sam = value_and_grad(at + RHO * grad / jnp.linalg.norm(grad))
        np.testing.assert_allclose(ours["free"], sam, atol=1e-12)
        # With noise alone the worst point is rho along it, to the side where the loss rises.
        task_key = jax.random.split(jax.random.split(KEY, 3)[1], 1)[0]
        unit = jax.random.normal(task_key, (8,))[:4]
        unit = RHO * unit / jnp.linalg.norm(unit)
        rise = value_and_grad(at + 1e-2 * unit)[0] - value_and_grad(at - 1e-2 * unit)[0]
        _, wanted = value_and_grad(at + jnp.sign(rise) * unit)
        np.testing.assert_allclose(noisy["free"], wanted, atol=1e-12)
        assert np.abs(noisy["free"] - sam).max() > 1e-3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rho": -1.0}, "rho must be non-negative, found -1.0"),
        ({"beta": 1.5}, r"beta must be in \[0, 1\], found 1.5"),
        ({"zo_eps": 0.0}, "zo_eps must be positive, found 0.0"),
    ],
)
def test_options_out_of_range(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        samo(make("mgda"), **options)
    with pytest.raises(UserError, match=message):
        MethodConfig(flat=FlatConfig(combine="samo", **options)).make()


def test_a_config_makes_it_and_refuses_what_it_does_not_have() -> None:
    config = FlatConfig(combine="samo", rho=1e-3, adaptive=False)
    assert MethodConfig(flat=config).make().after_step is None
    assert MethodConfig("famo", flat=config).make().after_step is not None
    with pytest.raises(UserError, match=r"flat\.every is 2, which combine=samo does not have"):
        MethodConfig(flat=FlatConfig(combine="samo", every=2)).make()

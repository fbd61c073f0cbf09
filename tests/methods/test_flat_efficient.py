"""Flat parts used again, from fewer rows, and at each device's own worst points.

Run as a program (`python tests/methods/test_flat_efficient.py OUT`) it writes what forced host
devices make of the updates that `test_devices_with_worst_points_of_their_own` compares.
"""

from __future__ import annotations

import functools
import pathlib
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtl_jax.config import FlatConfig, MethodConfig
from mtl_jax.engine import parallel
from mtl_jax.engine.row_rules import sgd
from mtl_jax.engine.step import bind
from mtl_jax.engine.tables import Tables, check_method
from mtl_jax.errors import UserError
from mtl_jax.methods import as_method, flat_regions, gram, make, ownership, samo
from mtl_jax.methods.base import Aggregator, Info, Method, Problem
from mtl_jax.methods.perturbation import Perturbation, perturbed_grads
from mtl_jax.methods.task_grads import objective, objective_from_losses, problem
from tests import toys

KEY, RHO = jax.random.key(7), 0.3


def _mean() -> Aggregator:
    """The mean over the tasks that are there."""

    def update(grads: Any, state: Any, *, losses: Any, active: Any, key: Any) -> tuple:
        weights = active / jnp.maximum(active.sum(), 1)
        return gram.combine(grads, weights), state, Info(weights)

    return Aggregator(lambda shared, num_tasks: (), update)


def _batch(seed: int, absent: int | None = None, rows: int = toys.BATCH) -> dict[str, Any]:
    """A random batch of `toys.table`; the task `absent` has no label in the first `rows` rows."""
    rng, batch = np.random.default_rng(seed), toys.table().batch
    batch = {**batch, "x": rng.normal(size=batch["x"].shape), "y": rng.normal(size=(16, 3))}
    mask = (rng.random((16, 3)) < 0.7).astype(float)
    if absent is not None:
        mask[:rows, absent] = 0
    return {**batch, "label_mask": mask}


def _bind(params: Any, batch: Any, **options: Any) -> Problem:
    keys = jax.random.split(jax.random.key(1), batch["x"].shape[0])
    # A loop over the tasks compiles in less time.
    return bind(toys.table().system, params, {}, batch, keys, **{"strategy": "scan", **options})  # pyrefly: ignore


def _params() -> tuple[Any, Any]:
    toy = toys.table()
    params, _ = toy.system.init(jax.random.key(0), toy.batch)
    return params, ownership.owner_tree(params, toy.system.owner, 3)


@functools.cache
def _passes() -> Callable:
    def run(params: Any, batch: Any) -> dict[str, Any]:
        bound = _bind(params, batch)
        grads, losses, active, _ = bound.task_grads(params)
        moved, after = perturbed_grads(bound, params, grads, Perturbation(RHO, RHO))
        return {"grads": grads, "moved": moved, "losses": losses, "after": after, "on": active}

    return jax.jit(run)


def _pieces(params: Any, batch: Any) -> dict[str, Any]:
    """Both passes of one batch as numpy: g, q, s, r with losses before and after."""
    return jax.device_get(_passes()(params, batch))


def _close(a: Any, b: Any) -> None:
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-12), a, b)


def _map(fn: Callable, *trees: Any) -> Any:
    return jax.tree.map(fn, *trees)


def _scaled(tree: Any, factors: np.ndarray) -> Any:
    return _map(lambda a: a * factors.reshape(-1, *(1,) * (a.ndim - 1)), tree)


def _average(tree: Any, on: np.ndarray) -> Any:
    return _map(lambda a: a[on].sum(0) / max(on.sum(), 1), tree)


# Used again


EVERY = 3


@functools.cache
def _stepper() -> tuple[Method, Callable]:
    method = flat_regions(_mean(), RHO, every=EVERY)
    update = jax.jit(
        lambda params, state, batch: method.update(_bind(params, batch), params, state, KEY)
    )
    return method, update


def _walk(batches: list[dict]) -> list[tuple]:
    """(parameters, update) of every step of a descent; the state goes through its leaves."""
    method, update = _stepper()
    params, owners = _params()
    state, walk = method.init(params, owners, 3), []
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state))
    # A training step is donated the state: no buffer may be in it twice.
    assert len({leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(state)}) == 8
    for batch in batches:
        leaves, structure = jax.tree.flatten(state)
        state = jax.tree.unflatten(structure, [np.asarray(leaf) for leaf in leaves])
        out = jax.device_get(update(params, state, batch))
        walk.append((params, out))
        params, state = _map(lambda p, g: p - 0.3 * g, params, out.grads), out.state
    return walk


def test_flat_parts_used_again_are_those_of_a_loop_by_hand() -> None:
    """Task 2 is away in step 1, task 1 in step 3, which has a perturbed pass, and not after it."""
    with jax.enable_x64(True):
        batches = [_batch(k, {1: 2, 3: 1}.get(k)) for k in range(6)]
        batches[2] = {**batches[2], "y": 5 * batches[2]["y"]}  # longer gradients than in step 0
        kept: Any = None
        for k, (params, out) in enumerate(_walk(batches)):
            now = _pieces(params, batches[k])
            g, on = now["grads"], now["on"]
            leaves = jax.tree.leaves((g.shared, g.heads))
            norms = np.sqrt(sum((leaf**2).reshape(3, -1).sum(1) for leaf in leaves))
            if k % EVERY == 0:
                flat = _map(np.subtract, now["moved"], g)
                kept = flat, norms, on, now["after"] - now["losses"]
            flat, then, present, gaps = kept
            present = present & on
            assert k != 4 or (on.all() and not present[1])
            factors = np.where(then > 0, np.minimum(norms / np.where(then > 0, then, 1), 1), 0)
            assert k != 2 or (norms > then).any()
            h = _scaled(flat, factors)
            _close(
                ownership.merge(
                    _map(np.add, _average(g.shared, on), _average(h.shared, present)),
                    _map(np.add, g.heads, h.heads),
                ),
                out.grads,
            )
            _close(out.info.perturbed_losses, now["losses"] + np.where(present, gaps, 0))
            assert max(np.abs(leaf).max() for leaf in jax.tree.leaves(h)) > 1e-3


def test_an_absent_task_has_no_influence_on_any_step() -> None:
    with jax.enable_x64(True):
        plain = [_batch(k, 1) for k in range(4)]
        other = [{**batch, "y": batch["y"] * np.array([1, 1e6, 1])} for batch in plain]
        for (_, a), (_, b) in zip(_walk(plain), _walk(other), strict=True):
            _map(np.testing.assert_array_equal, a, b)


def test_steps_between_run_the_clean_pass_only() -> None:
    """Counts the rows that forward passes see; under scan, with a share of micro-batches."""
    seen: list[int] = []
    rng, steps, rows, tasks = np.random.default_rng(0), 5, 16, 2
    params = {"w": jnp.ones((4, 3)), "v": jnp.ones((3, tasks))}

    def features(params: Any, micro: Any) -> tuple:
        jax.debug.callback(lambda x: seen.append(len(x)), micro["x"])
        return jnp.tanh(micro["x"] @ params["w"]), ()

    def loss(params: Any, z: Any, micro: Any, t: Any) -> tuple:
        return jnp.square((z @ params["v"])[:, t] - micro["y"]).sum(), jnp.float32(len(z))

    model = objective(params, features, loss, tasks)
    method = flat_regions(_mean(), 0.1, every=2, rows=0.5)

    def step(carry: tuple, batch: Any) -> tuple:
        bound = problem(model, batch, strategy="unroll", microbatches=2)
        out = method.update(bound, carry[0], carry[1], KEY)
        return (_map(lambda p, g: p - 0.1 * g, carry[0], out.grads), out.state), out.losses

    batches = {
        "x": rng.normal(size=(steps, 2, rows // 2, 4)).astype(np.float32),
        "y": rng.normal(size=(steps, 2, rows // 2)).astype(np.float32),
    }
    start = params, method.init(params, model.owners, tasks)
    _, losses = jax.jit(lambda xs: jax.lax.scan(step, start, xs))(batches)
    assert np.isfinite(losses).all()
    jax.effects_barrier()
    assert sum(seen) == steps * rows + 3 * tasks * rows // 2


def test_what_follows_a_step_changes_the_state_of_the_base_only() -> None:
    params, owners = _params()
    base, losses = make("famo"), jnp.array([1.0, 2.0, 3.0])
    method, plain = flat_regions(base, RHO, every=2), as_method(base)
    state, seen = method.init(params, owners, 3), jnp.ones(3, bool)
    moved = losses * jnp.array([0.5, 1.0, 2.0])
    assert method.after_step is not None
    assert plain.after_step is not None
    after: Any = method.after_step(state, losses, moved, active=seen)
    wanted = plain.after_step(state.base, losses, moved, active=seen)
    assert after.kept is state.kept
    _close(after.base, wanted)
    assert any((a != b).any() for a, b in zip(*map(jax.tree.leaves, (after, state)), strict=True))


# From fewer rows


def test_flat_parts_of_some_rows_are_finite_differences_there() -> None:
    with jax.enable_x64(True):
        params, owners = _params()
        batch = _batch(3, absent=2, rows=8)
        methods = {
            "own": (flat_regions(_mean(), RHO, synced=False), {}),
            "half": (flat_regions(_mean(), RHO, rows=0.5), {}),
            "micro": (flat_regions(_mean(), RHO, rows=0.5, synced=False), {"microbatches": 4}),
            "zero": (flat_regions(_mean(), 0.0, rows=0.3, every=2), {}),
        }

        @jax.jit
        def run(params: Any, batch: Any) -> dict[str, Any]:
            return {
                name: method.update(
                    _bind(params, batch, **options), params, method.init(params, owners, 3), KEY
                )
                for name, (method, options) in methods.items()
            }

        found = jax.device_get(run(params, batch))
        all_, some = _pieces(params, batch), _pieces(params, _map(lambda a: a[:8], batch))
        assert all_["on"].all()
        assert some["on"].tolist() == [True, True, False]
        g, h = all_["grads"], _map(np.subtract, some["moved"], some["grads"])
        shared = _map(np.add, _average(g.shared, all_["on"]), _average(h.shared, some["on"]))
        wanted = ownership.merge(shared, _map(np.add, g.heads, h.heads))
        for name in ("half", "micro"):
            _close(found[name].grads, wanted)
            np.testing.assert_allclose(
                found[name].info.perturbed_losses - found[name].losses,
                some["after"] - some["losses"],
                atol=1e-12,
            )
        # The task without labels there: its head takes the clean gradient.
        np.testing.assert_allclose(found["half"].grads["heads"]["w"][2], g.heads["heads"]["w"][2])
        flat = _map(np.subtract, all_["moved"].shared, g.shared)
        shared = _map(np.add, _average(g.shared, all_["on"]), _average(flat, all_["on"]))
        _close(found["own"].grads, ownership.merge(shared, all_["moved"].heads))
        erm = ownership.merge(_average(g.shared, all_["on"]), g.heads)
        _close(found["zero"].grads, erm)
        apart = _map(lambda a, b: np.abs(a - b).max(), found["half"].grads, found["own"].grads)
        assert min(jax.tree.leaves(apart)) > 1e-3


def test_cost_in_plain_steps() -> None:
    """What the docstrings say, by XLA's count for two tasks on a wide trunk."""
    width, rows, tasks = 48, 1024, 2
    params = {"x": jnp.ones((width, width)), **{f"w{i}": jnp.ones((width, width)) for i in "123"}}
    batch = {"x": jnp.ones((rows, width)), "y": jnp.ones((rows, tasks))}

    def features(params: Any, batch: Any) -> tuple:
        z = batch["x"] @ params["x"] * jnp.sum(params["x"])  # so that it has no cheaper gradient
        for i in "123":
            z = jnp.tanh(z @ params[f"w{i}"])
        return z, ()

    def loss(params: Any, z: Any, batch: Any, t: Any) -> tuple:
        return jnp.square(z[:, t] - batch["y"][:, t]).sum(), jnp.float32(rows)

    def flops(method: Method) -> float:
        def update(params: Any, batch: Any) -> Any:
            model = objective(params, features, loss, tasks)
            bound = problem(model, batch, strategy="unroll")
            return method.update(bound, params, method.init(params, model.owners, tasks), KEY).grads

        # Before XLA's optimisations, none of which removes or shares a pass.
        counts: Any = jax.jit(update).lower(params, batch).cost_analysis()
        return counts["flops"]

    base = _mean()
    plain = flops(as_method(base))
    passes = 3 * tasks / (1 + 2 * tasks)
    for method, wanted in (
        (flat_regions(base, RHO), 1 + passes),
        (flat_regions(base, RHO, rows=0.25), 1 + 0.25 * (1 + passes)),
        (samo(base), (3 + 5 * tasks) / (1 + 2 * tasks)),
    ):
        assert abs(flops(method) / plain / wanted - 1) < 0.1


# Worst points of each device's own


def _updates() -> dict[str, Method]:
    return {
        "own": flat_regions(_mean(), RHO, synced=False),
        "own_again": flat_regions(_mean(), RHO, synced=False, every=2, combine="direct"),
        "synced": flat_regions(_mean(), RHO),
    }


def _on_devices(out: str) -> None:
    jax.config.update("jax_enable_x64", True)
    params, owners = _params()

    def step(params: Any, resident: Any, batch: Any) -> tuple:
        del resident
        bound = _bind(params, batch)
        return params, {
            name: method.update(bound, params, method.init(params, owners, 3), KEY).grads
            for name, method in _updates().items()
        }

    run = parallel.DataParallel(step, donate=False)
    _, found = run(parallel.replicate(params), {}, _batch(5))
    leaves = {
        f"{name}/{i}": leaf
        for name, tree in parallel.to_host(found).items()
        for i, leaf in enumerate(jax.tree.leaves(tree))
    }
    np.savez(out, **leaves)


def test_devices_with_worst_points_of_their_own(
    run_python: Callable, tmp_path: pathlib.Path
) -> None:
    """Eight devices of two rows each, against the same arithmetic on one."""
    done = run_python(__file__, str(tmp_path / "o.npz"), devices=8, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    found = dict(np.load(tmp_path / "o.npz"))
    with jax.enable_x64(True):
        params, _ = _params()
        batch = _batch(5)
        parts = _map(lambda a: jnp.asarray(a).reshape(8, 2, *a.shape[1:]), batch)
        # A device may have no labels of a task: it then has neither a gradient nor a weight.
        assert (batch["label_mask"].reshape(8, 2, 3).sum(1) == 0).any()

        def total(params: Any, part: Any, t: int) -> tuple:
            z = jnp.tanh((part["x"] + params["table"][part["ids"]]) @ params["trunk"]["w"])
            error = (z @ params["heads"]["w"][t])[:, 0] - part["y"][:, t]
            return (part["label_mask"][:, t] * error**2).sum(), part["label_mask"][:, t].sum()

        def one(part: Any, t: int) -> tuple:
            grads, count = jax.grad(total, has_aux=True)(params, part, t)
            own = sum((leaf**2).sum() for leaf in jax.tree.leaves(grads))
            size = jnp.where(own > 0, RHO / jnp.sqrt(jnp.where(own > 0, own, 1)), 0)
            point = _map(lambda p, g: p + size * g, params, grads)
            return jax.grad(total, has_aux=True)(point, part, t)[0], count

        @jax.jit
        def wanted(parts: Any) -> Any:
            tasks = []
            for t in range(3):
                grads, counts = jax.vmap(lambda part, t=t: one(part, t))(parts)
                tasks.append(_map(lambda g, c=counts: g.sum(0) / c.sum(), grads))
            mean = _map(lambda *leaves: sum(leaves) / 3, *tasks)
            return {**mean, "heads": _map(lambda leaf: 3 * leaf, mean["heads"])}

        for i, leaf in enumerate(jax.tree.leaves(wanted(parts))):
            np.testing.assert_allclose(found[f"own/{i}"], leaf, rtol=1e-9, atol=1e-12)
            np.testing.assert_allclose(found[f"own_again/{i}"], leaf, rtol=1e-9, atol=1e-12)
            assert np.abs(found[f"synced/{i}"] - leaf).max() > 1e-3


# Refusals


def test_tables_that_are_updated_row_by_row_cannot_keep_flat_parts() -> None:
    params = {"tables": {"item": jnp.ones((5, 2))}, "w": jnp.ones((2, 2))}
    owners = _map(lambda leaf: "shared", params)
    plan = Tables({"item": sgd(0.1)}, {"item": 5})
    for method in (flat_regions(make("mgda"), rows=0.5), samo(make("mgda"))):
        check_method(method.init, params, owners, 2, plan)
    with pytest.raises(UserError, match=r"keeps a state for every parameter.*\(item\)") as error:
        check_method(flat_regions(make("mgda"), every=2).init, params, owners, 2, plan)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"every": 0}, "every must be a whole number of steps from 1 on, found 0"),
        ({"every": 1.5}, "every must be a whole number of steps from 1 on, found 1.5"),
        ({"rows": 0.0}, "rows must be a share above 0 and up to 1, found 0.0"),
        ({"rows": 1.5}, "rows must be a share above 0 and up to 1, found 1.5"),
        ({"rows": float("nan")}, "rows must be a share above 0 and up to 1, found nan"),
    ],
)
def test_options_out_of_range(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        flat_regions(make("mgda"), **options)
    with pytest.raises(UserError, match=message):
        MethodConfig(flat=FlatConfig(**options)).make()


def test_a_share_that_a_batch_does_not_have() -> None:
    params, _ = _params()
    for share, micro, words in ((0.25, 2, "multiple of 1/2"), (0.6, 4, "multiple of 1/4")):
        with pytest.raises(UserError, match=words):
            _bind(params, _batch(0), microbatches=micro).leading(share)
    model = objective_from_losses(params, lambda params, batch: jnp.ones(3), 3)
    bound = problem(model, {"x": jnp.ones((8, 2)), "y": jnp.ones(4)})
    with pytest.raises(UserError, match="arrays of a batch have 4 and 8 rows"):
        bound.leading(0.5)


if __name__ == "__main__":
    _on_devices(sys.argv[1])

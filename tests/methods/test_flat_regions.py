"""Flat regions against SAM, finite differences, hand-written two-ball perturbations."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mtl_jax.engine.step import bind
from mtl_jax.methods import gram, ownership
from mtl_jax.methods.base import Aggregator, Method
from mtl_jax.methods.flat_regions import as_method, flat_regions
from mtl_jax.methods.loss_weighting import linear_scalarization, scale_invariant
from mtl_jax.methods.mgda import mgda
from mtl_jax.methods.nash_mtl import nash_mtl
from mtl_jax.methods.pcgrad import pcgrad
from mtl_jax.methods.perturbation import Perturbation, perturbed_grads
from mtl_jax.methods.table import METHODS, make
from tests import toys

KEY = jax.random.key(7)


def _setup(name: str = "stacked", num_tasks: int = 3, **options: object) -> tuple:
    toy = toys.ALL[name](num_tasks)
    params, state = toy.system.init(jax.random.key(0), toy.batch)
    batch = jax.tree.map(jnp.asarray, toy.batch)
    keys = jax.random.split(jax.random.key(1), toys.BATCH)
    return params, bind(toy.system, params, state, batch, keys, **options)


def _update(method: Method, bound: object, params: object) -> object:
    state = method.init(params, bound.owners, bound.num_tasks)
    return method.update(bound, params, state, KEY)


def _close(a: object, b: object, **tol: float) -> None:
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, **tol), a, b)


def _part(tree: object, bound: object, keep: object) -> object:
    return ownership.select(tree, bound.owners, keep)


@pytest.mark.parametrize("base", ["pcgrad", "mgda", "upgrad", "linear_scalarization"])
@pytest.mark.parametrize("name", ["heads", "stacked"])
def test_one_task_with_joint_norm_is_sam(base: str, name: str) -> None:
    with jax.enable_x64(True):
        params, bound = _setup(name, 1)
        rho = 0.1
        method = flat_regions(make(base), rho, norm="joint")
        sgd = optax.sgd(0.05)
        sam = optax.contrib.sam(
            optax.sgd(0.05),
            optax.chain(optax.contrib.normalize(), optax.sgd(rho)),
            opaque_mode=True,
        )
        ours, theirs = params, params
        state, opt, sam_state = (
            method.init(params, bound.owners, 1),
            sgd.init(params),
            sam.init(params),
        )

        def loss(params: dict) -> jax.Array:
            return bound.losses(params)[0][0]

        @jax.jit
        def step(ours: dict, state: tuple, opt: tuple, theirs: dict, sam_state: tuple) -> tuple:
            out = method.update(bound, ours, state, KEY)
            updates, opt = sgd.update(out.grads, opt)
            ours = optax.apply_updates(ours, updates)
            updates, sam_state = sam.update(
                jax.grad(loss)(theirs), sam_state, theirs, grad_fn=lambda p, _: jax.grad(loss)(p)
            )
            return ours, out.state, opt, optax.apply_updates(theirs, updates), sam_state

        for _ in range(20):
            ours, state, opt, theirs, sam_state = step(ours, state, opt, theirs, sam_state)
        _close(ours, theirs, atol=1e-10)
        assert np.abs(ours["trunk"]["w"] - params["trunk"]["w"]).max() > 1e-2


def test_separate_norm_is_two_balls() -> None:
    with jax.enable_x64(True):
        params, bound = _setup("heads", 1)
        rho, rho_heads = 0.2, 0.05
        out = _update(flat_regions(mgda(), rho, rho_heads, norm="separate"), bound, params)

        def loss(params: dict) -> jax.Array:
            return bound.losses(params)[0][0]

        grad = jax.grad(loss)(params)
        moved = {
            "trunk": {
                "w": params["trunk"]["w"]
                + rho * grad["trunk"]["w"] / jnp.linalg.norm(grad["trunk"]["w"])
            },
            "head0": {
                "w": params["head0"]["w"]
                + rho_heads * grad["head0"]["w"] / jnp.linalg.norm(grad["head0"]["w"])
            },
        }
        _close(out.grads, jax.grad(loss)(moved), atol=1e-10)


def test_adaptive_radius_follows_the_released_formula() -> None:
    with jax.enable_x64(True):
        params, bound = _setup("heads", 1)
        rho = 0.5
        out = _update(flat_regions(mgda(), rho, adaptive=True, norm="joint"), bound, params)

        def loss(params: dict) -> jax.Array:
            return bound.losses(params)[0][0]

        grad = jax.grad(loss)(params)
        scale = rho / optax.tree.norm(jax.tree.map(lambda w, g: jnp.abs(w) * g, params, grad))
        moved = jax.tree.map(lambda w, g: w + scale * w * w * g, params, grad)
        _close(out.grads, jax.grad(loss)(moved), atol=1e-9)


def test_adaptive_radius_does_not_see_a_rescaling_of_relu_layers() -> None:
    """ASAM's defining property: (a w1, w2 / a) is the same network and the same worst loss."""
    with jax.enable_x64(True):
        rng = np.random.default_rng(0)
        x, y = jnp.asarray(rng.normal(size=(16, 4))), jnp.asarray(rng.normal(size=(16, 1)))
        params = {
            "w1": jnp.asarray(rng.normal(size=(4, 8))),
            "w2": jnp.asarray(rng.normal(size=(8, 1))),
        }

        def losses(params: dict, batch: tuple) -> jax.Array:
            out = jax.nn.relu(batch[0] @ params["w1"]) @ params["w2"]
            return jnp.mean(jnp.square(out - batch[1]))[None]

        from mtl_jax.methods.task_grads import objective_from_losses, problem

        def worst(params: dict, adaptive: bool) -> jax.Array:
            bound = problem(objective_from_losses(params, losses, 1), (x, y))
            method = flat_regions(mgda(), 0.3, adaptive=adaptive)
            return _update(method, bound, params).info.perturbed_losses[0]

        scaled = {"w1": 3.0 * params["w1"], "w2": params["w2"] / 3.0}
        np.testing.assert_allclose(worst(scaled, True), worst(params, True), rtol=1e-9)
        assert abs(worst(scaled, False) / worst(params, False) - 1) > 1e-2


@pytest.mark.parametrize("base", METHODS)
@pytest.mark.parametrize("combine", ["decompose", "direct", "erm"])
def test_radius_zero_is_the_base_method(base: str, combine: str) -> None:
    with jax.enable_x64(True):
        params, bound = _setup("stacked", 3)
        out = _update(flat_regions(make(base), 0.0, combine=combine), bound, params)
        plain = _update(as_method(make(base)), bound, params)
        _close(out.grads, plain.grads, atol=1e-9)
        assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(out.grads))


@pytest.mark.parametrize("base", [linear_scalarization(), scale_invariant()])
def test_linear_methods_decompose_is_direct(base: object) -> None:
    with jax.enable_x64(True):
        params, bound = _setup()
        a, b = (
            _update(flat_regions(base, 0.3, combine=combine), bound, params).grads
            for combine in ("decompose", "direct")
        )
        _close(a, b, atol=1e-12)


def _mean() -> Aggregator:
    def update(
        grads: object, state: object, *, losses: object, active: object, key: object
    ) -> tuple:
        from mtl_jax.methods.base import Info

        return jax.tree.map(lambda a: a.mean(0), grads), state, Info()

    return Aggregator(lambda shared, num_tasks: (), update)


@pytest.mark.parametrize("combine", ["decompose", "direct", "second", "each"])
def test_combine_modes_of_the_mean(combine: str) -> None:
    """For the mean: direct = decompose = mean(s), second = each = mean(s) / 2."""
    with jax.enable_x64(True):
        params, bound = _setup()
        out = _update(flat_regions(_mean(), 0.3, combine=combine), bound, params)
        direct = _update(flat_regions(_mean(), 0.3, combine="direct"), bound, params)
        factor = 0.5 if combine in ("second", "each") else 1.0
        _close(
            _part(out.grads, bound, ownership.is_shared),
            jax.tree.map(lambda a: factor * a, _part(direct.grads, bound, ownership.is_shared)),
            atol=1e-12,
        )
        _close(
            _part(out.grads, bound, ownership.is_head),
            _part(direct.grads, bound, ownership.is_head),
            atol=0,
        )


@pytest.mark.parametrize("norm", ["joint", "separate"])
def test_flat_part_is_rho_times_hessian_times_direction(norm: str) -> None:
    """h_i = rho H u_i + O(rho^2): halving rho quarters the error."""
    with jax.enable_x64(True):
        params, bound = _setup("heads", 3)
        grads, _, _, _ = bound.task_grads(params)

        def error(rho: float) -> float:
            moved, _ = perturbed_grads(bound, params, grads, Perturbation(rho, rho, norm))
            worst = 0.0
            for t in range(3):

                def loss(params: dict, t: int = t) -> jax.Array:
                    return bound.losses(params)[0][t]

                grad = jax.grad(loss)(params)
                head = f"head{t}"
                if norm == "joint":
                    unit = jax.tree.map(lambda g: g / optax.tree.norm(grad), grad)  # noqa: B023
                else:
                    unit = {
                        name: jax.tree.map(lambda g: g / optax.tree.norm(sub), sub)  # noqa: B023
                        if name in ("trunk", head)
                        else sub
                        for name, sub in grad.items()
                    }
                _, hvp = jax.jvp(jax.grad(loss), (params,), (unit,))
                h = moved.shared["trunk"]["w"][t] - grads.shared["trunk"]["w"][t]
                worst = max(worst, float(jnp.abs(h - rho * hvp["trunk"]["w"]).max()))
            return worst

        ratio = error(1e-3) / error(5e-4)
        assert 3.5 < ratio < 4.5


def test_heads_take_the_perturbed_gradient_only() -> None:
    with jax.enable_x64(True):
        params, bound = _setup("heads", 3)
        grads, _, _, _ = bound.task_grads(params)
        moved, _ = perturbed_grads(bound, params, grads, Perturbation(0.3, 0.3))
        out = _update(flat_regions(pcgrad(), 0.3), bound, params)
        for t in range(3):
            np.testing.assert_array_equal(out.grads[f"head{t}"]["w"], moved.heads[f"head{t}"]["w"])
            assert jnp.abs(moved.heads[f"head{t}"]["w"] - grads.heads[f"head{t}"]["w"]).max() > 1e-3


def test_matched_flat_part_shrinks_with_the_radius_and_the_native_one_does_not() -> None:
    with jax.enable_x64(True):
        params, bound = _setup()
        plain = _update(as_method(nash_mtl()), bound, params).grads

        def flat_length(rho: float, flat_scale: str) -> float:
            out = _update(flat_regions(nash_mtl(), rho, flat_scale=flat_scale), bound, params)
            flat = jax.tree.map(jnp.subtract, out.grads, plain)
            return float(optax.tree.norm(_part(flat, bound, ownership.is_shared)))

        assert flat_length(1e-3, "native") > 0.5
        assert flat_length(1e-3, "match") < 1e-2
        assert flat_length(1e-3, "auto") == flat_length(1e-3, "match")
        np.testing.assert_allclose(
            flat_length(2e-3, "match") / flat_length(1e-3, "match"), 2.0, rtol=1e-2
        )


def test_info_holds_both_grams_and_the_surrogate_gap() -> None:
    params, bound = _setup()
    out = _update(flat_regions(mgda(), 0.1), bound, params)
    grads, losses, _, _ = bound.task_grads(params)
    np.testing.assert_allclose(out.info.gram, gram.gram(grads.shared), rtol=1e-5)
    assert out.info.flat_gram.shape == (3, 3)
    assert out.info.weights.shape == out.info.flat_weights.shape == (3,)
    assert bool((out.info.perturbed_losses > losses).all())


@pytest.mark.parametrize("name", toys.ALL)
@pytest.mark.parametrize("combine", ["decompose", "second", "each"])
def test_micro_batches_and_strategies_change_nothing(name: str, combine: str) -> None:
    with jax.enable_x64(True):
        method = flat_regions(mgda(), 0.2, adaptive=True, combine=combine)
        params, bound = _setup(name)
        wanted = _update(method, bound, params).grads
        for options in ({"microbatches": 4}, {"strategy": "vmap"}, {"strategy": "scan"}):
            _, other = _setup(name, **options)
            _close(_update(method, other, params).grads, wanted, atol=1e-9)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rho": -1.0}, "rho must be non-negative, found -1.0"),
        ({"rho_heads": -0.1}, "rho_heads must be non-negative"),
        ({"rho": float("nan")}, "rho must be non-negative, found nan"),
        ({"norm": "both"}, "norm must be one of separate, joint; found 'both'"),
        ({"combine": "sum"}, "combine must be one of erm, direct, decompose, second, each"),
        ({"flat_scale": "big"}, "flat_scale must be one of auto, native, match"),
    ],
)
def test_wrong_options(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        flat_regions(mgda(), **options)
    with pytest.raises(ValueError, match="needs an aggregator"):
        flat_regions(linear_scalarization(), combine="second")

"""Random directions, and what the metrics along them are."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from mtl_jax.analysis import noise
from mtl_jax.analysis.subject import stack
from tests import toys
from tests.analysis.test_hessian import AS_READ


def norm_of(tree) -> float:
    return float(np.sqrt(sum(np.square(leaf).sum() for leaf in jax.tree.leaves(tree))))


def test_directions_have_norm_one_and_follow_from_the_key_alone():
    shapes = {"a": jnp.ones((4, 3)), "b": {"w": jnp.ones(7), "v": jnp.ones((2, 2))}}
    free = {"a": True, "b": {"w": False, "v": True}}
    draw = jax.jit(lambda key, shapes: noise.unit_direction(key, shapes, free))
    first = draw(jax.random.key(0), shapes)
    np.testing.assert_allclose(norm_of(first), 1, rtol=1e-6)
    assert (first["b"]["w"] == 0).all()
    # Another model of the same shapes is moved along the same direction.
    again = draw(jax.random.key(0), jax.tree.map(lambda w: 5 * w, shapes))
    other = draw(jax.random.key(1), shapes)
    np.testing.assert_array_equal(first["a"], again["a"])
    assert np.abs(first["a"] - other["a"]).max() > 0.01
    assert noise.norm_of(shapes, free) == 4.0


def test_a_point_is_the_metrics_of_the_moved_parameters_over_all_batches():
    system, batch = toys.stacked(2)
    params, state = system.init(jax.random.key(0), batch)
    hosts = [jax.tree.map(lambda leaf, k=k: leaf[8 * k : 8 * k + 8], batch) for k in (0, 1)]
    direction = jax.tree.map(lambda w: jnp.full_like(w, 0.1), params)
    radii = np.asarray([0.0, 0.7], np.float32)
    found = jax.jit(
        lambda p: noise.along(
            system, AS_READ, p, state, {}, stack(hosts), direction, jnp.asarray(radii)
        )
    )(params)
    evaluate = jax.jit(lambda p: system.metrics(p, state, batch))
    for r, radius in enumerate(radii):
        moved = jax.tree.map(lambda w, d, radius=radius: w + radius * d, params, direction)
        want = evaluate(moved)
        for name, (total, weight) in want.items():
            np.testing.assert_allclose(found[name][0][r], total, rtol=1e-5)
            assert found[name][1][r] == weight


def test_the_metric_is_the_selected_one_or_one_that_all_tasks_have():
    tasks = ("a", "b")
    values = {"a/accuracy": 0.0, "b/accuracy": 0.0, "a/nll": 0.0, "b/nll": 0.0, "a/miou": 0.0}
    assert noise.metric_name(values, tasks, "nll") == "nll"
    assert noise.metric_name(values, tasks, "c@30") == "accuracy"
    assert noise.metric_name({"a/miou": 0.0, "b/error": 0.0}, tasks, "miou") == "miou"
    assert noise.metric_name({"a/x/y": 0.0, "b/x/y": 0.0}, tasks, "miou") == "x/y"

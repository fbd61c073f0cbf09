"""Aggregation in parts, on one device: what it takes, refuses and leaves to others.

That several devices make the same of their parts is in tests/engine/test_parallel.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtl_jax import flags
from mtl_jax import run as runs
from mtl_jax.config import FlatConfig, MethodConfig, TrainConfig
from mtl_jax.engine import rng
from mtl_jax.engine.step import bind
from mtl_jax.errors import UserError
from mtl_jax.methods import METHODS, as_method, famo, imtl_g, moco, prenormalise
from mtl_jax.methods.scattered import scattered
from mtl_jax.methods.table import by_gram
from tests import toys
from tests.engine import tables_worker as worker

PLAIN = FlatConfig(combine="erm")


def _update(toy: toys.Toy, method: Any, microbatches: int = 1, absent: bool = False) -> Any:
    params, state = toy.system.init(jax.random.key(0), toy.batch)
    batch = dict(toy.batch)
    if absent:
        batch["label_mask"] = batch["label_mask"] * np.array([[1, 0, 1]], np.float32)
    keys = rng.example_keys(jax.random.key(1), jnp.arange(toys.BATCH))

    def run(params: Any) -> Any:
        bound = bind(toy.system, params, state, batch, keys, microbatches=microbatches)
        start = method.init(params, bound.owners, bound.num_tasks)
        out = method.update(bound, params, start, jax.random.key(2))
        return out.grads, out.losses, out.active, out.info

    return jax.jit(run)(params)


@pytest.mark.parametrize(("microbatches", "absent"), [(1, True), (2, False)])
def test_one_device_aggregates_as_ever(microbatches: int, absent: bool) -> None:
    base = prenormalise(imtl_g(), "l2")
    both = [
        _update(toys.table(), make(base), microbatches, absent) for make in (as_method, scattered)
    ]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6), *both)
    assert both[0][2].tolist() == [True, not absent, True]


def test_without_shared_parameters_there_is_nothing_to_share_out() -> None:
    toy = toys.stacked()
    alone = toy.system._replace(owner=lambda path: "stacked" if path[0] == "heads" else 0)
    grads, _, _, info = _update(toys.Toy(alone, toy.batch), scattered(imtl_g()))
    assert info.gram is None
    assert np.abs(grads["heads"]["w"]).max() > 0


def test_methods_that_look_at_more_than_the_gram_matrix_are_refused() -> None:
    rest = {name for name, row in METHODS.items() if row.kind == "aggregator"} - set(by_gram())
    assert rest == {"grad_drop", "moco", "db_mtl", "excess_mtl"}
    for base, why in ((moco(), "whole gradients"), (famo(), "one gradient")):
        with pytest.raises(ValueError, match=why):
            scattered(base)
    assert prenormalise(moco(), "l2").gram_weights is None


@pytest.mark.parametrize(
    ("method", "why"),
    [
        (
            MethodConfig("moco", flat=PLAIN),
            "moco looks at whole gradients.*choose all, or one of m",
        ),
        (MethodConfig("famo", flat=PLAIN), "famo weighs losses.*aligned_mtl"),
        (MethodConfig("cagrad"), "decompose.*choose all, or method.flat.combine=erm"),
    ],
)
def test_configs_that_cannot_scatter_say_so_in_one_line(method: MethodConfig, why: str) -> None:
    with pytest.raises(UserError, match=why) as error:
        method.make("scatter")
    assert "\n" not in str(error.value)
    assert method.make("all") is not None


def test_the_option_reaches_the_method() -> None:
    config = worker.Config(train=TrainConfig(batch_size=16, reduce="scatter"))  # with flat regions
    for build in (lambda: runs.build(config), lambda: flags.override(config, [])):
        with pytest.raises(UserError, match=r"config\.train\.reduce is scatter, but flat regions"):
            build()
    assert MethodConfig("mgda", prenormalise="l2", flat=PLAIN).make("scatter").after_step is None

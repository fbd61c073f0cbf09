"""The system: losses, scales, metrics and masks, against numpy."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtl_jax.data.molecules import TARGETS, MoleculeSet
from mtl_jax.errors import UserError
from mtl_jax.methods.ownership import owner_tree
from mtl_jax.metrics.base import accumulate, compute
from mtl_jax.systems.molecules.builders import cut, only_tasks
from mtl_jax.systems.molecules.config import Config, DataConfig, ModelConfig
from mtl_jax.systems.molecules.data import molecule_data
from mtl_jax.systems.molecules.model import Loss, error_loss, fit_scales, make_system
from mtl_jax.systems.molecules.network import Head, MessagePassing

NAMES = ("mu", "homo", "u0")


def small_set(count: int = 30) -> MoleculeSet:
    rng = np.random.default_rng(0)
    charges = rng.choice([1, 6, 8], (count, 8)).astype(np.uint8)
    charges[:, 5:] = 0  # padding in all molecules
    charges[::2, 3:] = 0
    order = rng.permutation(count).astype(np.int32)
    return MoleculeSet(
        "qm9/small",
        NAMES,
        np.arange(count, dtype=np.int32),
        charges,
        rng.normal(0, 1.5, (count, 8, 3)).astype(np.float32) * (charges > 0)[:, :, None],
        (rng.normal(size=(count, 3)) * [1, 0.02, 0.4] + [3, -0.2, -2]).astype(np.float32),
        dict(zip(("train", "validation", "test"), np.split(order, [16, 23]), strict=True)),
    )


@pytest.fixture(scope="module")
def case() -> tuple[Any, Any, Any, Any]:
    """System, data, parameters and state."""
    found = small_set()
    data = molecule_data(found, batch_size=8, eval_batch_size=8, seed=0)
    data = data._replace(resident=jax.tree.map(jnp.asarray, data.resident))
    trunk = MessagePassing(width=6, messages=3, layers=1, basis=4)
    system = make_system(trunk, Head(5), NAMES, fit_scales(found))
    batch = data.assemble(data.resident, data.train_batch(0), None)
    params, state = jax.jit(system.init)(jax.random.key(0), batch)
    return system, data, params, state


def test_scales_are_those_of_the_training_molecules() -> None:
    found = small_set()
    own = found.targets[found.splits["train"]].astype(np.float64)
    scales = fit_scales(found)
    np.testing.assert_allclose(scales["mean"], own.mean(0), rtol=1e-6)
    np.testing.assert_allclose(scales["std"], own.std(0), rtol=1e-6)
    flat = found._replace(targets=np.ones_like(found.targets))
    np.testing.assert_array_equal(fit_scales(flat)["std"], 1)


def test_losses_of_an_error() -> None:
    error = np.array([-3.0, -0.5, 0.0, 0.25, 2.0])
    want: dict[Loss, np.ndarray] = {
        "l1": np.abs(error),
        "mse": error**2,
        "huber": np.where(np.abs(error) < 1, error**2 / 2, np.abs(error) - 0.5),
    }
    for kind, values in want.items():
        np.testing.assert_allclose(error_loss(kind, jnp.asarray(error)), values, rtol=1e-6)
        slope = jax.grad(functools.partial(error_loss, kind))(jnp.asarray(2.0))
        assert float(slope) == pytest.approx({"l1": 1, "mse": 4, "huber": 1}[kind])


def test_losses_and_metrics_against_numpy(case: Any) -> None:
    system, data, params, state = case
    found = small_set()
    hosts = list(data.eval_batches("validation"))  # 7 molecules in batches of 8

    @jax.jit
    def everything(host: Any) -> Any:
        batch = data.assemble(data.resident, host, None)
        z, _ = system.features(params, state, batch, None, True)
        rows = [
            {**params, "heads": jax.tree.map(lambda leaf, t=t: leaf[t], params["heads"])}
            for t in range(3)
        ]
        losses = [system.task_loss(rows[t], z, batch, t) for t in range(3)]
        traced = system.task_loss(rows[1], z, batch, jnp.asarray(1))
        said = system.predict(params, state, batch)["target"]
        return losses, traced, system.metrics(params, state, batch), said

    losses, traced, states, said = everything(hosts[0])
    assert len(hosts) == 1
    mask = np.asarray(hosts[0]["mask"])
    assert mask.sum() == 7
    truth = found.targets[found.splits["validation"]].astype(np.float64)
    error = np.asarray(said, np.float64)[mask] - truth
    std = fit_scales(found)["std"]
    total = compute(accumulate(None, states))
    known = {target.name: target for target in TARGETS}
    for t, name in enumerate(NAMES):
        loss, weight = losses[t]
        np.testing.assert_allclose(loss, np.abs(error[:, t] / std[t]).sum(), rtol=1e-4)
        assert float(weight) == 7
        mae = np.abs(error[:, t]).mean()
        metric = f"{name}/{known[name].metric}"
        np.testing.assert_allclose(total[metric], mae * known[name].scale, rtol=1e-4)
        np.testing.assert_allclose(total[f"{name}/std_mae"], mae / std[t], rtol=1e-4)
    np.testing.assert_allclose(traced, losses[1], rtol=1e-6)
    assert known["u0"].scale == pytest.approx(27_211.386, abs=1e-2)
    # What stands in rows of padding reaches nothing.
    hidden = dict(hosts[0])
    hidden["row"] = np.where(mask, hosts[0]["row"], found.splits["train"][0]).astype(np.int32)
    jax.tree.map(np.testing.assert_array_equal, everything(hidden)[:3], (losses, traced, states))


def test_padding_of_all_molecules_is_cut_and_heads_are_stacked(case: Any) -> None:
    system, data, params, _ = case
    assert data.resident["charges"].shape == (30, 5)
    assert data.splits == ("validation", "test")
    owners = owner_tree(params, system.owner, 3)
    assert set(jax.tree.leaves(owners["heads"])) == {"stacked"}
    assert set(jax.tree.leaves(owners["trunk"])) == {"shared"}
    assert {leaf.shape[0] for leaf in jax.tree.leaves(params["heads"])} == {3}
    kernels = params["heads"]["hidden"]["kernel"]
    assert float(jnp.abs(kernels[0] - kernels[1]).max()) > 0.01


def test_tasks_and_training_size_are_cut() -> None:
    found = small_set()
    some = only_tasks(found, ("u0", "mu"))
    assert some.target_names == ("u0", "mu")
    np.testing.assert_array_equal(some.targets, found.targets[:, [2, 0]])
    few = cut(found, 5)
    assert len(few.splits["train"]) == 5
    assert set(few.splits["train"]) < set(found.splits["train"])
    np.testing.assert_array_equal(few.splits["test"], found.splits["test"])
    with pytest.raises(UserError, match=r"config.data.tasks is mu mu; .* each once"):
        only_tasks(found, ("mu", "mu"))
    with pytest.raises(UserError, match=r"config.data.tasks is gap; .*known: homo, mu, u0"):
        only_tasks(found, ("gap",))
    with pytest.raises(UserError, match=r"train_size is 17, but there are 16 training molecules"):
        cut(found, 17)


@pytest.mark.parametrize(
    ("config", "told"),
    [
        (Config(data=DataConfig(name="qm8")), "config.data.name is 'qm8'; did you mean 'qm9'"),
        (Config(data=DataConfig(name="qm9/tiny")), "unknown config 'tiny' of qm9"),
        (Config(data=DataConfig(train_size=-1)), "config.data.train_size is -1; it must be"),
        (Config(data=DataConfig(eval_batch_size=0)), "config.data.eval_batch_size is 0; it must"),
        (Config(model=ModelConfig(layers=0)), "config.model.layers is 0; it must be 1 or more"),
        (Config(model=ModelConfig(basis=1)), "config.model.basis is 1; it must be 2 or more"),
        (Config(model=ModelConfig(cutoff=0.0)), "config.model.cutoff is 0.0; it must be positive"),
    ],
)
def test_a_wrong_config_is_told_before_any_data_is_touched(config: Config, told: str) -> None:
    with pytest.raises(UserError, match=told):
        config.check()

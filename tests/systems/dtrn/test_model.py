"""The network as a whole: tops, ownership, what TIM and TRM are at first, data in and out."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtl_jax.data.impressions import ImpressionSet
from mtl_jax.engine.step import bind
from mtl_jax.systems.base import Data, System
from mtl_jax.systems.dtrn import model as models
from mtl_jax.systems.dtrn.builders import conditional, make_network, only_tasks
from mtl_jax.systems.dtrn.config import ModelConfig
from mtl_jax.systems.dtrn.data import impression_data
from tests.impression_sets import tiny_set

BATCH, LENGTH = 16, 5
SMALL: dict[str, Any] = {
    "dim": 4,
    "width": 4,
    "bottom": (8,),
    "tower": (4,),
    "experts": 2,
    "dropout": 0.0,
}
TOPS = ("single", "shared_bottom", "mmoe", "ple", "ple2", "esmm", "aitm", "stem")
BASE: dict[str, Any] = {"encoder": "mean", "trm": False}
COUPLED = ("ple2", "esmm", "aitm")


class Built(NamedTuple):
    network: models.Network
    system: System
    data: Data
    batch: Any
    params: Any


def settings(top: str, **changes: Any) -> ModelConfig:
    levels = 2 if top == "ple2" else 1
    return ModelConfig(**{**SMALL, "top": top.rstrip("2"), "levels": levels, **changes})


def build(
    model: ModelConfig, found: ImpressionSet | None = None, resident: bool = True, seed: int = 0
) -> Built:
    found = tiny_set() if found is None else found
    network = make_network(found, LENGTH, model)
    data = impression_data(
        found,
        length=LENGTH,
        batch_size=BATCH,
        eval_batch_size=32,
        seed=0,
        shard=0,
        shards=1,
        event_attributes=not network.items,
        resident=resident,
    )
    single = model.top == "single"
    make = models.single_task if single else models.make_system
    system = make(network, found.task_names)
    batch = jax.tree.map(jnp.asarray, data.assemble(placed(data), data.train_batch(0), None))
    params, _ = jax.jit(system.init)(jax.random.key(seed), batch)
    return Built(network, system, data, batch, params)


def placed(data: Data) -> Any:
    return jax.tree.map(jnp.asarray, data.resident)


def moved(params: Any, scale: float = 0.3, seed: int = 0) -> Any:
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda leaf: leaf + jnp.asarray(scale * rng.normal(size=leaf.shape), leaf.dtype), params
    )


def logits(built: Built, params: Any = None, batch: Any = None) -> np.ndarray:
    params = built.params if params is None else params
    batch = built.batch if batch is None else batch
    assert built.system.predict is not None
    return np.asarray(jax.jit(lambda p, b: built.system.predict(p, {}, b)["logit"])(params, batch))


def losses(built: Built, params: Any, batch: Any = None) -> np.ndarray:
    def run(params: Any, batch: Any) -> Any:
        keys = jax.random.split(jax.random.key(0), BATCH)
        return bind(built.system, params, {}, batch, keys).losses(params)[0]

    return np.asarray(jax.jit(run)(params, built.batch if batch is None else batch))


@pytest.mark.parametrize("top", ["mmoe", "ple2", "stem"])
def test_trm_is_no_change_before_training(top: str) -> None:
    plain = build(settings(top, **BASE))
    with_trm = build(settings(top, encoder="mean", trm=True))
    same = {**with_trm.params, **{k: plain.params[k] for k in plain.params if k != "task"}}
    np.testing.assert_allclose(logits(with_trm, same), logits(plain), atol=1e-6)


class Looked(NamedTuple):
    """A network away from its first parameters: what it says, its losses and their gradients."""

    built: Built
    logits: np.ndarray
    losses: np.ndarray
    jacobian: list[Any]
    shared: Any


@functools.cache
def looked(top: str) -> Looked:
    """One compilation a top serves three tests."""
    built = build(settings(top, calibrator=0.0))
    params = moved(built.params)
    keys = jax.random.split(jax.random.key(0), BATCH)

    def everything(params: Any) -> Any:
        bound = bind(built.system, params, {}, built.batch, keys)
        alone = [jax.grad(lambda p, t=t: bound.losses(p)[0][t])(params) for t in range(3)]
        assert built.system.predict is not None
        out = built.system.predict(params, {}, built.batch)["logit"]
        return out, bound.losses(params)[0], alone, bound.task_grads(params)[0].shared

    out = jax.jit(everything)(params)
    return Looked(built, *jax.tree.map(np.asarray, out))


@pytest.mark.parametrize("top", TOPS)
def test_loss_of_each_task_is_what_the_logits_say(top: str) -> None:
    """Losses go through `features` and `task_loss`, predictions through all tasks at once."""
    found = looked(top)
    out, batch = found.logits.astype(np.float64), found.built.batch
    labels, weights = np.asarray(batch["labels"]), np.asarray(batch["label_mask"])
    entropy = np.log1p(np.exp(-np.abs(out))) + np.maximum(out, 0) - out * labels
    want = (entropy * weights).sum(0) / weights.sum(0)
    np.testing.assert_allclose(found.losses, want, rtol=1e-4)


@pytest.mark.parametrize("top", TOPS)
def test_task_jacobian_is_what_the_owners_say(top: str) -> None:
    """A leaf that reaches two losses is shared; a row of another task never moves a loss."""
    found = looked(top)
    owner, reached = found.built.system.owner, set()

    def check(path: Any, *leaves: Any) -> None:
        names = tuple(str(p.key if hasattr(p, "key") else p.idx) for p in path)
        size = np.abs(np.stack(leaves)).reshape(3, -1).max(1)
        if owner(names) == "stacked":
            by_row = np.abs(np.stack(leaves)).reshape(3, 3, -1).max(-1)
            assert by_row[~np.eye(3, dtype=bool)].max() == 0, f"{names} reaches another's loss"
        elif (size > 0).sum() > 1:
            reached.add(names[0])

    jax.tree_util.tree_map_with_path(check, *found.jacobian)
    if top in COUPLED:
        assert "coupled" in reached
    assert ("tables" in reached) == (top != "single")


@pytest.mark.parametrize("top", TOPS)
def test_task_gradients_are_those_of_the_losses(top: str) -> None:
    found = looked(top)
    for path, leaf in jax.tree_util.tree_leaves_with_path(found.shared):
        for t, want in enumerate(found.jacobian):
            for step in path:
                want = want[step.key if hasattr(step, "key") else step.idx]
            np.testing.assert_allclose(leaf[t], want, atol=1e-6)


def test_a_missing_label_has_no_gradient() -> None:
    built = build(settings("mmoe"))
    batch = {**built.batch, "label_mask": built.batch["label_mask"].at[:, 1].set(0)}
    changed = {**batch, "labels": batch["labels"].at[:, 1].set(1 - batch["labels"][:, 1])}
    params = moved(built.params)
    assert losses(built, params, batch)[1] == 0
    np.testing.assert_array_equal(losses(built, params, batch), losses(built, params, changed))


def test_ple_with_equal_bottoms_is_the_published_one() -> None:
    """Two levels by hand, from the same parameters."""
    built = build(settings("ple2", **BASE))
    params, batch = moved(built.params), built.batch
    b, _ = models.bottom(
        built.network,
        params,
        {},
        models.base(built.network, params, batch, None),
        None,
    )
    tasks, x, common = range(3), [np.asarray(b)] * 3, np.asarray(b)
    host = jax.tree.map(np.asarray, params)

    def expert(p: Any, k: int, x: np.ndarray) -> np.ndarray:
        return np.maximum(x @ p[0]["kernel"][k] + p[0]["bias"][k], 0)

    def gated(gate: Any, x: np.ndarray, outs: list[np.ndarray]) -> np.ndarray:
        raw = x @ gate["kernel"] + gate["bias"]
        weights = np.exp(raw - raw.max(1, keepdims=True))
        weights /= weights.sum(1, keepdims=True)
        return sum(weights[:, k : k + 1] * out for k, out in enumerate(outs))

    for level in range(2):
        own = host["coupled"][level]
        top = host["top"][level]
        mine = [
            expert(jax.tree.map(lambda leaf, t=t: leaf[t], own["experts"]), 0, x[t]) for t in tasks
        ]
        shared = [expert(top["experts"], k, common) for k in range(2)]
        gates = [jax.tree.map(lambda leaf, t=t: leaf[t], own["gate"]) for t in tasks]
        new = [gated(gates[t], x[t], [mine[t], *shared]) for t in tasks]
        if level == 0:
            common = gated(top["gate"], common, [*mine, *shared])
        x = new
    for t in tasks:
        tower = jax.tree.map(lambda leaf, t=t: leaf[t], host["heads"]["tower"])
        hidden = np.maximum(x[t] @ tower["hidden"][0]["kernel"] + tower["hidden"][0]["bias"], 0)
        want = hidden @ tower["out"]["kernel"][:, 0] + tower["out"]["bias"][0]
        np.testing.assert_allclose(logits(built, params)[:, t], want, atol=1e-4)


def test_esmm_multiplies_the_probabilities() -> None:
    built = build(settings("esmm"))
    out = logits(built, moved(built.params)).astype(np.float64)
    p = 1 / (1 + np.exp(-out))
    assert (np.diff(p, axis=1) <= 1e-6).all()


def test_calibrator_costs_where_a_later_step_is_likelier() -> None:
    plain, strict = (build(settings("aitm", calibrator=c)) for c in (0.0, 2.0))
    params = moved(plain.params)
    p = 1 / (1 + np.exp(-logits(plain, params)))
    weights = np.asarray(plain.batch["label_mask"])
    above = np.maximum(np.diff(p, axis=1), 0) * weights[:, 1:]
    want = np.concatenate([[0], 2 * above.sum(0) / weights[:, 1:].sum(0)])
    np.testing.assert_allclose(losses(strict, params) - losses(plain, params), want, atol=1e-5)
    assert want.max() > 0


def test_single_tasks_are_networks_of_their_own() -> None:
    """Its row of a task, alone, is the network of that task alone."""
    found = tiny_set()
    built = build(settings("single"), found)
    out = logits(built)
    for t, task in enumerate(found.task_names):
        alone = build(settings("shared_bottom"), only_tasks(found, (task,)))
        own = jax.tree.map(lambda leaf, t=t: leaf[t], built.params["apart"])
        np.testing.assert_allclose(logits(alone, own)[:, 0], out[:, t], atol=1e-5)


def test_batches_show_the_newest_events_before_the_row() -> None:
    found = tiny_set()
    built = build(settings("mmoe"), found)
    rows = np.asarray(built.data.train_batch(0)["row"])
    np.testing.assert_array_equal(built.batch["history"], found.histories_of(rows, LENGTH))
    shown = np.asarray(built.batch["history"]) != 0
    assert (np.asarray(built.batch["age"])[shown] > 0).all()
    assert shown.any()
    assert not shown.all()


def test_host_batches_equal_resident_ones() -> None:
    found = tiny_set()
    resident, host = (build(settings("mmoe"), found, resident=r) for r in (True, False))
    for a, b in zip(
        resident.data.eval_batches("test"), host.data.eval_batches("test"), strict=True
    ):
        one = resident.data.assemble(placed(resident.data), a, None)
        two = host.data.assemble({}, b, None)
        assert one.keys() == two.keys()
        jax.tree.map(np.testing.assert_array_equal, one, two)


def test_events_by_themselves_and_by_item_are_the_same_vectors() -> None:
    built = build(settings("mmoe"))
    alone = built.network._replace(items=None)
    items = placed(built.data)["items"]
    batch = {**built.batch, "event_attributes": items[built.batch["history"]]}
    system = models.make_system(alone, built.system.task_names)
    other = built._replace(network=alone, system=system)
    params = moved(built.params)
    np.testing.assert_allclose(logits(other, params, batch), logits(built, params), atol=1e-5)


def test_padding_rows_change_no_metric() -> None:
    built = build(settings("mmoe", **BASE), tiny_set(rows=90))
    *_, host = built.data.eval_batches("test")
    batch = jax.tree.map(jnp.asarray, built.data.assemble(placed(built.data), host, None))
    assert not batch["mask"].all()
    noise = {**batch, "labels": jnp.where(batch["mask"][:, None], batch["labels"], 1.0)}
    metrics = jax.jit(lambda batch: built.system.metrics(built.params, {}, batch))
    one, two = metrics(batch), metrics(noise)
    jax.tree.map(np.testing.assert_array_equal, one, two)
    rows = int(np.asarray(batch["mask"]).sum())
    assert one["task_0"].compute()["count"] <= rows


def test_conditional_labels_count_where_the_other_is_one() -> None:
    found = tiny_set()
    cut = conditional(found, ("task_1|task_0",))
    kept = cut.label_mask[:, 1] > 0
    assert (found.labels[kept, 0] == 1).all()
    assert kept.sum() == ((found.labels[:, 0] == 1) & (found.label_mask[:, :2] > 0).all(1)).sum()
    np.testing.assert_array_equal(cut.label_mask[:, [0, 2]], found.label_mask[:, [0, 2]])


@pytest.mark.parametrize(
    "changes",
    [
        {"trm_granularity": "element"},
        {"trm_gate": "relu"},
        {"trm_squeeze": "concat"},
        {"trm_granularity": "element", "trm_gate": "relu", "trm_squeeze": "concat"},
    ],
)
def test_every_trm_starts_at_one_and_learns(changes: dict[str, Any]) -> None:
    built = build(settings("shared_bottom", encoder="mean", **changes))

    def total(params: Any) -> Any:
        keys = jax.random.split(jax.random.key(0), BATCH)
        assert built.system.predict is not None
        weights = built.system.predict(params, {}, built.batch)["weights"]
        bound = bind(built.system, params, {}, built.batch, keys)
        return bound.losses(params)[0].sum(), weights

    grads, weights = jax.jit(jax.grad(total, has_aux=True))(built.params)
    np.testing.assert_allclose(weights, 1, atol=1e-6)
    assert float(jnp.abs(grads["task"]["refine"]["excite"]["kernel"]).max()) > 0

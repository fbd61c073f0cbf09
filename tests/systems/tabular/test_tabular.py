"""The networks for plain tables: scaling, losses and metrics against numpy, runs to the scores."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtl_jax import config as configs
from mtl_jax import run as runs
from mtl_jax.config import ExperimentConfig
from mtl_jax.data.tabular_sets import SITES, YEAST_LABELS, TabularSet
from mtl_jax.engine.writers import read_metrics
from mtl_jax.errors import UserError
from mtl_jax.flags import override
from mtl_jax.methods.ownership import owner_tree
from mtl_jax.metrics.base import compute, merge
from mtl_jax.systems.base import System
from mtl_jax.systems.tabular.config import Config
from mtl_jax.systems.tabular.data import Prepared, gather, prepare
from mtl_jax.systems.tabular.figures import carried_forward, report
from mtl_jax.systems.tabular.metrics import label_counts, target_error
from mtl_jax.systems.tabular.model import make_system
from mtl_jax.train import train
from tests.data.test_tabular_sets import (
    RF1_COLUMNS,
    YEAST_COLUMNS,
    csv_bytes,
    flows,
    yeast_table,
)


def table_of(kind: Any, rows: int = 60) -> TabularSet:
    """A set of three tasks with missing inputs and missing labels."""
    rng = np.random.default_rng(0)
    inputs = rng.normal(2, 3, (rows, 5))
    labels = 4 * inputs[:, :3] + rng.normal(size=(rows, 3)) + 7
    inputs[::7, 1] = np.nan
    inputs[-1, 4] = np.nan  # of the test split alone
    if kind == "binary":
        labels = (labels > 15).astype(float)
    labels[::5, 2] = np.nan
    splits = {"train": (0, 36), "validation": (36, 48), "test": (48, rows)}
    return TabularSet(
        "table",
        kind,
        tuple("abcde"),
        ("x", "y", "z"),
        inputs.astype(np.float32),
        labels.astype(np.float32),
        () if kind == "binary" else (0, 1, 2),
        {split: np.arange(*ends, dtype=np.int32) for split, ends in splits.items()},
    )


def system_of(kind: Any, ready: Prepared, top: Any = "shared") -> System:
    return make_system(kind, ("x", "y", "z"), (8,), (4,), 0.0, ready.scale, top)


def drawn(system: System, batch: Any) -> Any:
    """Parameters of the right shapes, biases included, without compiling the initialisers."""
    rng = np.random.default_rng(3)
    shapes = jax.eval_shape(system.init, jax.random.key(0), batch)[0]
    return jax.tree.map(
        lambda leaf: jnp.asarray(rng.normal(0, 0.5, leaf.shape), jnp.float32), shapes
    )


def batch_of(ready: Prepared, rows: np.ndarray) -> Any:
    return {k: jnp.asarray(v) for k, v in gather(np, ready.columns, rows, False).items()}


def test_scaling_follows_from_training_rows_alone() -> None:
    found = table_of("regression")
    ready, train = prepare(found, carry=False), found.splits["train"]
    x = ready.columns["x"]
    assert x.shape == (60, 6)  # one input is missing in training, another one in testing only
    raw = found.inputs[train].astype(np.float64)
    np.testing.assert_allclose(x[train, 0].mean(), 0, atol=1e-6)
    np.testing.assert_allclose(x[train, 0].std(), 1, rtol=1e-5)
    gaps = np.isnan(found.inputs[:, 1])
    np.testing.assert_array_equal(x[:, 5], gaps)
    assert (x[gaps, 1] == 0).all()
    assert x[-1, 4] == 0
    mean, std = np.nanmean(raw[:, 1]), np.nanstd(raw[:, 1])
    np.testing.assert_allclose(x[~gaps, 1], (found.inputs[~gaps, 1] - mean) / std, rtol=1e-4)
    cut = prepare(found, carry=False, clip=0.5).columns["x"]
    np.testing.assert_array_equal(cut[:, :5], np.clip(x[:, :5], -0.5, 0.5))
    other = found._replace(inputs=np.where(np.arange(60)[:, None] < 36, found.inputs, 1e3))
    np.testing.assert_array_equal(prepare(other, carry=False).columns["x"][:36, :5], x[:36, :5])


@pytest.mark.parametrize("carry", [False, True])
def test_an_output_means_what_the_target_means(carry: bool) -> None:
    found = table_of("regression")
    ready = prepare(found, carry=carry)
    columns, there = ready.columns, ~np.isnan(found.labels)
    back = columns["target"] * ready.scale[None] + columns["offset"]
    np.testing.assert_allclose(back[there], found.labels[there], rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(columns["label_mask"], there)
    assert (columns["target"][~there] == 0).all()
    now = np.where(np.isnan(found.inputs), np.nanmean(found.inputs[:36], 0)[None], found.inputs)
    differs = np.ptp(columns["offset"] - now[:, :3] * carry, axis=0)
    np.testing.assert_allclose(differs, 0, atol=1e-4)
    mean = np.nanmean(found.labels[:36], 0)
    want = (found.labels - mean[None])[there]
    np.testing.assert_allclose(columns["deviation"][there], want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("kind", "top"), [("binary", "shared"), ("regression", "single")])
def test_losses_and_scores_are_those_of_numpy(kind: Any, top: Any) -> None:
    found = table_of(kind)
    ready = prepare(found, carry=True)
    system, rows = system_of(kind, ready, top), np.arange(48, 60)
    batch = batch_of(ready, rows)

    @jax.jit
    def everything(params: Any, batch: Any) -> tuple[Any, Any, Any]:
        z, _ = system.features(params, {}, batch, None, False)
        owners = owner_tree(params, system.owner, 3)
        losses = [
            system.task_loss(
                jax.tree.map(
                    lambda who, leaf, t=t: leaf[t] if who == "stacked" else leaf, owners, params
                ),
                z,
                batch,
                t,
            )
            for t in range(3)
        ]
        assert system.predict is not None
        said = system.predict(params, {}, batch)
        return losses, said, system.metrics(params, {}, batch)

    params = drawn(system, batch)
    losses, said, states = everything(params, batch)
    if top == "single":
        assert set(jax.tree.leaves(owner_tree(params, system.owner, 3))) == {"stacked"}
        other = everything(jax.tree.map(lambda leaf: leaf.at[0].add(0.1), params), batch)[1]
        moved = [
            bool((a != b).any()) for a, b in zip(said["value"].T, other["value"].T, strict=True)
        ]
        assert moved == [True, False, False]
    target, mask = ready.columns["target"][rows], ready.columns["label_mask"][rows] > 0
    key = "logit" if kind == "binary" else "value"
    value = np.asarray(said[key], np.float64)
    scores = compute(states)
    assert sum(~mask[:, 2]) == 2
    for t, (total, weight) in enumerate(losses):
        m = mask[:, t]
        if kind == "binary":
            p = 1 / (1 + np.exp(-value[m, t]))
            want = -np.log(np.where(target[m, t] == 1, p, 1 - p)).sum()
        else:
            out = (value - ready.columns["offset"][rows]) / ready.scale[None]
            want = np.square(out[m, t] - target[m, t]).sum()
            error = value[m, t] - found.labels[rows][m, t]
            mean = np.nanmean(found.labels[:36, t].astype(np.float64))
            floor = found.labels[rows][m, t] - mean
            ratio = np.sqrt(np.square(error).mean()) / np.sqrt(np.square(floor).mean())
            np.testing.assert_allclose(scores[f"{'xyz'[t]}/rrmse"], ratio, rtol=1e-4)
            rmse = np.sqrt(np.square(error).mean())
            np.testing.assert_allclose(scores[f"{'xyz'[t]}/rmse"], rmse, rtol=1e-4)
        np.testing.assert_allclose(total, want, rtol=1e-4)
        assert weight == m.sum()
    if kind == "binary":
        wrong = ((value > 0) != (target == 1))[mask]
        np.testing.assert_allclose(scores["labels/hamming_loss"], wrong.mean(), rtol=1e-6)


def test_states_merge_and_counts_are_those_of_sets() -> None:
    rng = np.random.default_rng(2)
    logits, labels = rng.normal(size=(30, 4)), rng.integers(0, 2, (30, 4))
    weights = rng.random((30, 4)) < 0.8
    parts = [
        label_counts(*(jnp.asarray(a[rows]) for a in (logits, labels, weights)))
        for rows in (slice(0, 11), slice(11, 30))
    ]
    said, there = (logits > 0)[weights], (labels == 1)[weights]
    precision, recall = (said & there).sum() / said.sum(), (said & there).sum() / there.sum()
    scores = merge(*parts).compute()
    np.testing.assert_allclose(
        scores["micro_f1"], 2 * precision * recall / (precision + recall), rtol=1e-6
    )
    np.testing.assert_allclose(scores["hamming_loss"], (said != there).mean(), rtol=1e-6)
    none = label_counts(jnp.ones((2, 1)), jnp.ones((2, 1)), jnp.zeros((2, 1)))
    assert all(math.isnan(value) for value in none.compute().values())
    broken = jnp.array([1.0, jnp.nan, 3.0])
    state = target_error(broken, jnp.array([2.0, 5.0, 6.0]), jnp.array([1, 0, 1]))
    np.testing.assert_allclose(state.compute()["rrmse"], np.sqrt(10 / 40), rtol=1e-6)


def test_the_present_value_as_forecast() -> None:
    found = table_of("regression")
    test = found.splits["test"]
    floor = carried_forward(found)
    there = ~np.isnan(found.inputs[test, 0])
    error = (found.inputs - found.labels[:, [0, 1, 2, 0, 0]])[test, 0]
    away = (found.labels[:, 0] - found.labels[:36, 0].mean())[test]
    want = np.sqrt(np.square(error[there]).sum() / np.square(away[there]).sum())
    np.testing.assert_allclose(floor[0], want, rtol=1e-4)
    assert carried_forward(table_of("binary")).shape == (0,)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of both sets, in their real layout."""
    root = tmp_path_factory.mktemp("tables")
    (root / "yeast.csv").write_bytes(csv_bytes(YEAST_COLUMNS, yeast_table(80)))
    for part, hours in (("train", 200), ("test", 40)):
        (root / f"rf1_{part}.csv").write_bytes(csv_bytes(RF1_COLUMNS, flows(hours, hours)))
    return root


def small(name: str, folder: Path, **train_changes: Any) -> ExperimentConfig:
    config: Any = configs.load(f"experiments/tabular/{name}.py")
    settings = {"steps": 2, "batch_size": 16, "eval_every": 1, "log_every": 1, "report": False}
    return dataclasses.replace(
        config,
        data=dataclasses.replace(
            config.data, data_dir=str(folder / "sets"), manual_dir=str(folder)
        ),
        model=dataclasses.replace(config.model, widths=(4,)),
        method=dataclasses.replace(config.method, strategy="scan"),
        train=dataclasses.replace(config.train, **{**settings, **train_changes}),
    )


@pytest.mark.parametrize(("name", "top"), [("yeast", "single"), ("rf1", "shared")])
def test_experiments_run_from_the_first_step_to_the_scores(
    name: str, top: str, folder: Path, tmp_path: Path
) -> None:
    """With dropout; yeast by a network for each label."""
    config: Any = small(name, folder)
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, top=top))
    assert config.model.dropout > 0
    final = train(config, tmp_path)
    metric = config.train.select.removeprefix("validation/")
    assert math.isfinite(final[f"last/test/{metric}"])
    tasks = {"yeast": YEAST_LABELS, "rf1": SITES}[name]
    records = [r["values"] for r in read_metrics(tmp_path) if r["kind"] == "train"]
    assert len(records) == 2
    losses = [[record[f"{task}/loss"] for task in tasks] for record in records]
    assert np.isfinite(losses).all()
    assert (np.array(losses[0]) != losses[1]).all()
    assert configs.from_dict(json.loads((tmp_path / "config.json").read_text())) == config
    run = runs.build(config)
    if name == "yeast":
        assert 0 <= final["best/test/labels/micro_f1"] <= 1
        kernel = run.init().params["apart"]["trunk"][0]["kernel"]
        assert len(np.unique(kernel[:, 0, 0])) == 14
        return
    by_task = [final[f"best/test/{site}/rrmse"] for site in SITES]
    np.testing.assert_allclose(final["best/test/rrmse"], np.mean(by_task))
    (section,) = report(run, run.place(run.init()), tmp_path / "figures")
    assert (tmp_path / "figures" / "targets.png").is_file()
    assert "present value as forecast, aRRMSE" in section.text


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--config.data.name=yeats", "config.data.name is 'yeats'; did you mean 'yeast'"),
        ("--config.data.name=census_income", "config.data.name is 'census_income'; known: rf1, y"),
        ("--config.data.name=rf1/small", "unknown config 'small' of rf1; rf1 has one size"),
        ("--config.data.eval_batch_size=0", "eval_batch_size is 0; it must be 1 or more"),
        ("--config.model.widths=0", "config.model.widths is 0; give positive widths"),
        ("--config.model.dropout=1.0", "dropout is 1.0; it must be from 0 to below 1"),
        ("--config.model.clip=-1.0", "clip is -1.0; it must be 0 or more"),
        ("--config.model.top=both", "top is 'both'; it must be"),
    ],
)
def test_wrong_values_are_told_before_any_data_is_touched(flag: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        override(Config(), [flag]).check()

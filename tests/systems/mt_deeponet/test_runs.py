"""Runs from the first step to the report: every experiment, transfer, devices."""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from mtl_jax import config as configs
from mtl_jax import report
from mtl_jax import run as runs
from mtl_jax.config import ExperimentConfig
from mtl_jax.data.operators import OperatorSet
from mtl_jax.errors import UserError
from mtl_jax.systems.mt_deeponet import builders
from mtl_jax.systems.mt_deeponet.config import DataConfig
from mtl_jax.train import train
from tests import operator_sets
from tests.systems.mt_deeponet.test_model import config_of

SETS = {"fisher": "families", "darcy": "geometries", "plate": "designs", "file": "scattered"}
EXPERIMENTS = [
    path
    for path in sorted(Path("experiments/mt_deeponet").glob("*.py"))
    if "def get_config()" in path.read_text()
]


def tiny_set(data: DataConfig) -> OperatorSet:
    """Stands in for `builders.load`: a small set of the same kind."""
    found = operator_sets.ALL[SETS[data.name.split("/")[0]]]()
    return builders.cut(found, data.train_size) if data.train_size else found


@pytest.fixture
def small_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builders, "load", tiny_set)


def shrink(config: Any) -> ExperimentConfig:
    """The experiment on a small set for two steps, with few points and narrow layers."""
    model = dataclasses.replace(
        config.model,
        branch_channels=(2, 3, 3),
        trunk_widths=config.model.trunk_widths[:3],
        latent=5,
    )
    points = 9 if config.data.points_per_step else 0
    size = 4 if config.data.train_size else 0
    return dataclasses.replace(
        config,
        model=model,
        data=dataclasses.replace(config.data, points_per_step=points, train_size=size),
        train=dataclasses.replace(
            config.train,
            steps=2,
            batch_size=6,
            eval_every=2,
            log_every=2,
            steps_per_call=min(config.train.steps_per_call, 2),
            report=False,
        ),
    )


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_every_experiment_runs(path: Path, small_sets: None, tmp_path: Path) -> None:
    final = train(shrink(configs.load(path)), tmp_path / "run")
    assert all(math.isfinite(value) for value in final.values())
    assert {"best/test/rel_l2_mean", "last/test/rel_l2_global", "last/test/rmse"} <= final.keys()


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if name == "designs" else [pytest.mark.slow])
        for name in SETS.values()
    ],
)
def test_the_report_draws_every_kind_of_set(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(builders, "load", lambda data: operator_sets.ALL[name]())
    train(config_of(name), tmp_path / "run")
    page = report.write(tmp_path / "run").read_text()
    figures = {path.name for path in (tmp_path / "run" / "figures").glob("*.png")}
    assert {"errors.png", "fields_0.png", "fields_1.png"} <= figures
    assert ("basis.png" in figures) == (name in ("families", "geometries"))
    assert ("cuts.png" in figures) == (name == "designs")
    assert ("parameters.png" in figures) == (name != "geometries")
    assert "Errors of every sample" in page


def test_a_network_learns_what_has_a_closed_form(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(builders, "load", lambda data: operator_sets.families(60))
    config = config_of(
        "families",
        train__steps=400,
        train__batch_size=30,
        train__report=False,
        loss="interior_mse",
    )
    config = dataclasses.replace(
        config,
        model=dataclasses.replace(
            config.model, branch_widths=(32,), trunk_widths=(64, 64), latent=16
        ),
        optim=dataclasses.replace(config.optim, name="muon", lr=5e-3, schedule="cosine"),
    )
    final = train(config, tmp_path / "run")
    assert final["best/test/rel_l2_mean"] < 0.13


def test_transfer_starts_from_the_source_with_its_scales(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    both = operator_sets.geometries()
    disc = builders.only_tasks(operator_sets.geometries(16), ("disc",))
    # A geometry alone has fewer query points: those that none of its samples needs are left out.
    disc = disc._replace(masks=disc.masks[1:], geometry=np.zeros_like(disc.geometry))
    sources = {"square": both, "disc": disc}
    monkeypatch.setattr(builders, "load", lambda data: sources[data.geometry[0]])
    source = config_of("geometries", data__name="darcy", data__geometry=("square",))
    train(source, tmp_path / "source")
    run = runs.open_run(tmp_path / "source")
    best, step = runs.restore(run, tmp_path / "source")

    target = dataclasses.replace(
        source,
        init_from=str(tmp_path / "source"),
        data=dataclasses.replace(source.data, geometry=("disc",)),
        optim=dataclasses.replace(source.optim, trainable="branch/conv_0/*"),
    )
    opened = runs.build(target)
    started = runs.warm_start(opened, opened.init())
    assert f"starting from checkpoint {step}" in capsys.readouterr().out
    jax.tree.map(np.testing.assert_array_equal, started.params, jax.device_get(best.params))
    jax.tree.map(
        np.testing.assert_array_equal, started.model_state, jax.device_get(best.model_state)
    )
    own = dataclasses.replace(target, init_constants="own")
    refitted = runs.warm_start(runs.build(own), opened.init()).model_state["constants"]
    assert (refitted["field_mean"] != started.model_state["constants"]["field_mean"]).any()

    train(target, tmp_path / "target")
    after, _ = runs.restore(runs.open_run(tmp_path / "target"), tmp_path / "target", "last")
    moved = jax.tree.map(
        lambda a, b: bool((np.asarray(a) != np.asarray(b)).any()), started.params, after.params
    )
    assert moved["branch"].pop("conv_0") == {"bias": True, "kernel": True}
    assert not any(jax.tree.leaves(moved))
    jax.tree.map(
        np.testing.assert_array_equal,
        started.model_state["constants"],
        jax.device_get(after.model_state["constants"]),
    )

    wrong = dataclasses.replace(target, model=dataclasses.replace(target.model, latent=7))
    with pytest.raises(UserError, match=r"whose branch/dense/dense_1/bias is \(6,\); here it is"):
        runs.warm_start(runs.build(wrong), runs.build(wrong).init())
    for name in ("absent", ""):
        missing = dataclasses.replace(target, init_from=str(tmp_path / name))
        with pytest.raises(UserError, match=r"config.init_from is .*, which is no run folder"):
            runs.warm_start(opened._replace(config=missing), opened.init())
    optim = dataclasses.replace(target.optim, trainable="trunk/dense_9/*")
    with pytest.raises(UserError, match="matches no parameter"):
        runs.build(dataclasses.replace(target, optim=optim))


def test_scales_of_single_points_do_not_go_to_other_points(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    disc = operator_sets.geometries()
    disc = disc._replace(
        masks=disc.masks[1:],
        geometry=np.zeros_like(disc.geometry),
        solutions=np.where(disc.masks[1], disc.solutions, 0).astype(np.float32),
    )
    sources = {"square": operator_sets.geometries(), "disc": disc}
    monkeypatch.setattr(builders, "load", lambda data: sources[data.geometry[0]])
    source = config_of(
        "geometries",
        data__name="darcy",
        data__geometry=("square",),
        data__scale_solution="point",
        train__report=False,
    )
    train(source, tmp_path / "source")
    data = dataclasses.replace(source.data, geometry=("disc",))
    target = dataclasses.replace(source, init_from=str(tmp_path / "source"), data=data)
    run = runs.build(target)
    with pytest.raises(UserError, match=r"solution_mean is \(256,\).*config.init_constants=own"):
        runs.warm_start(run, run.init())
    own = run._replace(config=dataclasses.replace(target, init_constants="own"))
    runs.warm_start(own, run.init())


@pytest.mark.slow
def test_eight_devices_are_one(run_python: Callable, tmp_path: Path) -> None:
    files = {}
    for devices in (1, 8):
        files[devices] = tmp_path / f"{devices}.npz"
        done = run_python(__file__, str(files[devices]), devices=devices)
        assert done.returncode == 0, done.stderr[-3000:]
    one, eight = (dict(np.load(path)) for path in files.values())
    assert one.keys() == eight.keys()
    for name, value in one.items():
        np.testing.assert_allclose(eight[name], value, rtol=1e-5, atol=1e-6, err_msg=name)


def _three_steps(out: str) -> None:
    """Trains on all devices with points drawn anew, dropout and flat regions.

    And points of each sample's own with batch normalisation: their moments differ by device.
    """
    from mtl_jax.engine import parallel

    drawn = config_of(
        "families",
        data__points_per_step=16,
        train__batch_size=24,
        model__branch_dropout=(0.3,),
        model__branch_l2=0.01,
    )
    normed = config_of(
        "scattered", model__trunk_norm="batch", model__branch_norm="batch", train__batch_size=16
    )
    # Biases before a normalisation have no gradient but rounding, which Adam would blow up.
    sgd = dataclasses.replace(normed.optim, name="sgd", lr=0.01)
    cases = {"families": drawn, "scattered": dataclasses.replace(normed, optim=sgd)}
    arrays = {}
    for name, config in cases.items():
        builders.load = lambda data, name=name: operator_sets.ALL[name](60)
        run = runs.build(config)
        state = parallel.replicate(run.init())
        for step in range(3):
            state, metrics = run.train_step(state, run.data.resident, run.data.train_batch(step))
        found = jax.device_get((state.params, state.model_state, metrics))
        for path, leaf in jax.tree_util.tree_leaves_with_path(found):
            arrays[f"{name}{jax.tree_util.keystr(path)}"] = np.asarray(leaf)
    np.savez(out, **arrays)


if __name__ == "__main__":
    _three_steps(sys.argv[1])

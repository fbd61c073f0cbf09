"""Runs from the first step to the report: every experiment, tables by row, resume, devices."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mtl_jax import config as configs
from mtl_jax import run as runs
from mtl_jax.config import ExperimentConfig
from mtl_jax.engine import parallel
from mtl_jax.engine.state import TrainState
from mtl_jax.engine.step import make_train_step
from mtl_jax.engine.writers import read_metrics
from mtl_jax.methods.ownership import owner_tree
from mtl_jax.systems.dtrn import builders, scores
from mtl_jax.systems.dtrn.data import columns_of, gather
from mtl_jax.systems.dtrn.scores import Scored
from mtl_jax.train import train
from tests.impression_sets import tiny_set
from tests.systems.dtrn.cases import MODEL, PLAIN, changed, config_of, write_files

EXPERIMENTS = [
    path
    for path in sorted(Path("experiments/dtrn").glob("*.py"))
    if "def get_config()" in path.read_text()
]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the prepared sets of this module."""
    return tmp_path_factory.mktemp("dtrn")


def whole(root: Path, **changes: Any) -> ExperimentConfig:
    """DTRN over MMoE with tables that are updated by row."""
    rows = {"optim__tables__rule": "row_adagrad", "optim__tables__min_rows": 1}
    return config_of(root, model__top="mmoe", **rows, **changes)


@pytest.fixture(scope="module")
def trained(root: Path) -> tuple[dict[str, float], Path]:
    """A run without interruption, with its report."""
    folder = root / "straight"
    return train(whole(root, train__report=True), folder), folder


def test_scores_are_exact_and_know_the_best_possible(trained: Any) -> None:
    final, folder = trained
    assert final == json.loads((folder / "results.json").read_text())
    assert all(math.isfinite(value) for value in final.values())
    for name in ("auc", "gauc", "ndcg@10", "logloss", "calibration", "bayes_auc", "attained"):
        by_task = [final[f"best/test/{task}/{name}"] for task in ("click", "signal_1")]
        np.testing.assert_allclose(final[f"best/test/{name}"], np.mean(by_task))
    assert 0.7 < final["best/test/bayes_auc"] < 1
    assert final["best/test/attained"] < 1
    streamed = [r["values"] for r in read_metrics(folder) if r["kind"] == "eval"][-1]
    error = abs(streamed["validation/click/auc"] - final["last/validation/click/auc"])
    assert error <= streamed["validation/click/auc_error_bound"] + 1e-6


@pytest.mark.parametrize("users", [2, 6])
def test_nothing_is_ranked_within_users_of_one_row(
    users: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    label = np.array([[1, 0, 1, 0, 0, 1]], np.float32).T
    logits = np.arange(6.0)[:, None]
    group, truth = np.arange(6) % users, np.zeros((6, 0))
    found = Scored(np.arange(6), logits, label, np.ones((6, 1)), group, truth)
    # The package exports the function under the module's name.
    module = sys.modules["mtl_jax.systems.dtrn.scores"]
    monkeypatch.setattr(module, "scored", lambda *args: found)
    run: Any = SimpleNamespace(system=SimpleNamespace(task_names=("click",)))
    state: Any = None
    by_user = {"click/gauc", "click/ndcg@10"} if users == 2 else set()
    assert scores(run, state, "test").keys() == {"click/auc"} | by_user


def test_report_shows_what_tim_and_trm_look_at(trained: Any) -> None:
    _, folder = trained
    page = (folder / "report.html").read_text()
    drawn = {path.stem for path in (folder / "figures").glob("*.png")}
    assert {"auc", "trm_weights", "tim_attention", "task_cosines"} <= drawn
    for title in ("Ranking", "Task-specific weights", "Attention over histories", "Task conflict"):
        assert title in page


@pytest.mark.slow
def test_a_resumed_run_is_the_uninterrupted_one(trained: Any, root: Path) -> None:
    _, straight = trained
    train(whole(root, train__steps=2), root / "resumed")
    train(whole(root), root / "resumed")
    states = []
    for folder in (straight, root / "resumed"):
        run = runs.open_run(folder)
        state, step = runs.restore(run, folder, "last")
        assert step == 4
        states.append(jax.device_get(run.export(state)))
    jax.tree.map(np.testing.assert_array_equal, *states)


def test_an_aggregator_with_flat_regions(root: Path) -> None:
    config = config_of(root, **PLAIN, method=configs.MethodConfig(strategy="scan"))
    assert config.method.aggregator == "cagrad"
    final = train(config, root / "flat")
    assert all(math.isfinite(value) for value in final.values())
    records = [r["values"] for r in read_metrics(root / "flat") if r["kind"] == "train"]
    assert all(r[f"{task}/gap"] != 0 for r in records for task in ("click", "signal_1"))


def test_batches_of_the_host_train_to_the_same(root: Path) -> None:
    """The set on the device or not, and events of items or of the batch, are one function."""
    finals = [
        train(config_of(root, **PLAIN, data__resident=resident), root / f"resident_{resident}")
        for resident in (True, False)
    ]
    for name, value in finals[0].items():
        np.testing.assert_allclose(finals[1][name], value, rtol=1e-4, atol=1e-5, err_msg=name)


def test_ages_of_milliseconds_are_those_of_seconds() -> None:
    """A month of milliseconds is beyond int32; rows that come later change no unit."""
    found, first, scale = tiny_set(), 1_650_000_000_000, 10_000_000
    histories = [h._replace(times=first + h.times * scale) for h in found.histories]
    fine = found._replace(histories=tuple(histories), time=first + found.time * scale)
    rows, by_second = np.arange(len(found.time)), []
    for late in (0, 2**50):
        times = fine.time.copy()
        times[-1] += late
        columns = columns_of(fine._replace(time=times))
        assert columns["time"].dtype == columns["event_times"].dtype == np.int32
        by_second.append(gather(np, columns, rows[:-1], 4, None, False)["age"])
    want = gather(np, columns_of(found), rows[:-1], 4, None, False)["age"] * (scale // 1000)
    for age in by_second:
        np.testing.assert_array_equal(age, want)
    assert want.max() > 0


def test_sizes_of_histories_count_the_events_that_are_not_shown() -> None:
    found, rows = tiny_set(), np.arange(40)
    columns = columns_of(found)
    without, short = (gather(np, columns, rows, 2, None, False, sizes) for sizes in (False, True))
    long = gather(np, columns, rows, 5, None, False, True)
    sizes = np.expm1(short["dense"][:, -len(found.histories) :])
    np.testing.assert_allclose(sizes, (found.ends - found.starts)[rows], rtol=1e-5)
    assert sizes.max() > 2
    np.testing.assert_array_equal(long["dense"], short["dense"])
    np.testing.assert_array_equal(short["dense"][:, : -len(found.histories)], without["dense"])


def test_a_run_that_shows_sizes_of_histories_learns(root: Path) -> None:
    found = train(config_of(root, **PLAIN, data__history_sizes=True), root / "sizes")
    assert all(math.isfinite(value) for value in found.values())


def on_files(path: Path, root: Path, **changes: Any) -> Any:
    """An experiment on small files in its own layout, for two steps of 16."""
    config = configs.load(path)
    files = {f"data__{name}": value for name, value in write_files(path.stem, root).items()}
    if path.stem == "ali_ccp":  # no id is seen ten times in a small file
        files["data__name"] = "ali_ccp/all_ids"
    for name, value in (("steps", 2), ("batch_size", 16), ("eval_every", 2), ("log_every", 1)):
        changes[f"train__{name}"] = value
    return changed(
        config,
        data__data_dir=str(root / "sets"),
        method__strategy="scan",  # A loop over the tasks traces and compiles each pass once.
        train__report=False,
        **files,
        **changes,
    )


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_every_experiment_fits_its_files(path: Path, tmp_path: Path) -> None:
    """The file's own network, method and histories; traced, nothing is computed."""
    config = on_files(path, tmp_path)
    system, data = builders.build(config)
    placed = {name: jnp.asarray(leaf) for name, leaf in data.resident.items()}
    host = data.train_batch(0)
    method, tasks = config.method.make(), system.task_names
    tx = optax.adam(1e-3)

    def start(host: Any) -> TrainState:
        params, model_state = system.init(jax.random.key(0), data.assemble(placed, host, None))
        owners = owner_tree(params, system.owner, len(tasks))
        inner = method.init(params, owners, len(tasks))
        return TrainState(jnp.zeros((), jnp.int32), params, tx.init(params), model_state, inner)

    state = jax.eval_shape(start, host)
    step = make_train_step(system, data, method, tx, seed=0, strategy="scan")
    new, metrics = jax.eval_shape(step, state, placed, host)
    jax.tree.map(lambda a, b: np.testing.assert_equal(a.shape, b.shape), new, state)
    assert metrics["losses"].shape == (len(tasks),)
    assert ("tim" in state.params) == (path.stem not in ("census", "aliexpress"))
    assert set(state.params["tables"]) >= {
        column.name for column in builders.load(config.data).columns
    }


@pytest.mark.slow
@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_every_experiment_trains_on_its_files(path: Path, tmp_path: Path) -> None:
    config = on_files(path, tmp_path, optim__tables__min_rows=1)
    own = {name: getattr(config.model, name) for name in ("top", "encoder", "trm")}
    model = {f"model__{name}": value for name, value in {**MODEL, **own}.items()}
    final = train(changed(config, data__length=4, **model), tmp_path / "run")
    assert final["last/step"] == 2
    losses = [value for name, value in final.items() if name.endswith("/logloss")]
    assert losses
    assert np.isfinite(losses).all()


@pytest.mark.slow
def test_eight_devices_are_one(run_python: Callable, root: Path, tmp_path: Path) -> None:
    builders.load(config_of(root).data)  # prepared once
    files = {}
    for devices in (1, 8):
        files[devices] = tmp_path / f"{devices}.npz"
        done = run_python(__file__, str(files[devices]), str(root), devices=devices, timeout=600)
        assert done.returncode == 0, done.stderr[-3000:]
    one, eight = (dict(np.load(path)) for path in files.values())
    assert one.keys() == eight.keys()
    for name, value in one.items():
        np.testing.assert_allclose(eight[name], value, rtol=1e-4, atol=1e-5, err_msg=name)


def _three_steps(out: str, root: str) -> None:
    """Trains on all devices with dropout, flat regions and tables by row."""
    config = whole(
        Path(root),
        method=configs.MethodConfig(strategy="scan"),
        model__dropout=0.2,
        model__embedding_dropout=0.1,
        model__attention_dropout=0.1,
        optim__name="sgd",
    )
    run = runs.build(config)
    state = run.place(run.init())
    for step in range(3):
        state, metrics = run.train_step(state, run.data.resident, run.data.train_batch(step))
    found = parallel.to_host((run.export(state.params), metrics))
    leaves = jax.tree_util.tree_leaves_with_path(found)
    np.savez(out, **{jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves})


if __name__ == "__main__":
    _three_steps(*sys.argv[1:])

"""Runs from the first step to the report, for every experiment; the study's cells and table."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments.molecules import study_cells, study_tables
from mtl_jax import config as configs
from mtl_jax import run as runs
from mtl_jax.config import ExperimentConfig, FlatConfig, MethodConfig
from mtl_jax.data.molecules import TARGET_NAMES, TARGETS
from mtl_jax.engine.writers import read_metrics
from mtl_jax.systems.molecules.figures import report
from mtl_jax.train import train
from tests.raw_files import write_qm9

EXPERIMENTS = [
    path
    for path in sorted(Path("experiments/molecules").glob("*.py"))
    if "def get_config()" in path.read_text()
]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Where raw files and prepared sets are."""
    root = tmp_path_factory.mktemp("molecules")
    return {
        "manual_dir": str(write_qm9(root / "raw")),
        "data_dir": str(root / "sets"),
    }


def shrink(config: Any, folders: dict[str, str]) -> ExperimentConfig:
    """The experiment on made-up molecules for two steps, with narrow layers."""
    model = dataclasses.replace(
        config.model, width=6, messages=3, layers=1, basis=4, hidden=4, cutoff=6.0
    )
    return dataclasses.replace(
        config,
        data=dataclasses.replace(config.data, name="qm9/full", eval_batch_size=8, **folders),
        model=model,
        optim=dataclasses.replace(config.optim, warmup_steps=0),
        train=dataclasses.replace(
            config.train, steps=2, batch_size=8, eval_every=2, log_every=1, report=False
        ),
    )


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_every_experiment_runs(path: Path, folders: dict[str, str], tmp_path: Path) -> None:
    """One with its figures, the other with flat regions around an aggregator."""
    config = shrink(configs.load(path), folders)
    draws = path.stem == "qm9"
    if not draws:
        flat = FlatConfig(rho=0.05, adaptive=False)
        config = dataclasses.replace(config, method=MethodConfig("upgrad", flat=flat))
    final = train(config, tmp_path / "run")
    assert all(math.isfinite(value) for value in final.values())
    for target in TARGETS:
        assert final[f"best/test/{target.name}/{target.metric}"] > 0
    shares = [final[f"last/test/{name}/std_mae"] for name in TARGET_NAMES]
    np.testing.assert_allclose(final["last/test/std_mae"], np.mean(shares))
    assert "last/test/mae_mev" not in final  # no mean over units
    records = [r["values"] for r in read_metrics(tmp_path / "run") if r["kind"] == "train"]
    assert len(records) == 2
    assert all(math.isfinite(record[f"{name}/loss"]) for record in records for name in TARGET_NAMES)
    if draws:
        run = runs.build(config)
        state, _ = runs.restore(run, tmp_path / "run", "best")
        sections = report(run, state, tmp_path)
        assert [section.title for section in sections] == ["Error of each property", "Predictions"]
        assert all(path.stat().st_size > 5000 for section in sections for path in section.figures)
    else:
        assert all(record[f"{name}/gap"] != 0 for record in records for name in TARGET_NAMES)


def test_the_studys_cells_are_sound() -> None:
    names: dict[str, object] = {}
    for scale in study_cells.SCALES:
        for make in study_cells.CELLS.values():
            for seed in (0, 1):
                for cell in make(scale, seed):
                    cell.config.check()
                    assert cell.config.seed == seed
                    assert names.setdefault(cell.name, cell) is cell
    assert len(names) == 2 * 2 * (11 + 12)


def _cell(seed: int, share: float, tasks: int = 11) -> dict[str, Any]:
    scores = {f"best/test/{t.name}/{t.metric}": share * (k + 1) for k, t in enumerate(TARGETS)}
    return {
        "scores": {**scores, "best/test/std_mae": share},
        "seconds": 60.0,
        "parameters": 1234,
        "seed": seed,
        "set": "qm9/small",
        "tasks": tasks,
        "steps": 500,
        "batch_size": 64,
        "molecules": {"train": 8052, "validation": 1006, "test": 1006},
        "environment": {"device_kind": "a CPU"},
    }


def test_the_studys_table_comes_from_its_cells() -> None:
    cells = {
        f"qm9small-single-{name}-{seed}": _cell(seed, 0.2, 1)
        for name in TARGET_NAMES
        for seed in range(2)
    }
    for seed, (plain, flat) in enumerate(((0.22, 0.21), (0.25, 0.24))):
        cells[f"qm9small-cagrad-erm-{seed}"] = _cell(seed, plain)
        cells[f"qm9small-cagrad-fs-{seed}"] = _cell(seed, flat)
    shown = study_tables.tables(cells)
    rows = {line.split(" | ")[0]: line.split(" | ") for line in shown.splitlines()}
    assert rows["| single tasks"][1:3] == ["2", "0.200 +- 0.000"]
    assert rows["| CAGrad"][2] == "0.235 +- 0.021"
    assert rows["| CAGrad"][-2] == "+17.5 +- 10.6"
    assert rows["| FS-CAGrad"][-2] == "+12.5 +- 10.6"
    assert "less, in standard deviations and in every seed, for 1 of 1." in shown
    assert "8,052 train, 1,006 validation, 1,006 test molecules; 500 steps of 64; 1,234" in shown
    del cells["qm9small-single-mu-1"]  # a seed without all references has no Delta_m
    shown = study_tables.tables(cells)
    row = next(line for line in shown.splitlines() if line.startswith("| CAGrad"))
    assert "| +10.0 |" in row

"""The studies: their cells are sound and named apart, and their tables come from the cells."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments.ad_survival import study_cells as survival_cells
from experiments.ad_survival import study_tables as survival_tables
from experiments.dtrn import study_cells as dtrn_cells
from experiments.fsmtl import analysis, sweep
from experiments.fsmtl import study as fsmtl
from experiments.mt_deeponet import study as operators
from experiments.study_runs import DONE, Cell, only_sets, run_all, seeds_of
from mtl_jax.errors import UserError


def test_the_sweep_shares_its_cells_with_the_study() -> None:
    names = [sweep.sweep_config("multi_mnist", radius, 1).name for radius in sweep.RADII]
    assert len(set(names)) == len(names)
    for flat, radius in ((False, None), (True, (True, 2.0))):
        own = sweep.sweep_config("multi_mnist", radius, 1)
        assert own == fsmtl.cell_config("cpu", "multi_mnist", "cagrad", flat, 1)
    plain = sweep.sweep_config("multi_fashion", (False, 0.1), 0)
    assert (plain.method.flat.rho, plain.method.flat.adaptive) == (0.1, False)


def test_the_gains_in_words() -> None:
    names = ("linear_scalarization", "cagrad", "mgda")
    rows = [
        {"dataset": "multi_mnist", "method": method, "gain/last": gain}
        for method, gain in zip(names, ((1, 0.5, 2), (0.5, -1, 2), (-2, -3, -1)), strict=True)
    ]
    words = fsmtl.in_words(rows)
    assert "ahead in 2 of 3 rows" in words
    assert "(the interval is above 0) in 1, and behind by more than chance in 1." in words
    assert "Multi-MNIST -0.75 over the other methods, +1.00 for LS" in words


def test_the_interval_is_that_of_paired_outcomes() -> None:
    rng = np.random.default_rng(0)
    erm = rng.random((3, 400, 2)) < 0.9
    assert fsmtl.paired_interval(erm, erm) == (0, 0, 0)
    better = erm | (rng.random((3, 400, 2)) < 0.3)
    gain, low, high = fsmtl.paired_interval(erm, better)
    assert 0 < low < gain < high
    assert gain == pytest.approx(100 * (better.mean() - erm.mean()))


def test_tables_of_outcomes(tmp_path: Path) -> None:
    """Two seeds of ERM and of the authors' radius, whose gain is known."""
    for seed in range(2):
        for radius, share in ((None, 0.5), ((True, 2.0), 0.75)):
            name = sweep.sweep_config("multi_mnist", radius, seed).name
            right = np.arange(400).reshape(200, 2) < 400 * share
            (tmp_path / name).mkdir()
            np.savez(tmp_path / name / "outcomes.npz", best=right, last=right, seconds=1.0)
            (tmp_path / name / "results.json").write_text('{"best/step": 30, "last/step": 40}')
    shown = fsmtl.table(fsmtl.summarise(tmp_path, "cpu", range(3)))
    assert "| Multi-MNIST | CAGrad | 2 | 50.00 +- 0.00 | 50.00 +- 0.00 | 75.00 +- 0.00" in shown
    assert "+25.00" in shown
    summary = sweep.summarise(tmp_path, ["multi_mnist"], range(3))
    shown = sweep.table({**summary, "steps_per_epoch": 10})
    assert "| Multi-MNIST | ERM | 2 | 50.00 | 50.00 |  | 3 |" in shown
    assert "| Multi-MNIST | adaptive 2 | 2 | 75.00 | 75.00 | +25.00" in shown
    assert "plain" not in shown


def test_the_analysis_of_known_runs(tmp_path: Path) -> None:
    """Two seeds whose every measure is known, and outcomes whose gains are."""
    for seed in range(2):
        for setting in analysis.SETTINGS:
            for flat in (False, True):
                cell = analysis.cell("multi_mnist", setting, flat, seed)
                hit = 0.0 if setting == "clean" else 0.25
                right = np.arange(400).reshape(200, 2) < 400 * (0.5 + hit * flat)
                right[:, 0] = True
                (tmp_path / cell.name).mkdir()
                (tmp_path / cell.name / DONE).write_text("{}")
                np.savez(tmp_path / cell.name / "cell.npz", best=right, last=right)
        fs, erm = (analysis.cell("multi_mnist", "clean", flat, seed).name for flat in (1, 0))
        task = {"accuracy": 0.9, "ece": 0.02, "brier": 0.1, "entropy": 0.3, "entropy_other": 1.0}
        task["entropy_auroc"] = 0.8

        def measured(x: float, task: dict[str, float] = task) -> dict[str, Any]:
            rise = {"loss": [x, x], "gap_mean": [[0, 0], [2 * x, 4 * x]]}
            return {
                "gap": {"train": rise, "test": rise},
                "noise": {"test": {"mean": [[0.9, 0.9], [0.5, 0.7]]}},
                "calibration": {"tasks": {"a": task, "b": task}},
                "hessian": {"top": {"shared": {"a": {"value": x}, "b": {"value": 3 * x}}}},
                "conflict": {"conflict": 0.25},
            }

        runs = {fs: measured(1.0), erm: measured(2.0 + seed)}
        parts = {part: {name: own[part] for name, own in runs.items()} for part in measured(0.0)}
        found = {"settings": {"rhos": [1.0, 2.0], "rho": 2.0}, "parts": parts}
        (tmp_path / fs / "analysis").mkdir()
        (tmp_path / fs / "analysis" / "analysis.json").write_text(json.dumps(found))
    shown = analysis.tables(
        {
            "flatness": analysis.flatness(tmp_path, range(3)),
            "robustness": analysis.robustness(tmp_path, range(3)),
            "environment": {"device_kind": "a CPU"},
        }
    )
    assert "| rise of the train loss at rho 2 | 7.5 ± 2.1 | 3 ± 0 | 2 of 2 |" in shown
    assert "| largest eigenvalue | 5 ± 1.4 | 2 ± 0 | 2 of 2 |" in shown
    assert "| test accuracy under the largest noise, % | 60 ± 0 | 60 ± 0 | 0 of 2 |" in shown
    assert "| all labels right | 2 | 75.00 ± 0.00 | 75.00 ± 0.00 | 75.00" in shown
    row = next(line for line in shown.splitlines() if line.startswith("| 10 % of one task's"))
    assert "| 75.00 ± 0.00 | 87.50 ± 0.00 | +12.50 [" in row
    assert "| +0.00 [+0.00, +0.00] | +25.00 [" in row


def test_operator_cells_are_sound_and_start_from_cells_of_the_study() -> None:
    names: dict[str, object] = {}
    for part, make in operators.CELLS.items():
        for seed in (0, 1):
            for cell in make(seed):
                cell.config.check()
                assert cell.config.seed == seed
                # The 100 samples of a target are cells of two parts: the same cell.
                assert names.setdefault(cell.name, cell) == cell, part
                assert cell.zero <= bool(cell.source)
    sources = {cell.source for cell in names.values() if cell.source}
    assert sources <= names.keys()


def test_operator_tables_come_from_cells(tmp_path: Path) -> None:
    assert "No results yet" in operators.tables(tmp_path, range(2))
    for name, error in (
        ("fisher-all-0", 0.01),
        ("fisher-all-1", 0.03),
        ("to-l_shape-100-full-0", 0.2),
        ("fisher-adam-1", 0.04),
        ("plate-all-0", 0.005),
    ):
        tasks = (*operators.FAMILIES, *operators.SOURCES)
        scores = {f"best/test/{task}/rel_l2_mean": error for task in tasks}
        for kind in ("global", "mean_excess", "global_excess"):
            scores[f"best/test/rel_l2_{kind}"] = 2 * error
        cell = {"scores": {**scores, "best/test/rel_l2_mean": error}, "seconds": 7, "parameters": 9}
        (tmp_path / name).mkdir()
        (tmp_path / name / "cell.json").write_text(json.dumps(cell))
    shown = operators.tables(tmp_path, range(2))
    mean = "2.00 +- 1.41"
    assert f"| fisher | one for all | 2 | {mean} | {mean} | {mean} | 7 | 9 |" in shown
    assert "| l_shape | 100 | 1 |  |  |  | 20.00 |  |" in shown
    assert f"| Muon | 2 | {mean} | {mean} | {mean} | {mean} | 7 |" in shown
    assert "| Adam | 1 | 4.00 |" in shown
    assert "| 1 | 0.50 | 1.00 | 1.00 | 1.00 | 7 |" in shown
    assert "one for each" not in shown
    assert not operators.draw_transfer(tmp_path, range(2), tmp_path / "t.png")
    assert not operators.draw_sharing(tmp_path, range(2), tmp_path / "s.png")


def test_operator_cells_are_compared_seed_by_seed(tmp_path: Path) -> None:
    assert operators.in_words(tmp_path, range(2)) == ""
    for name, errors in {
        "darcy-all": (0.04, 0.04),
        "darcy-disc": (0.05, 0.06),
        "darcy-square": (0.02, 0.08),  # Better on the mean, not in every seed.
        "to-pentagon-100-full": (0.1, 0.2),
        "to-pentagon-100-scratch": (0.2, 0.4),
        "to-l_shape-100-full": (0.3, 0.3),
        "to-l_shape-100-scratch": (0.2,),
    }.items():
        for seed, error in enumerate(errors):
            scores = {f"best/test/{task}/rel_l2_mean": error for task in operators.SOURCES}
            folder = tmp_path / f"{name}-{seed}"
            folder.mkdir()
            cell = {"scores": {**scores, "best/test/rel_l2_mean": error}}
            (folder / "cell.json").write_text(json.dumps(cell))
    said = operators.in_words(tmp_path, range(2))
    assert "on 1 of 2 tasks" in said
    assert "training all of the source network from 100 samples errs 0.50 to 1.50 times" in said
    assert "in every seed on 1 of 2 targets" in said
    assert "heads" not in said


def test_operator_figures_are_drawn_from_cells(tmp_path: Path) -> None:
    names = [f"darcy-{word}-0" for word in ("all", *operators.SOURCES)]
    names += [
        f"to-pentagon-{size}-{start}-0" for size in (20, 100) for start in ("full", "scratch")
    ]
    for k, name in enumerate(names):
        scores = {f"best/test/{task}/rel_l2_mean": 0.05 for task in operators.SOURCES}
        (tmp_path / name).mkdir()
        cell = {"scores": {**scores, "best/test/rel_l2_mean": 0.1 + 0.01 * k}}
        (tmp_path / name / "cell.json").write_text(json.dumps(cell))
    for draw in (operators.draw_transfer, operators.draw_sharing):
        path = tmp_path / f"{draw.__name__}.png"
        assert draw(tmp_path, range(2), path)
        assert path.stat().st_size > 5000


def test_survival_cells_are_sound() -> None:
    names: dict[str, object] = {}
    for part, make in survival_cells.CELLS.items():
        for seed in (0, 1):
            for cell in make(seed, survival_cells.Files(snap="ads.csv")):
                cell.config.check()
                assert cell.config.seed == seed
                # The full network is a row of several tables: the same cell.
                assert names.setdefault(cell.name, cell) == cell, part
    assert {name.partition("-")[0] for name in names} >= {"creatives", "support2", "snap_ads"}
    assert not [cell for make in (survival_cells.snap,) for cell in make(0, survival_cells.Files())]


def _survival_cell(rng: np.random.Generator, value: float) -> dict[str, object]:
    keys = ("overall@0", "overall@3", "overall@10", "short@0", "short@3", "long@0", "long@10")
    return {
        "concordance": dict.fromkeys(keys, value),
        "drawn": {key: value + 0.01 * rng.normal(size=400) for key in keys},
        "parameters": 1000,
        "environment": {"device_kind": "a CPU"},
    }


def test_survival_tables() -> None:
    """Cells whose concordances are known, and what the tables say of them."""
    rng = np.random.default_rng(0)
    values = {"creatives-full": 0.7, "creatives-without_text": 0.65, "support2-two": 0.78}
    cells = {
        f"{stem}-{seed}": _survival_cell(rng, value + 0.001 * seed)
        for stem, value in values.items()
        for seed in range(3)
    }
    best = {
        kind: {f"overall@{day}": 0.75 - 0.06 * (kind != "full") for day in (0, 3, 10)}
        for kind in (*survival_cells.REMOVALS, "additive")
    }
    shown = survival_tables.tables({"cells": cells, "best": best})
    assert "comes 80 %, 80 %, 80 % of the way" in shown
    row = next(line for line in shown.splitlines() if line.startswith("| without texts | 3"))
    assert "| 0.651 +- 0.001 | 0.651 +- 0.001 | 0.651 +- 0.001 | -0.050 (" in row
    assert row.endswith("| 0.690, 0.690, 0.690 | -0.060 |")
    gain = survival_tables.interval(
        seeds_of(cells, "creatives-without_text"),
        survival_tables.OVERALL,
        seeds_of(cells, "creatives-full"),
    )
    assert gain is not None
    assert gain[1] < gain[0] < gain[2] < 0
    # The references are those of the committed benchmark, for as many splits as there are cells.
    assert "| SUPPORT2 | two terms | 3 | 0.781 (" in shown
    assert "| SUPPORT2 | Cox (scikit-survival) | 3 | 0.76" in shown
    # A term that was not trained leaves its place empty, and is no failure.
    assert survival_tables.value([_survival_cell(rng, 0.7)], "short@10") == ""


def test_recommendation_cells_are_sound(tmp_path: Path) -> None:
    names: dict[str, object] = {}
    files = dtrn_cells.Files(tmall2014="events.csv", kuairand=str(tmp_path))
    for make in dtrn_cells.CELLS.values():
        for seed in (0, 1):
            for cell in make(seed, files):
                cell.config.check()
                assert names.setdefault(cell.name, cell) == cell


def test_cells_that_are_done_are_not_run_again(tmp_path: Path, capsys: Any) -> None:
    cells = [Cell(f"a-b-{seed}", fsmtl.cell_config("cpu", "multi_mnist", "cagrad", False, seed))
             for seed in range(3)]  # fmt: skip
    (tmp_path / "a-b-1").mkdir()
    (tmp_path / "a-b-1" / DONE).write_text("{}")
    ran: list[str] = []
    run_all(lambda root, cell: ran.append(cell.name), tmp_path, cells, 1)
    assert ran == ["a-b-0", "a-b-2"]
    assert "3 cells, 1 done already" in capsys.readouterr().out
    assert only_sets(cells, "a") == cells
    with pytest.raises(UserError, match="--sets: 'c'"):
        only_sets(cells, "c")

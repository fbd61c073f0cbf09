"""The benchmarks of recommendation networks run and count what they say; nothing is timed."""

from __future__ import annotations

import importlib
import pathlib
import sys
from typing import Any

import numpy as np
import pytest

from benchmarks import dtrn_step, run, side_dtrn, timing, versus_rechub
from mtl_jax.errors import UserError

QUICK: dict[str, Any] = {"rounds": 1, "seconds": 0.0}
SMALL: dict[str, int] = {"rows": 256, "events": 200, "users": 40}
SIDE: dict[str, int] = {"batch_size": 16, "steps": 3, "columns": 3, "size": 40}


# The step of DTRN


def test_the_short_form_has_what_the_full_one_has_and_less() -> None:
    for cells in (dtrn_step.encoder_cells, dtrn_step.item_cells):
        short, full = set(cells(False)), set(cells(True))
        assert short < full
        assert len(full) == len(cells(True))
    with_mmoe = {cell.encoder for cell in dtrn_step.encoder_cells(False) if cell.top == "mmoe"}
    assert with_mmoe == set(dtrn_step.ENCODERS)
    dense = [cell.items for cell in dtrn_step.item_cells(False) if cell.update == "dense"]
    assert max(dense) == 1_000_000


def test_random_impressions_have_short_long_and_empty_histories() -> None:
    found = dtrn_step.random_set(50, **SMALL)
    counts = found.ends - found.starts
    assert counts.min() == 0
    assert counts.max() == 2 * dtrn_step.LENGTH
    ids = np.concatenate([history.ids for history in found.histories])
    assert ids.min() >= 1
    assert ids.max() <= 49
    low = (ids < 8).mean()
    assert 0.4 < low < 0.7  # log-uniform: log(7) / log(49) is a half


def test_cells_are_rows_with_ratios_to_what_was_timed_beside_them() -> None:
    sizes = ((60, "dense"), (200, "dense"), (60, "row_adagrad"))
    cells = [dtrn_step.Cell("mean", "shared_bottom", *size) for size in sizes]
    rows = dtrn_step.measure("items", cells, batch_size=8, min_rows=50, **QUICK, **SMALL)
    assert [(row["items"], row["update"]) for row in rows] == [cell[2:] for cell in cells]
    assert [row.get("over_smallest") == 1 for row in rows] == [True, False, False]
    assert "over_smallest" in rows[1]
    small, large, by_row = (row["parameters"] for row in rows)
    assert small == by_row == large - 140 * dtrn_step.DIM
    for row in rows:
        assert set(dtrn_step.COLUMNS) - set(row) <= {"over_shared", "over_smallest"}
        assert row["examples_per_second"] == pytest.approx(8e3 / row["median_ms"], rel=1e-2)


def test_row_updates_see_the_losses_of_dense_ones() -> None:
    found = dtrn_step.random_set(60, **SMALL)
    losses = []
    for update in dtrn_step.UPDATES:
        stepper = dtrn_step.Stepper(
            found, dtrn_step.Cell("mean", "mmoe", 60, update), 8, min_rows=50
        )
        losses.append(np.asarray(stepper()[1]["losses"]))
    np.testing.assert_allclose(*losses, rtol=1e-5)


def test_bytes_that_devices_send_are_read_without_a_run() -> None:
    sizes: Any = {"batch_size": 8, "min_rows": 50, "encoder": "mean", **SMALL}
    rows = dtrn_step.sent([60], **sizes)
    assert [(row["update"], row["tables"]) for row in rows] == list(dtrn_step.DEALT)
    assert all(set(dtrn_step.COLLECTIVES) <= set(row) for row in rows)
    assert all(row["collective_bytes"]["all-reduce"] > 0 for row in rows)


def test_another_process_has_the_devices_that_are_asked_for() -> None:
    assert dtrn_step.sent_by_devices(2, items=[]) == []
    with pytest.raises(UserError, match="2 devices died with exit code 1"):
        dtrn_step.sent_by_devices(2, items=[60], encoder="no", batch_size=8, **SMALL)


@pytest.mark.parametrize("wrong", ["encoder", "top", "update"])
def test_unknown_cells_are_refused(wrong: str) -> None:
    found = dtrn_step.random_set(60, **SMALL)
    with pytest.raises(UserError, match="unknown 'no'"):
        dtrn_step.build(found, dtrn_step.Cell("mean")._replace(**{wrong: "no"}))


# Torch-RecHub


def _loss_in_float64(arrays: dict[str, np.ndarray]) -> float:
    """MMoE and its mean loss on the first batch, written out."""
    wide = {
        name.removeprefix("params/"): value.astype(np.float64) for name, value in arrays.items()
    }
    rows = arrays["first"]
    ids, labels = arrays["fields"][rows], wide["labels"][rows]
    x = np.concatenate([wide[f"tables/c{k}"][ids[:, k]] for k in range(ids.shape[1])], 1)
    experts = x
    for k in range(2):
        bias = wide[f"top/{k}/bias"][:, None]
        experts = np.maximum(experts @ wide[f"top/{k}/kernel"] + bias, 0)
    losses = []
    for t in range(labels.shape[1]):
        gate = np.exp(x @ wide["heads/gate/kernel"][t] + wide["heads/gate/bias"][t])
        h = np.einsum("bk,kbw->bw", gate / gate.sum(1, keepdims=True), experts)
        for name in ("hidden/0", "out"):
            kernel, bias = (wide[f"heads/tower/{name}/{part}"][t] for part in ("kernel", "bias"))
            h = h @ kernel + bias
            h = np.maximum(h, 0) if name != "out" else h
        losses.append(np.mean(np.logaddexp(0, h[:, 0]) - labels[:, t] * h[:, 0]))
    return float(np.mean(losses))


def test_our_side_trains_the_network_that_it_hands_over(tmp_path: pathlib.Path) -> None:
    side = side_dtrn.Side(str(tmp_path), "mmoe", **SIDE)
    shared = dict(np.load(tmp_path / "shared.npz"))
    exact = _loss_in_float64(shared)
    for what in versus_rechub.OURS:
        found = side.prepare(what)
        assert found["losses"][0] == pytest.approx(exact, rel=1e-5)
        assert found["losses"][-1] < exact
        assert len(found["losses"]) == side_dtrn.CHECKED
        params = [value for name, value in shared.items() if name.startswith("params/")]
        assert found["parameters"] == sum(value.size for value in params)
        before = side_dtrn.CHECKED
        assert [int(side.calls[what]().step) for _ in range(2)] == [before + 3, before + 6]


def _program(library: str, what: str, *losses: float, parameters: int = 5) -> Any:
    return versus_rechub.Program(library, what, {"losses": losses, "parameters": parameters})


def test_programs_are_compared_with_our_call_of_their_kind() -> None:
    programs = [
        _program("mtl_jax", "loop", 1.0, 0.5),
        _program("mtl_jax", "batches", 1.0, 0.5),
        _program("torch_rechub", "trainer", 1.2, 0.7, parameters=7),
        _program("torch_rechub", "fused_plain", 1.0, 0.5),
    ]
    walls = [(4.0, 4.0, 40.0), (2.0, 2.0, 20.0), (8.0, 12.0, 160.0), (4.0, 6.0, 80.0)]
    times = [timing.Timing(tuple((wall, 1.0) for wall in each)) for each in walls]
    rows = versus_rechub.rows_of("mmoe", programs, times, batch_size=8)
    assert [row.get("over_ours") for row in rows] == [None, None, 3.0, 3.0]
    assert rows[2]["over_ours_low"] == pytest.approx(2.5)
    assert rows[2]["over_ours_high"] == pytest.approx(3.5)
    assert [row.get("more_parameters") for row in rows] == [None, None, 2, 0]
    assert rows[0]["examples_per_second"] == 2000
    assert set(versus_rechub.COLUMNS) <= set(rows[3])
    programs[3] = _program("torch_rechub", "fused_plain", 1.001, 0.5)
    with pytest.raises(UserError, match="not the same computation"):
        versus_rechub.rows_of("mmoe", programs, times, batch_size=8)


def test_the_command_refuses_what_it_does_not_know() -> None:
    with pytest.raises(UserError, match="did you mean 'mmoe'"):
        versus_rechub.main(["--models", "mmo"])
    with pytest.raises(UserError, match="--rounds is 0"):
        versus_rechub.main(["--rounds", "0"])


def test_without_torch_rechub_the_comparison_says_what_installs_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TQDM_DISABLE", "")
    for name in ("torch", "torch_rechub"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, "benchmarks.side_rechub", raising=False)
    with pytest.raises(UserError, match="make bench-rechub"):
        importlib.import_module("benchmarks.side_rechub")


@pytest.mark.parametrize("model", versus_rechub.MODELS)
def test_torch_rechub_computes_the_same(model: str, tmp_path: pathlib.Path) -> None:
    pytest.importorskip("torch_rechub")
    from benchmarks import side_rechub

    ours, theirs = (kind.Side(str(tmp_path), model, **SIDE) for kind in (side_dtrn, side_rechub))
    expected = ours.prepare("batches")
    for what in versus_rechub.THEIRS:
        found = theirs.prepare(what)
        theirs.calls[what]()
        if what.endswith("_plain"):
            assert found["parameters"] == expected["parameters"]
            assert found["losses"] == pytest.approx(expected["losses"], rel=1e-5)
        else:
            assert found["parameters"] > expected["parameters"]


# The tables


def test_the_tables_hold_rows_of_all_kinds() -> None:
    environment = timing.environment() | {"load_average_after": [0, 0, 0]}
    timed = {"batch": 8, "median_ms": 2.0, "examples_per_second": 4000.0}
    base = dtrn_step.Cell("tim_trm")._asdict()
    dtrn = [
        {"part": "encoders", **base, **timed, "over_shared": 1.5},
        {"part": "items", **base, **timed, "over_smallest": 2.5, "update": "row_adagrad"},
        {"part": "collectives", **base, "tables": "sharded", "devices": 8, "collective_kb": 64.0},
    ]
    embedding = [
        {"rows": rows, "ids": 9, "update": "sgd", "tables": "replicated", "devices": 1}
        | {"median_ms": rows / 10, "over_smallest": rows / 10, "collective_kb": 7.0}
        for rows in (10, 40)
    ]
    programs = [
        _program("mtl_jax", "loop", 1.0),
        _program("mtl_jax", "batches", 1.0),
        _program("torch_rechub", "trainer", 1.0, parameters=7000),
    ]
    times = [timing.Timing(((wall, 1.0),)) for wall in (2.0, 1.0, 8.0)]
    versions = {"torch_rechub": "0.9", "torch": "2.1"}
    found = [
        {"benchmark": name, "environment": environment | more, "full": True, "rows": rows}
        for name, rows, more in (
            ("dtrn_step", dtrn, {}),
            ("embedding_step", embedding, {}),
            (
                "versus_rechub",
                versus_rechub.rows_of("ple", programs, times, 8),
                {"rechub": versions, "threads": 2},
            ),
        )
    ]
    text = run.tables(found)
    assert "| TIM + TRM | mmoe | 100,000 | dense | 2 | 4000 | 1.50 |" in text
    assert "| TIM + TRM | mmoe | 100,000 | row adagrad | 2 | 4000 | 2.50 |" in text
    assert "| TIM + TRM | mmoe | 100,000 | dense | sharded | 8 | 64 |" in text
    assert "| 9 | sgd | replicated | 1 | 10 / 40 | 1 / 4 | 4.00 | 7 |" in text
    trainer = "Torch-RecHub, its loader and trainer | 7,000 | 8 | 1,000 | 4.00 (4.00 to 4.00) |"
    assert f"| PLE | {trainer}" in text
    assert "torch-rechub 0.9, torch 2.1, 2 threads each" in text
    assert {"dtrn_step", "embedding_step"} <= set(run.BENCHMARKS)

"""The benchmarks run, count and compare what they say; nothing here is timed."""

from __future__ import annotations

import importlib
import importlib.util
import json
import pathlib
import sys
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest

from benchmarks import (
    dispatch,
    models,
    operator_step,
    references,
    run,
    side_deeponet,
    solvers,
    task_grads,
    timing,
    train_step,
    versus_deepxde,
)
from benchmarks.sides import Worker
from mtl_jax.errors import UserError
from mtl_jax.reporting.markdown import table, write_between

QUICK: dict[str, Any] = {"rounds": 1, "seconds": 0.0}


@pytest.fixture
def results(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "RESULTS", tmp_path / "results")


# Timing


def test_all_take_turns_in_an_order_that_is_reversed_every_round() -> None:
    seen: list[str] = []

    def sample(name: str) -> Callable[[], timing.Sample]:
        return lambda: (seen.append(name), (1.0, 1.0))[1]

    timing.in_turns({"a": sample("a"), "b": sample("b")}, rounds=3, seconds=0)
    assert "".join(seen) == "abbaab"


def test_a_ratio_is_taken_within_rounds() -> None:
    slow_machine = [1.0, 1.0, 10.0]
    mine = timing.Timing(tuple((3 * load, 0.0) for load in slow_machine))
    other = timing.Timing(tuple((2 * load, 0.0) for load in slow_machine))
    assert mine.over(other) == pytest.approx(1.5)
    assert mine.fields() == {"median_ms": 3.0, "min_ms": 3.0, "cpu_ms": 0.0}


def test_a_short_call_is_repeated_within_a_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a clock that only the call moves, so that a busy machine does not change the count."""
    calls: list[int] = []
    monkeypatch.setattr(timing.time, "perf_counter", lambda: 2e-5 * len(calls))
    once = timing.timer(lambda: calls.append(0), at_least_ms=5.0)
    before = len(calls)
    wall, _ = once()
    assert len(calls) - before == 250
    assert wall == pytest.approx(0.02)  # ms of one call, not of the sample


@pytest.mark.usefixtures("results")
def test_results_are_written_and_read_without_the_command_line() -> None:
    path = timing.write("solvers", [{"a": 1}], timing.environment(), full=False)
    (read,) = timing.read_results()
    assert read == json.loads(path.read_text())
    assert (read["rows"], read["full"]) == ([{"a": 1}], False)
    assert {"device", "cores", "load_average", "load_average_after", "date"} <= set(
        read["environment"]
    )
    assert "argv" not in read["environment"]
    assert path.name == f"solvers-{timing.device_slug()}.json"


# What is timed


def test_the_floor_is_the_counted_one() -> None:
    # performance.md: T = 2 first 1.67, FS 3.67; T = 40 27 and 67.
    assert [task_grads.floor("first", t) for t in (2, 40)] == pytest.approx([5 / 3, 27])
    assert [task_grads.floor("fs", t) for t in (2, 40)] == pytest.approx([11 / 3, 67])


def test_task_grads_gives_a_row_for_every_strategy_and_pass() -> None:
    rows = task_grads.measure("mlp", 2, ("scan", "unroll"), batch_size=4, **QUICK)
    keys = [(row["strategy"], row["pass"]) for row in rows]
    assert keys == [
        ("-", "sum"),
        *((how, p) for how in ("scan", "unroll") for p in ("first", "fs")),
    ]
    for row in rows:
        assert set(task_grads.COLUMNS) <= set(row)
        assert row["over_floor"] == pytest.approx(row["over_sum"] / row["floor"], rel=1e-2)
        assert row["temp_mb"] > 0


def test_strategies_compute_the_same_and_the_sum_is_the_sum() -> None:
    functions, args = task_grads.programs("mlp", 3, 4)
    out = {
        (name, how): jax.jit(lambda *a, f=f, how=how: f(how, *a))(*args)[0]
        for name, f in functions.items()
        for how in ("scan", "vmap")
    }
    for name in functions:
        a, b = (jax.tree.leaves(out[name, how]) for how in ("scan", "vmap"))
        for x, y in zip(a, b, strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-6)
    total = jax.tree.leaves(out["sum", "scan"]["trunk"])
    rows = jax.tree.leaves(out["first", "scan"].shared)
    for x, y in zip(total, rows, strict=True):
        np.testing.assert_allclose(x, y.sum(0), rtol=1e-3, atol=1e-6)


def test_train_step_trains_every_method() -> None:
    rows = train_step.measure("mlp", 2, batch_size=8, **QUICK)
    assert [row["method"] for row in rows] == list(train_step.METHODS)
    for row in rows:
        assert set(train_step.COLUMNS) <= set(row)
        assert row["examples_per_second"] == pytest.approx(8e3 / row["median_ms"], rel=1e-2)
        assert row["compile_seconds"] > 0
    assert rows[0]["over_ls"] == 1


def test_a_step_of_an_operator_network_is_timed_beside_a_product() -> None:
    rows = operator_step.measure("1d_drawn", 2, size=64, **QUICK)
    assert [row["method"] for row in rows] == list(train_step.METHODS)
    for row in rows:
        points = row["batch"] * row["points"]
        assert row["points_per_second"] == pytest.approx(1e3 * points / row["median_ms"], rel=1e-2)
        assert ("of_product" in row) == (row["method"] == "ls")
    assert set(operator_step.COLUMNS) <= set(rows[0])
    # Products of a trunk point, of a branch's sample, and of both; backward twice as many.
    network, points = operator_step.NETWORKS["1d_drawn"], 256
    forward = 2 * (points * 71_424 + network.batch * (63_488 + points * 300))
    counted = 1e6 * rows[0]["gflop_per_second"] * rows[0]["median_ms"]
    assert 2.7 * forward < counted < 3.3 * forward


def test_a_stepper_steps() -> None:
    parts = models.build("mlp", 2, 8)
    stepper = train_step.Stepper(*parts, train_step.make_method("fs_cagrad"))
    first, second = stepper(), stepper()
    assert int(second[0].step) == 2
    assert np.isfinite(np.asarray(first[1]["losses"])).all()
    assert {"weights", "flat_weights", "perturbed_losses"} <= set(second[1])


def test_dispatch_calls_a_step_in_every_way() -> None:
    rows = dispatch.measure(leaves=2, batch_size=2, **QUICK)
    assert {row["call"] for row in rows} >= {"jit, traced", "pmap, data_parallel"}
    assert all(row["median_us"] > 0 and set(dispatch.COLUMNS) <= set(row) for row in rows)


@pytest.mark.parametrize("solver", list(solvers.SOLVERS))
def test_solvers_agree_with_their_references(solver: str) -> None:
    row = solvers.measure(solver, 3, **QUICK)
    assert set(solvers.COLUMNS) <= set(row)
    assert set(row["errors"]) == set(solvers.families(3))
    assert row["worst_error"] < 1e-3
    assert row["median_error"] < 1e-5


def test_an_error_is_seen() -> None:
    grads = solvers.families(3)["iid"]
    exact = references.min_norm(grads)
    assert solvers.error(grads, exact * 1.01, exact) == pytest.approx(0.01)


def test_unknown_names_say_what_is_known() -> None:
    with pytest.raises(UserError, match="did you mean 'resnet18'"):
        models.find("resnet")
    with pytest.raises(UserError, match="did you mean 'mgda'"):
        solvers.measure("mdga", 2)
    with pytest.raises(UserError, match="did you mean 'solvers'"):
        run.main(["--only", "solver"])


# References: each by the property that defines it


@pytest.fixture(params=["iid", "scales", "conflict", "rank"])
def grads(request: pytest.FixtureRequest) -> np.ndarray:
    return solvers.families(5)[request.param]


def test_the_min_norm_point_has_equal_products_with_the_tasks_in_it(grads: np.ndarray) -> None:
    w = references.min_norm(grads)
    direction = w @ grads
    products, square = grads @ direction, direction @ direction
    assert w.min() >= 0
    assert w.sum() == pytest.approx(1)
    np.testing.assert_allclose(products[w > 1e-9], square, rtol=1e-6)
    assert (products > square * (1 - 1e-6)).all()


def test_upgrad_harms_no_task(grads: np.ndarray) -> None:
    direction = references.upgrad(grads) @ grads
    assert (grads @ direction > -1e-9).all()


def test_cagrad_is_best_for_the_worst_task_within_its_ball(grads: np.ndarray) -> None:
    c, mean = 0.4, grads.mean(0)
    direction = references.cagrad(grads, c) @ grads * (1 + c * c)
    radius = c * np.linalg.norm(mean)
    assert np.linalg.norm(direction - mean) == pytest.approx(radius)
    best = (grads @ direction).min()
    rng = np.random.default_rng(0)
    for size in (1e-3, 1e-2, 1e-1, 1.0):
        other = direction + size * radius * rng.normal(size=(200, len(mean))) / len(mean) ** 0.5
        away = other - mean
        away *= np.minimum(1, radius / np.linalg.norm(away, axis=1))[:, None]
        assert ((mean + away) @ grads.T).min(1).max() <= best + 1e-9


@pytest.mark.parametrize("alpha", [1.0, 2.0])
def test_the_power_equation_is_solved(grads: np.ndarray, alpha: float) -> None:
    w = references.power_equation(grads, alpha)
    assert w.min() > 0
    np.testing.assert_allclose(grads @ (w @ grads), w ** (-1 / alpha), rtol=1e-6)


def test_imtl_projects_equally() -> None:
    grads = solvers.families(5)["scales"]
    w = references.imtl_g(grads)
    projections = grads @ (w @ grads) / np.linalg.norm(grads, axis=1)
    assert w.sum() == pytest.approx(1)
    np.testing.assert_allclose(projections, projections[0], rtol=1e-8)


def test_aligned_gradients_are_orthogonal_and_equally_long() -> None:
    grads = solvers.families(4)["iid"]
    # The direction is the sum of the aligned rows: its products with them are all the same.
    left, values, right = np.linalg.svd(grads, full_matrices=False)
    aligned = values.min() * left @ right
    np.testing.assert_allclose(
        aligned @ (references.aligned_mtl(grads) @ grads), values.min() ** 2, rtol=1e-9
    )


def test_pcgrad_of_two_conflicting_tasks() -> None:
    grads = np.array([[1.0, 0.0], [-1.0, 1.0]])
    weights = references.pcgrad(grads, np.array([[0, 1], [0, 1]]))
    # (1, 0) loses its part along (-1, 1), and the other way round.
    np.testing.assert_allclose(weights @ grads, [0.5 + 0.0, 0.5 + 1.0])


# The two sides of the comparison


def test_without_torch_the_comparison_says_what_installs_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, "benchmarks.side_torch", raising=False)
    with pytest.raises(UserError, match="make bench-torch"):
        importlib.import_module("benchmarks.side_torch")


@pytest.mark.parametrize("what", ["sum", "fs", "upgrad"])
def test_the_jax_side_hands_its_parameters_over(what: str, tmp_path: pathlib.Path) -> None:
    from benchmarks.side_jax import Side

    side = Side("lenet_10_20", 2, 4, str(tmp_path))
    shared = np.load(tmp_path / "shared.npz")
    assert shared["trunk/Conv_1/kernel"].shape == (5, 5, 10, 20)
    assert shared["batch/image"].shape == (4, 36, 36, 1)
    norm = side.prepare(what)["norm"]
    assert np.isfinite(norm)
    assert norm > 0
    assert jax.tree.leaves(side.calls[what]())


@pytest.mark.parametrize("model", ["lenet_10_20", "mlp"])
def test_both_sides_compute_the_same(model: str, tmp_path: pathlib.Path) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("torchjd")
    from benchmarks import side_jax, side_torch

    ours, theirs = (kind(model, 2, 4, str(tmp_path)) for kind in (side_jax.Side, side_torch.Side))
    for what in ("sum", "tasks", "pcgrad", "fs"):
        norm = ours.prepare(what)["norm"]
        found = theirs.prepare(what)["norms"]
        assert found == dict.fromkeys(found, pytest.approx(norm, rel=1e-4))


# DeepXDE

SMALL: dict[str, Any] = {"batch_size": 8, "per_call": 6, "samples": (12, 12, 16)}


@pytest.fixture(scope="module")
def small_side(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, dict[str, np.ndarray]]:
    folder = tmp_path_factory.mktemp("deeponet")
    side = side_deeponet.Side(str(folder), steps=12, **SMALL)
    return side, dict(np.load(folder / "shared.npz"))


def _loss_in_float64(arrays: dict[str, np.ndarray]) -> float:
    """The network and its loss on the first batch, written out."""
    wide = {name: value.astype(np.float64) for name, value in arrays.items()}

    def net(x: np.ndarray, prefix: str, hidden: int, norm: bool) -> np.ndarray:
        for k in range(hidden + 1):
            x = x @ wide[f"{prefix}/dense_{k}/kernel"] + wide[f"{prefix}/dense_{k}/bias"]
            if k == hidden:
                return x
            if norm:
                x = (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + 1e-3)
                x = x * wide[f"{prefix}/norm_{k}/scale"] + wide[f"{prefix}/norm_{k}/bias"]
            x = np.where(x > 0, x, 0.2 * x)
        raise AssertionError

    rows = arrays["first"]
    coefficients = net(wide["branch"][rows], "params/branch", 2, True)
    basis = net(wide["trunk"], "params/trunk/net", 3, False)
    return float(np.square(coefficients @ basis.T - wide["solution"][rows]).mean())


def test_our_side_trains_the_network_that_it_hands_over(
    small_side: tuple[Any, dict[str, np.ndarray]],
) -> None:
    side, shared = small_side
    assert shared["branch"].shape == (32, 68)
    assert shared["solution"].shape == (32, 1280)
    found = {what: side.prepare(what) for what in side_deeponet.VARIANTS}
    assert {one["parameters"] for one in found.values()} == {136_664}
    assert [one["tasks"] for one in found.values()] == [1, 3, 3]
    assert [one["points"] for one in found.values()] == [1280, 1280, 256]
    exact = _loss_in_float64(shared)
    for what in ("one_task", "three_tasks"):  # the same batch, split or not
        assert found[what]["losses"][0] == pytest.approx(exact, rel=1e-5)
        assert len(found[what]["losses"]) == 6
        assert found[what]["losses"][-1] < exact
    # Trained six steps for the losses, then twelve a call.
    assert int(side.calls["one_task"]().step) == 18
    assert int(side.calls["one_task"]().step) == 30


def _program(library: str, what: str, *losses: float, parameters: int = 5) -> Any:
    found = {"losses": list(losses), "parameters": parameters, "tasks": 1, "points": 10}
    return versus_deepxde.Program(library, what, found)


def test_another_computation_is_not_timed() -> None:
    ours = _program("mtl_jax", "one_task", 1.0, 0.5)
    close = _program("pytorch", "adam", 1.000001, 0.5005)
    assert versus_deepxde.check_same(ours, close) == pytest.approx((1e-6, 1e-3), rel=0.01)
    for loss in (1.0001, float("nan")):
        with pytest.raises(UserError, match="not the same computation"):
            versus_deepxde.check_same(ours, _program("pytorch", "adam", loss, 0.5))
    with pytest.raises(UserError, match="6 parameters, mtl_jax 5"):
        versus_deepxde.check_same(ours, _program("pytorch", "adam", 1.0, 0.5, parameters=6))


def test_rows_count_steps_and_points_and_compare_within_rounds() -> None:
    programs = [_program("mtl_jax", "one_task", 1.0), _program("pytorch", "adam", 1.0)]
    times = [
        timing.Timing(((2.0, 1.0), (2.0, 1.0), (20.0, 1.0))),
        timing.Timing(((6.0, 1.0), (8.0, 1.0), (60.0, 1.0))),
    ]
    ours, theirs = versus_deepxde.rows_of(programs, times, batch_size=4)
    assert (ours["ms"], ours["steps_per_second"], ours["points_per_second"]) == (2, 500, 20_000)
    assert (ours["over_ours"], theirs["over_ours"], theirs["ms"]) == (1, 3, 8)
    assert theirs["first_difference"] == 0
    assert set(versus_deepxde.COLUMNS) == set(theirs)


@pytest.mark.parametrize("backend", versus_deepxde.BACKENDS)
def test_without_deepxde_the_comparison_says_what_installs_it(
    backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("DDE_BACKEND", "TF_CPP_MIN_LOG_LEVEL"):
        monkeypatch.setenv(name, "")
    for name in ("deepxde", "tensorflow"):
        monkeypatch.setitem(sys.modules, name, None)
    module = f"benchmarks.side_deepxde_{backend}"
    for name in ("benchmarks.deepxde_side", module):
        monkeypatch.delitem(sys.modules, name, raising=False)
    with pytest.raises(UserError, match="pip install deepxde"):
        importlib.import_module(module)


@pytest.mark.parametrize("backend", versus_deepxde.BACKENDS)
def test_deepxde_computes_the_same(backend: str) -> None:
    needed = ["deepxde", "torch" if backend == "pytorch" else "tensorflow_probability"]
    for name in needed:
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"{name} is not installed")
    ours, theirs = Worker("deeponet", 1), Worker(f"deepxde_{backend}", 1)
    try:
        for worker in (ours, theirs):
            worker.ask(do="hello", threads=1)
        rows = versus_deepxde.measure(
            ours, {backend: theirs}, steps=6, variants=["one_task"], **SMALL, **QUICK
        )
    finally:
        ours.close()
        theirs.close()
    assert [row["what"] for row in rows] == ["one_task", *versus_deepxde.BACKENDS[backend]]
    for row in rows[1:]:  # after five updates: gradients and Adam are the same too
        assert row["last_difference"] < 1e-4


# The table


@pytest.mark.usefixtures("results")
def test_the_tables_hold_every_result_with_its_device(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = timing.environment()
    on_gpu = environment | {"backend": "gpu", "device_kind": "H100", "device_count": 1}
    rows = {
        "task_grads": task_grads.measure("mlp", 2, ("scan",), batch_size=4, **QUICK),
        "train_step": train_step.measure("mlp", 2, batch_size=8, methods=("ls",), **QUICK),
        "solvers": [solvers.measure("mgda", 2, **QUICK)],
        "dispatch": dispatch.measure(leaves=1, **QUICK),
    }
    for name, measured in rows.items():
        timing.write(name, measured, environment, full=False)
    monkeypatch.setattr(timing, "device_slug", lambda: "h100")
    timing.write("solvers", rows["solvers"], on_gpu, full=True)
    found = timing.read_results()
    found.append(
        {
            "benchmark": "versus_torchjd",
            "environment": environment
            | {
                "torch": {"torch": "2", "torchjd": "1"},
                "threads": 2,
                "load_average_after": [0, 0, 0],
            },
            "full": True,
            "rows": [
                {"model": "mlp", "tasks": 2, "batch": 4, "what": "sum", "jax_ms": 1.5}
                | {"torch_ms": 3.0, "ratio": 0.5, "torch_format": "contiguous"}
            ],
        }
    )
    theirs = {"deepxde": "3.1", "torch": "4.5", "threads": 2}
    found.append(
        {
            "benchmark": "versus_deepxde",
            "environment": found[-1]["environment"] | {"deepxde": {"pytorch": theirs}},
            "full": True,
            "rows": [
                {"library": library, "what": what, "batch": 4, "points": 7, "ms": 2.5}
                | {"steps_per_second": 400.0, "points_per_second": 11_200_000, "over_ours": 1.25}
                for library, what in (("mtl_jax", "one_task"), ("pytorch", "fused"))
            ],
        }
    )
    del found[-1]["environment"]["torch"]
    text = run.tables(found)
    assert "| DeepXDE on pytorch, torch's fused Adam | 4 | 7 | 2.5 | 400 | 11.2 | 1.25 |" in text
    assert "deepxde 3.1 on torch 4.5, 2 threads each" in text
    assert "1.5 / 3 = 0.50" in text
    assert text.count("1 x H100") == 2  # its row and its note
    assert text.count("MLP 512-512-512-50") == 3
    readme = tmp_path / "README.md"
    readme.write_text(f"a\n{run.BEGIN}\nold\n{run.END}\nb\n")
    monkeypatch.setattr(run, "README", readme)
    run.main(["--table-only"])
    assert readme.read_text().startswith(f"a\n{run.BEGIN}\nThe whole training step")
    assert readme.read_text().endswith(f"{run.END}\nb\n")
    assert "old" not in readme.read_text()


def test_a_table_needs_a_cell_for_every_column() -> None:
    assert table(["a", "b"], [[1, "x"]]) == "| a | b |\n| --- | --- |\n| 1 | x |"
    with pytest.raises(ValueError, match="1 cells, the table 2 columns"):
        table(["a", "b"], [[1]])


@pytest.mark.parametrize("text", ["", "<a>", "<a> <a> <b>", "<b> <a>"])
def test_markers_must_stand_once_and_in_order(text: str, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "page.md"
    path.write_text(text)
    with pytest.raises(UserError, match="once each, in this order"):
        write_between(path, "<a>", "<b>", "new")
    assert path.read_text() == text

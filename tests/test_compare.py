"""The comparison of methods: its cells, its table by hand, and what a wrong name is told."""

from __future__ import annotations

import dataclasses
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.compare import cells, small_census, tables
from experiments.compare.__main__ import main
from experiments.compare.apart import apart
from experiments.compare.cells import FLAT, LS, SINGLE
from experiments.compare.sets import SETS
from experiments.study_runs import DONE
from mtl_jax.data.impressions import Column, check_impressions
from mtl_jax.errors import UserError
from mtl_jax.methods.ownership import owner_tree
from mtl_jax.methods.table import METHODS
from mtl_jax.metrics.base import compute, mean
from tests import toys
from tests.impression_sets import tiny_set


def test_rows_are_ls_and_what_is_asked_for() -> None:
    assert cells.methods_of("cagrad, famo,ls,cagrad") == [LS, "cagrad", "famo"]
    assert cells.methods_of("ls") == [LS]
    flat = cells.methods_of("upgrad", flat=True)
    assert flat == [LS, "upgrad", LS + FLAT, "upgrad" + FLAT]


def test_a_row_of_a_fork_can_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METHODS, "my_method", METHODS["upgrad"])
    assert cells.methods_of("my_method") == [LS, "my_method"]
    assert cells.cell("yeast", "my_method", 0).config.method.aggregator == "my_method"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--methods", "cagard"], "--methods: 'cagard'; did you mean 'cagrad'"),
        (["--methods", ""], "--methods is empty; give names with commas"),
        (["--methods", "ls", "--sets", "yeats"], "--sets: 'yeats'; did you mean 'yeast'"),
        (["--methods", "ls", "--seeds", "0"], "--seeds is 0; it must be 1 or more"),
        (["--seeds", "1"], "required: --methods"),
    ],
)
def test_wrong_flags_are_told_in_one_line(flags: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        main(flags)
    assert "\n" not in str(caught.value)


def test_a_wrong_name_ends_with_exit_code_2(
    run_python: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    done = run_python("-m", "experiments.compare", "--methods", "cagrad,my_metod")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: --methods: 'my_metod'; ")
    assert done.stderr.count("\n") == 1


def test_cells_are_sound_and_share_what_is_not_the_method() -> None:
    names = set()
    for name, spec in SETS.items():
        configs: dict[str, Any] = {}
        for row in (SINGLE, LS, "cagrad", "cagrad" + FLAT):
            one = cells.cell(name, row, 2)
            one.config.check()
            names.add(one.name)
            assert one.config.seed == 2
            configs[row] = one.config
        for row, config in configs.items():
            assert config.train == configs[LS].train
            assert config.optim == configs[LS].optim
            assert config.data == configs[LS].data
            assert (config.method.flat.combine == "erm") == (not row.endswith(FLAT))
        assert configs["cagrad"].method.aggregator == "cagrad"
        assert configs[SINGLE].method.options == {"reduction": "sum"}
        assert configs[SINGLE] != configs[LS]
        assert configs[LS].train.steps % configs[LS].train.eval_every == 0
        assert (configs[LS].train.select_mode == "max") == spec.higher
        assert configs[LS].train.select == f"validation/{spec.metric}"
    assert len(names) == 4 * len(SETS)


def record(one: Any, scores: dict[str, float] | None, seconds: float = 4.0) -> dict[str, Any]:
    """What a cell leaves, of invented scores by task; None for one that failed."""
    error = {} if scores is not None else {"error": "loss not finite at step 3"}
    print_of = cells.fingerprint(one.config)
    return {"scores": scores or {}, "seconds": seconds, "fingerprint": print_of, **error}


ABOUT = {
    "steps": 10,
    "batch_size": 4,
    "epochs": 2.0,
    "rows_of_split": {"train": 20, "validation": 5, "test": 6},
    "parameters": 1234,
}
# Scores by set, row, seed and task.
INVENTED: dict[str, dict[str, list[tuple[float, float]]]] = {
    "yeast": {  # AUC
        SINGLE: [(0.5, 0.8), (0.5, 0.8)],
        LS: [(0.6, 0.7), (0.4, 0.9)],  # means 0.5, 0.8: the reference's
        "cagrad": [(0.55, 0.84), (0.55, 0.84)],  # +10 % and +5 %
        "famo": [(0.45, 0.8), (0.55, 0.8)],  # equal to LS
    },
    "rf1": {  # errors
        SINGLE: [(1.0, 2.0), (1.0, 2.0)],
        LS: [(1.1, 2.0), (1.3, 2.0)],  # +20 % and 0
        "cagrad": [(0.9, 1.0), (0.9, 1.0)],  # -10 % and -50 %
        "famo": [(1.0, 3.0), (1.0, 3.0)],  # 0 and +50 %
    },
}


def invented() -> dict[str, dict[str, Any]]:
    return {
        f"{name}-{row}-{seed}": record(
            cells.cell(name, row, seed),
            {
                f"{task}/{SETS[name].metric}": value
                for task, value in zip("ab", values, strict=True)
            },
        )
        for name, rows in INVENTED.items()
        for row, by_seed in rows.items()
        for seed, values in enumerate(by_seed)
    }


def summary_of(found: dict[str, dict[str, Any]]) -> dict[str, Any]:
    about = {name: {**ABOUT, "tasks": ["a", "b"]} for name in INVENTED}
    return tables.summarise(found, about, (LS, "cagrad", "famo"), (0, 1))


def test_ranks_and_delta_m_are_those_by_hand() -> None:
    found = summary_of(invented())
    yeast, rf1 = (found["sets"][name]["rows"] for name in INVENTED)
    np.testing.assert_allclose(yeast["cagrad"]["delta_m"], -(10 + 5) / 2)
    np.testing.assert_allclose(yeast[LS]["deltas"], [-(20 - 12.5) / 2, -(-20 + 12.5) / 2])
    np.testing.assert_allclose(yeast[LS]["delta_m"], 0, atol=1e-12)
    np.testing.assert_allclose(yeast[SINGLE]["delta_m"], 0, atol=1e-12)
    np.testing.assert_allclose(rf1["cagrad"]["delta_m"], -30)
    np.testing.assert_allclose(rf1[LS]["delta_m"], 10)
    np.testing.assert_allclose(rf1["famo"]["delta_m"], 25)
    # Yeast: CAGrad is first in both tasks, LS and FAMO share places 2 and 3. RF1, task a: CAGrad,
    # FAMO, LS; task b: CAGrad, LS, FAMO.
    ranks = {row: (yeast[row]["rank"], rf1[row]["rank"]) for row in (LS, "cagrad", "famo")}
    assert ranks == {LS: (2.5, 2.5), "cagrad": (1.0, 1.0), "famo": (2.5, 2.5)}
    assert found["overall"]["cagrad"]["mean_rank"] == 1.0
    np.testing.assert_allclose(found["overall"]["cagrad"]["delta_m"], -(7.5 + 30) / 2)
    of_seeds = [(-3.75 + 5) / 2, (3.75 + 15) / 2]
    np.testing.assert_allclose(found["overall"][LS]["delta_m"], np.mean(of_seeds))
    np.testing.assert_allclose(found["overall"][LS]["delta_m_std"], np.std(of_seeds, ddof=1))
    np.testing.assert_allclose(yeast[LS]["mean"], 0.65)
    np.testing.assert_allclose(yeast[LS]["std"], 0, atol=1e-12)


def test_a_run_that_failed_is_last_and_has_no_delta() -> None:
    found = invented()
    name = "yeast-cagrad-1"
    found[name] = record(cells.cell("yeast", "cagrad", 1), None)
    summary = summary_of(found)
    row = summary["sets"]["yeast"]["rows"]["cagrad"]
    assert (row["rank"], row["delta_m"], row["mean"]) == (3.0, None, None)
    assert summary["overall"]["cagrad"]["delta_m"] is None
    json.dumps(summary, allow_nan=False)
    shown = tables.markdown({**summary, "environment": environment()})
    assert "| cagrad | failed |" in shown


def environment() -> dict[str, Any]:
    packages = {"jax": "0.0.1"}
    machine = {"device_count": 1, "device_kind": "abacus", "cpu_count": 2, "python": "3"}
    return {"packages": packages, **machine}


def test_the_table_and_its_figure_come_from_the_records(tmp_path: Path) -> None:
    """By the command, from a root in which the cells of two sets are done."""
    root = tmp_path / "root"
    for name, made in invented().items():
        (root / name).mkdir(parents=True)
        (root / name / DONE).write_text(json.dumps(made))
    for name in INVENTED:
        config = json.loads(json.dumps(cells.to_dict(SETS[name].config())))
        about = {**ABOUT, "tasks": ["a", "b"]}
        (root / f"{name}.json").write_text(json.dumps({"config": config, "about": about}))
    flags = ["--root", str(root), "--results", str(tmp_path), "--seeds", "2", "--sets", "yeast,rf1"]
    main(["--methods", "cagrad,famo", *flags])  # all is done: nothing is trained
    shown = (tmp_path / "compare.md").read_text()
    assert "| cagrad | 0.6950 +- 0.0000 | 0.9500 +- 0.0000 | 1.00 | -18.75 +- 0.00 |" in shown
    assert "| single-task networks | 0.6500 +- 0.0000 | 1.5000 +- 0.0000 | - | - |" in shown
    assert "| RF1 | 2 | 20 / 5 / 6 | 10 of 4 | 2 | 1,234 |" in shown
    assert json.loads((tmp_path / "compare.json").read_text())["seeds"] == [0, 1]
    assert (tmp_path / "compare.png").stat().st_size > 1000
    # A set that lacks a cell is left out and named.
    (root / "rf1-famo-1" / DONE).unlink()
    main(["--methods", "cagrad,famo", *flags, "--table-only"])
    shown = (tmp_path / "compare.md").read_text()
    assert "not all cells are done: rf1" in shown
    assert "RF1 aRRMSE" not in shown


def test_a_cell_counts_while_its_config_and_its_method_are_what_they_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = cells.cell("yeast", "cagrad", 0)
    (tmp_path / one.name).mkdir()
    (tmp_path / one.name / DONE).write_text(json.dumps(record(one, {"a/auc": 0.5})))
    assert cells.read_cell(tmp_path, one) is not None
    longer = dataclasses.replace(one.config.train, steps=1200)
    changed = one._replace(config=dataclasses.replace(one.config, train=longer))
    assert cells.read_cell(tmp_path, changed) is None
    source = tmp_path / "edited.py"
    source.write_text("# another version\n")
    monkeypatch.setattr(cells.inspect, "getsourcefile", lambda factory: str(source))
    assert cells.read_cell(tmp_path, one) is None


def test_the_time_left_goes_by_set() -> None:
    done = {"yeast-a-0": {"seconds": 2.0}, "yeast-b-0": {"seconds": 4.0}, "rf1-a-0": {"seconds": 9}}
    assert cells.seconds_left(done, ["yeast-a-1", "rf1-a-1", "qm9-a-0"]) == 3 + 9 + 6
    assert cells.seconds_left({}, ["yeast-a-0"]) == 0


def test_networks_apart_are_those_of_the_tasks_alone() -> None:
    """Task t's loss is that of the system itself with network t, and no other network moves it."""
    toy = toys.ALL["stacked"](3)

    def init(key: Any, batch: Any) -> Any:
        params, state = toy.system.init(key, batch)
        return jax.tree.map(lambda leaf: jax.random.normal(key, leaf.shape), params), state

    def metrics(params: Any, state: Any, batch: Any) -> Any:
        squares = jnp.square(params["heads"]["w"]).mean((1, 2))
        return {task: mean(squares[t, None]) for t, task in enumerate(toy.system.task_names)}

    system = toy.system._replace(init=init, metrics=metrics)
    data = toys.data_of(toy)
    batch = data.assemble(data.resident, data.train_batch(0), None)
    both = apart(system)

    @jax.jit
    def losses(params: Any, batch: Any) -> tuple[Any, Any, Any]:
        z, _ = both.features(params, {}, batch, None, True)
        ours, theirs = [], []
        for t in range(3):
            cut = jax.tree.map(lambda leaf, t=t: leaf[t], params)
            ours.append(both.task_loss(cut, z, batch, t)[0])
            own = cut["apart"]
            features, _ = system.features(own, {}, batch, None, True)
            owners = owner_tree(own, system.owner, 3)
            one = jax.tree.map(
                lambda who, leaf, t=t: leaf[t] if who == "stacked" else leaf, owners, own
            )
            theirs.append(system.task_loss(one, features, batch, t)[0])
        return ours, theirs, both.metrics(params, {}, batch)

    params, state = both.init(jax.random.key(0), batch)
    assert state == {}
    assert set(jax.tree.leaves(owner_tree(params, both.owner, 3))) == {"stacked"}
    for leaf in jax.tree.leaves(params):
        assert leaf.shape[0] == 3
    ours, theirs, states = losses(params, batch)
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)
    # Task t by network t.
    squares = np.square(np.asarray(params["apart"]["heads"]["w"])).mean((2, 3)).diagonal()
    assert len(set(squares.tolist())) == 3
    np.testing.assert_allclose(list(compute(states).values()), squares, rtol=1e-5)


def test_networks_with_running_statistics_are_refused() -> None:
    system = toys.ALL["stacked"](2).system
    moving = system._replace(init=lambda key, batch: ({"w": jnp.ones(2)}, {"batch_stats": 0.0}))
    with pytest.raises(ValueError, match=r"with state \['batch_stats'\] cannot be trained"):
        apart(moving).init(jax.random.key(0), {})


def test_census_is_cut_to_rows_and_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    full = tiny_set()
    full = full._replace(
        item="",
        attributes=(),
        histories=(),
        columns=tuple(Column(c.name, c.size, "user") for c in full.columns),
        starts=full.starts[:, :0],
        ends=full.ends[:, :0],
    )
    kept = (full.columns[-1].name,)
    monkeypatch.setattr(small_census, "load", lambda data: full)
    config: Any = SETS["census"].config()
    found = small_census.part(config.data, (5, 3, 2), kept)
    small_census.part.cache_clear()
    check_impressions(found, "here")
    assert [len(rows) for rows in found.splits.values()] == [5, 3, 2]
    assert [column.name for column in found.columns] == list(kept)
    for split, rows in found.splits.items():
        own = {tuple(row) for row in np.c_[full.fields[:, -1], full.labels][full.splits[split]]}
        assert {tuple(row) for row in np.c_[found.fields[:, 0], found.labels][rows]} <= own

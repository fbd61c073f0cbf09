"""Tables of scores: every number in its place, whatever the tasks measure."""

from __future__ import annotations

import numpy as np
import pytest

from mtl_jax.reporting import tables
from mtl_jax.reporting.curves import Log
from mtl_jax.reporting.figures import Series

METRICS = ("ece", "accuracy", "nll")


def results(tasks: tuple[str, ...], best: int = 10, last: int = 30) -> dict[str, float]:
    """Scores that are all different, and the mean over tasks."""
    out: dict[str, float] = {}
    number = 0
    for which, step in (("best", best), ("last", last)):
        for split in ("validation", "test"):
            for metric in METRICS:
                for task in tasks:
                    number += 1
                    out[f"{which}/{split}/{task}/{metric}"] = number / 1000
                values = [out[f"{which}/{split}/{task}/{metric}"] for task in tasks]
                out[f"{which}/{split}/{metric}"] = float(np.mean(values))
        out[f"{which}/step"] = step
    return out


def test_equal_metrics_are_columns_the_usual_ones_first():
    values = results(("top_left", "b"))
    (best, last), details = tables.of_results(
        values, ("top_left", "b"), {"test": 2000}, "validation/nll", "min"
    )
    assert details == []
    assert best.head == ["", "accuracy", "NLL (nats)", "ECE"]
    assert [row[0] for row in best.rows] == [
        "test, top left",
        "test, b",
        "test, mean",
        "validation, top left",
        "validation, b",
        "validation, mean",
    ]
    for table, which in ((best, "best"), (last, "last")):
        for k, (split, task) in enumerate((("test", "top_left"), ("test", "b"), ("test", None))):
            prefix = f"{which}/{split}/{task}/" if task else f"{which}/{split}/"
            want = [f"{100 * values[prefix + 'accuracy']:.2f} %"]
            want += [f"{values[prefix + metric]:.4f}" for metric in ("nll", "ece")]
            assert table.rows[k][1:] == want
    assert best.text == (
        "Step 10, the lowest validation/nll of all evaluations; test 2,000 examples."
    )
    assert last.text == "Step 30; test 2,000 examples."


def test_one_table_where_the_last_checkpoint_is_the_best():
    found, _ = tables.of_results(results(("a", "b"), 30, 30), ("a", "b"), {}, "validation/x", "max")
    assert [table.title for table in found] == ["Result"]
    assert (
        found[0].text
        == "Step 30, the highest validation/x of all evaluations and the last checkpoint."
    )


def test_one_task_has_no_mean():
    found, _ = tables.of_results(results(("a",)), ("a",), {}, "validation/nll", "min")
    assert [row[0] for row in found[0].rows] == ["test, a", "validation, a"]


def test_of_many_tasks_the_mean_comes_first_and_each_of_them_later():
    tasks = tuple(f"t{k}" for k in range(tables.MANY + 1))
    values = results(tasks)
    found, (details,) = tables.of_results(values, tasks, {}, "validation/nll", "min")
    assert [row[0] for row in found[0].rows] == ["test, mean", "validation, mean"]
    assert found[0].rows[0][2] == f"{values['best/test/nll']:.4f}"
    assert len(details.rows) == 2 * (len(tasks) + 1)
    assert details.rows[3] == ["test, t3"] + [
        f"{100 * values['best/test/t3/accuracy']:.2f} %",
        f"{values['best/test/t3/nll']:.4f}",
        f"{values['best/test/t3/ece']:.4f}",
    ]


def test_unequal_metrics_are_rows():
    groups = {
        split: {"depth/error": 0.5 + k, "classes/miou": 0.25 + k, "loss": 1.0 + k, "step": 7}
        for k, split in enumerate(("test", "validation"))
    }
    table = tables.scores("Title", "Text.", groups, ("classes", "depth"))
    assert table.head == ["", "test", "validation"]
    assert table.rows == [
        ["classes: mIoU", "0.2500", "1.2500"],
        ["depth: error", "0.5000", "1.5000"],
        ["all: loss", "1.0000", "2.0000"],
    ]


def test_a_score_of_all_tasks_together_is_not_lost():
    groups = {"test": {"a/nll": 1.0, "b/nll": 3.0, "nll": 2.0, "delta_m": -4.0}}
    rows = tables.scores("", "", groups, ("a", "b")).rows
    assert ["all: delta m", "-4.0000"] in rows
    assert len(rows) == 4


def log(selected: int | None) -> Log:
    steps = np.array([4, 8])
    series = {"a/loss": Series(np.array([9]), np.array([1.0]))}
    for k, name in enumerate(("a/nll", "b/nll", "nll")):
        series[f"validation/{name}"] = Series(steps, np.array([1.0, 2.0]) + k / 10)
    return Log(series, ("a", "b"), 1, selected)


def test_a_run_under_way_shows_its_best_and_its_last_evaluation():
    (table,) = tables.so_far(log(4))
    assert table.rows[0] == ["best (step 4), a", "1.0000"]
    assert table.rows[4] == ["last (step 8), b", "2.1000"]
    assert len(table.rows) == 6


@pytest.mark.parametrize(("selected", "label"), [(8, "best and last"), (None, "last")])
def test_a_run_under_way_shows_no_evaluation_twice(selected, label):
    (table,) = tables.so_far(log(selected))
    assert [row[0] for row in table.rows] == [f"{label} (step 8), {t}" for t in ("a", "b", "mean")]


def test_a_run_without_evaluations_has_no_table():
    assert tables.so_far(Log({}, ("a",), 1, None)) == []


def test_scores_as_text():
    assert tables.show("accuracy", 0.98765) == "98.77 %"
    assert tables.show("nll", 0.98765) == "0.9877"
    assert tables.show("ece", float("nan")) == "not finite"
    assert tables.show("ece", None) == ""

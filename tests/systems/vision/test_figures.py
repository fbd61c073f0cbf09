"""Reliability diagrams and example images: what they show is what the model said."""

from __future__ import annotations

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.figure import Figure

from mtl_jax import run as runs
from mtl_jax import train
from mtl_jax.metrics.classification import Calibration, calibration, reliability
from mtl_jax.reporting import reliability as reliability_figure
from mtl_jax.reporting.figures import COLOURS
from mtl_jax.systems.vision import figures
from mtl_jax.systems.vision.figures import Predictions
from tests import tiny

PNG = b"\x89PNG\r\n\x1a\n"


def made_up(n: int, tasks: int, seed: int = 0, missing: float = 0.2) -> Predictions:
    rng = np.random.default_rng(seed)
    return Predictions(
        rng.integers(0, 256, (n, 12, 12, 1)).astype(np.uint8),
        rng.integers(0, 10, (n, tasks)),
        rng.random((n, tasks)) >= missing,
        rng.dirichlet(np.full(10, 0.2), (n, tasks)),
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("vision")
    experiment = tiny.write_experiment(root)
    flags = ["--config.train.steps=30", "--config.optim.lr=3e-3", "--config.train.eval-every=30"]
    command = ["--config", str(experiment), "--workdir", str(root / "run"), *flags]
    train.train(*train.parse(command))
    return root / "run"


@pytest.fixture(scope="module")
def opened(trained: Path):
    run = runs.open_run(trained)
    return run, runs.restore(run, trained, "best")[0]


def test_predictions_are_the_whole_split_and_give_its_accuracy(trained: Path, opened):
    results = json.loads((trained / "results.json").read_text())
    found = figures.predictions(*opened, "test", 10_000)
    assert found.label.shape == (160, 2)  # five batches of 32, without padding
    assert found.image.shape == (160, 36, 36, 1)
    np.testing.assert_allclose(found.probability.sum(-1), 1, rtol=1e-5)
    for t, task in enumerate(opened[0].system.task_names):
        accuracy = 1 - found.wrong[:, t].mean()
        assert accuracy == pytest.approx(results[f"best/test/{task}/accuracy"])
    few = figures.predictions(*opened, "test", 40)
    np.testing.assert_array_equal(few.image, found.image[:40])


def test_the_sections_of_a_run(opened, tmp_path: Path):
    sections = figures.report(*opened, tmp_path)
    assert [section.title for section in sections] == ["Reliability", "Examples"]
    assert all(path.read_bytes().startswith(PNG) for s in sections for path in s.figures)
    assert "test (160 examples)" in sections[0].text
    found = figures.predictions(*opened, "test", 10_000)
    assert f"of all {found.wrong.sum()} (of 320 predictions)" in sections[1].text
    assert "in order: top left, bottom right." in sections[1].text


def test_a_system_that_predicts_nothing_has_reliability_alone(opened, tmp_path: Path):
    run, state = opened
    mute = run._replace(system=run.system._replace(predict=None))
    assert [s.title for s in figures.report(mute, state, tmp_path)] == ["Reliability"]
    other = run._replace(system=run.system._replace(predict=lambda p, s, b: {"depth": b["image"]}))
    assert [s.title for s in figures.report(other, state, tmp_path)] == ["Reliability"]


def test_the_diagram_shows_the_table():
    rng = np.random.default_rng(0)
    logits, labels = (
        jnp.asarray(2 * rng.normal(size=(300, 10))),
        jnp.asarray(rng.integers(0, 10, 300)),
    )
    state = calibration(logits, labels)
    table = reliability(state)
    full = table.count > 0
    assert 3 < full.sum() < 10  # some bins are empty
    figure = Figure()
    top, bottom = figure.subplots(2)
    reliability_figure._diagram(top, bottom, state, COLOURS[0], 300, 6)
    solid, hatched = top.containers
    np.testing.assert_allclose([bar.get_height() for bar in solid], table.accuracy[full])
    np.testing.assert_allclose([bar.get_x() for bar in solid], table.lower[full])
    low = np.minimum(table.accuracy, table.confidence)[full]
    np.testing.assert_allclose([bar.get_y() for bar in hatched], low)
    gap = np.abs(table.accuracy - table.confidence)[full]
    np.testing.assert_allclose([bar.get_height() for bar in hatched], gap)
    counts = [bar.get_height() for bar in bottom.containers[0]]
    np.testing.assert_array_equal(counts, table.count[full])
    assert [text.get_text() for text in bottom.texts] == [f"{n:.0f}" for n in counts]
    # The hatched area, weighted by the counts, is the printed number.
    assert (gap * counts).sum() / 300 == pytest.approx(state.compute()["ece"], rel=1e-5)


def test_of_many_tasks_the_worst_calibrated_are_drawn(tmp_path: Path, monkeypatch):
    state = Calibration(np.full(10, 5), np.arange(10) / 2, np.arange(10) / 2 + 0.2)
    states = {f"t{k}": state for k in range(9)}
    values = {f"t{k}/ece": k / 10 for k in range(9)}
    drawn = []
    monkeypatch.setattr(figures, "draw_reliability", lambda c, ece, path: drawn.extend(c))
    section = figures._reliability_section(states, values, "test", tmp_path)
    assert drawn == ["t8", "t7", "t6", "t5", "t4", "t3"]
    assert "Of 9 tasks the 6 with the largest error" in section.text


@pytest.mark.parametrize("num_tasks", [1, 2, 5])
def test_reliability_is_drawn_for_any_number_of_tasks(num_tasks, tmp_path: Path, recwarn):
    empty = Calibration(np.zeros(10), np.zeros(10), np.zeros(10))
    some = Calibration(np.arange(10), np.arange(10) / 2, np.arange(10) / 3)
    states = {f"t{k}": some if k != 1 else empty for k in range(num_tasks)}
    path = figures.draw_reliability(states, dict.fromkeys(states, 0.1), tmp_path / "r.png")
    assert path.read_bytes().startswith(PNG)
    assert not [str(w.message) for w in recwarn]


@pytest.mark.parametrize("seed", range(5))
def test_right_ones_are_right_and_wrong_ones_the_most_confident(seed):
    found = made_up(400, 2, seed, missing=0.5)
    right, wrong = figures.choose(found, 4, 7)
    assert len(set(right)) == 4
    assert len(set(wrong)) == 7
    for n in right:
        assert found.known[n].any()
        assert (found.said[n] == found.label[n])[found.known[n]].all()
    worst = np.where(found.known & (found.said != found.label), found.confidence, -1).max(1)
    np.testing.assert_allclose(worst[wrong], np.sort(worst)[::-1][:7])


def test_a_perfect_model_has_no_mistakes_and_a_hopeless_one_nothing_else():
    found = made_up(20, 2, missing=0)
    perfect = found._replace(label=found.said)
    right, wrong = figures.choose(perfect, 6, 12)
    assert (len(right), len(wrong)) == (6, 0)
    hopeless = found._replace(label=(found.said + 1) % 10)
    right, wrong = figures.choose(hopeless, 6, 12)
    assert (len(right), len(wrong)) == (0, 12)
    unknown = found._replace(known=np.zeros_like(found.known))
    assert [len(part) for part in figures.choose(unknown, 6, 12)] == [0, 0]


def test_lines_say_label_prediction_and_confidence():
    probability = np.full((1, 2, 10), 0.002)
    probability[0, 0, 3] = 0.9749
    probability[0, 1, 9] = 0.9999
    found = Predictions(
        np.zeros((1, 4, 4, 1), np.uint8), np.array([[3, 0]]), np.ones((1, 2), bool), probability
    )
    numbers = {"a": (), "b": ()}
    assert figures._lines(found, numbers, 0) == [("3  97 %", False), ("0 → 9  >99 %", True)]
    names = figures.class_names("multi_fashion_mnist/full", ("digit", "garment"))
    assert [text for text, _ in figures._lines(found, names, 0)] == [
        "3  97 %",
        "T-shirt → boot  >99 %",
    ]
    both = figures.class_names("multi_fashion", ("top_left", "bottom_right"))
    assert all(len(set(classes)) == 10 for classes in both.values())
    hidden = found._replace(known=np.array([[True, False]]))
    assert figures._lines(hidden, numbers, 0) == [("3  97 %", False)]


def test_of_many_tasks_the_worst_mistakes_are_named():
    found = made_up(1, 40, missing=0.1)
    lines = figures._lines(found, {f"t{k}": () for k in range(40)}, 0)
    assert len(lines) == figures.MAX_LINES
    worst = np.sort(found.confidence[0][found.wrong[0]])[::-1][:2]
    for (text, mistake), confidence in zip(lines[:2], worst, strict=True):
        t = int(text.split(":")[0].removeprefix("t"))
        assert mistake
        assert found.confidence[0, t] == confidence
        assert f"t{t}: {found.label[0, t]} → {found.said[0, t]} " in text
        assert text.endswith((f"{100 * confidence:.0f} %", ">99 %"))
    right = (found.known & ~found.wrong).sum()
    assert lines[2] == (f"{right} of {found.known.sum()} right", False)


@pytest.mark.parametrize(("n", "tasks", "channels"), [(0, 2, 1), (1, 1, 1), (18, 2, 1), (7, 40, 3)])
def test_examples_are_drawn(n, tasks, channels, tmp_path: Path, recwarn):
    found = made_up(20, tasks)
    found = found._replace(image=np.repeat(found.image, channels, -1).astype(np.float32))
    names = {f"t{k}": () for k in range(tasks)}
    path = figures.draw_examples(found, names, range(n), tmp_path / "examples.png")
    assert path.read_bytes().startswith(PNG)
    assert not [str(w.message) for w in recwarn]


def test_missing_labels_reach_the_predictions(opened):
    run, state = opened

    def assemble(resident, host, key):
        batch = run.data.assemble(resident, host, key)
        mask = jnp.stack([jnp.ones(32), jnp.arange(32) % 2], 1)
        return {**batch, "label_mask": mask}

    masked = run._replace(data=run.data._replace(assemble=assemble))
    found = figures.predictions(masked, state, "test", 64)
    np.testing.assert_array_equal(found.known.sum(0), [64, 32])
    assert not found.wrong[~found.known].any()
    assert jax.tree.leaves(found)  # plain arrays on the host
    assert all(isinstance(leaf, np.ndarray) for leaf in found)

"""The analysis of a run folder, alone and beside another one, and what it refuses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mtl_jax import analyze
from mtl_jax import run as runs
from mtl_jax.analysis import hessian, saved
from mtl_jax.config import load, to_dict
from mtl_jax.engine.checkpoint import Checkpoints
from mtl_jax.engine.runfolder import write_json_atomic
from mtl_jax.engine.writers import Writers
from mtl_jax.errors import run_command
from mtl_jax.reporting import landscape
from tests import tiny
from tests.refusals import assert_says, refused

PARTS = tuple(part for part in analyze.PARTS if part != "landscape")
TASKS = ("top_left", "bottom_right")
SMALL = ["--batches", "2", "--directions", "3", "--radii", "1,4", "--rhos", "0.02,0.05"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run, `flat`, of two checkpoints that no step was taken between.

    An analysis asks of a run folder what stands in it, so none has to be trained.
    """
    root = tmp_path_factory.mktemp("analyze")
    config = load(tiny.write_experiment(root))
    run, folder = runs.build(config), root / "flat"
    folder.mkdir()
    write_json_atomic(folder / "config.json", to_dict(config))
    with Writers(folder) as writers, Checkpoints(folder, metric="validation/accuracy") as saving:
        for step, score in ((4, 0.5), (8, 0.4)):
            writers.write(step, {"cosine": 0.1 * step, "conflict": 0.25})
            saving.save(step, run.init(), {"validation/accuracy": score})
    return root


def analysed(*argv: object) -> dict[str, Any]:
    """Runs the command; returns what stands in analysis.json, which must be JSON without NaN."""
    run_command(analyze.main, [str(word) for word in argv])

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    text = (Path(str(argv[1])) / "analysis" / "analysis.json").read_text()
    return json.loads(text, parse_constant=refuse)


@pytest.fixture(scope="module")
def whole(trained: Path) -> dict[str, Any]:
    """Everything but the landscape, with another data set."""
    more = ["--other", "multi_fashion", "--products", 6, "--parts", ",".join(PARTS)]
    return analysed("--workdir", trained / "flat", *more, *SMALL)


def test_every_part_is_there(trained: Path, whole: dict[str, Any]):
    assert tuple(whole["parts"]) == PARTS
    assert all(list(part) == ["flat"] for part in whole["parts"].values())
    assert whole["not_applicable"] == {}
    assert whole["runs"]["flat"]["seed"] == 0
    assert whole["environment"]["packages"]["jax"]
    settings = whole["settings"]
    assert settings["rho"] == 0.05  # of training
    assert (settings["ball"]["adaptive"], settings["ball"]["norm"]) == (False, "joint")
    drawn = {path.name for path in (trained / "flat" / "analysis").glob("*.png")}
    named = {name for part in whole["sections"] for name in part["figures"]}
    assert drawn == named
    assert {"gap.png", "hessian.png", "noise.png", "entropy.png"} <= drawn
    assert len(saved.sections(trained / "flat")) == len(PARTS)


def test_the_numbers_are_those_of_other_commands(trained: Path, whole: dict[str, Any]):
    run = runs.open_run(trained / "flat")
    state, step = runs.restore(run, trained / "flat", "best")
    assert whole["runs"]["flat"]["step"] == step
    scores, _ = runs.evaluate(run, state, "test")
    found = whole["parts"]["calibration"]["flat"]["tasks"]
    for task in TASKS:
        for name in ("accuracy", "ece", "brier", "nll"):
            np.testing.assert_allclose(found[task][name], scores[f"{task}/{name}"], rtol=1e-4)
        assert 0 <= found[task]["entropy_auroc"] <= 1
        assert sum(found[task]["reliability"]["count"]) == 160
    shares = whole["parts"]["conflict"]["flat"]
    assert shares["batches"] == 8
    assert 0 <= shares["conflict"] <= 1
    assert shares["logged"]["cosine"]["steps"] == [4, 8]
    noise = whole["parts"]["noise"]["flat"]["test"]
    assert np.shape(noise["mean"]) == (3, 2)
    assert np.abs(noise["std"][0]).max() == 0  # nothing has moved yet
    assert np.abs(noise["std"][2]).max() > 0
    rises = np.array(whole["parts"]["gap"]["flat"]["train"]["gap_mean"])
    assert rises.shape == (2, 2)
    assert (rises > 0).all()
    assert (rises[1] > rises[0]).all()
    for scope in hessian.SCOPES:
        for task in TASKS:
            top = whole["parts"]["hessian"]["flat"]["top"][scope][task]
            assert top["value"] > 0
            assert len(top["residuals"]) == top["products"] <= 6


def test_two_runs_of_the_same_numbers_are_found_to_be_the_same(
    trained: Path,
    whole: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    """And what is drawn side by side is that of the last command, at the step that was asked for.

    The landscape has tests of its own; here it is a plane, over examples of the whole split.
    """

    def measure(system, data, params, model_state, *, split, examples):
        batch, count = landscape.first_examples(data, split, examples)
        assert len(batch["image"]) == count == 160
        offsets = np.linspace(-1, 1, 5)
        losses = np.broadcast_to((1 + offsets**2).reshape(5, 1, 1), (5, 5, 2))
        return landscape.Landscape(offsets, losses, count)

    monkeypatch.setattr(landscape, "measure", measure)
    first = Path(shutil.copytree(trained / "flat", tmp_path / "first"))
    shutil.copytree(first, tmp_path / "second")
    argv = ["--compare", tmp_path / "second", "--parts", " conflict, landscape", "--which", 8]
    found = analysed("--workdir", first, *argv, *SMALL)
    printed = capsys.readouterr().out
    assert (first / "analysis" / "summary.md").read_text() == printed
    assert printed.count("\n## ") == 2
    assert "| intra-task, g with h, top left | second |" in printed
    assert {own["step"] for own in found["runs"].values()} == {8}
    assert list(found["parts"]) == ["conflict", "landscape"]
    for part in found["parts"].values():
        assert part["first"] == part["second"]
    # Nothing was trained between the checkpoints.
    assert found["parts"]["conflict"]["first"] == whole["parts"]["conflict"]["flat"]
    assert (first / "analysis" / "surface_2.png").exists()


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--parts", "gap,hesian"], ["hesian", "did you mean 'hessian'"]),
        (["--batches", "0"], ["--batches is 0", "1 or more"]),
        (["--batches", "two"], ["--batches", "two", "--help"]),
        (["--products", "1"], ["--products is 1", "2 or more"]),
        (["--seed", "-1"], ["--seed is -1"]),
        (["--rhos", "0.1,-2"], ["--rhos", "0.1,-2", "positive"]),
        (["--radii", "wide"], ["--radii", "wide", "positive"]),
        (["--which", "first"], ["--which", "first", "best, last"]),
        (["--compare", "nowhere"], ["config.json", "nowhere"]),
        (["--colour", "red"], ["--colour"]),
    ],
)
def test_a_wrong_flag_is_one_line(trained, more, words, capsys):
    assert_says(refused(analyze.main, ["--workdir", trained / "flat", *more], capsys), *words)


def test_what_a_run_does_not_have_is_one_line(trained, tmp_path, capsys):
    flat = ["--workdir", trained / "flat"]
    line = refused(analyze.main, [*flat, "--split", "tests"], capsys)
    assert_says(line, "tests", "did you mean 'test'")
    assert_says(refused(analyze.main, [*flat, "--compare", trained / "flat"], capsys), "the same")
    cases = {"digits": ["digits"], "celeba": ["celeba"]}
    for other, words in cases.items():
        argv = [*flat, "--parts", "calibration", "--other", other]
        assert_says(refused(analyze.main, argv, capsys, notes=True), *words)
    line = refused(analyze.main, ["--workdir", tmp_path / "none"], capsys)
    assert_says(line, "no config.json")
    (tmp_path / "new").mkdir()
    shutil.copy(trained / "flat" / "config.json", tmp_path / "new")
    line = refused(analyze.main, ["--workdir", tmp_path / "new"], capsys)
    assert_says(line, "no checkpoint", "train it first")
    assert not (tmp_path / "new" / "analysis").exists()

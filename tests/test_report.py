"""The report: what stands in it, for whole runs, broken-off ones, and folders that are no run."""

from __future__ import annotations

import base64
import dataclasses
import datetime
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from mtl_jax import report, train
from mtl_jax import run as runs
from mtl_jax.engine import parallel
from mtl_jax.engine.writers import read_metrics
from mtl_jax.errors import UserError, run_command
from mtl_jax.reporting import curves, facts, landscape, page
from mtl_jax.reporting.figures import Section
from mtl_jax.systems import vision
from tests import tiny

TASKS = ("top_left", "bottom_right")
VOID = {"meta", "img"}
MODEL_SECTIONS = ["Reliability", "Examples", "Loss surface"]


class Page(HTMLParser):
    """What a browser would see: headings, table rows, images, links, notes; checks the nesting."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.titles: list[str] = []
        self.rows: list[list[str]] = []
        self.images: list[str] = []
        self.links: list[str] = []
        self.ids: list[str] = []
        self.notes: list[str] = []
        self.facts: dict[str, str] = {}
        self.tags: set[str] = set()
        self._stack: list[str] = []
        self._text = ""
        self._name = ""
        self.source = path.read_text("utf-8")
        self.feed(self.source)
        self.close()
        assert self._stack == []

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.tags.add(tag)
        self.images += [given["src"]] if "src" in given else []
        self.links += [given["href"]] if "href" in given else []
        self.ids += [given["id"]] if "id" in given else []
        if tag not in VOID:
            self._stack.append(tag)
        if tag in ("h2", "td", "th", "dt", "dd", "p"):
            self._text = ""
        if tag == "tr":
            self.rows.append([])

    def handle_data(self, data):
        self._text += data

    def handle_endtag(self, tag):
        assert self._stack.pop() == tag
        if tag == "h2":
            self.titles.append(self._text)
        if tag in ("td", "th"):
            self.rows[-1].append(self._text)
        if tag == "dt":
            self._name = self._text
        if tag == "dd":
            self.facts[self._name] = self._text
        if tag == "p":
            self.notes.append(self._text)


@pytest.fixture(scope="module", autouse=True)
def _small_grid():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(landscape, "SIZES", (5,))
        yield


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run of 30 steps, whose last checkpoint is not the selected one."""
    root = tmp_path_factory.mktemp("report")
    experiment = tiny.write_experiment(root)
    flags = ["--config.train.steps=30", "--config.train.eval-every=10", "--config.optim.lr=3e-3"]
    # The loss falls all along, so its maximum is at the first evaluation.
    flags += ["--config.train.select=validation/nll", "--config.train.select-mode=max"]
    flags += ["--config.train.report=True"]
    command = ["--config", str(experiment), "--workdir", str(root / "run"), *flags]
    train.train(*train.parse(command))
    return root / "run"


@pytest.fixture(scope="module")
def whole(trained: Path) -> Page:
    """The page that training wrote at its end."""
    return Page(trained / "report.html")


@pytest.fixture
def folder(trained: Path, tmp_path: Path) -> Path:
    """A copy of the run folder without its report, free to be damaged."""
    copy = Path(shutil.copytree(trained, tmp_path / "run"))
    (copy / "report.html").unlink()
    shutil.rmtree(copy / "figures")
    return copy


def test_the_sections_and_their_order(whole: Page):
    assert whole.titles == [
        "Result: selected checkpoint",
        "Result: last checkpoint",
        "Learning curves",
        "Reliability",
        "Examples",
        "Conflict between tasks",
        "Weights of the method",
        "Gradient norms",
        "Surrogate gap",
        "Loss surface",
        "Throughput",
        "Configuration",
    ]
    assert not [text for text in whole.notes if "not finished" in text or "not drawn" in text]


def test_the_page_needs_no_other_file(trained: Path, whole: Page):
    pictures = [
        base64.b64decode(src.removeprefix("data:image/png;base64,")) for src in whole.images
    ]
    assert all(picture.startswith(b"\x89PNG\r\n\x1a\n") for picture in pictures)
    on_disk = {path.read_bytes() for path in (trained / "figures").glob("*.png")}
    assert on_disk == set(pictures)
    assert len(pictures) == 9
    assert "//" not in re.sub(r"base64,[^\"]*", "", whole.source)  # no address of any kind
    assert not whole.tags & {"script", "link", "iframe"}
    assert {link.removeprefix("#") for link in whole.links} == set(whole.ids)
    assert "url(" not in whole.source
    assert "@import" not in whole.source


def test_the_tables_say_what_results_json_says(trained: Path, whole: Page):
    results = json.loads((trained / "results.json").read_text())
    assert results["best/step"] == 10
    assert results["last/step"] == 30
    head = ["", "accuracy", "NLL (nats)", "Brier", "ECE"]
    tables = [i for i, row in enumerate(whole.rows) if row == head]
    for start, which in zip(tables, ("best", "last"), strict=True):
        for k, split in enumerate(("test", "validation")):
            for j, task in enumerate((*TASKS, "mean")):
                prefix = f"{which}/{split}/" + ("" if task == "mean" else f"{task}/")
                values = [results[prefix + name] for name in ("accuracy", "nll", "brier", "ece")]
                want = [f"{100 * values[0]:.2f} %", *(f"{value:.4f}" for value in values[1:])]
                name = f"{split}, {task.replace('_', ' ')}"
                assert whole.rows[start + 1 + 3 * k + j] == [name, *want]
    said = " ".join(whole.notes)
    assert "Step 10, the highest validation/nll of all evaluations; test 160 examples" in said
    assert "validation 80 examples" in said


def test_the_head_says_what_was_run(trained: Path, whole: Page):
    environment = json.loads((trained / "environment.json").read_text())[-1]
    assert whole.facts["Seed"] == "0"
    assert "multi_mnist" in whole.facts["Data"]
    assert whole.facts["Model"].startswith("mlp")
    parameters = 36 * 36 * 32 + 32 + 2 * (32 * 10 + 10)
    assert whole.facts["Parameters"] == f"{parameters:,}"
    assert whole.facts["Length"].startswith("30 steps of 32 examples")
    assert f"jax {environment['packages']['jax']}" in whole.facts["Versions"]
    assert whole.facts["Git commit"] == (environment["git_commit"] or "unknown")
    assert "cpu" in whole.facts["Device"]
    lead = whole.notes[0]
    assert "2 tasks: top left, bottom right" in lead
    assert "Method cagrad (c 0.4" in lead
    assert "in flat regions: radius 0.05, joint norm" in lead


def test_the_config_is_in_the_page_whole(trained: Path, whole: Page):
    options = {row[0]: row[1] for row in whole.rows if len(row) == 2}
    assert options["optim.lr"] == "0.003"
    assert options["train.select"] == "validation/nll"
    assert "method.options.c" in options


def test_a_run_folder_alone_gives_the_same_page(folder: Path, whole: Page):
    report.main(["--workdir", str(folder)])
    again = Page(folder / "report.html")
    assert (again.titles, again.rows, again.facts) == (whole.titles, whole.rows, whole.facts)
    assert again.images == whole.images


@pytest.mark.slow
def test_eight_devices_draw_what_one_draws(folder: Path, whole: Page, run_python):
    done = run_python("-m", "mtl_jax.report", "--workdir", str(folder), devices=8)
    assert done.returncode == 0, done.stderr
    again = Page(folder / "report.html")
    assert (again.titles, again.rows, again.facts) == (whole.titles, whole.rows, whole.facts)


def test_the_middle_of_the_surface_is_the_evaluated_loss(trained: Path):
    run = runs.open_run(trained)
    state, _ = runs.restore(run, trained, "last")
    params, model_state = parallel.to_host((state.params, state.model_state))
    values, _ = runs.evaluate(run, state, "validation")
    found = landscape.measure(run.system, run.data, params, model_state, examples=10_000)
    assert found.examples == 80
    for t, task in enumerate(run.system.task_names):
        assert found.centre[t] == pytest.approx(values[f"{task}/nll"], rel=1e-5)


def test_an_interrupted_run_is_drawn_as_far_as_it_came(folder: Path):
    (folder / "results.json").unlink()
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    kept = [line for line in lines if json.loads(line)["step"] <= 20]
    (folder / "metrics.jsonl").write_text("\n".join([*kept, lines[-1][:40]]))
    found = Page(report.write(folder))
    assert any("has not finished: its log reaches step 20 of 30" in text for text in found.notes)
    assert found.titles[0] == "Result so far"
    assert set(MODEL_SECTIONS) < set(found.titles)
    values = {r["step"]: r["values"] for r in read_metrics(folder) if r["kind"] == "eval"}
    for step, label in ((10, "best"), (20, "last")):
        row = next(row for row in found.rows if row[0] == f"{label} (step {step}), top left")
        assert row[2] == f"{values[step]['validation/top_left/nll']:.4f}"


def test_a_run_that_goes_on_says_that_its_results_are_old(folder: Path):
    config = json.loads((folder / "config.json").read_text())
    config["train"]["steps"] = 40
    (folder / "config.json").write_text(json.dumps(config))
    found = Page(report.write(folder))
    assert any("are of step 30" in text and "30 of 40" in text for text in found.notes)


def test_a_run_without_checkpoints_has_its_curves(folder: Path):
    shutil.rmtree(folder / "checkpoints")
    found = Page(report.write(folder))
    assert any("not drawn: no checkpoint" in text for text in found.notes)
    assert not set(MODEL_SECTIONS) & set(found.titles)
    assert "Learning curves" in found.titles
    assert found.facts["Parameters"]


def test_a_run_that_has_just_begun(folder: Path):
    for name in ("metrics.jsonl", "results.json", "environment.json"):
        (folder / name).unlink()
    shutil.rmtree(folder / "checkpoints")
    found = Page(report.write(folder))
    assert found.titles == ["Configuration"]
    assert any("has logged nothing yet" in text for text in found.notes)


def test_a_run_whose_data_are_gone_has_its_curves_and_tables(folder: Path, monkeypatch):
    def gone(*_):
        raise UserError("the data set is not here")

    monkeypatch.setattr(runs, "open_run", gone)
    found = Page(report.write(folder))
    assert any("the data set is not here" in text for text in found.notes)
    assert not set(MODEL_SECTIONS) & set(found.titles)
    assert "Learning curves" in found.titles
    assert any(row[0] == "test, bottom right" for row in found.rows)


def test_one_of_several_processes_evaluates_nothing(folder: Path, monkeypatch):
    def collective(*_, **__):
        raise AssertionError("the other processes are not here")

    run = runs.open_run(folder)
    for name in ("restore", "evaluate"):
        monkeypatch.setattr(runs, name, collective)
    monkeypatch.setattr(parallel, "process_count", lambda: 2)
    found = Page(report.write(folder, run))
    assert not set(MODEL_SECTIONS) & set(found.titles)
    assert any("Several processes" in text for text in found.notes)
    assert not any("test 160 examples" in text for text in found.notes)  # one process sees a part


def test_erm_has_no_flat_parts_and_breaks_nothing(trained: Path, tmp_path: Path):
    experiment = trained.parent / "tiny.py"
    flags = ["--config.method.flat.combine=erm", "--config.method.aggregator=uncertainty"]
    command = ["--config", str(experiment), "--workdir", str(tmp_path / "erm"), *flags]
    train.train(*train.parse([*command, "--config.train.report=True"]))
    found = Page(tmp_path / "erm" / "report.html")
    flat = {"Conflict between tasks", "Gradient norms", "Surrogate gap"}
    assert not flat & set(found.titles)
    assert {"Weights of the method", *MODEL_SECTIONS} < set(found.titles)
    assert "Method uncertainty" in found.notes[0]
    assert "without flat regions" in found.notes[0]


@pytest.mark.parametrize("name", ["cosine", "flat_weight", "flat_norm", "gap", "loss", "step_ms"])
def test_a_quantity_that_was_not_logged_is_left_out(folder: Path, name, tmp_path: Path):
    lines = []
    for record in read_metrics(folder):
        values = {k: v for k, v in record["values"].items() if k.rpartition("/")[2] != name}
        lines.append(json.dumps({**record, "values": values}))
    (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    log = curves.read(folder, TASKS, 2, "validation/accuracy", "max")
    found = curves.sections(log, "accuracy", tmp_path)
    gone = {"cosine": "gradients", "gap": "gap", "step_ms": "time"}.get(name)
    expected = {"learning", "gradients", "weights", "norms", "gap", "time"} - {gone}
    assert set(found) == expected
    for section in found.values():
        assert all(path.exists() for path in section.figures)
    if name == "flat_weight":
        assert "flat part" not in found["weights"].text
    else:
        assert "flat part" in found["weights"].text


def test_a_matrix_of_cosines_for_three_tasks(tmp_path: Path):
    tasks, rng = ("a", "b", "c"), np.random.default_rng(0)
    window = []
    for step in range(4):
        vectors = rng.normal(size=(3, 7))
        unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        active = np.array([True, True, step != 1])
        zeros = np.zeros(3)
        window.append(
            {"active": active, "losses": zeros, "cosines": unit @ unit.T, "grad_norm": 1.0}
        )
    line = train.summarise(window, tasks, {})
    three = [m["cosines"][0, 2] for step, m in enumerate(window) if step != 1]
    assert line["cosine/a/c"] == pytest.approx(np.mean(three))
    assert line["cosine/a/b"] == pytest.approx(np.mean([m["cosines"][0, 1] for m in window]))
    two = [{**m, "cosines": m["cosines"][:2, :2], "active": m["active"][:2]} for m in window]
    assert not any(name.startswith("cosine/") for name in train.summarise(two, tasks[:2], {}))

    series = {
        name: curves.Series(np.array([1, 2, 3, 4]), np.array([value, 0.0, 0.0, -value]))
        for name, value in line.items()
    }
    found = curves.sections(curves.Log(series, tasks, 2, None), "accuracy", tmp_path)["gradients"]
    assert [path.name for path in found.figures] == ["conflict.png", "cosines.png"]
    matrices = curves._matrices(curves.Log(series, tasks, 2, None))
    assert matrices["last quarter"][2, 0] == pytest.approx(-line["cosine/a/c"])
    np.testing.assert_array_equal(
        matrices["first quarter"], -matrices["last quarter"] + 2 * np.eye(3)
    )


def test_the_selected_step_is_the_best_one(folder: Path):
    assert curves.read(folder, TASKS, 2, "validation/nll", "max").selected == 10
    assert curves.read(folder, TASKS, 2, "validation/nll", "min").selected == 30
    assert curves.read(folder, TASKS, 2, "validation/none", "max").selected is None


def test_the_system_draws_its_own_sections(folder: Path, monkeypatch):
    picture = folder / "own.png"
    asked = {}

    def own(run, state, figures_dir):
        asked.update(step=int(state.step), folder=figures_dir)
        shutil.copy(next((folder / "figures").glob("*.png")), picture)
        return [Section("Of the <system>", "One.\n\nTwo.", [picture])]

    monkeypatch.setattr(vision, "report", own)
    found = Page(report.write(folder))
    assert asked == {"step": 10, "folder": folder / "figures"}  # the selected checkpoint
    assert "Of the <system>" in found.titles
    assert {"One.", "Two."} < set(found.notes)
    assert "Reliability" not in found.titles


def test_names_are_text_and_not_markup(folder: Path):
    config = json.loads((folder / "config.json").read_text())
    config["name"] = "<script>alert('&')</script>"
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "results.json").unlink()
    shutil.rmtree(folder / "checkpoints")
    found = Page(report.write(folder))
    assert "script" not in found.tags
    assert "&lt;script&gt;" in found.source


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: shutil.rmtree(folder), "config.json"),
        (lambda folder: (folder / "config.json").write_text("{"), "config.json"),
        (lambda folder: (folder / "results.json").write_text("no"), "results.json"),
        (lambda folder: (folder / "metrics.jsonl").write_text("x\ny\n"), "line 1"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(folder: Path, capsys, damage, message):
    damage(folder)
    with pytest.raises(SystemExit) as stopped:
        run_command(report.main, ["--workdir", str(folder)])
    assert stopped.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert said.count("\n") == 1
    assert message in said
    assert not (folder / "report.html").exists()


@pytest.mark.parametrize("argv", [[], ["--workdir"], ["--workdir", "a", "--what"]])
def test_wrong_arguments(capsys, argv):
    with pytest.raises(SystemExit) as stopped:
        run_command(report.main, argv)
    assert stopped.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_training_time_leaves_out_the_pause_between_two_starts():
    def at(seconds: float) -> str:
        return datetime.datetime.fromtimestamp(1e9 + seconds, datetime.UTC).isoformat()

    records = [{"time": 1e9 + t} for t in (10, 20, 1005, 1025)]
    starts = [{"date": at(0)}, {"date": at(1000)}]
    assert facts.training_seconds(records, starts) == pytest.approx(20 + 25)
    assert facts.training_seconds(records[:2], starts[:1]) == pytest.approx(20)
    assert facts.training_seconds(records[:2], []) == pytest.approx(10)
    assert facts.training_seconds([], starts) == 0


def test_the_method_in_words(folder: Path):
    config = runs.open_run(folder).config
    words = facts.method_in_words(config)
    assert words.endswith("gradients and flat parts combined by decompose")
    flat = dataclasses.replace(config.method.flat, rho_heads=0.5, adaptive=True)
    method = dataclasses.replace(config.method, flat=flat, prenormalise="l2")
    words = facts.method_in_words(dataclasses.replace(config, method=method))
    assert "adaptive radius 0.05, 0.5 for the heads" in words
    assert "normalised by l2" in words


def test_tables_and_code_as_markup():
    table = page.Table("Title", "", ["", "a"], [["test, mean", "1"], ["b", "2"]])
    source = page.render("t", "l", {"k": "`x <y>`"}, [], [table], "f")
    assert '<tr class="mean"><td>test, mean</td>' in source
    assert "<code><span>x</span> <span>&lt;y&gt;</span></code>" in source

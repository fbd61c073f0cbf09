"""Sets that are solved here: whole, reproducible, extendable, and as the loaders promise."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from mtl_jax.data import __main__ as cli
from mtl_jax.data import manifest
from mtl_jax.data.fisher import fisher_dataset_builder
from mtl_jax.data.operators import SPLITS
from mtl_jax.data.pde import darcy, darcy_data, fisher
from mtl_jax.data.pde.mesh import load_mesh
from mtl_jax.data.pde.shapes import SHAPES
from mtl_jax.data.pde_sets import load_darcy, load_fisher
from mtl_jax.data.prepare import prepare, verify
from mtl_jax.errors import UserError

COUNTS = {"train": 6, "validation": 2, "test": 3}


def tiny(patch, **counts):
    counts = COUNTS | counts
    patch.setitem(darcy_data.SIZES, "", darcy_data.Size(3, counts))
    patch.setitem(darcy_data.SIZES, "_full", darcy_data.Size(1, counts))
    patch.setattr(darcy_data, "BLOCK", 4)
    patch.setattr(fisher_dataset_builder, "COUNTS", {"kpp": 10, "nws": 10, "zfk": 20})
    patch.setattr(fisher_dataset_builder, "BLOCK", 9)


@pytest.fixture(autouse=True)
def _tiny(monkeypatch):
    tiny(monkeypatch)


@pytest.fixture(scope="module")
def _built(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("sets")
    with pytest.MonkeyPatch.context() as patch:
        tiny(patch)
        for name in ("fisher", "darcy/square", "darcy/triangle", "darcy/square_full"):
            prepare(name, folder)
    return folder


@pytest.fixture
def sets(_built, tmp_path) -> Path:
    """A data_dir with those sets, free to be damaged."""
    return Path(shutil.copytree(_built, tmp_path / "sets"))


# Fisher


def test_fisher(sets):
    found = load_fisher(data_dir=sets)
    assert found.task_names == ("kpp", "nws", "zfk")
    assert np.bincount(found.task).tolist() == [10, 10, 20]
    assert [len(found.splits[split]) for split in SPLITS] == [29, 3, 8]
    assert sorted(np.concatenate([found.splits[s] for s in SPLITS])) == list(range(40))
    assert found.grid == (20, 64)
    t, x = found.coords.reshape(20, 64, 2).transpose(2, 0, 1)
    np.testing.assert_allclose(t, np.repeat(np.linspace(0, 1, 20)[:, None], 64, 1), atol=1e-7)
    np.testing.assert_allclose(x[3], (np.arange(64) + 0.5) / 64, atol=1e-7)
    np.testing.assert_array_equal(found.solutions[:, :64], found.field)
    assert found.masks.all()


def test_fisher_holds_the_samples_of_its_numbers(sets):
    found = load_fisher(data_dir=sets)
    for task, name in enumerate(fisher.TASKS):
        mine = found.task == task
        want = fisher.make_samples(fisher.DEFAULT, name, range(mine.sum()))
        # A split keeps the order of the numbers, so sorting by anything that is unique will do.
        order, other = np.lexsort(found.field[mine].T), np.lexsort(want.initial.T)
        np.testing.assert_array_equal(found.field[mine][order], want.initial[other])
        np.testing.assert_array_equal(found.params[mine][order], want.params[other])
        solutions = want.solutions.reshape(len(want.params), -1)
        np.testing.assert_array_equal(found.solutions[mine][order], solutions[other])


def test_fisher_splits_are_drawn_from_all_tasks(sets):
    found = load_fisher(data_dir=sets)
    assert set(found.task[found.splits["test"]]) == {0, 1, 2}


def test_the_paper_setting_has_coordinates_from_0_to_1(tmp_path, monkeypatch):
    monkeypatch.setattr(fisher_dataset_builder, "COUNTS", {"kpp": 5, "nws": 5, "zfk": 5})
    found = load_fisher("paper", tmp_path)
    assert found.coords.min(0).tolist() == [0, 0]
    assert found.coords.max(0).tolist() == [1, 1]
    assert found.field.mean() > 3
    source = manifest.read(next(tmp_path.glob("fisher/paper/*")))["sources"]
    assert source == ["solved here by lsoda: D = 0.0001, T = 0.175, seed 0"]


# Darcy


def test_darcy(sets):
    found = load_darcy(["triangle", "square"], data_dir=sets)
    assert found.task_names == ("triangle", "square")
    assert np.bincount(found.task).tolist() == [11, 11]
    np.testing.assert_array_equal(found.task, found.geometry)
    assert [len(found.splits[split]) for split in SPLITS] == [12, 4, 6]
    assert sorted(np.concatenate([found.splits[s] for s in SPLITS])) == list(range(22))
    assert found.field.shape == (22, 34, 34)
    assert found.params.shape == (22, 0)
    assert found.masks[1].all()
    assert found.masks[0].mean() == pytest.approx(0.42, abs=0.02)
    x, y = found.coords.reshape(34, 34, 2).transpose(2, 0, 1)
    np.testing.assert_allclose(x[5], np.linspace(0, 1, 34), atol=1e-7)
    np.testing.assert_allclose(y[:, 5], np.linspace(0, 1, 34), atol=1e-7)


def test_darcy_holds_the_samples_of_its_numbers(sets):
    found = load_darcy(["square", "triangle"], data_dir=sets)
    problem = darcy.Darcy(SHAPES["triangle"])
    for split in SPLITS:
        rows = found.splits[split]
        rows = rows[found.task[rows] == 1]
        first = darcy_data.FIRST[split]
        log_k = darcy.log_fields("triangle", range(first, first + len(rows)))
        np.testing.assert_array_equal(found.field[rows], log_k[:, ::3, ::3])
        want = problem.solve(log_k)[:, ::3, ::3].reshape(len(rows), -1)
        np.testing.assert_array_equal(found.solutions[rows], want)


def test_the_full_set_shows_the_same_samples_on_the_whole_grid(sets):
    small, full = (load_darcy(["square"], size, sets) for size in (False, True))
    assert full.field.shape == (11, 100, 100)
    np.testing.assert_array_equal(full.field[:, ::3, ::3], small.field)
    part = full.solutions.reshape(-1, 100, 100)[:, ::3, ::3].reshape(11, -1)
    np.testing.assert_array_equal(part, small.solutions)


def test_a_larger_set_begins_with_the_smaller(sets, tmp_path, monkeypatch):
    tiny(monkeypatch, train=9, test=4)
    small = load_darcy(["triangle"], data_dir=sets)
    large = load_darcy(["triangle"], data_dir=tmp_path / "larger")
    for split in SPLITS:
        few, many = small.splits[split], large.splits[split]
        assert len(few) <= len(many)
        np.testing.assert_array_equal(small.solutions[few], large.solutions[many[: len(few)]])


def test_train_size_takes_the_first_of_each_geometry(sets):
    whole = load_darcy(["square", "triangle"], data_dir=sets)
    part = load_darcy(["square", "triangle"], data_dir=sets, train_size=2)
    assert [len(part.splits[split]) for split in SPLITS] == [4, 4, 6]
    for task in (0, 1):
        rows = [s.splits["train"][s.task[s.splits["train"]] == task] for s in (part, whole)]
        np.testing.assert_array_equal(part.field[rows[0]], whole.field[rows[1][:2]])
    np.testing.assert_array_equal(
        part.solutions[part.splits["test"]], whole.solutions[whole.splits["test"]]
    )


def test_geometry_is_stored_once(sets):
    folder = next((sets / "darcy" / "triangle").iterdir())
    assert "geometry.npz" in manifest.read(folder)["files"]
    with np.load(folder / "geometry.npz") as found:
        assert set(found.files) == {"coords", "mask", "points", "triangles"}
        np.testing.assert_allclose(found["points"], load_mesh("triangle").points, atol=1e-7)


# The user's polygons


def test_a_polygon_of_the_users(tmp_path, monkeypatch):
    path = tmp_path / "mine.json"
    path.write_text(json.dumps({"outer": SHAPES["triangle"].outer.tolist()}))
    monkeypatch.setattr(darcy, "mesh_polygon", lambda *args, **kwargs: load_mesh("triangle"))
    found = load_darcy([str(path)], data_dir=tmp_path)
    assert found.task_names == ("mine",)
    want = darcy.Darcy(SHAPES["triangle"])
    np.testing.assert_array_equal(found.masks[0], want.mask[::3, ::3].ravel())
    log_k = darcy.log_fields("mine", [0])
    np.testing.assert_array_equal(found.solutions[0], want.solve(log_k)[0, ::3, ::3].ravel())
    again = load_darcy([str(path)], data_dir=tmp_path)
    np.testing.assert_array_equal(found.solutions, again.solutions)
    (tmp_path / "square.json").write_text(path.read_text())
    with pytest.raises(UserError, match="the geometry 'mine' is given twice"):
        load_darcy([str(path), str(path)])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"geometries": ["disk"]}, "unknown geometry 'disk'; did you mean 'disc'"),
        ({"geometries": []}, "no geometry given; known: disc"),
        ({"geometries": ["square", "square"]}, "'square' is given twice"),
        ({"geometries": ["none.json"]}, "none.json: not a readable JSON file"),
        ({"train_size": 0}, r"train_size = 0, a geometry has 1\.\.6 training samples"),
        ({"train_size": 7}, r"train_size = 7, a geometry has 1\.\.6"),
    ],
)
def test_wrong_arguments(sets, arguments, message):
    with pytest.raises(UserError, match=message):
        load_darcy(data_dir=sets, **arguments)


def test_an_unknown_config_of_fisher(sets):
    with pytest.raises(UserError, match="unknown config 'papers' of fisher; did you mean 'paper'"):
        load_fisher("papers", sets)


# Builds


def test_builds_are_whole_and_say_how_they_were_made(sets, capsys):
    assert verify("fisher", sets) == {"train": 4, "validation": 1, "test": 1}
    assert verify("darcy/triangle", sets) == {"train": 2, "validation": 1, "test": 1}
    folder = next((sets / "darcy" / "triangle").iterdir())
    assert manifest.read(folder)["sources"] == [
        "solved here by linear finite elements, h = 0.02: log K with RBF length 0.15, std 0.6,"
        " seed 0"
    ]
    cli.main(["list", "--data-dir", str(sets)])
    out = capsys.readouterr().out
    assert "fisher/paper: reaction and diffusion on a line; not prepared" in out
    assert "darcy/square: flow on a geometry; whole: solved here" in out


def test_two_builds_are_the_same(sets, tmp_path, capsys):
    first, second = load_darcy(["square"], data_dir=sets), load_darcy(["square"], False, tmp_path)
    for one, other in zip(first, second, strict=True):
        if isinstance(one, np.ndarray):
            np.testing.assert_array_equal(one, other)
    assert "darcy square: 6 of 6 train samples" in capsys.readouterr().err


def test_an_interrupted_build_is_not_taken_for_whole(tmp_path, monkeypatch):
    whole = darcy_data.samples

    def interrupted(problem, size, split):
        yield next(whole(problem, size, split))
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(darcy_data, "samples", interrupted)
        with pytest.raises(KeyboardInterrupt):
            prepare("darcy/triangle", tmp_path)
    assert list((tmp_path / "darcy" / "triangle").iterdir()) == []
    assert len(load_darcy(["triangle"], data_dir=tmp_path).task) == 11


def test_damaged_files_are_named(sets):
    folder = next((sets / "darcy" / "triangle").iterdir())
    file = folder / "geometry.npz"
    data = bytearray(file.read_bytes())
    data[:200] = bytes(200)
    file.write_bytes(data)
    with pytest.raises(UserError, match=r"geometry\.npz is damaged"):
        load_darcy(["triangle"], data_dir=sets)
    file.unlink()
    with pytest.raises(UserError, match=r"geometry\.npz is missing"):
        load_darcy(["triangle"], data_dir=sets)

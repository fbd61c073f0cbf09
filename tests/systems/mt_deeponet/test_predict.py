"""New cases from a file: the solutions are the network's, and wrong files are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mtl_jax import predict
from mtl_jax import run as runs
from mtl_jax.errors import UserError
from mtl_jax.systems.mt_deeponet import builders
from mtl_jax.train import train
from tests import operator_sets
from tests.systems.mt_deeponet.test_model import config_of

FOUND = operator_sets.geometries()


@pytest.fixture(scope="module")
def workdir(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("run") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(builders, "load", lambda data: FOUND)
        config = config_of(
            "geometries", data__name="darcy", data__geometry=("square", "disc"), train__report=False
        )
        train(config, folder)
        yield folder


def ask(workdir: Path, folder: Path, **cases: Any) -> dict[str, np.ndarray]:
    np.savez(folder / "in.npz", **cases)
    files = ["--input", str(folder / "in.npz"), "--output", str(folder / "out.npz")]
    predict.main(["--workdir", str(workdir), *files])
    with np.load(folder / "out.npz") as out:
        return dict(out)


def test_test_samples_get_what_the_run_says_of_them(workdir: Path, tmp_path: Path) -> None:
    run = runs.open_run(workdir)
    state, _ = runs.restore(run, workdir)
    said = [out["solution"] for _, out in runs.predictions(run, state, "test")]
    test = FOUND.splits["test"]
    names = np.array(["square", "disc"])[FOUND.geometry[test]]
    out = ask(workdir, tmp_path, field=FOUND.field[test], geometry=names)
    np.testing.assert_allclose(
        out["solutions"].reshape(len(test), -1), np.concatenate(said), rtol=1e-5, atol=1e-6
    )
    outside = ~FOUND.masks[FOUND.geometry[test]].reshape(out["solutions"].shape)
    assert np.isnan(out["solutions"][outside]).all()
    assert np.isfinite(out["solutions"][~outside]).all()
    np.testing.assert_array_equal(out["coords"], FOUND.coords)
    mask = FOUND.masks[1].reshape(FOUND.grid)
    again = ask(workdir, tmp_path, field=FOUND.field[test], mask=mask)["solutions"]
    disc = FOUND.geometry[test] == 1
    np.testing.assert_array_equal(again[disc], out["solutions"][disc])


def test_other_query_points_agree_with_the_grid(workdir: Path, tmp_path: Path) -> None:
    whole = ask(workdir, tmp_path, field=FOUND.field[:3], geometry="square")["solutions"]
    some = [5, 77, 200]
    few = ask(
        workdir, tmp_path, field=FOUND.field[:3], geometry="square", coords=FOUND.coords[some]
    )
    np.testing.assert_allclose(
        few["solutions"], whole.reshape(3, -1)[:, some], rtol=1e-5, atol=1e-6
    )


GOOD: dict[str, Any] = {"field": FOUND.field[:2], "geometry": "square"}
WRONG = {
    "unknown array 'fields'; did you mean 'field'": {"fields": FOUND.field[:2]},
    "params and field must be there": {"geometry": "square"},
    r"field is \[2, 15, 16\]; this network reads \[2, 16, 16\]": {
        **GOOD,
        "field": FOUND.field[:2, 1:],
    },
    r"field is not finite at \[0, 3, 4\]": {
        **GOOD,
        "field": np.where(np.arange(512).reshape(2, 16, 16) == 52, np.nan, 1.0),
    },
    "geometry 'disk'; did you mean 'disc'": {**GOOD, "geometry": "disk"},
    "has 2 geometries; give geometry: square, disc, or give mask": {"field": FOUND.field[:2]},
    r"mask is \[16, 15\]; it must be \[16, 16\]": {
        "field": FOUND.field[:2],
        "mask": np.ones((16, 15)),
    },
    "mask of case 0 is empty": {"field": FOUND.field[:2], "mask": np.zeros((16, 16))},
    r"coords is \[3\]; it must be \[points, 2\]": {**GOOD, "coords": np.zeros(3)},
    "params and field must be there with as many rows": {**GOOD, "field": FOUND.field[:0]},
    "field is of type <U1; it must hold numbers": {**GOOD, "field": np.array(["a", "b"])},
    r"geometry is \[3\]; it must be one name, or \[2\]": {**GOOD, "geometry": ["disc"] * 3},
    r"mask is \[3, 16, 16\]; it must be": {"field": FOUND.field[:2], "mask": np.ones((3, 16, 16))},
    "mask holds other values than 0": {"field": FOUND.field[:2], "mask": np.full((16, 16), np.nan)},
    "coords of point 0 have x = nan": {**GOOD, "coords": np.full((1, 2), np.nan)},
    "coords of point 1 have y = 1.5, outside the box 0 .. 1": {
        **GOOD,
        "coords": np.array([[0, 0], [0, 1.5]]),
    },
}


@pytest.mark.parametrize("words", WRONG)
def test_wrong_cases_are_refused(words: str, workdir: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=words):
        ask(workdir, tmp_path, **WRONG[words])
    assert not list(tmp_path.glob("out*"))


def test_wrong_files_are_refused(workdir: Path, tmp_path: Path) -> None:
    (tmp_path / "in.npz").write_bytes(b"not a zip")
    for source, target, words in (
        ("absent.npz", "out.npz", "not a readable .npz"),
        ("in.npz", "out.npz", "not a readable .npz"),
        ("in.npz", "absent/out.npz", "folder does not exist"),
    ):
        files = ["--input", str(tmp_path / source), "--output", str(tmp_path / target)]
        with pytest.raises(UserError, match=words):
            predict.main(["--workdir", str(workdir), *files])


def test_a_folder_is_no_output(workdir: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "in.npz", **GOOD)
    files = ["--input", str(tmp_path / "in.npz"), "--output", str(tmp_path)]
    with pytest.raises(UserError, match="which is a folder; name a file in it"):
        predict.main(["--workdir", str(workdir), *files])


@pytest.fixture(scope="module")
def disc(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A run on the disc alone, with a product of each of two tasks' own."""
    folder = tmp_path_factory.mktemp("disc") / "run"
    half = FOUND._replace(
        masks=FOUND.masks[1:],
        geometry=np.zeros_like(FOUND.geometry),
        solutions=np.where(FOUND.masks[1], FOUND.solutions, 0).astype(np.float32),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(builders, "load", lambda data: half)
        names: dict[str, Any] = {"data__name": "darcy", "data__geometry": ("disc",)}
        config = config_of("geometries", **names, model__film=True, train__report=False)
        train(config, folder)
        yield folder


def test_a_geometry_that_the_run_does_not_hold_needs_coords(disc: Path, tmp_path: Path) -> None:
    cases = {"field": FOUND.field[:2], "task": "square", "mask": np.ones((16, 16))}
    with pytest.raises(UserError, match="no geometry of this run holds; give coords too"):
        ask(disc, tmp_path, **cases)
    out = ask(disc, tmp_path, **cases, coords=FOUND.coords[:5])
    assert np.isfinite(out["solutions"]).all()
    with pytest.raises(UserError, match="geometry 'square'"):
        ask(disc, tmp_path, field=FOUND.field[:2], task="square", geometry="square")


def test_a_product_of_each_tasks_own_needs_the_task(disc: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="product of each task's own; give task: square, disc"):
        ask(disc, tmp_path, field=FOUND.field[:2])

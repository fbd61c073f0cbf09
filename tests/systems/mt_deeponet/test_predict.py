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

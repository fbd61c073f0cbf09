"""The files of the MT-DeepONet code in their real layout, tiny."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.io import savemat

from mtl_jax.data import plate_geometry
from mtl_jax.data.operator_files.authors_darcy import FILES, load_darcy
from mtl_jax.data.operator_files.dispatch import load_manual
from mtl_jax.errors import UserError

# Fisher

FISHER = {
    "Fisher1_nsamples_10_amin_0.1_amax_1.0_anum_10.npz": (10, 1),
    "Fisher2_nsamples_10_amin_0.1_amax_1.0_anum_10.npz": (10, 1),
    "Fisher4_nsamples_20_amin_0.1_amax_1.0_anum_10_bmin_0.5_bmax_2.0_bnum_10.npz": (20, 2),
}
SNAPSHOTS, POINTS = 3, 5


@pytest.fixture
def fisher(tmp_path):
    rng = np.random.default_rng(0)
    made = []
    for name, (count, leading) in FISHER.items():
        inputs = rng.random((count, leading + POINTS))
        outputs = rng.random((count, SNAPSHOTS, POINTS))
        np.savez(tmp_path / name, n_samples=count, inputs=inputs, outputs=outputs)
        made.append((inputs, outputs))
    return made


def test_fisher(fisher, tmp_path):
    found = load_manual("mtdeeponet_fisher", tmp_path)
    assert found.task_names == ("kpp", "nws", "zfk")
    assert found.grid == (SNAPSHOTS, POINTS)
    assert found.coord_names == ("t", "x")
    assert found.coords[POINTS + 1].tolist() == [0.5, 0.25]
    start = 0
    for task, (inputs, outputs) in enumerate(fisher):
        own = np.arange(start, start + len(inputs))
        start += len(inputs)
        assert (found.task[own] == task).all()
        np.testing.assert_allclose(found.field[own], inputs[:, -POINTS:], rtol=1e-6)
        np.testing.assert_allclose(
            found.solutions[own], outputs.reshape(len(own), -1), rtol=1e-6
        )  # Snapshot by snapshot.
    (kpp, _), (nws, _), (zfk, _) = fisher
    a = kpp[0, 0]
    np.testing.assert_allclose(found.params[0], [a, -a, 0, 0], rtol=1e-6)
    a = nws[0, 0]
    np.testing.assert_allclose(found.params[10], [a, 0, -a, 0], rtol=1e-6)
    a, b = zfk[0, :2]
    want = a * np.exp(-b) * np.array([1, b - 1, b * (b / 2 - 1), -(b**2) / 2])
    np.testing.assert_allclose(found.params[20], want, rtol=1e-5)


def test_fisher_tests_on_the_published_codes_fifth(fisher, tmp_path):
    """What `train_test_split(..., test_size=0.2, random_state=42)` of 40 holds back."""
    splits = load_manual("mtdeeponet_fisher", tmp_path).splits
    assert splits["test"].tolist() == sorted([19, 16, 15, 26, 4, 12, 37, 27])
    assert {split: len(rows) for split, rows in splits.items()} == {
        "test": 8,
        "train": 29,
        "validation": 3,
    }
    assert sorted(np.concatenate(list(splits.values()))) == list(range(40))


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (None, r"no file Fisher2_\*\.npz in it"),
        ({"inputs": np.zeros((10, 6))}, r"no 'outputs' in it; it has inputs"),
        ({"inputs": np.zeros((10, 6)), "outputs": np.zeros((9, 3, 5))}, r"are not \[n, 1 \+ x\]"),
        ({"inputs": np.zeros((10, 6)), "outputs": np.zeros((10, 3, 4))}, r"no snapshots of the 5"),
        ({"inputs": np.zeros((10, 7)), "outputs": np.zeros((10, 3, 6))}, r"in the first file"),
        ({"inputs": np.array([{}] * 10), "outputs": np.zeros(3)}, r"not a readable \.npz of plain"),
    ],
)
def test_wrong_fisher_files(fisher, tmp_path, arrays, message):
    path = tmp_path / list(FISHER)[1]
    path.unlink()
    if arrays is not None:
        np.savez(path, **arrays)
    with pytest.raises(UserError, match=message):
        load_manual("mtdeeponet_fisher", tmp_path)


# Darcy

SIDE = 4
TRIANGLE = np.tril(np.ones((SIDE, SIDE)))  # Not its own mirror image: the order shows.


def darcy(mask, seed, train=20, test=3):
    """Rows = y; u and the coordinates column by column; u = (x + 10 y) k inside."""
    x, y = np.meshgrid(np.linspace(0, 1, SIDE), np.linspace(0, 2, SIDE))
    rng = np.random.default_rng(seed)
    arrays = {"xx": x.reshape(-1, 1, order="F"), "yy": y.reshape(-1, 1, order="F")}
    for half, count in (("train", train), ("test", test)):
        k = np.exp(0.6 * rng.normal(size=(count, SIDE, SIDE)))
        u = (x + 10 * y) * k * mask
        arrays[f"k_{half}"] = k
        arrays[f"u_{half}"] = u.transpose(0, 2, 1).reshape(count, -1)
        arrays[f"shape_{half}"] = np.tile(mask, (count, 1, 1))
    return arrays


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "Data").mkdir()
    for seed, (name, mask) in enumerate(
        {"square": np.ones((SIDE, SIDE)), "disc": TRIANGLE.T, "triangle": TRIANGLE}.items()
    ):
        savemat(tmp_path / "Data" / FILES[name], darcy(mask, seed))
    return tmp_path


def test_darcy(folder):
    found = load_manual("mtdeeponet_darcy", folder)
    assert found.task_names == ("square", "disc", "triangle")
    assert found.grid == (SIDE, SIDE)
    assert found.masks.reshape(3, SIDE, SIDE)[2].tolist() == (TRIANGLE == 1).tolist()
    assert np.array_equal(found.geometry, found.task)
    x, y = found.coords.T
    assert found.coords[1].tolist() == [np.float32(1 / 3), 0]  # x runs fastest.
    k = np.exp(found.field).reshape(len(found.field), -1)
    want = (x + 10 * y) * k * found.masks[found.geometry]
    np.testing.assert_allclose(found.solutions, want, rtol=1e-5, atol=1e-6)
    for start in (0, 23, 46):
        own = {
            split: (rows[(rows >= start) & (rows < start + 23)] - start).tolist()
            for split, rows in found.splits.items()
        }
        assert own == {
            "train": list(range(18)),
            "validation": [18, 19],
            "test": [20, 21, 22],
        }


def test_the_target_geometry_is_cut_from_its_training_samples(folder, capsys):
    arrays = darcy(TRIANGLE, 5)
    savemat(folder / FILES["square_cross"], {k: v for k, v in arrays.items() if "test" not in k})
    assert load_manual("mtdeeponet_darcy", folder).task_names == ("square", "disc", "triangle")
    found = load_darcy(folder, ("square_cross",))
    assert {split: rows.tolist() for split, rows in found.splits.items()} == {
        "train": list(range(15)),
        "validation": [15],
        "test": [16, 17, 18, 19],
    }
    assert capsys.readouterr().err == ""
    for name in ("square", "triangle"):
        (folder / "Data" / FILES[name]).unlink()
    assert load_darcy(folder).task_names == ("disc",)
    assert "disc only" in capsys.readouterr().err
    (folder / "Data" / FILES["disc"]).unlink()
    assert load_darcy(folder).task_names == ("square_cross",)
    with pytest.raises(UserError, match=r"unknown geometry 'sqare'; did you mean 'square'"):
        load_darcy(folder, ("sqare",))
    (folder / FILES["square_cross"]).unlink()
    with pytest.raises(UserError, match=r"none of Dataset_sq_mask\.mat, "):
        load_darcy(folder)


def row_by_row(arrays):
    return arrays | {
        name: arrays[name].reshape(SIDE, SIDE).T.reshape(-1, 1) for name in ("xx", "yy")
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a | {"u_test": a["u_test"][:2]}, r"are not \[n, H, W\] twice"),
        (lambda a: {k: v for k, v in a.items() if k != "shape_test"}, r"no 'shape_test' in it"),
        (lambda a: a | {"k_train": -a["k_train"]}, r"a conductivity is positive"),
        (row_by_row, r"no grid that is flattened column by column"),
        (lambda a: a | {"xx": 2 * a["xx"]}, r"triangle has other points xx, yy than square"),
        # The mask against u in the other order.
        (
            lambda a: (
                a | {f"shape_{h}": a[f"shape_{h}"].transpose(0, 2, 1) for h in ("train", "test")}
            ),
            r"not 0 outside the mask.*rows against columns",
        ),
        (lambda a: a | {"k_train": np.array(["a", "b"])}, r"k_train is <U1, numbers are needed"),
    ],
)
def test_wrong_darcy_files(folder, change, message):
    savemat(folder / "Data" / FILES["triangle"], change(darcy(TRIANGLE, 2)))
    with pytest.raises(UserError, match=message):
        load_darcy(folder)


def test_files_that_are_no_matlab(folder):
    path = folder / "Data" / FILES["disc"]
    path.write_bytes(b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM")
    with pytest.raises(UserError, match=r"is of MATLAB's version 7\.3; write it with"):
        load_darcy(folder)
    path.write_bytes(b"something else entirely")
    with pytest.raises(UserError, match="not a readable MATLAB file"):
        load_darcy(folder)


# The plate

GRID = (4, 3, 5)
DOE = "exp_ID,num_holes,hole_pos,num_nodes\n"


@pytest.fixture
def plate(tmp_path):
    """All 64 designs, T = holes + x + 10 y + 100 z; points as MATLAB's meshgrid leaves them."""
    x, y, z = np.meshgrid(*(np.linspace(0, 1, n) for n in GRID))
    flat = {f"{n}flat": a.reshape(-1, 1, order="F") for n, a in zip("xyz", (x, y, z), strict=True)}
    rows, values = [DOE], []
    for number, (holes, position) in enumerate(plate_geometry.DESIGNS):
        rows.append(f"{number + 1},{holes},{position:g},1000\n")
        field = holes + flat["xflat"] + 10 * flat["yflat"] + 100 * flat["zflat"]
        field[number % field.size] = np.nan
        values.append(field.ravel())
    (tmp_path / "doe.csv").write_text("".join(rows))
    savemat(tmp_path / "interpol_results.mat", flat | {"interp_results": np.array(values)})
    return tmp_path


def test_plate(plate):
    found = load_manual("mtdeeponet_plate", plate)
    assert found.task_names == tuple(f"holes_{n}" for n in range(2, 10))
    assert found.params.tolist() == np.array(plate_geometry.DESIGNS, np.float32).tolist()
    assert found.grid == GRID
    x, y, z = found.coords.T.reshape(3, *GRID)
    assert (np.diff(x, axis=0) > 0).all()
    assert (np.diff(y, axis=1) > 0).all()
    assert (np.diff(z, axis=2) > 0).all()
    assert len(found.masks) == 60  # A point is missing in each of 64 designs, 60 points.
    assert (found.masks.sum(1) == 59).all()
    want = found.params[:, :1] + found.coords @ np.array([1, 10, 100], np.float32)
    np.testing.assert_allclose(
        found.solutions, np.where(found.masks[found.geometry], want, 0), rtol=1e-5
    )
    for paper, counts in ((False, (24, 16, 24)), (True, (16, 8, 40))):
        splits = load_manual("mtdeeponet_plate", plate, paper_split=paper).splits
        assert tuple(len(splits[s]) for s in ("train", "validation", "test")) == counts


def test_wrong_plate_files(plate):
    (plate / "doe.csv").write_text(DOE + "1,2,0.9,1\n")
    with pytest.raises(
        UserError, match=r"interp_results \[64, 60\] is not \[1 designs of doe\.csv"
    ):
        load_manual("mtdeeponet_plate", plate)
    (plate / "doe.csv").write_text("exp_ID,holes\n1,2\n")
    with pytest.raises(UserError, match=r"doe\.csv: not a table with the columns num_holes"):
        load_manual("mtdeeponet_plate", plate)
    (plate / "doe.csv").write_text(DOE + "1,two,0.9,1\n")
    with pytest.raises(UserError, match=r"not a table .*two"):
        load_manual("mtdeeponet_plate", plate)
    (plate / "doe.csv").write_text(DOE + "1,2,0.9,1\n")
    savemat(plate / "interpol_results.mat", {"xflat": np.zeros((60, 1))})
    with pytest.raises(UserError, match="no 'interp_results' in it"):
        load_manual("mtdeeponet_plate", plate)

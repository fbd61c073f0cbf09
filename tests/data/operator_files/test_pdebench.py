"""PDEBench's files in their real layout, tiny."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from mtl_jax.data.operator_files import pdebench
from mtl_jax.data.operator_files.dispatch import load_manual
from mtl_jax.errors import UserError

SAMPLES, TIMES, POINTS, SIDE = 20, 11, 32, 8


def reacdiff(nu, rho):
    """Tensor [S, T, X], one more time than snapshots, points at cell centres."""
    rng = np.random.default_rng(7)  # The same inputs in every file.
    first = rng.random((SAMPLES, 1, POINTS))
    t = 0.01 * np.arange(TIMES)[:, None]
    return {
        "tensor": (first + nu * t + rho * t**2).astype(np.float32),
        "t-coordinate": 0.01 * np.arange(TIMES + 1),
        "x-coordinate": (np.arange(POINTS) + 0.5) / POINTS,
    }


def darcy(beta):
    nu = np.random.default_rng(7).integers(0, 2, (SAMPLES, SIDE, SIDE)) * 0.9 + 0.1
    x = (np.arange(SIDE) + 0.5) / SIDE
    tensor = beta * nu * (x[:, None] + 2 * x)
    return {
        "nu": nu.astype(np.float32),
        "tensor": tensor[:, None].astype(np.float32),
        "x-coordinate": x,
        "y-coordinate": x,
    }


@pytest.fixture
def write(tmp_path):
    h5py = pytest.importorskip("h5py")

    def write(name, arrays):
        path = tmp_path / "1D" / name
        path.parent.mkdir(exist_ok=True)
        with h5py.File(path, "w") as file:
            for key, value in arrays.items():
                file.create_dataset(key, data=value)
        return path

    return write


def test_reaction_diffusion(write, tmp_path, capsys):
    numbers = [(nu, rho) for nu in (0.5, 1.0, 2.0, 5.0) for rho in (1.0, 2.0, 5.0, 10.0)]
    for nu, rho in numbers[::-1]:
        write(f"ReacDiff_Nu{nu}_Rho{rho}.hdf5", reacdiff(nu, rho))
    found = load_manual("pdebench_reacdiff", tmp_path, samples=10, time_stride=5, space_stride=16)
    assert "of PDEBench's" not in capsys.readouterr().err
    assert len(found.task_names) == 16
    assert found.task_names[:2] == ("nu0.5_rho1", "nu0.5_rho2")
    assert found.grid == (3, 2)
    assert found.coord_names == ("t", "x")
    t, x = found.coords.T
    np.testing.assert_allclose(t.reshape(3, 2)[:, 0], [0, 0.05, 0.10], rtol=1e-6)
    np.testing.assert_allclose(x.reshape(3, 2)[0], [0.5 / 32, 16.5 / 32], rtol=1e-6)
    for task in (0, 3, 15):
        own = found.task == task
        values = reacdiff(*numbers[task])["tensor"][:10, ::5, ::16]
        np.testing.assert_array_equal(found.solutions[own], values.reshape(10, 6))
        np.testing.assert_array_equal(found.field[own], values[:, 0])
        assert (found.params[own] == np.float32(numbers[task])).all()
        # Siblings are in the same split: the same places in every task.
        for split, places in (("test", [0]), ("validation", [1]), ("train", range(2, 10))):
            rows = found.splits[split]
            assert (rows[found.task[rows] == task] % 10).tolist() == list(places)


def test_more_samples_than_a_block(write, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(pdebench, "_BLOCK", 7)
    write("ReacDiff_Nu0.5_Rho1.0.hdf5", reacdiff(0.5, 1.0))
    found = load_manual("pdebench_reacdiff", tmp_path, time_stride=1, space_stride=1)
    assert "1 of PDEBench's 16 files" in capsys.readouterr().err
    np.testing.assert_array_equal(
        found.solutions, reacdiff(0.5, 1.0)["tensor"].reshape(SAMPLES, -1)
    )


def test_darcy(write, tmp_path):
    for beta in (100.0, 0.01, 1.0):
        write(f"2D_DarcyFlow_beta{beta}_Train.hdf5", darcy(beta))
    found = load_manual("pdebench_darcy", tmp_path, stride=2)
    assert found.task_names == ("beta0.01", "beta1", "beta100")
    assert found.grid == (4, 4)
    for task, beta in enumerate((0.01, 1.0, 100.0)):
        own = found.task == task
        assert found.params[own, 0] == pytest.approx(np.log10(beta))
        np.testing.assert_array_equal(found.field[own], darcy(beta)["nu"][:, ::2, ::2])
        x, y = found.coords.T
        want = beta * found.field[own].reshape(SAMPLES, 16) * (x + 2 * y)
        np.testing.assert_allclose(found.solutions[own], want, rtol=1e-5)
    assert {split: len(rows) for split, rows in found.splits.items()} == {
        "test": 6,
        "validation": 6,
        "train": 48,
    }


def changed(arrays, **changes):
    return {
        key: value
        for key, value in (arrays | {k.replace("_", "-"): v for k, v in changes.items()}).items()
        if value is not None
    }


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (changed(reacdiff(1, 1), tensor=None), r"no dataset 'tensor' in it; it has t-coordinate"),
        (
            changed(reacdiff(1, 1), tensor=np.zeros((3, 4))),
            r"float64 \[3, 4\], numbers with 3 axes",
        ),
        (
            changed(reacdiff(1, 1), t_coordinate=np.arange(5.0)),
            r"has 5 values for 11 of the tensor",
        ),
        (changed(reacdiff(1, 1), tensor=np.zeros((5, 11, 32))), r"are not those of ReacDiff_Nu0.5"),
        (changed(reacdiff(1, 1), x_coordinate=np.arange(32.0)), r"are not those of ReacDiff_Nu0.5"),
        (
            changed(reacdiff(1, 1), tensor=np.full((20, 11, 32), np.nan)),
            r"field is not finite",
        ),
    ],
)
def test_a_wrong_file_is_one_line(write, tmp_path, arrays, message):
    write("ReacDiff_Nu0.5_Rho1.0.hdf5", reacdiff(0.5, 1.0))
    write("ReacDiff_Nu1.0_Rho1.0.hdf5", arrays)
    with pytest.raises(UserError, match=message) as error:
        pdebench.load_reacdiff(tmp_path)
    assert "\n" not in str(error.value)


def test_wrong_darcy_files(write, tmp_path):
    name = "2D_DarcyFlow_beta1.0_Train.hdf5"
    write(name, changed(darcy(1.0), tensor=np.zeros((20, 2, 8, 8))))
    with pytest.raises(UserError, match=r"are not \[S, 1, X, Y\] and \[S, X, Y\]"):
        pdebench.load_darcy(tmp_path)
    write(name, darcy(1.0))
    with pytest.raises(UserError, match="9 samples a file; 10 are the least"):
        pdebench.load_darcy(tmp_path, samples=9)
    write("2D_DarcyFlow_beta1_Train.hdf5", darcy(1.0))
    with pytest.raises(UserError, match="has the numbers of"):
        pdebench.load_darcy(tmp_path)


def test_file_names(tmp_path):
    for reader, name in (
        (pdebench.load_reacdiff, "ReacDiff_Nu1.0_Rho1.0.0.hdf5"),
        (pdebench.load_darcy, "2D_DarcyFlow_betaone_Train.hdf5"),
    ):
        with pytest.raises(UserError, match=r"no file .*\*.*\.hdf5 in it"):
            reader(tmp_path)
        (tmp_path / name).touch()
        with pytest.raises(UserError, match="the name is not"):
            reader(tmp_path)
    with pytest.raises(UserError, match="no such folder"):
        pdebench.load_darcy(tmp_path / "none")


def test_without_h5py(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "h5py", None)
    (tmp_path / "ReacDiff_Nu1.0_Rho1.0.hdf5").touch()
    with pytest.raises(UserError, match="needs h5py; pip install h5py"):
        pdebench.load_reacdiff(tmp_path)

"""The user's own file: every form it may have, and one line for everything that is wrong."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from mtl_jax.data.operator_files.arrays import load_operator_file, unique_masks
from mtl_jax.data.operator_files.dispatch import load_manual
from mtl_jax.errors import UserError

S, GRID, N = 24, (2, 3), 6
INSIDE = np.array([[1, 1, 1], [1, 0, 0]])


def whole(**changes):
    """A file's arrays: 24 samples of 2 tasks on a grid of 2 x 3 points; None removes one."""
    rng = np.random.default_rng(0)
    arrays = {
        "params": rng.normal(size=(S, 2)),
        "field": rng.normal(size=(S, 4)).astype(np.float32),
        "coords": np.stack(np.meshgrid([0.0, 1.0], [0.0, 0.5, 1.0], indexing="ij"), -1).reshape(
            -1, 2
        ),
        "solutions": rng.normal(size=(S, N)),
        "task": np.arange(S) % 2,
    } | changes
    return {key: np.asarray(value) for key, value in arrays.items() if value is not None}


@pytest.fixture
def write(tmp_path):
    def write(name="mine.npz", **changes):
        path = tmp_path / name
        np.savez(path, **whole(**changes))
        return path

    return write


def test_a_plain_file(write):
    arrays = whole()
    found = load_operator_file(write())
    assert found.task_names == ("task_0", "task_1")
    for name in ("params", "field", "coords", "solutions"):
        got = getattr(found, name)
        assert got.dtype == np.float32
        np.testing.assert_array_equal(got, arrays[name].astype(np.float32))
    assert found.coord_names == ("x", "y")
    assert found.grid == ()
    assert found.masks.tolist() == [[True] * N]
    assert not found.geometry.any()
    assert found.task.tolist() == arrays["task"].tolist()
    assert sorted(np.concatenate(list(found.splits.values()))) == list(range(S))
    for split, count in (("train", 10), ("validation", 1), ("test", 1)):  # Of each task.
        assert np.bincount(found.task[found.splits[split]]).tolist() == [count, count]


def test_either_input_is_enough(write):
    assert load_operator_file(write(params=None)).params.shape == (S, 0)
    assert load_operator_file(write(field=None)).field.shape == (S, 0)
    assert load_operator_file(write(field=np.zeros((S, 2, 3, 4)))).field.shape == (S, 2, 3, 4)
    assert load_operator_file(write(task=None)).task_names == ("task_0",)
    one = load_operator_file(write(task=None, task_names=np.array(["mine"])))
    assert one.task_names == ("mine",)


def test_solutions_and_coordinates_on_a_grid(write):
    arrays = whole()
    flat = load_operator_file(write())
    for coords in (arrays["coords"], arrays["coords"].reshape(*GRID, 2)):
        found = load_operator_file(
            write(solutions=arrays["solutions"].reshape(S, *GRID), coords=coords)
        )
        assert found.grid == GRID
        np.testing.assert_array_equal(found.solutions, flat.solutions)
        np.testing.assert_array_equal(found.coords, flat.coords)


def test_points_of_each_sample(write):
    coords = np.random.default_rng(1).normal(size=(S, N, 3))
    found = load_operator_file(write(coords=coords, coord_names=np.array(["r", "phi", "t"])))
    assert found.pointwise
    assert found.coords.shape == (S, N, 3)
    assert found.coord_names == ("r", "phi", "t")
    assert not load_operator_file(write()).pointwise


def test_masks_become_a_table(write):
    solutions = whole()["solutions"]
    both = np.stack([INSIDE.ravel(), 1 - INSIDE.ravel()])
    rows = np.arange(S) % 2
    cut = np.where(both[rows], solutions, 0)
    each = load_operator_file(write(mask=both[rows], solutions=cut))
    table = load_operator_file(write(mask=both, geometry=rows, solutions=cut))
    grid = load_operator_file(
        write(mask=both[rows].reshape(S, *GRID).astype(bool), solutions=cut.reshape(S, *GRID))
    )
    for found in (each, table, grid):
        assert found.masks.tolist() == both.astype(bool).tolist()
        assert found.geometry.tolist() == rows.tolist()
        np.testing.assert_array_equal(found.solutions, cut.astype(np.float32))
    shared = np.where(both[0], solutions, 0)
    for mask in (both[0], both[:1], np.tile(both[0], (S, 1)), both[0].astype(float)):
        found = load_operator_file(write(mask=mask, solutions=shared))
        assert found.masks.tolist() == [both[0].astype(bool).tolist()]
        assert not found.geometry.any()
    twice = load_operator_file(write(mask=both[[0, 0]], geometry=rows, solutions=shared))
    assert len(twice.masks) == 1
    holes = np.where(both[0], solutions, np.nan)
    np.testing.assert_array_equal(
        load_operator_file(write(mask=both[0], solutions=holes)).solutions,
        shared.astype(np.float32),
    )


def test_unique_masks_keeps_the_first_appearance():
    masks = np.random.default_rng(0).integers(0, 2, (50, 3)).astype(bool)
    table, rows = unique_masks(masks)
    assert len(np.unique(table, axis=0)) == len(table) <= 8
    np.testing.assert_array_equal(table[rows], masks)
    firsts = [rows.tolist().index(g) for g in range(len(table))]
    assert firsts == sorted(firsts)


def test_task_names(write):
    words = np.array(["wet", "dry"])[np.arange(S) % 2]
    found = load_operator_file(write(task=words))
    assert found.task_names == ("dry", "wet")
    assert found.task.tolist() == [1, 0] * (S // 2)
    found = load_operator_file(write(task=words, task_names=np.array(["wet", "dry"])))
    assert found.task_names == ("wet", "dry")
    assert found.task.tolist() == [0, 1] * (S // 2)
    found = load_operator_file(write(task_names=np.array(["a", "b"])))
    assert found.task_names == ("a", "b")
    assert load_operator_file(write(task=words.astype("S3"))).task_names == ("dry", "wet")


def test_splits_of_the_file_and_drawn_ones(write):
    which = np.repeat([0, 0, 1, 2], S // 4)
    words = np.array(["train", "validation", "test"])[which]
    for split in (which, words, words.astype("S10")):
        found = load_operator_file(write(split=split), 0.3, 0.3)
        assert found.splits["train"].tolist() == list(range(12))
        assert found.splits["validation"].tolist() == list(range(12, 18))
        assert found.splits["test"].tolist() == list(range(18, 24))
    path = write()
    first, again = (load_operator_file(path, 0.25, 0.5).splits for _ in range(2))
    assert {split: len(rows) for split, rows in first.items()} == {
        "train": 6,
        "validation": 6,
        "test": 12,
    }
    other = load_operator_file(path, 0.25, 0.5, seed=1).splits
    assert all(np.array_equal(first[split], again[split]) for split in first)
    assert not np.array_equal(first["test"], other["test"])


def test_by_name(write):
    path = write()
    assert load_manual("file", path).task_names == ("task_0", "task_1")
    with pytest.raises(
        UserError, match=r"unknown set of operator files 'flie'; did you mean 'file'"
    ):
        load_manual("flie", path)
    with pytest.raises(UserError, match=r"none\.npz: no such file or folder"):
        load_manual("file", path.parent / "none.npz")
    with pytest.raises(UserError, match="pdebench_darcy is read from your own copy"):
        load_manual("pdebench_darcy", "")


NAN = whole()["solutions"].copy()
NAN[3, 4] = np.nan
MASKED = np.where(INSIDE.ravel(), whole()["solutions"], 0)
WORDS = np.array(["wet", "dry"])[np.arange(S) % 2]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"coord": np.zeros(3)}, r"unknown array 'coord'; did you mean 'coords'"),
        ({"solutions": None}, r"no 'solutions' in it; it has coords, field, params, task"),
        ({"coords": None}, r"no 'coords' in it"),
        ({"params": None, "field": None}, r"neither 'params' nor 'field'"),
        ({"solutions": np.zeros(S)}, r"solutions is \[24\]; it must be \[S, N\] or \[S, \*grid\]"),
        ({"params": np.zeros((S - 1, 2))}, r"params is \[23, 2\] where \[S, P\] with S = 24"),
        ({"params": np.zeros(S)}, r"params is \[24\] where \[S, P\] with S = 24"),
        ({"params": np.zeros((S, 0))}, r"params is \[24, 0\]"),
        ({"field": np.zeros((S + 1, 4))}, r"field is \[25, 4\] where \[S, ...\] with S = 24"),
        ({"coords": np.zeros((5, 2))}, r"coords is \[5, 2\] where \[N, d\] with N = 6"),
        ({"coords": np.zeros((2, N))}, r"coords is \[2, 6\] .*; transpose it"),
        ({"coords": np.zeros(N)}, r"coords is \[6\] .*; add an axis of length 1"),
        ({"coords": np.zeros((S, 5, 2))}, r"coords is \[24, 5, 2\] .*\[24, 6, d\]"),
        ({"coords": np.zeros((N, 0))}, r"d must be at least 1"),
        ({"coord_names": np.array(["x"])}, r"1 coord_names for coords with d = 2"),
        ({"coord_names": np.array([1, 2])}, r"coord_names is int64 \[2\]; a row of names"),
        ({"solutions": NAN}, r"solutions is not finite at \[3, 4\] \(1 such values\)"),
        ({"field": np.full((S, 4), np.inf)}, r"field is not finite"),
        ({"params": np.full((S, 2), 1e300)}, r"params is not finite"),
        ({"params": np.zeros((S, 2), complex)}, r"params is of type complex128; real numbers"),
        ({"field": np.full((S, 4), "a")}, r"field is of type <U1"),
        ({"mask": np.zeros(N)}, r"the mask of geometry 0 is empty"),
        ({"mask": np.full(N, 0.5)}, r"mask holds other values than 0 \(outside\) and 1"),
        ({"mask": np.full(N, np.nan)}, r"mask holds other values"),
        ({"mask": np.ones(N - 1)}, r"mask is \[5\] where \[N\], \[S, N\] or \[G, N\] with N = 6"),
        ({"mask": np.ones((S, 5))}, r"mask is \[24, 5\] where"),
        ({"mask": np.ones((3, N))}, r"3 geometries for 24 samples; give 'geometry' \[S\]"),
        ({"geometry": np.zeros(S, int)}, r"'mask' \[G, N\], which is missing"),
        ({"mask": np.ones(N), "geometry": np.zeros(S, int)}, r"'geometry' needs a table"),
        (
            {"mask": np.ones((2, N)), "geometry": np.full(S, 2)},
            r"geometry holds 2 .. 2; a row of the mask is 0 .. 1",
        ),
        ({"mask": np.ones((2, N)), "geometry": np.zeros(3, int)}, r"geometry is \[3\] where \[S\]"),
        # A mask that was flattened column by column beside solutions that were row by row.
        (
            {"mask": INSIDE.ravel(order="F"), "solutions": MASKED},
            r"not 0 outside the mask.*flattened in another order \(rows against columns\)",
        ),
        ({"task": np.zeros(3, int)}, r"task is \[3\] where \[S\] = \[24\]"),
        ({"task": np.zeros(S)}, r"task is of type float64; whole numbers"),
        ({"task": np.full(S, -1)}, r"task holds -1 .. -1"),
        ({"task": np.ones(S, int)}, r"no sample of task task_0; number tasks from 0 on"),
        ({"task_names": np.array(["a"])}, r"task holds 0 .. 1; a task is 0 .. 0"),
        ({"task_names": np.array(["a", "a"])}, r"task_names has a name twice"),
        ({"task_names": np.array(["a", "b", "c"])}, r"no sample of task c"),
        ({"task": None, "task_names": np.array(["a", "b"])}, r"2 task_names, and no 'task'"),
        ({"task": WORDS, "task_names": np.array(["wet", "dy"])}, r"'dry' is not in .*mean 'dy'"),
        ({"split": np.zeros(3)}, r"split is \[3\] where \[S\] = \[24\]"),
        ({"split": np.full(S, "val")}, r"split\[0\] is 'val'; it must be one of train, valid"),
        ({"split": np.full(S, 3)}, r"split\[0\] is 3; it must be one of"),
        ({"split": np.repeat([0, 1], S // 2)}, r"no sample of task task_0 is in the test split"),
        ({"split": np.tile([0, 1, 2, 0], 6)}, r"no sample of task task_0 is in the validation"),
        ({"task": np.repeat([0, 1], [S - 2, 2])}, r"task task_1 has 2 samples, too few"),
        ({"params": np.array([{"a": 1}] * S, object)}, r"params holds Python objects, which may"),
    ],
)
def test_a_wrong_file_is_one_line(write, changes, message):
    path = write(**changes)
    with pytest.raises(UserError, match=message) as error:
        load_operator_file(path)
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("fractions", "message"),
    [
        ((0.0, 0.1), r"validation is the fraction 0\.0"),
        ((0.1, 1.0), r"test is the fraction 1\.0"),
        ((0.1, -0.1), r"test is the fraction -0\.1"),
        ((0.5, 0.5), r"leave nothing to train on"),
    ],
)
def test_wrong_fractions(write, fractions, message):
    with pytest.raises(UserError, match=message):
        load_operator_file(write(), *fractions)


def test_files_that_are_none(write, tmp_path):
    with pytest.raises(UserError, match=r"none\.npz: no such file"):
        load_operator_file(tmp_path / "none.npz")
    with pytest.raises(UserError, match=r"ends in '\.csv'; an \.npz, \.h5 or \.hdf5 file"):
        load_operator_file(write().rename(tmp_path / "mine.csv"))
    (tmp_path / "bad.npz").write_bytes(b"PK no zip")
    with pytest.raises(UserError, match=r"bad\.npz: not a readable \.npz"):
        load_operator_file(tmp_path / "bad.npz")
    path = write()
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(UserError, match=r"mine\.npz: not a readable \.npz"):
        load_operator_file(path)
    np.save(tmp_path / "one.npy", np.zeros(3))
    (tmp_path / "one.npy").rename(tmp_path / "one.npz")
    with pytest.raises(UserError, match=r"one\.npz: not a readable \.npz"):
        load_operator_file(tmp_path / "one.npz")


def test_hdf5_without_h5py(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "h5py", None)
    (tmp_path / "mine.h5").touch()
    with pytest.raises(UserError, match=r"mine\.h5: reading HDF5 needs h5py; pip install h5py"):
        load_operator_file(tmp_path / "mine.h5")


@pytest.fixture
def write_h5(tmp_path):
    h5py = pytest.importorskip("h5py")

    def write(**arrays):
        path = tmp_path / "mine.h5"
        with h5py.File(path, "w") as file:
            for key, value in arrays.items():
                file.create_dataset(key, data=value)
        return path

    return write


def test_hdf5_is_read_as_an_npz(write, write_h5):
    rows = np.arange(S) % 2
    both = np.stack([INSIDE.ravel(), 1 - INSIDE.ravel()]).astype(bool)
    words = np.array(["train", "train", "validation", "validation", "test", "test"] * 4)
    changes = {
        "mask": both,
        "geometry": rows,
        "solutions": np.where(both[rows], whole()["solutions"], 0),
        "split": words,
        "task_names": np.array(["a", "b"]),
    }
    strings = {"split": words.tolist(), "task_names": np.array([b"a", b"b"])}
    want = load_operator_file(write(**changes))
    got = load_operator_file(write_h5(**whole(**changes) | strings))
    for name, value in want._asdict().items():
        np.testing.assert_equal(getattr(got, name), value)


def test_hdf5_files_that_are_none(write_h5, tmp_path):
    (tmp_path / "bad.h5").write_bytes(b"no HDF5 at all")
    with pytest.raises(UserError, match=r"bad\.h5: not a readable HDF5 file"):
        load_operator_file(tmp_path / "bad.h5")
    h5py = pytest.importorskip("h5py")
    path = write_h5(**whole(params=None))
    with h5py.File(path, "a") as file:
        file.create_group("params")
    with pytest.raises(UserError, match="params is a group; a dataset is needed"):
        load_operator_file(path)
    with h5py.File(path, "a") as file:
        del file["params"]
        ragged = h5py.vlen_dtype(np.float32)
        file.create_dataset("params", (S,), dtype=ragged)
    with pytest.raises(UserError, match="params holds Python objects"):
        load_operator_file(path)
    with h5py.File(path, "a") as file:
        del file["params"]
        file.create_dataset("param", data=np.zeros((S, 2)))
    with pytest.raises(UserError, match=r"unknown array 'param'; did you mean 'params'"):
        load_operator_file(path)

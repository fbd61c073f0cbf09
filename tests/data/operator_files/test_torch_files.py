"""`.pt` files, written here without torch, and what their reader refuses; Darcy-16."""

from __future__ import annotations

import collections
import hashlib
import io
import os
import pickle
import sys
import types
import zipfile

import numpy as np
import pytest

from mtl_jax.data.operator_files import neuralop
from mtl_jax.data.operator_files.dispatch import load_manual
from mtl_jax.data.operator_files.torch_files import STORAGES, read_tensors
from mtl_jax.errors import UserError

NAMES = {np.dtype(dtype): name for name, dtype in STORAGES.items()}


class Tensor:
    """A tensor to be written: a storage and how it is laid out in it."""

    def __init__(self, storage, size=None, stride=None, offset=0, count=None):
        self.storage = np.asarray(storage)
        self.size = self.storage.shape if size is None else size
        own = np.array(self.storage.strides) // self.storage.itemsize
        self.stride = tuple(own.tolist()) if stride is None else stride
        self.offset = offset
        self.count = self.storage.size if count is None else count


@pytest.fixture
def save(monkeypatch):
    """Returns a function that writes what `torch.save` writes; the names alone are torch's."""
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
    for name in STORAGES:
        setattr(torch, name, type(name, (), {"__module__": "torch"}))

    def _rebuild_tensor_v2():
        raise AssertionError

    _rebuild_tensor_v2.__module__ = "torch._utils"
    _rebuild_tensor_v2.__qualname__ = "_rebuild_tensor_v2"
    utils._rebuild_tensor_v2 = _rebuild_tensor_v2
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setitem(sys.modules, "torch._utils", utils)

    def save(thing, byteorder=b"little"):
        storages = []

        class Pickler(pickle.Pickler):
            def persistent_id(self, value):
                if not isinstance(value, tuple) or value[:1] != ("to store",):
                    return None
                storages.append(value[1])
                kind = getattr(torch, NAMES[value[1].dtype])
                return ("storage", kind, str(len(storages) - 1), "cpu", value[2])

            def reducer_override(self, value):
                if not isinstance(value, Tensor):
                    return NotImplemented
                storage = ("to store", value.storage.ravel(), value.count)
                hooks = collections.OrderedDict()
                layout = (value.offset, value.size, value.stride, False, hooks)
                return _rebuild_tensor_v2, (storage, *layout)

        text, data = io.BytesIO(), io.BytesIO()
        Pickler(text, protocol=2).dump(thing)
        with zipfile.ZipFile(data, "w") as archive:
            archive.writestr("archive/data.pkl", text.getvalue())
            archive.writestr("archive/byteorder", byteorder)
            for key, storage in enumerate(storages):
                archive.writestr(f"archive/data/{key}", storage.tobytes())
        return data.getvalue()

    return save


@pytest.mark.parametrize("dtype", STORAGES.values())
def test_every_type(save, dtype):
    rng = np.random.default_rng(0)
    values = rng.integers(0, 2, (3, 4, 5)).astype(dtype)
    found = read_tensors(save({"x": Tensor(values), "y": Tensor(values[0])}), "here")
    assert list(found) == ["x", "y"]
    assert found["x"].dtype == dtype
    np.testing.assert_array_equal(found["x"], values)
    np.testing.assert_array_equal(found["y"], values[0])
    assert found["x"].flags.writeable


def test_views_of_a_storage(save):
    values = np.arange(24.0)
    things = collections.OrderedDict(
        turned=Tensor(values, (6, 4), (1, 6)),
        part=Tensor(values, (2, 3), (12, 4), offset=1),
        empty=Tensor(values, (0, 3), (3, 1), offset=24),
        one=Tensor(values, (), (), offset=23),
    )
    found = read_tensors(save(things), "here")
    np.testing.assert_array_equal(found["turned"], values.reshape(4, 6).T)
    np.testing.assert_array_equal(found["part"], values.reshape(2, 3, 4)[:, :, 1])
    assert found["empty"].shape == (0, 3)
    assert found["one"] == 23


@pytest.mark.parametrize(
    ("layout", "message"),
    [
        ({"size": (4, 7), "stride": (7, 1)}, "ends at 27 of 24 numbers"),
        ({"size": (24,), "stride": (1,), "offset": 1}, "ends at 24 of 24"),
        ({"size": (2,), "stride": (10**15,)}, "ends at"),
        ({"size": (24,), "stride": (-1,), "offset": 23}, "a tensor of size"),
        ({"size": (-1,), "stride": (1,)}, "a tensor of size"),
        ({"size": (10**12,), "stride": (0,)}, "in 24 numbers"),
        ({"size": (2, 2), "stride": (1,)}, "a tensor of size"),
        ({"size": (2.0,), "stride": (1,)}, "a tensor of size"),
        ({"count": 23}, "storage 0 has 24 numbers, not 23"),
    ],
)
def test_layouts_that_reach_outside_the_storage_are_refused(save, layout, message):
    with pytest.raises(UserError, match=f"here: not a torch file of plain tensors .*{message}"):
        read_tensors(save({"x": Tensor(np.arange(24.0), **layout)}), "here")


class Hostile:
    """Runs a command when a trusting reader meets it."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def test_code_is_refused_and_not_run(save, tmp_path):
    mark = tmp_path / "run"
    data = save({"x": Hostile(mark)})
    with pytest.raises(UserError, match=r"here: not a torch file .*system is refused"):
        read_tensors(data, "here")
    assert not mark.exists()
    for callable_ in (eval, getattr, np.zeros, collections.Counter):
        with pytest.raises(UserError, match="is refused"):
            read_tensors(save({"x": callable_}), "here")


def test_what_is_no_dict_of_tensors_is_refused(save):
    with pytest.raises(UserError, match="here: holds ndarray, not a dict of named tensors"):
        read_tensors(save(Tensor(np.zeros(3))), "here")
    with pytest.raises(UserError, match="here: holds dict, not a dict of named tensors"):
        read_tensors(save({"x": 3}), "here")
    with pytest.raises(UserError, match="big-endian"):
        read_tensors(save({"x": Tensor(np.zeros(3))}, byteorder=b"big"), "here")
    for data in (b"", b"PK", save({"x": Tensor(np.zeros(3))})[:200], pickle.dumps({"x": 3})):
        with pytest.raises(UserError, match="here: not a torch file of plain tensors"):
            read_tensors(data, "here")
    empty = io.BytesIO()
    with zipfile.ZipFile(empty, "w") as archive:
        archive.writestr("other", b"")
    with pytest.raises(UserError, match=r"0 data\.pkl in it"):
        read_tensors(empty.getvalue(), "here")


# Darcy-16


@pytest.fixture
def files(save, monkeypatch):
    """The two files with 20 + 5 samples, in the place of the known ones."""
    rng = np.random.default_rng(0)
    made = {}
    for name, count in (("darcy_train_16.pt", 20), ("darcy_test_16.pt", 5)):
        x = rng.integers(0, 2, (count, 16, 16)).astype(bool)
        y = rng.normal(size=(count, 16, 16)).astype(np.float32)
        made[name] = (save({"x": Tensor(x), "y": Tensor(y)}), x, y)
        monkeypatch.setitem(neuralop.SHA256, name, hashlib.sha256(made[name][0]).hexdigest())
    return made


def test_darcy16_from_a_wheel_and_from_folders(files, tmp_path):
    folder = tmp_path / "unpacked" / neuralop.FOLDER
    folder.mkdir(parents=True)
    (tmp_path / "kept").mkdir()
    wheel = tmp_path / "kept" / "neuraloperator-0.3.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, (data, _, _) in files.items():
            (folder / name).write_bytes(data)
            archive.writestr(f"{neuralop.FOLDER}/{name}", data)
    for source in (folder, tmp_path / "unpacked", wheel, tmp_path / "kept"):
        found = load_manual("neuralop_darcy16", source)
        x, y = (np.concatenate([parts[k] for parts in files.values()]) for k in (1, 2))
        np.testing.assert_array_equal(found.field, x.astype(np.float32))
        np.testing.assert_array_equal(found.solutions, y.reshape(25, 256))
        assert found.task_names == ("darcy",)
        assert found.grid == (16, 16)
        assert found.coords[17].tolist() == [1 / 16, 1 / 16]
        assert found.coords.max() == 15 / 16
        assert found.masks.all()
        assert {split: rows.tolist() for split, rows in found.splits.items()} == {
            "train": list(range(18)),
            "validation": [18, 19],
            "test": list(range(20, 25)),
        }


def test_another_darcy16_is_refused(files, save, monkeypatch, tmp_path):
    with pytest.raises(UserError, match=r"neither darcy_train_16\.pt nor a wheel .*pip download"):
        neuralop.load_darcy16(tmp_path)
    for name, (data, _, _) in files.items():
        (tmp_path / name).write_bytes(data)
    other = save({"x": Tensor(np.zeros((3, 16, 16))), "y": Tensor(np.zeros((3, 16, 15)))})
    (tmp_path / "darcy_test_16.pt").write_bytes(other)
    with pytest.raises(UserError, match=r"darcy_test_16\.pt: is not the file .*sha256 differs"):
        neuralop.load_darcy16(tmp_path)
    monkeypatch.setitem(neuralop.SHA256, "darcy_test_16.pt", hashlib.sha256(other).hexdigest())
    with pytest.raises(UserError, match=r"x \[3, 16, 16\] and y \[3, 16, 15\] are not \[S, H, W\]"):
        neuralop.load_darcy16(tmp_path)
    wheel = tmp_path / "a.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("neuralop/__init__.py", "")
    with pytest.raises(UserError, match=r"no neuralop/datasets/data/darcy_train_16\.pt in it"):
        neuralop.load_darcy16(wheel)
    wheel.write_bytes(b"no zip")
    with pytest.raises(UserError, match="not a readable zip"):
        neuralop.load_darcy16(wheel)
    with pytest.raises(UserError, match="no such file or folder"):
        neuralop.load_darcy16(tmp_path / "none.whl")

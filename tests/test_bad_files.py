"""Wrong experiment files and data: one line that names them, nothing lost or half-written."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mtl_jax import train
from mtl_jax.data import __main__ as data
from tests.raw_files import write_images
from tests.refusals import assert_says, contents, experiment, refused

__all__ = ["experiment"]

Capture = pytest.CaptureFixture[str]
Arrays = dict[str, Any]


def edit(old: str, new: str) -> Callable[[str], str]:
    def change(source: str) -> str:
        assert old in source
        return source.replace(old, new)

    return change


FILES = {
    "syntax": (lambda source: "def get_config(:\n", ("does not run: SyntaxError", "line 1")),
    "no text": (lambda source: "\0", ("does not run:", "null bytes")),
    "no module": (
        lambda source: "import nothing_like_it\n",
        ("No module named 'nothing_like_it'",),
    ),
    "exits": (lambda source: "raise SystemExit(0)\n", ("does not run: SystemExit",)),
    "no get_config": (lambda source: "lr = 1\n", ("defines no get_config()",)),
    "a dict": (
        lambda source: "def get_config():\n    return {'lr': 1}\n",
        ("must return a system's Config, found dict",),
    ),
    "the class": (edit("return Config(", "return Config\n    Config("), ("found type",)),
    "raises": (
        lambda source: "def get_config():\n    raise RuntimeError('two\\nlines')\n",
        ("fails: RuntimeError: two lines",),
    ),
    "unknown field": (edit("lr=2e-3", "lrr=2e-3"), ("unexpected keyword argument 'lrr'",)),
    "number as text": (edit("lr=2e-3", "lr='2e-3'"), ("optim.lr is '2e-3'; it must be a number",)),
    "no number": (edit("lr=2e-3", "lr=None"), ("config.optim.lr is None; it must be a number",)),
    "float for int": (
        edit("steps=12", "steps=1e3"),
        ("steps is 1000.0; it must be a whole number",),
    ),
    "bool as text": (edit("report=False", "report='no'"), ("is 'no'; it must be True or False",)),
    "list for tuple": (edit("(32,)", "[32]"), ("widths is [32]; it must be a tuple of whole",)),
    "half a pair": (
        edit("steps=12", "steps=12, profile=5"),
        ("profile is 5; it must be a tuple of 2",),
    ),
    "dict for a part": (edit("OptimConfig(lr=2e-3)", "{'lr': 1}"), ("config.optim is {'lr': 1}",)),
    "wrong choice": (edit('name="mlp"', 'name="mpl"'), ("is 'mpl'", "did you mean mlp?")),
    "unknown option": (
        edit('aggregator="cagrad"', 'aggregator="cagrad", options={"cc": 1}'),
        ("cagrad has no option 'cc'; did you mean 'c'?",),
    ),
    "option of another type": (
        edit('aggregator="cagrad"', 'aggregator="cagrad", options={"c": "x"}'),
        ("option 'c' of method 'cagrad' must be a number, found 'x'",),
    ),
    "options as a list": (
        edit('aggregator="cagrad"', 'aggregator="cagrad", options=["c"]'),
        ("config.method.options is ['c']; it must be a mapping",),
    ),
}


@pytest.mark.parametrize("case", FILES)
def test_a_wrong_experiment_file_is_named(
    experiment: Path, tmp_path: Path, capsys: Capture, case: str
) -> None:
    change, words = FILES[case]
    path = tmp_path / "mine.py"
    path.write_text(change(experiment.read_text()))
    before = path.read_bytes()
    line = refused(train.main, ["--config", path, "--workdir", tmp_path / "run"], capsys)
    assert_says(line, *words)
    assert not (tmp_path / "run").exists()
    assert path.read_bytes() == before


def _with(**changed: Callable[[np.ndarray], np.ndarray]) -> Callable[[Arrays], Arrays]:
    def change(arrays: Arrays) -> Arrays:
        return {name: changed.get(name, np.asarray)(array) for name, array in arrays.items()}

    return change


def _put(value: float) -> Callable[[np.ndarray], np.ndarray]:
    """Sets one value among the others, which become floats where it is no whole number."""

    def change(array: np.ndarray) -> np.ndarray:
        out = array.astype(np.int64 if float(value).is_integer() else np.float32)
        out.flat[17] = value
        return out

    return change


RAW = {
    "shape": (_with(x=lambda x: x[:, :20]), "images of shape [400, 20, 28], expected [N, 28, 28]"),
    "labels for half": (_with(y=lambda y: y[:200]), "labels of shape [200] for 400 images"),
    "a label of 10": (_with(y=_put(10)), "labels hold 10, expected 0..9"),
    "a label of -1": (_with(y=_put(-1)), "labels hold -1, expected 0..9"),
    "half a label": (_with(y=_put(0.5)), "labels hold 0.5, expected whole numbers"),
    "labels in words": (
        _with(y=lambda y: y.astype(str)),
        "labels are of type <U",
        "numbers in 0..9",
    ),
    "a NaN": (_with(x=_put(np.nan)), "pixels hold nan, expected 0..255"),
    "a pixel of 256": (_with(x=_put(256)), "pixels hold 256, expected 0..255"),
    "fractions": (_with(x=lambda x: x / 255.0), "fractions in 0..1", "multiply them by 255"),
    "other names": (lambda a: {"images": a["x"]}, "holds ['images'], expected x [N, 28, 28] and y"),
    "no arrays": (lambda a: {}, "holds [], expected x"),
    "no images": (lambda a: {k: v[:0] for k, v in a.items()}, "no images in it"),
    "too few": (
        lambda a: {k: v[:20] for k, v in a.items()},
        "20 source images leave 2",
        "30 or more",
    ),
}


def _prepare(raw: Path, sets: Path) -> list[object]:
    return ["prepare", "multi_mnist", "--manual-dir", raw, "--data-dir", sets]


@pytest.mark.parametrize("case", RAW)
def test_wrong_raw_images_are_named_and_leave_no_half_set(
    tmp_path: Path, capsys: Capture, case: str
) -> None:
    change, *words = RAW[case]
    write_images(tmp_path / "raw")
    path = tmp_path / "raw" / "mnist.npz"
    with np.load(path) as whole:
        arrays = change(dict(whole))
    np.savez(path, **arrays)
    line = refused(data.main, _prepare(tmp_path / "raw", tmp_path / "sets"), capsys, notes=True)
    assert_says(line, *words)
    names = [path.name for path in (tmp_path / "sets").rglob("*")]
    assert not [n for n in names if "array_record" in n or n in ("manifest.json", "1.0.0")]


def test_raw_files_that_are_no_files_of_images(tmp_path: Path, capsys: Capture) -> None:
    raw, sets = tmp_path / "raw", tmp_path / "sets"
    for prepare, words in (
        (lambda: None, "manual_dir"),
        (lambda: raw.mkdir(), "is empty"),
        (lambda: (raw / "mnist.npz").write_bytes(b"PK\3\4 not"), "not a readable npz"),
        (lambda: (raw / "mnist.npz").write_bytes(b""), "not a readable npz"),
    ):
        prepare()
        line = refused(data.main, _prepare(raw, sets), capsys, notes=True)
        assert_says(line, str(raw), words)
        assert not list(sets.rglob("*.array_record*"))


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("prepare", "required: NAME"),
        ("prepare multi_mnits", "did you mean 'multi_mnist'"),
        ("prepare celeba --data-dir {tmp}/sets", "give --manual-dir"),
        ("verify multi_mnist --data-dir {tmp}/sets", "is not prepared in"),
        ("prepare multi_mnist --data-dir {tmp}/file/sets", "choose another --data-dir"),
        ("prepare multi_mnist --data-dri x", "unrecognized arguments: --data-dri"),
    ],
)
def test_wrong_data_commands(tmp_path: Path, capsys: Capture, line: str, words: str) -> None:
    (tmp_path / "file").touch()
    write_images(tmp_path / "raw")
    argv = line.format(tmp=tmp_path).split()
    if "file" in line:
        argv += ["--manual-dir", str(tmp_path / "raw")]
    assert_says(refused(data.main, argv, capsys), words)
    assert not (tmp_path / "sets").exists()


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[2000] ^= 1  # inside the first chunk: past its header, before the padding
    path.write_bytes(content)


SHARDS = {
    "damaged": (_flip, "is damaged (sha256 differs)"),
    "missing": (Path.unlink, "is missing"),
    "cut short": (lambda path: os.truncate(path, 1000), "has 1000 bytes, not"),
    "empty": (lambda path: os.truncate(path, 0), "has 0 bytes, not"),
}


@pytest.mark.parametrize("case", SHARDS)
def test_training_on_a_damaged_set_names_the_shard(
    experiment: Path, tmp_path: Path, capsys: Capture, case: str
) -> None:
    damage, words = SHARDS[case]
    sets = tmp_path / "sets"
    shutil.copytree(experiment.parent / "sets", sets)
    shard = next(sets.rglob("*-train.array_record*"))
    damage(shard)
    before = contents(sets)
    argv = ["--config", experiment, "--workdir", tmp_path / "run", "--config.data.data-dir", sets]
    line = refused(train.main, argv, capsys)
    assert_says(line, shard.name, words, "delete that folder", "prepare multi_mnist")
    assert contents(sets) == before
    assert contents(tmp_path / "run") == {}


def test_training_where_no_set_can_be(experiment: Path, tmp_path: Path, capsys: Capture) -> None:
    argv = ["--config", experiment, "--workdir", tmp_path / "run"]
    line = refused(train.main, [*argv, f"--config.data.data-dir={experiment}/sets"], capsys)
    assert_says(line, "could not be built in", f"{experiment}/sets", "choose another")
    missing = [
        "--config.data.data-dir",
        tmp_path / "sets",
        "--config.data.manual-dir",
        tmp_path / "no",
    ]
    line = refused(train.main, [*argv, *missing], capsys)
    assert_says(line, f"manual_dir '{tmp_path}/no' is not a folder")
    assert contents(tmp_path / "run") == {}
    assert not (tmp_path / "sets").exists()

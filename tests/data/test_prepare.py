import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds

from mtl_jax.data import __main__ as cli
from mtl_jax.data import manifest, overlay_builder
from mtl_jax.data.pairs import load_pairs
from mtl_jax.data.prepare import open_set, prepare, status, verify
from mtl_jax.data.registry import DATASETS, parse
from mtl_jax.errors import UserError, run_command

ROOT = Path(__file__).resolve().parents[2]


def snapshot(folder):
    return {p.name: p.stat().st_mtime_ns for p in sorted(folder.iterdir())}


def shard(folder, split="train"):
    return next(folder.glob(f"*-{split}.array_record*"))


def flip_a_bit(path):
    data = bytearray(path.read_bytes())
    data[2000] ^= 1  # Inside the first chunk: past its header, before the padding.
    path.write_bytes(data)


def test_a_built_set_is_whole_and_left_alone(sets, manual_dir):
    folder = sets / "multi_mnist" / "small" / "1.0.0"
    before = snapshot(folder)
    assert prepare("multi_mnist", sets) == folder  # Without a source: none is needed.
    assert snapshot(folder) == before
    assert verify("multi_mnist", sets) == {"train": 1, "validation": 1, "test": 1}
    listed = manifest.read(folder)["files"]
    assert set(listed) == {p.name for p in folder.iterdir()} - {"manifest.json"}
    assert manifest.read(folder)["sources"] == [f"mnist from {manual_dir / 'mnist.npz'}"]


def test_it_opens_with_tfds_alone(sets, pools):
    builder = tfds.builder_from_directory(str(sets / "multi_mnist" / "small" / "1.0.0"))
    record = builder.as_data_source("train")[0]
    assert record["images"].shape == (42, 28, 28)
    assert record["images"].dtype == np.uint8
    assert "tensorflow" not in sys.modules


def test_other_raw_files_do_not_silently_replace_a_whole_set(sets, tmp_path, capsys):
    other = tmp_path / "other"
    other.mkdir()
    (other / "mnist.npz").touch()
    before = snapshot(sets / "multi_mnist" / "small" / "1.0.0")
    prepare("multi_mnist", sets, other)
    assert "kept as it is, built from mnist from" in capsys.readouterr().err
    assert snapshot(sets / "multi_mnist" / "small" / "1.0.0") == before


def test_leftovers_are_removed_and_a_set_without_manifest_is_rebuilt(sets, manual_dir, capsys):
    folder = sets / "multi_mnist" / "small" / "1.0.0"
    (folder / "manifest.json").unlink()
    shard(folder).write_bytes(b"")
    leftover = folder.parent / "incomplete.ABC_1.0.0"
    leftover.mkdir()
    (leftover / "part").touch()
    with pytest.raises(UserError, match=r"not prepared .* prepare multi_mnist"):
        open_set("multi_mnist", sets)
    assert prepare("multi_mnist", sets, manual_dir) == folder
    assert not leftover.exists()
    assert verify("multi_mnist", sets)["train"] == 1
    assert "left by an interrupted build" in capsys.readouterr().err


def test_a_damaged_manifest_counts_as_none(sets, manual_dir):
    folder = sets / "multi_mnist" / "small" / "1.0.0"
    (folder / "manifest.json").write_text('{"files": ')
    with pytest.raises(UserError, match="not prepared"):
        verify("multi_mnist", sets)
    prepare("multi_mnist", sets, manual_dir)
    assert verify("multi_mnist", sets)["test"] == 1


KILLED = """
import os, signal, sys
from mtl_jax.data import overlay_builder
from mtl_jax.data.prepare import prepare

def generate(self, chosen, pools, whole=overlay_builder.OverlayMixin._generate_examples):
    for item in whole(self, chosen, pools):
        yield item
        os.kill(os.getpid(), signal.SIGKILL)

overlay_builder.OverlayMixin._generate_examples = generate
prepare("multi_mnist", sys.argv[1], sys.argv[2])
"""


def child(*arguments):
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_killed_build_is_built_anew(tmp_path, manual_dir):
    process = child("-c", KILLED, tmp_path, manual_dir)
    process.communicate(timeout=120)
    assert process.returncode == -signal.SIGKILL
    leftovers = list((tmp_path / "multi_mnist" / "small").iterdir())
    assert [path.name.split(".")[0] for path in leftovers] == ["incomplete"]
    with pytest.raises(UserError, match="not prepared"):
        open_set("multi_mnist", tmp_path)
    prepare("multi_mnist", tmp_path, manual_dir)
    assert [p.name for p in (tmp_path / "multi_mnist" / "small").iterdir()] == ["1.0.0"]
    assert verify("multi_mnist", tmp_path)["train"] == 1


def test_two_processes_take_turns(tmp_path, manual_dir):
    command = ("-m", "mtl_jax.data", "prepare", "multi_mnist", "--data-dir", tmp_path)
    with open(tmp_path / "multi_mnist_small.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # Both find the set missing before either may build.
        processes = [child(*command, "--manual-dir", manual_dir) for _ in range(2)]
        waiting = [process.stderr.readline() for process in processes]
    outputs = [process.communicate(timeout=120) for process in processes]
    assert all("another process is preparing it" in line for line in waiting), (waiting, outputs)
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert sum("building in" in err for _, err in outputs) == 1
    assert verify("multi_mnist", tmp_path)["train"] == 1


def test_a_set_that_cannot_be_read_back_is_not_whole(monkeypatch, tmp_path, manual_dir):
    def damaged(builder, split):
        raise RuntimeError("chunk data hash mismatch")

    monkeypatch.setattr("mtl_jax.data.prepare._read_all", damaged)
    with pytest.raises(UserError, match="chunk data hash mismatch"):
        prepare("multi_mnist", tmp_path, manual_dir)
    assert list((tmp_path / "multi_mnist" / "small").iterdir()) == []


def test_small_has_a_cap_and_full_has_none(monkeypatch, tmp_path, manual_dir):
    monkeypatch.setattr(overlay_builder, "SMALL_CAP", 40)
    for config, count in (("small", 40), ("full", 60)):
        data = load_pairs(f"multi_mnist/{config}", tmp_path, manual_dir)
        assert len(data.images[0]) == count


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        RuntimeError("write() failed: No space left on device"),  # The record writer's words.
        KeyboardInterrupt(),
    ],
)
def test_a_build_that_fails_leaves_no_half_set(monkeypatch, tmp_path, manual_dir, error):
    whole = overlay_builder.OverlayMixin._generate_examples

    def fail(self, chosen, pools):
        yield from whole(self, chosen, pools)
        raise error

    monkeypatch.setattr(overlay_builder.OverlayMixin, "_generate_examples", fail)
    if isinstance(error, KeyboardInterrupt):
        with pytest.raises(KeyboardInterrupt):
            prepare("multi_mnist", tmp_path, manual_dir)
    else:
        with pytest.raises(UserError, match=r"No space left on device.*free some space"):
            prepare("multi_mnist", tmp_path, manual_dir)
    assert list((tmp_path / "multi_mnist" / "small").iterdir()) == []
    monkeypatch.undo()
    prepare("multi_mnist", tmp_path, manual_dir)
    assert verify("multi_mnist", tmp_path)["train"] == 1


def test_a_data_dir_that_cannot_be_made(tmp_path, manual_dir):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"could not be built in .*choose another --data-dir"):
        prepare("multi_mnist", tmp_path / "file" / "sets", manual_dir)


def test_wrong_raw_files_end_the_build_in_their_own_words(tmp_path):
    np.savez(tmp_path / "mnist.npz", x=np.zeros((40, 20, 20), np.uint8), y=np.zeros(40))
    with pytest.raises(UserError, match=r"^.*mnist\.npz: images of shape \[40, 20, 20\]"):
        prepare("multi_mnist", tmp_path / "sets", tmp_path)
    x = np.full((20, 28, 28), 9, np.uint8)
    np.savez(tmp_path / "mnist.npz", x=x, y=np.zeros(20))
    with pytest.raises(UserError, match=r"^20 source images leave 2 for the validation split"):
        prepare("multi_mnist", tmp_path / "sets", tmp_path)


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_verify_names_a_damaged_shard(sets, split):
    path = shard(sets / "multi_fashion_mnist" / "small" / "1.0.0", split)
    flip_a_bit(path)
    with pytest.raises(UserError, match=f"{path.name} is damaged"):
        verify("multi_fashion_mnist", sets)


def test_opening_names_a_missing_and_a_truncated_shard(sets):
    folder = sets / "multi_mnist" / "small" / "1.0.0"
    train, test = shard(folder, "train"), shard(folder, "test")
    size = train.stat().st_size
    os.truncate(train, size - 100)
    test.unlink()
    for use in (open_set, verify, prepare, load_pairs):
        with pytest.raises(UserError) as error:
            use("multi_mnist", sets)
        assert f"{train.name} has {size - 100} bytes, not {size}" in str(error.value)
        assert f"{test.name} is missing" in str(error.value)
        assert "prepare multi_mnist" in str(error.value)


def test_loading_names_a_damaged_shard_of_the_right_size(sets):
    path = shard(sets / "multi_mnist" / "small" / "1.0.0")
    flip_a_bit(path)
    with pytest.raises(UserError, match=f"{path.name} is damaged"):
        load_pairs("multi_mnist", sets)


def test_verify_compares_the_number_of_records(sets):
    path = sets / "multi_mnist" / "small" / "1.0.0" / "manifest.json"
    found = json.loads(path.read_text())
    found["records"]["train"] += 1
    path.write_text(json.dumps(found))
    with pytest.raises(UserError, match="its manifest says"):
        verify("multi_mnist", sets)


def test_status_says_what_is_there(sets):
    shard(sets / "multi_fashion_mnist" / "small" / "1.0.0").unlink()
    words = status(sets)
    assert words["multi_mnist/small"].startswith("whole: mnist from ")
    assert words["multi_mnist/full"] == "not prepared"
    assert "is missing" in words["multi_fashion_mnist/small"]
    assert {name.split("/")[0] for name in words} == set(DATASETS)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("multi_mnits", "unknown data set 'multi_mnits'; did you mean 'multi_mnist'"),
        ("multi_mnist/ful", "unknown config 'ful' of multi_mnist; did you mean 'full'"),
        ("celeba/full", "celeba has one size"),
        ("", "unknown data set ''"),
    ],
)
def test_unknown_names(name, message):
    with pytest.raises(UserError, match=message):
        parse(name)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("prepare multi_mnits", "did you mean 'multi_mnist'"),
        ("prepare multi_mnist --manual-dir {tmp}/none --data-dir {tmp}", "is not a folder"),
        ("prepare multi_mnist --data-dir {tmp}", "no source has the mnist images"),
        ("prepare multi_fashion/full --data-dir {tmp}", "no source has the fashion_mnist"),
        ("prepare celeba --data-dir {tmp}", "list_attr_celeba.txt"),
        ("prepare nyuv2 --data-dir {tmp}", "give --manual-dir"),
        ("verify multi_mnist --data-dir {tmp}", "is not prepared in"),
        ("prepare", "required: NAME"),
        ("repair multi_mnist", "invalid choice: 'repair'"),
        ("prepare multi_mnist --manul-dir x", "unrecognized arguments"),
        ("", "required: command"),
    ],
)
def test_a_wrong_command_is_one_line_and_exit_code_2(tmp_path, capsys, line, message):
    with pytest.raises(SystemExit) as stop:
        run_command(cli.main, line.format(tmp=tmp_path).split())
    assert stop.value.code == 2
    errors = [text for text in capsys.readouterr().err.splitlines() if text.startswith("error: ")]
    assert len(errors) == 1
    assert message in errors[0]


def test_the_commands_print_what_they_did(sets, manual_dir, capsys):
    cli.main(["prepare", "multi_mnist", "--data-dir", str(sets)])
    cli.main(["verify", "multi_mnist", "--data-dir", str(sets)])
    cli.main(["list", "--data-dir", str(sets)])
    out = capsys.readouterr().out
    assert "multi_mnist: whole in" in out
    assert "every record read, checksums match (1 train, 1 validation, 1 test)" in out
    assert "celeba: faces, 40 attributes; not prepared" in out

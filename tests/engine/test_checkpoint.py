"""What was saved comes back bit for bit, or not at all and with one line that says why."""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
from pathlib import Path
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mtl_jax.engine.checkpoint import Checkpoints
from mtl_jax.errors import UserError


@flax.struct.dataclass
class State:
    step: Any
    params: Any
    opt_state: Any
    extra: Any


def make(seed: int = 0) -> State:
    rng = np.random.default_rng(seed)
    params = {
        "trunk": {"kernel": jnp.asarray(rng.normal(size=(4, 3)), jnp.float32)},
        "head": {"bias": jnp.asarray(rng.normal(size=3), jnp.bfloat16)},
    }
    extra = {
        "empty": {},
        "none": None,
        "int": seed,
        "float": 0.1 * seed,
        "flag": bool(seed % 2),
        "no_rows": np.zeros((0, 3), np.float32),
        "signs": np.asarray([-0.0, np.nan, np.inf, 1e-45], np.float32),
        "tuple": (np.uint8(seed), np.arange(3, dtype=np.int8)),
        "typed": {d: np.ones(2, jnp.dtype(d)) for d in ("float16", "int4", "complex64", "bool")},
    }
    return State(jnp.int32(seed), params, optax.adam(1e-3).init(params), extra)


def assert_same_bits(got: Any, expected: Any) -> None:
    assert jax.tree.structure(got) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        if isinstance(b, bool | int | float):
            assert type(a) is type(b)
        else:
            assert isinstance(a, np.ndarray)
        a, b = np.asarray(a), np.asarray(b)
        assert (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())


def save_all(workdir: Path, steps: list[int], **options: Any) -> None:
    with Checkpoints(workdir, **options) as checkpoints:
        for step in steps:
            checkpoints.save(step, make(step), meta={"seed": step})


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with checkpoints 1 and 2; tests copy it."""
    folder = tmp_path_factory.mktemp("two")
    save_all(folder, [1, 2])
    return folder


@pytest.mark.parametrize("async_save", [True, False])
def test_every_kind_of_leaf_round_trips(tmp_path, async_save):
    state = make(5)
    with Checkpoints(tmp_path, async_save=async_save) as checkpoints:
        checkpoints.save(7, state, {}, {"seed": 3, "x": [1.5, "a", None]})
        restored = checkpoints.restore(make(0))
    assert restored.step == 7
    assert restored.meta == {"seed": 3, "x": [1.5, "a", None]}
    assert_same_bits(restored.state, state)


def test_abstract_templates_will_do(two):
    template = jax.eval_shape(lambda: make(0).params)
    template = make(0).replace(params=template)
    restored = Checkpoints(two).restore(template)
    assert_same_bits(restored.state.params, make(2).params)


def test_an_empty_folder_restores_none(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.restore(make()) is None
    assert checkpoints.latest_step() is None
    assert checkpoints.best_step() is None
    assert not (tmp_path / "checkpoints").exists()  # reading leaves no trace


def test_the_state_is_copied_before_save_returns(tmp_path):
    double = jax.jit(lambda x: x * 2, donate_argnums=0)
    with Checkpoints(tmp_path) as checkpoints:
        x = double(jnp.arange(1 << 16, dtype=jnp.float32))
        expected = np.array(x)
        y = expected.copy()
        checkpoints.save(1, {"x": x, "y": y})
        y[:] = -1  # in place
        for _ in range(3):
            x = double(x)  # donated
        restored = checkpoints.restore({"x": expected, "y": expected})
        np.testing.assert_array_equal(restored.state["x"], expected)
        np.testing.assert_array_equal(restored.state["y"], expected)


@pytest.mark.parametrize(
    ("mode", "scores", "best"),
    [
        ("max", [0.1, 0.9, 0.2, 0.3], 2),
        ("min", [0.9, 0.1, 0.2, 0.3], 2),
        ("max", [0.5, 0.9, 0.9, 0.9], 2),  # the earliest of equals
        ("max", [0.5, float("nan"), float("inf"), 0.1], 1),  # failed evaluations are never best
        ("max", [0.5, None, None, None], 1),
    ],
)
def test_keeps_the_last_and_the_best(tmp_path, mode, scores, best):
    options = {"metric": "val/accuracy", "mode": mode}
    with Checkpoints(tmp_path, keep_last=1, keep_best=1, **options) as checkpoints:
        for step, score in enumerate(scores, 1):
            metrics = {} if score is None else {"val/accuracy": np.float32(score), "other": 1}
            checkpoints.save(step, {"x": step}, metrics)
        checkpoints.wait()
        assert checkpoints.steps() == [best, 4]
        assert checkpoints.best_step() == best
        assert checkpoints.latest_step() == 4
        assert checkpoints.restore({"x": 0}, step=best).state == {"x": best}
        assert checkpoints.metrics(best)["other"] == 1


def test_keep_last_counts(tmp_path):
    save_all(tmp_path, [1, 2, 5, 9], keep_last=3)
    assert Checkpoints(tmp_path).steps() == [2, 5, 9]
    assert sorted(os.listdir(tmp_path / "checkpoints")) == ["2", "5", "9"]


def test_the_same_step_is_saved_once(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(3, {"x": 1})
        checkpoints.save(3, {"x": 2})
        assert checkpoints.restore({"x": 0}).state == {"x": 1}
        with pytest.raises(ValueError, match="step 2 comes after step 3"):
            checkpoints.save(2, {"x": 2})
    with Checkpoints(tmp_path) as resumed:
        resumed.restore({"x": 0})
        resumed.save(3, {"x": 3})  # SIGTERM right after resuming: nothing new to save
        assert resumed.restore({"x": 0}).state == {"x": 1}


def test_looking_at_an_older_checkpoint_does_not_turn_time_back(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        for step in (1, 2):
            checkpoints.save(step, {"x": step})
        assert checkpoints.restore({"x": 0}, step=1).state == {"x": 1}
        checkpoints.save(2, {"x": 2})
        checkpoints.save(3, {"x": 3})
    assert sorted(os.listdir(tmp_path / "checkpoints")) == ["2", "3"]


def _flip(path: Path, rng: random.Random) -> None:
    data = bytearray(path.read_bytes())
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    path.write_bytes(data)


DAMAGE = {
    "flip": _flip,
    "cut": lambda path, rng: path.write_bytes(path.read_bytes()[: rng.randrange(8)]),
    "delete": lambda path, rng: path.unlink(),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_to_any_file_falls_back_and_says_so(two, tmp_path, kind, capfd):
    rng = random.Random(kind)
    names = [p.relative_to(two) for p in (two / "checkpoints" / "2").rglob("*") if p.is_file()]
    assert len(names) > 5
    for i, name in enumerate(names):
        workdir = tmp_path / str(i)
        shutil.copytree(two, workdir)
        if (two / name).stat().st_size == 0 and kind != "delete":
            continue
        DAMAGE[kind](workdir / name, rng)
        lines: list[str] = []
        restored = Checkpoints(workdir, log=lines.append).restore(make(0))
        assert restored.step == 1
        assert_same_bits(restored.state, make(1))
        (line,) = lines
        assert "checkpoint 2 is damaged" in line
        assert "falling back to checkpoint 1" in line
    assert capfd.readouterr().err == ""


def test_none_good_is_one_error_that_names_the_folder(two, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(two, workdir)
    for step in (1, 2):
        (workdir / "checkpoints" / str(step) / "manifest.json").unlink()
    with pytest.raises(UserError) as error:
        Checkpoints(workdir).restore(make(0))
    message = str(error.value)
    assert str(workdir / "checkpoints") in message
    assert "checkpoint 2 is damaged (its manifest cannot be read), checkpoint 1" in message
    assert "delete that folder to train from the start" in message
    assert "\n" not in message


def test_a_damaged_step_that_was_asked_for_does_not_fall_back(two, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(two, workdir)
    (workdir / "checkpoints" / "2" / "manifest.json").write_text("{}")
    with pytest.raises(UserError, match="checkpoint 2 is damaged"):
        Checkpoints(workdir).restore(make(0), step=2)
    with pytest.raises(UserError, match=r"no checkpoint 3 in .*known: \[1, 2\]"):
        Checkpoints(workdir).restore(make(0), step=3)


def test_training_on_moves_what_is_not_its_past_aside(two, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(two, workdir)
    (workdir / "checkpoints" / "2" / "manifest.json").unlink()
    lines: list[str] = []
    with Checkpoints(workdir, log=lines.append) as checkpoints:
        assert checkpoints.restore(make(0)).step == 1
        assert checkpoints.steps() == [1, 2]  # restoring alone moves nothing
        checkpoints.save(3, make(3))
        checkpoints.wait()
        assert checkpoints.steps() == [1, 3]
    assert (workdir / "checkpoints" / "aside" / "2").is_dir()
    assert lines[1].startswith("this run resumed from step 1: moved checkpoints [2] to")


def test_a_run_from_the_start_moves_old_checkpoints_aside(two, tmp_path):
    workdir = tmp_path / "run"
    for _ in range(2):  # twice: the second time the names in aside are taken
        shutil.copytree(two, workdir, dirs_exist_ok=True)
        with Checkpoints(workdir, log=lambda line: None) as checkpoints:
            checkpoints.save(1, make(1))
    aside = sorted(os.listdir(workdir / "checkpoints" / "aside"))
    assert aside == ["1", "1-2", "2", "2-2"]


def test_reading_does_not_touch_a_save_under_way(two, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(two, workdir)
    under_way = workdir / "checkpoints" / "3.partial"
    under_way.mkdir()
    Checkpoints(workdir).restore(make(0))
    assert under_way.is_dir()
    with Checkpoints(workdir) as trainer:
        trainer.restore(make(0))
        trainer.save(3, make(3))
    assert not under_way.exists()  # the next trainer clears it
    assert Checkpoints(workdir).latest_step() == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda s: s.params["trunk"].update(kernel=np.zeros((4, 5), np.float32)),
            r"params/trunk/kernel is float32\[4, 3\] there, float32\[4, 5\] here",
        ),
        (
            lambda s: s.params["head"].update(bias=np.zeros(3, np.float32)),
            r"params/head/bias is bfloat16\[3\] there, float32\[3\] here",
        ),
        (
            lambda s: s.params.update(new=np.zeros(2)),
            "params/new is not in the checkpoint",
        ),
        (
            lambda s: s.params.pop("head"),
            "params/head/bias is in the checkpoint but not in this state",
        ),
    ],
)
def test_a_template_that_does_not_fit_names_the_first_leaf(two, change, message):
    template = make(0)
    change(template)
    with pytest.raises(UserError, match=message):
        Checkpoints(two).restore(template)


def test_another_format_is_not_called_damaged(two, tmp_path):
    from mtl_jax.engine import checkpoint_folder

    workdir = tmp_path / "run"
    shutil.copytree(two, workdir)
    path = workdir / "checkpoints" / "2" / "manifest.json"
    manifest = json.loads(path.read_text())
    del manifest["sha256"]
    manifest["format"] = 99
    path.write_text(json.dumps({**manifest, "sha256": checkpoint_folder._digest(manifest)}))
    with pytest.raises(UserError, match="format 99, this version reads 1"):
        Checkpoints(workdir).restore(make(0))


@pytest.mark.parametrize("async_save", [True, False])
def test_a_full_disk_is_one_error_and_keeps_what_there_is(tmp_path, async_save, capfd, caplog):
    small, big = {"x": np.arange(10)}, {"x": np.random.default_rng(0).normal(size=1 << 19)}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    checkpoints = Checkpoints(tmp_path, async_save=async_save)
    checkpoints.save(1, small)
    checkpoints.wait()
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))  # as a disk with 1 MiB left
    try:
        with pytest.raises(UserError) as error:  # noqa: PT012 - either of the two
            checkpoints.save(2, big)
            checkpoints.wait()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    message = str(error.value)
    assert f"checkpoint 2 could not be written to {tmp_path / 'checkpoints'}" in message
    assert "File too large" in message
    assert "resumes from step 1" in message
    assert "\n" not in message
    assert capfd.readouterr().err == caplog.text == ""
    assert os.listdir(tmp_path / "checkpoints") == ["1"]  # no half checkpoint fills the disk
    assert checkpoints.restore(small).step == 1
    checkpoints.save(2, big)  # space was made: the same object goes on
    checkpoints.close()
    assert checkpoints.steps() == [1, 2]


def test_a_failed_save_does_not_hide_the_error_of_the_run(tmp_path):
    (tmp_path / "checkpoints").write_text("not a folder")
    lines: list[str] = []

    def train(fails: bool = False) -> None:
        with Checkpoints(tmp_path, log=lines.append) as checkpoints:
            checkpoints.save(1, make())
            if fails:
                raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        train(fails=True)
    assert "could not be written" in lines[0]
    with pytest.raises(UserError, match="could not be written"):
        train()
    with pytest.raises(UserError, match="cannot read"):
        Checkpoints(tmp_path).steps()


def test_a_read_only_folder_is_one_error(two, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(two, workdir)
    (workdir / "checkpoints").chmod(0o555)
    if os.access(workdir / "checkpoints", os.W_OK):
        pytest.skip("this user may write anywhere")
    checkpoints = Checkpoints(workdir, async_save=False)
    checkpoints.restore(make(0))
    with pytest.raises(UserError, match="Permission denied"):
        checkpoints.save(3, make(3))
    assert checkpoints.steps() == [1, 2]
    (workdir / "checkpoints").chmod(0o755)


def test_keys_and_other_things_are_never_stored(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    with pytest.raises(TypeError, match="a/key is a PRNG key"):
        checkpoints.save(1, {"a": {"key": jax.random.key(0)}})
    with pytest.raises(TypeError, match="name is a str"):
        checkpoints.save(1, {"name": "x"})
    with pytest.raises(TypeError, match="JSON"):
        checkpoints.save(1, {"x": 1}, {}, {"config": object()})
    with pytest.raises(ValueError, match="both called 'a/b'"):
        checkpoints.save(1, {"a": {"b": 1}, "a/b": 2})
    assert checkpoints.restore({"x": 0}) is None


def test_wrong_options_are_refused(tmp_path):
    with pytest.raises(UserError, match="keep_last is 0"):
        Checkpoints(tmp_path, keep_last=0)
    with pytest.raises(UserError, match="unknown mode 'mx'; did you mean 'max'"):
        Checkpoints(tmp_path, mode="mx")
    checkpoints = Checkpoints(tmp_path, metric="val/acc")
    with pytest.raises(UserError, match=r"no metric 'val/acc'.*did you mean 'val/accuracy'"):
        checkpoints.save(1, {"x": 1}, {"val/accuracy": 0.5})

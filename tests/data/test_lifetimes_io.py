"""What is written of a lifetime set comes back bit for bit, and damage is told in one line."""

import dataclasses
import json

import numpy as np
import pytest

from mtl_jax.data import lifetimes_io, manifest, registry
from mtl_jax.data.lifetime_builder import LifetimeBuilder
from mtl_jax.data.lifetimes import SPLITS, Category, LifetimeSet, Numbers, Text
from mtl_jax.data.lifetimes_io import load_lifetimes
from mtl_jax.data.prepare import prepare, verify
from mtl_jax.data.survival.creatives import CONFIGS, generate
from mtl_jax.errors import UserError


class ToyLifetimes(LifetimeBuilder, skip_registration=True):
    ABOUT = "Random lifetimes."
    made: LifetimeSet

    def lifetimes(self, manual_dir):
        self.sources = ["made by a test"]
        return self.made


@dataclasses.dataclass(frozen=True)
class ToySpec(registry.DatasetSpec):
    def builder_class(self):
        return ToyLifetimes


@pytest.fixture
def toy(monkeypatch):
    """Returns a function that makes `toy_lifetimes` this set."""
    spec = ToySpec("toy_lifetimes", "random lifetimes", "nothing")
    monkeypatch.setitem(registry.DATASETS, spec.name, spec)
    return lambda found: monkeypatch.setattr(ToyLifetimes, "made", found, raising=False)


def random_set(rows=53, seed=0):
    """A set that has some of everything, with splits in no order and unknown values."""
    rng = np.random.default_rng(seed)
    time = rng.uniform(0, 50, rows).astype(np.float32)
    event = rng.integers(0, 3, rows).astype(np.int32)
    gap = np.where((event > 0) & (rng.random(rows) < 0.3), 4, 0)
    numbers = rng.lognormal(size=(2, rows)).astype(np.float32)
    numbers[0, ::5] = np.nan
    order = rng.permutation(rows).astype(np.int32)
    parts = dict(zip(SPLITS, np.split(order, [rows // 2, 3 * rows // 4]), strict=True))
    words = rng.integers(0, 4, (rows, 9)).astype(np.int32)
    return LifetimeSet(
        name="toy_lifetimes",
        unit="month",
        causes=("one", "two"),
        event=event,
        time=time,
        upper=(time + gap).astype(np.float32),
        entry=(time * rng.uniform(0, 0.5, rows)).astype(np.float32),
        start=rng.uniform(0, 9, rows).astype(np.float32),
        group=rng.integers(0, 9, rows).astype(np.int32),
        group_name="ward",
        weight=rng.uniform(0.1, 2, rows).astype(np.float32),
        value=rng.normal(size=rows).astype(np.float32),
        numbers=(Numbers("dose", numbers[0], "log"), Numbers("age", numbers[1], "linear")),
        categories=(Category("kind", ("a", "é\n"), rng.integers(-1, 2, rows).astype(np.int32)),),
        texts=(Text("title", words[:, :3]), Text("body", words[:, 3:])),
        words=("", "x", "「y」", '"\\'),
        image=rng.integers(0, 256, (rows, 5, 4, 3)).astype(np.uint8),
        has_image=rng.random(rows) < 0.8,
        history_names=("dose", "pulse"),
        history=rng.normal(size=(rows, 6, 2)).astype(np.float32),
        history_days=rng.integers(0, 7, rows).astype(np.int32),
        vectors={"scan": rng.normal(size=(rows, 3)).astype(np.float32)},
        splits={"second": parts, "first": {s: np.sort(v)[1:] for s, v in parts.items()}},
        path=rng.normal(size=(rows, 8, 2)).astype(np.float32),
        truth={"q": rng.normal(size=rows), "table": np.arange(6, dtype=np.int8).reshape(2, 3)},
    )


def bare_set(rows=53):
    """A set with times only."""
    full = random_set(rows)
    return full._replace(
        numbers=(),
        categories=(),
        texts=(),
        words=(),
        image=np.zeros((rows, 0, 0, 3), np.uint8),
        has_image=np.zeros(rows, bool),
        history_names=(),
        history=np.zeros((rows, 0, 0), np.float32),
        history_days=np.zeros(rows, np.int32),
        vectors={},
        path=np.zeros((rows, 0, 0), np.float32),
        truth={},
    )


def assert_same(one, other, where=""):
    """Equal to the bit, with types, shapes and order."""
    assert type(one) is type(other), where
    if isinstance(one, np.ndarray):
        assert (one.dtype, one.shape) == (other.dtype, other.shape), where
        assert one.tobytes() == other.tobytes(), where
    elif isinstance(one, dict):
        assert list(one) == list(other), where
        for key in one:
            assert_same(one[key], other[key], f"{where}.{key}")
    elif isinstance(one, tuple):
        assert len(one) == len(other), where
        for i, (a, b) in enumerate(zip(one, other, strict=True)):
            assert_same(a, b, f"{where}.{i}")
    else:
        assert one == other, where


@pytest.mark.parametrize("make", [random_set, bare_set])
@pytest.mark.parametrize("piece_bytes", [1 << 28, 1])
def test_a_set_comes_back_to_the_bit(toy, tmp_path, monkeypatch, make, piece_bytes):
    monkeypatch.setattr(lifetimes_io, "BLOCK", 20)
    monkeypatch.setattr(lifetimes_io, "PIECE_BYTES", piece_bytes)
    toy(make())
    found = load_lifetimes("toy_lifetimes", tmp_path)
    assert_same(found, make())
    counts = verify("toy_lifetimes", tmp_path)
    assert counts == ({"rows": 3} if piece_bytes > 1 else {"rows": 1, "rows_1": 1, "rows_2": 1})
    assert_same(load_lifetimes("toy_lifetimes", tmp_path), found)


def test_creatives_come_back_to_the_bit(tmp_path):
    made = generate(CONFIGS["tiny"])
    found = load_lifetimes("creatives/tiny", tmp_path)
    assert found.name == "creatives/tiny"
    assert_same(found._replace(name=made.name), made)


def test_pixels_and_amounts_are_compressed(toy, tmp_path):
    rows = 1000
    toy(bare_set(rows)._replace(image=np.full((rows, 32, 32, 3), 7, np.uint8)))
    folder = prepare("toy_lifetimes", tmp_path)
    assert sum(path.stat().st_size for path in folder.glob("*array_record*")) < rows * 3072 / 10


def test_the_folder_says_what_is_in_it(toy, tmp_path):
    made = random_set()
    toy(made)
    folder = prepare("toy_lifetimes", tmp_path)
    common = json.loads((folder / "lifetimes.json").read_text())
    assert common["sources"] == manifest.read(folder)["sources"] == ["made by a test"]
    rate = (made.event[made.splits["second"]["test"]] > 0).mean()
    assert common["event_rates"]["second"]["test"] == pytest.approx(rate)


def test_a_set_that_breaks_a_rule_is_not_written(toy, tmp_path):
    made = random_set()
    made.entry[7] = made.time[7] + 1
    toy(made)
    with pytest.raises(UserError, match=r"^toy_lifetimes: row 7 has entry"):
        prepare("toy_lifetimes", tmp_path)
    assert not list((tmp_path / "toy_lifetimes").iterdir())


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("name", ["toy_lifetimes-rows", "split-0-train", "truth-1", "lifetimes."])
@pytest.mark.parametrize("harm", [flip, lambda path: path.unlink(), lambda p: p.write_bytes(b"")])
def test_damage_is_told_in_one_line(toy, tmp_path, name, harm):
    toy(random_set(200))
    folder = prepare("toy_lifetimes", tmp_path)
    (path,) = folder.glob(f"{name}*")
    harm(path)
    for read in (verify, load_lifetimes):
        with pytest.raises(UserError) as caught:
            read("toy_lifetimes", tmp_path)
        line = str(caught.value)
        assert "\n" not in line
        assert path.name in line
        assert "delete that folder and run python -m mtl_jax.data prepare toy_lifetimes" in line

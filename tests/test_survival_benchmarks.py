"""The benchmark of survival training computes what it says; nothing is timed."""

from __future__ import annotations

import importlib.util
import pathlib
import sys
from typing import Any

import numpy as np
import pytest

from benchmarks import side_pycox, survival_training, timing
from mtl_jax.errors import UserError

ROWS, HIDDEN, BINS, BATCH = 64, (4, 3), 5, 16
SMALL: dict[str, Any] = {"bins": BINS, "batch": BATCH}


def _loss_in_float64(arrays: dict[str, np.ndarray]) -> float:
    """The network and its loss on the first batch, written out."""
    wide = {name: value.astype(np.float64) for name, value in arrays.items()}
    rows = arrays["first"]

    def dense(x: np.ndarray, name: str) -> np.ndarray:
        return x @ wide[f"params/{name}/kernel"] + wide[f"params/{name}/bias"]

    def gelu(x: np.ndarray) -> np.ndarray:
        return x / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))

    x = dense(gelu(dense(wide["x"][rows], "encoder/hidden")), "encoder/out")
    x = np.concatenate([x, np.ones((len(x), 1))], 1)
    for layer in range(len(HIDDEN)):
        x = dense(x, f"trunk/{layer}")
        x = (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + 1e-6)
        x = gelu(x * wide[f"params/trunk/{layer}/scale"] + wide[f"params/trunk/{layer}/shift"])
    logits = dense(x, "head")
    # Bernoulli trials of the bins up to the row's own, the last of which is its event or none.
    bins, event = arrays["bin"][rows], wide["event"][rows]
    tried = np.arange(BINS)[None] <= bins[:, None]
    hit = (np.arange(BINS)[None] == bins[:, None]) * event[:, None]
    return float((tried * (np.logaddexp(0, logits) - hit * logits)).sum(1).mean())


def test_our_side_trains_the_network_that_it_hands_over(tmp_path: pathlib.Path) -> None:
    ours = survival_training.Ours(tmp_path / "shared.npz", ROWS, HIDDEN, rate=0.0, **SMALL)
    arrays = dict(np.load(tmp_path / "shared.npz"))
    assert arrays["x"].shape == (ROWS, 2 * survival_training.FEATURES)
    assert set(np.unique(arrays["bin"])) <= set(range(BINS))
    assert 0.3 < arrays["event"].mean() < 1
    losses = ours.found["losses"]
    assert losses[0] == pytest.approx(_loss_in_float64(arrays), rel=1e-5)
    assert losses[-1] < losses[0]
    sizes = [value.size for name, value in arrays.items() if name.startswith("params/")]
    assert ours.found["parameters"] == sum(sizes)
    assert int(ours.epoch().step) == len(losses) + ROWS // BATCH


def _program(library: str, what: str, *losses: float, parameters: int = 5) -> Any:
    found = {"losses": losses, "parameters": parameters, "threads": 1}
    return survival_training.Program(library, what, found)


def test_rows_compare_epochs_within_rounds_and_the_same_network_only() -> None:
    programs = [
        _program("mtl_jax", "loop", 1.0, 0.5),
        _program("pycox", "fit", 1.000001, 0.5005),
        _program("pycox", "vanilla", parameters=3),
    ]
    walls = [(4.0, 4.0, 40.0), (8.0, 12.0, 160.0), (2.0, 2.0, 20.0)]
    times = [timing.Timing(tuple((wall, 1.0) for wall in each)) for each in walls]
    rows = survival_training.rows_of(programs, times, ROWS, HIDDEN)
    assert [row["epochs_per_second"] for row in rows] == [250, 83.333, 500]
    assert [row.get("over_ours") for row in rows] == [None, 3.0, 0.5]
    assert (rows[1]["over_ours_low"], rows[1]["over_ours_high"]) == (2.5, 3.5)
    assert rows[1]["first_difference"] == pytest.approx(1e-6, rel=0.01)
    assert "first_difference" not in rows[2]  # another network
    assert set(survival_training.COLUMNS) == set(rows[1]) - {"rounds"}
    programs[1] = _program("pycox", "fit", 1.001, 0.5)
    with pytest.raises(UserError, match="not the same computation"):
        survival_training.rows_of(programs, times, ROWS, HIDDEN)


def test_without_pycox_the_other_side_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    hello = side_pycox.hello()
    assert hello["versions"] == {}
    assert "torch" in hello["missing"]


def test_a_python_that_is_not_there_is_named(tmp_path: pathlib.Path) -> None:
    with pytest.raises(UserError, match=r"--peers .*/python: No such file or directory"):
        survival_training.start_peer(str(tmp_path / "python"))


def test_pycox_computes_the_same() -> None:
    for name in ("torch", "pycox"):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"{name} is not installed")
    peer = survival_training.start_peer(sys.executable)
    try:
        rows = survival_training.measure(peer, ROWS, HIDDEN, rounds=1, seconds=0.0, **SMALL)
    finally:
        peer.close()
    assert [row["what"] for row in rows] == ["loop", *survival_training.THEIRS]
    assert all(row["last_difference"] < 1e-4 for row in rows[1:3])

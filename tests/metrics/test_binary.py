"""Streaming AUC within its bound of the exact one; the rest against float64 numpy."""

from __future__ import annotations

import json
import math
import pathlib

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from hypothesis import strategies as st

from mtl_jax.metrics.base import accumulate, compute, merge, unstack
from mtl_jax.metrics.binary import BROKEN, NUM_BINS, binary_scores, logit_bins
from mtl_jax.metrics.ranking import auc

GOLDEN = json.loads((pathlib.Path(__file__).parent / "golden" / "ranking_golden.json").read_text())[
    "cases"
]
RATES = ["auc", "auc_error_bound", "logloss", "normalised_entropy", "calibration", "positive_rate"]
PAD = 64  # one compiled shape for every ragged part

jitted = jax.jit(binary_scores)
stacked = jax.jit(jax.vmap(binary_scores))


def draw(seed: int, n: int, centre: float = -1.0, spread: float = 1.0):
    """Logits [n] float32, labels drawn from them, a mask with gaps."""
    rng = np.random.default_rng(seed)
    logits = (centre + spread * rng.normal(size=n)).astype(np.float32)
    labels = (rng.random(n) < scipy.special.expit(logits)).astype(np.float32)
    return logits, labels, rng.random(n) < 0.8


def reference(logits, labels, weights) -> dict[str, float]:
    """All but the AUC, in float64."""
    x, y, w = (np.asarray(column, np.float64) for column in (logits, labels, weights))
    p = scipy.special.expit(x)
    rate = np.average(y, weights=w)
    logloss = np.average(np.maximum(x, 0) - x * y + np.log1p(np.exp(-abs(x))), weights=w)
    return {
        "logloss": logloss,
        "normalised_entropy": logloss / -(rate * np.log(rate) + (1 - rate) * np.log(1 - rate)),
        "calibration": (w * p).sum() / (w * y).sum(),
        "positive_rate": rate,
        "count": w.sum(),
    }


def padded(size: int, *columns):
    """Fills up with what would be noticed: NaN logits and impossible labels, of weight 0."""
    fill = np.nan, -1, False
    return [
        np.concatenate([column, np.full(size - len(column), value, column.dtype)])
        for column, value in zip(columns, fill, strict=True)
    ]


def equal(a, b) -> None:
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_array_equal(x, y)


FLOATS = st.floats(width=32, allow_nan=False, allow_subnormal=True)


@hypothesis.given(st.lists(FLOATS | st.floats(-8, 8, width=32), min_size=8, max_size=8))
def test_bins_have_the_order_of_the_logits(values):
    special = [np.inf, -np.inf, 0.0, -0.0, 3.4e38, -3.4e38, 1e-44, -1e-44]
    logits = np.sort(np.asarray(values + special, np.float32))
    bins = np.asarray(jax.jit(logit_bins)(logits))
    assert (np.diff(bins) >= 0).all()
    assert bins.min() > 0
    assert bins.max() < BROKEN
    assert bins.dtype == np.int32
    assert np.unique(bins[logits == 0]).size == 1  # 0 and -0 are one score
    normal = np.abs(logits) >= np.finfo(np.float32).tiny  # others may be flushed to 0
    size = np.clip(np.abs(logits), 2.0**-20, 2.0**12).astype(float)
    exact = (np.sign(logits) * size)[normal]
    a, b = exact[:, None], exact[None]
    apart = b - a > 2.0**-10 * np.minimum(abs(a), abs(b))
    bins = bins[normal]
    assert apart.any()
    assert (bins[:, None] < bins[None])[apart].all()


def test_every_bin_but_two_is_used():
    # The least logit of each bin of the positive ones, and the same of the negative ones.
    least = np.ldexp(1 + np.arange(1024) / 1024, np.arange(-20, 12)[:, None]).reshape(-1)
    logits = np.concatenate([-least, least]).astype(np.float32)
    bins = np.unique(jax.jit(logit_bins)(logits))
    np.testing.assert_array_equal(bins, np.arange(1, NUM_BINS - 1))


def test_nan_has_a_bin_of_its_own():
    nans = np.asarray([0x7FC00000, 0xFFC00000, 0x7F800001, 0xFF800001], np.uint32)
    np.testing.assert_array_equal(logit_bins(jnp.asarray(nans.view(np.float32))), [BROKEN] * 4)
    assert BROKEN == NUM_BINS - 1


@hypothesis.given(
    st.integers(0, 10**6),
    st.sampled_from([(-1.0, 1.0), (0.0, 1e-3), (-4.6, 0.1), (3.0, 0.01), (0.0, 100.0)]),
    st.sampled_from(["mask", "float"]),
)
def test_streaming_auc_is_within_its_bound(seed, where, kind):
    logits, labels, mask = draw(seed, 512, *where)
    labels[:2], mask[:2] = (0, 1), True
    weights = mask
    if kind == "float":
        weights = mask * np.random.default_rng(seed).uniform(0.1, 3, 512).astype(np.float32)
    got = compute(jitted(logits, labels, weights))
    error = abs(got["auc"] - auc(logits, labels, weights))
    assert error <= got["auc_error_bound"] + 1e-6 * (kind == "float") + 1e-12
    assert got["auc_error_bound"] < 0.5


def test_bound_is_reached_by_ties_that_hide_the_order():
    # Each pair differs by less than a bin: the exact AUC is 1, the binned one 1 less the bound.
    logits = np.asarray([1.0, 1.0005, 2.0, 2.001], np.float32)
    got = compute(jitted(jnp.asarray(logits), jnp.asarray([0, 1, 0, 1])))
    exact = auc(logits, [0, 1, 0, 1])
    assert exact - got["auc"] == pytest.approx(got["auc_error_bound"]) == 0.25


def test_scores_that_bins_can_tell_apart_are_exact():
    logits, labels, mask = draw(0, 4000)
    logits = np.asarray(jnp.asarray(logits, jnp.bfloat16), np.float32)
    got = compute(jitted(logits, labels, mask))
    assert got["auc"] == pytest.approx(auc(logits, labels, mask), abs=1e-14)
    assert got["auc_error_bound"] > 0  # the ties are real, but the bound cannot know


def test_rare_events_keep_their_order():
    rng = np.random.default_rng(0)
    n, z = 100_000, rng.normal(size=100_000)
    logits = (-4.4 + 0.08 * z).astype(np.float32)  # all predictions between .9 and 1.7 %
    labels = rng.random(n) < scipy.special.expit(-4.4 + z)
    exact = auc(logits, labels)
    got = compute(jitted(logits, labels))
    assert exact > 0.7
    assert abs(got["auc"] - exact) < 2e-4
    assert abs(got["auc"] - exact) <= got["auc_error_bound"] < 0.01
    # Why the bins are not equal intervals of the probability.
    binned = np.floor(scipy.special.expit(logits.astype(float)) * 200)
    assert exact - auc(binned, labels) > 0.2


@pytest.mark.parametrize("kind", ["all", "mask", "int", "float"])
@pytest.mark.parametrize("label_type", [np.float32, np.int32, bool])
def test_equals_the_float64_reference(kind, label_type):
    logits, labels, mask = draw(3, 500, -2.0, 2.0)
    weights = {
        "all": np.ones(500),
        "mask": mask,
        "int": 3 * mask.astype(np.int32),
        "float": mask * np.random.default_rng(0).uniform(0, 2, 500).astype(np.float32),
    }[kind]
    state = jitted(
        jnp.asarray(logits),
        jnp.asarray(labels.astype(label_type)),
        None if kind == "all" else jnp.asarray(weights),
    )
    sums = jnp.float32 if kind == "float" else jnp.int32
    assert state.counts.dtype == state.count.dtype == state.positives.dtype == sums
    np.testing.assert_allclose(
        np.asarray(state.counts, np.float64).sum(0),
        [state.count - state.positives, state.positives],
        rtol=1e-5,
    )
    got = compute(state)
    expected = reference(logits, labels, weights)
    assert {name: got[name] for name in expected} == pytest.approx(expected, rel=1e-5)
    assert list(got) == [*RATES, "count"]


@hypothesis.given(st.integers(0, 10**6), st.integers(1, 200))
def test_any_cut_into_padded_batches_equals_the_whole(seed, n):
    logits, labels, mask = draw(seed, n)
    whole = accumulate(None, jitted(*padded(200, logits, labels, mask)))
    rng, start, total = np.random.default_rng(seed), 0, None
    while start < n:
        part = slice(start, start + int(rng.integers(1, PAD + 1)))
        total = accumulate(total, jitted(*padded(PAD, logits[part], labels[part], mask[part])))
        start = part.stop
    equal(total[:3], whole[:3])  # the counts, exactly
    assert total.counts.dtype == np.int64
    assert compute(total) == pytest.approx(compute(whole), rel=1e-5, nan_ok=True)
    assert compute(total)["auc"] == pytest.approx(compute(whole)["auc"], abs=0, nan_ok=True)


def test_merging_commutes():
    a, b = (jitted(*draw(seed, PAD)) for seed in (0, 1))
    equal(merge(a, b), merge(b, a))
    assert int(merge(a, b).count) == int(a.count) + int(b.count)


def test_tasks_under_vmap_equal_a_loop():
    rows = [draw(seed, 100, centre) for seed, centre in enumerate((-3.0, 0.0, 1.0))]
    columns = [np.stack(column) for column in zip(*rows, strict=True)]  # [T, B] each
    states = unstack(stacked(*columns), ["click", "cart", "buy"])
    for state, row in zip(states.values(), rows, strict=True):
        equal(state[:3], jitted(*row)[:3])
        assert compute(state) == pytest.approx(compute(jitted(*row)), rel=1e-6)
    assert "buy/auc" in compute(states)


def test_devices_add_up(run_python):
    code = """
import jax, jax.numpy as jnp, numpy as np
from mtl_jax.engine import parallel
from mtl_jax.metrics.binary import binary_scores
assert jax.device_count() == 4
rng = np.random.default_rng(0)
batch = {
    "logits": rng.normal(size=(32, 3)).astype(np.float32),
    "labels": rng.integers(0, 2, (32, 3)),
    "mask": rng.random((32, 3)) < 0.7,
}
def step(carry, resident, b):
    states = jax.vmap(binary_scores, 1)(b["logits"], b["labels"], b["mask"])
    return (), parallel.psum(states)
whole = step(0, 0, jax.tree.map(jnp.asarray, batch))[1]
for backend in ("pmap", "shard_map"):
    call = parallel.DataParallel(step, backend, donate=False)
    _, parts = call(jnp.zeros(()), jnp.zeros(()), batch)
    for x, y in zip(parts, whole, strict=True):
        assert x.dtype == y.dtype
        np.testing.assert_allclose(x, y, rtol=1e-6)
    print("equal", int(parts.count.sum()) == batch["mask"].sum())
"""
    done = run_python("-c", code, devices=4)
    assert done.stdout == "equal True\n" * 2, done.stderr[-2000:]


@pytest.mark.parametrize("label", [0, 1])
def test_a_missing_class_is_nan_and_not_half(label):
    logits = jnp.asarray([-1.0, 0.5, 2.0])
    got = compute(jitted(logits, jnp.full(3, label)))
    for name in ("auc", "auc_error_bound", "normalised_entropy"):
        assert math.isnan(got[name])
    assert got["positive_rate"] == label
    assert math.isfinite(got["logloss"])
    assert math.isnan(got["calibration"]) == (label == 0)


def test_nothing_counted_is_nan_with_count_0():
    got = compute(jitted(*draw(0, PAD)[:2], np.zeros(PAD, bool)))
    assert got.pop("count") == 0
    assert all(math.isnan(value) for value in got.values())


@pytest.mark.parametrize(
    ("logit", "label"), [(np.nan, 0.0), (-np.nan, 1.0), (1.0, 0.5), (1.0, -1.0), (1.0, np.nan)]
)
def test_what_cannot_be_scored_is_not_hidden(logit, label):
    logits, labels, _ = draw(0, PAD)
    logits[5], labels[5] = logit, label
    total = accumulate(None, jitted(*draw(1, PAD)))
    before = float(total.count)
    got = compute(accumulate(total, jitted(logits, labels, np.ones(PAD, bool))))
    assert got.pop("count") == before + PAD
    assert all(math.isnan(value) for value in got.values())


def test_extreme_logits():
    logits = jnp.asarray([1e4, -1e4, jnp.inf, -jnp.inf])
    right = compute(jitted(logits, jnp.asarray([1, 0, 1, 0])))
    assert (right["auc"], right["logloss"], right["calibration"]) == (1, 0, 1)
    wrong = compute(jitted(logits[:2], jnp.asarray([0, 1])))
    assert (wrong["auc"], wrong["logloss"]) == (0, 1e4)
    infinite = compute(jitted(logits, jnp.asarray([0, 1, 0, 1])))
    assert infinite["logloss"] == math.inf
    assert infinite["auc"] == 0


def test_the_base_rate_is_calibrated_and_knows_nothing_else():
    labels = np.zeros(1000, np.float32)
    labels[:30] = 1
    got = compute(jitted(np.full(1000, scipy.special.logit(0.03), np.float32), labels))
    assert got["auc"] == 0.5
    assert got["auc_error_bound"] == 0.5
    assert got["calibration"] == pytest.approx(1, rel=1e-5)
    assert got["normalised_entropy"] == pytest.approx(1, rel=1e-5)
    twice = compute(jitted(np.full(1000, scipy.special.logit(0.06), np.float32), labels))
    assert twice["calibration"] == pytest.approx(2, rel=1e-5)
    assert twice["normalised_entropy"] > 1


def test_half_precision_logits_are_summed_in_float32():
    logits = jnp.full(4096, -3.0, jnp.bfloat16)
    state = jitted(logits, jnp.arange(4096) < 100)
    assert state.loss.dtype == state.predicted.dtype == jnp.float32
    expected = reference(np.full(4096, -3.0), np.arange(4096) < 100, np.ones(4096))
    got = compute(state)
    assert {name: got[name] for name in expected} == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("case", GOLDEN, ids=range(len(GOLDEN)))
def test_equals_scikit_learn(case):
    logits = jnp.asarray(case["logits"], jnp.float32)
    for prefix, weights in (("", None), ("weighted_", case["weights"])):
        given = None if weights is None else np.asarray(weights, np.float32)
        got = compute(jitted(logits, jnp.asarray(case["labels"]), given))
        assert got["logloss"] == pytest.approx(case[f"{prefix}logloss"], rel=1e-6)
        assert abs(got["auc"] - case[f"{prefix}auc"]) <= got["auc_error_bound"] + 1e-6


def test_wrong_shapes_are_refused():
    with pytest.raises(ValueError, match=r"logits \(4,\) and labels \(3,\)"):
        binary_scores(jnp.zeros(4), jnp.zeros(3))
    with pytest.raises(ValueError, match=r"both be \[B\]"):
        binary_scores(jnp.zeros((4, 2)), jnp.zeros((4, 2)))
    with pytest.raises(ValueError, match="leading axes"):
        binary_scores(jnp.zeros(4), jnp.zeros(4), jnp.ones(3))

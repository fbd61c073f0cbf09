"""Histories: features by their definition, and encodings that never look ahead."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtl_jax.systems.ad_survival.history import (
    KINDS,
    HistorySetting,
    at_days,
    encode_history,
    feature_names,
    fit_history,
    history_features,
    init_history,
    ratios,
)

NAMES = ("impressions", "clicks", "conversions", "cost")


def logs(rows=200, days=6, seed=0):
    """Daily counts of rows whose rates differ, and the log click rate of each."""
    rng = np.random.default_rng(seed)
    rate = 0.02 * np.exp(0.4 * rng.normal(size=rows))
    shown = rng.poisson(500, (rows, days))
    clicks = rng.binomial(shown, rate[:, None])
    conversions = rng.binomial(clicks, 0.1)
    cost = shown * 0.002 * np.exp(0.3 * rng.normal(size=(rows, 1)))
    return np.stack([shown, clicks, conversions, cost], -1).astype(np.float32), rate


@pytest.fixture(scope="module")
def scale():
    amounts, _ = logs()
    return fit_history(amounts, np.full(200, 6), NAMES)


def test_features_are_those_of_their_definition(scale):
    amounts, _ = logs(4, 5, seed=1)
    found = history_features(np, amounts.astype(np.float64), scale)
    names = feature_names(NAMES)
    assert found.shape == (4, 5, len(names)) == (4, 5, 16)
    pairs = [f"{NAMES[x]} / {NAMES[y]}" for x, y, _ in ratios(NAMES)]
    priors = dict(zip(pairs, scale.priors, strict=True))
    for k, name in enumerate(names):
        total, what = name.startswith("log total"), name.replace("log total ", "log ")[4:]
        for row in range(4):
            for day in range(5):
                days = amounts[row, : day + 1] if total else amounts[row, day : day + 1]
                sums = dict(zip(NAMES, days.astype(np.float64).sum(0), strict=True))
                if what in priors:
                    x, y = what.split(" / ")
                    a, b = priors[what]
                    raw = np.log((sums[x] + a) / (sums[y] + b))
                else:
                    raw = np.log(1 + sums[what])
                expected = np.clip((raw - scale.mean[k]) / scale.sd[k], -5, 5)
                assert found[row, day, k] == pytest.approx(expected, abs=1e-9)
    on_device = history_features(jnp, jnp.asarray(amounts), scale)
    np.testing.assert_allclose(on_device, found, atol=1e-3)


def test_features_of_training_rows_have_mean_0_and_deviation_1():
    amounts, _ = logs()
    days = np.random.default_rng(0).integers(1, 7, 200)
    recorded = np.arange(6) < days[:, None]
    spoilt = np.where(recorded[..., None], amounts, 1e6)
    scale = fit_history(spoilt, days, NAMES)
    # What is not on record is not looked at.
    assert scale == fit_history(np.where(recorded[..., None], amounts, 0), days, NAMES)
    made = history_features(np, amounts.astype(np.float64), scale)[recorded]
    np.testing.assert_allclose(made.mean(0), 0, atol=0.02)
    np.testing.assert_allclose(made.std(0), 1, atol=0.05)


def test_the_rate_so_far_is_smoothed_towards_the_mean(scale):
    amounts, rate = logs(2000, 6, seed=3)
    column = feature_names(NAMES).index("log total clicks / impressions")
    a, b = scale.priors[0]
    assert a / b == pytest.approx(0.02 * np.exp(0.08), rel=0.1)
    made = history_features(np, amounts.astype(np.float64), scale)[..., column]
    raw = made * scale.sd[column] + scale.mean[column]
    # Empirical Bayes: no smoothing at all, or ten times as much, is further from the truth.
    counts = np.cumsum(amounts.astype(np.float64), 1)[:, 0]

    def error(factor):
        x, y = counts[:, 1] + factor * a, counts[:, 0] + factor * b
        return np.abs(np.log(x / y) - np.log(rate)).mean()

    assert np.abs(raw[:, 0] - np.log(rate)).mean() == pytest.approx(error(1), rel=1e-6)
    assert error(1) < min(error(0.05), error(10))
    # Nothing shown: the mean.
    empty = history_features(np, np.zeros((1, 2, 4)), scale)[..., column]
    np.testing.assert_allclose(empty * scale.sd[column] + scale.mean[column], np.log(a / b))


@pytest.mark.parametrize(
    ("names", "value"),
    [
        (NAMES, 0.0),
        (NAMES, 7.0),
        (("clicks", "impressions"), 0.0),
        (("temperature", "refunds"), -3.0),
    ],
)
def test_constant_and_odd_amounts_stay_finite(names, value):
    amounts = np.full((3, 4, len(names)), value)
    scale = fit_history(amounts, np.array([4, 2, 0]), names)
    other = amounts.copy()
    other[0] = 1e6
    for each in (amounts, other):
        assert np.isfinite(history_features(np, each, scale)).all()
    np.testing.assert_allclose(history_features(np, amounts, scale)[:, 0, : len(names)], 0)
    none = fit_history(amounts[:0], np.zeros(0, int), names)
    assert np.isfinite(history_features(np, other, none)).all()


def test_rounding_of_amounts_is_no_signal():
    # Cost is a fixed share of impressions, but for its rounding.
    amounts, _ = logs(50)
    amounts[..., 3] = np.float32(0.0021) * amounts[..., 0]
    scale = fit_history(amounts, np.full(50, 6), NAMES)
    column = feature_names(NAMES).index("log total cost / impressions")
    assert np.abs(history_features(np, amounts, scale)[..., column]).max() < 1e-3


def test_more_clicks_than_impressions_are_no_error():
    amounts = np.ones((5, 3, 2))
    amounts[..., 1] = np.arange(5)[:, None]
    scale = fit_history(amounts, np.full(5, 3), ("Impressions", "Clicks"))
    assert len(scale.priors) == 1
    assert np.isfinite(history_features(np, amounts, scale)).all()


def test_names_decide_which_ratios_there_are():
    assert ratios(("spend", "visits")) == ()
    assert ratios(("clicks", "cost", "impressions")) == ((0, 2, True), (1, 2, False))
    assert feature_names(("visits",)) == ("log visits", "log total visits")


def encoder(kind, seed=0, inputs=3):
    setting = HistorySetting(inputs=inputs, hidden=4, out=2, kind=kind, rate=0.5)
    params = init_history(jax.random.key(seed), setting)
    return {**params, "nothing": jnp.array([1.0, -2.0])}, setting


def features(rows=5, days=20, seed=0):
    return np.random.default_rng(seed).normal(size=(rows, days, 3)).astype(np.float32)


@pytest.mark.parametrize("kind", KINDS)
def test_days_after_a_landmark_never_change_its_encoding(kind):
    params, setting = encoder(kind)
    days = np.array([[0, 1, 4, 20], [2, 5, 9, 19], [3, 3, 0, 1], [7, 8, 10, 12], [20, 20, 20, 20]])
    x = features()
    encode = jax.jit(lambda x: encode_history(params, x, days, setting))
    before = np.asarray(encode(x))
    moved = np.zeros(days.shape, bool)
    for m in range(days.shape[1]):
        later = np.arange(20) >= days[:, m, None]
        after = np.asarray(encode(np.where(later[..., None], 3.0, x)))
        np.testing.assert_array_equal(after[:, m], before[:, m])
        last = np.arange(20) == days[:, m, None] - 1
        changed = np.asarray(encode(np.where(last[..., None], 3.0, x))) != before
        moved[:, m] = changed[:, m].any(-1)
    # The landmark's own day does change it.
    np.testing.assert_array_equal(moved, days > 0)


@pytest.mark.parametrize("kind", KINDS)
def test_one_pass_gives_what_each_landmark_alone_gives(kind):
    params, setting = encoder(kind)
    x, days = features(), np.array([[1, 6, 13]] * 5)
    together = encode_history(params, x, days, setting)
    for m, day in enumerate(days[0]):
        alone = encode_history(params, x[:, :day], days[:, m : m + 1], setting)
        np.testing.assert_allclose(together[:, m : m + 1], alone, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_all_earlier_days_reach_the_encoding(kind):
    params, setting = encoder(kind)
    x, days = features(1, 15), np.array([[15]])
    gradient = jax.grad(lambda x: encode_history(params, x, days, setting).sum())(jnp.asarray(x))
    assert float(jnp.abs(gradient).max(-1).min()) > 0


@pytest.mark.parametrize("kind", KINDS)
def test_no_day_is_a_vector_of_its_own(kind):
    params, setting = encoder(kind)
    x, days = features(), np.zeros((5, 2), int)
    made = encode_history(params, x, days, setting)
    np.testing.assert_array_equal(made, np.broadcast_to([1.0, -2.0], (5, 2, 2)))
    np.testing.assert_array_equal(encode_history(params, x[:, :0], days + 3, setting), made)
    assert encode_history(params, x, days[:, :0], setting).shape == (5, 0, 2)
    grads = jax.grad(lambda p: encode_history(p, x, days, setting).sum())(params)
    np.testing.assert_array_equal(grads.pop("nothing"), [10, 10])
    assert not any(leaf.any() for leaf in jax.tree.leaves(grads))
    # More days than there are: the last one.
    np.testing.assert_array_equal(
        encode_history(params, x, days + 99, setting), encode_history(params, x, days + 20, setting)
    )


@pytest.mark.parametrize("kind", KINDS)
def test_every_parameter_is_trained(kind):
    params, setting = encoder(kind)
    days = np.array([[0, 3, 20]] * 5)

    def loss(params):
        return jnp.square(encode_history(params, features(), days, setting)).sum()

    for leaf in jax.tree.leaves(jax.grad(loss)(params)):
        assert bool(jnp.isfinite(leaf).all())
        assert float(jnp.abs(leaf).max()) > 0


def test_dropout_goes_with_the_key_of_the_example():
    params, setting = encoder("conv")
    x, days, keys = features(), np.array([[1, 9]] * 5), jax.random.split(jax.random.key(5), 5)
    order = np.array([2, 0, 3, 1, 4])
    dropped = encode_history(params, x, days, setting, keys)
    again = encode_history(params, x[order], days[order], setting, keys[order])
    np.testing.assert_allclose(dropped[order], again, rtol=1e-5, atol=1e-6)
    assert float(jnp.abs(dropped - encode_history(params, x, days, setting)).max()) > 1e-3


def test_what_is_known_without_a_network_is_that_of_the_last_day():
    x, days = features(), np.array([[0, 1, 20]] * 5)
    found = np.asarray(at_days(jnp.asarray(x), days))
    assert not found[:, 0].any()
    np.testing.assert_array_equal(found[:, 1], x[:, 0])
    np.testing.assert_array_equal(found[:, 2], x[:, 19])
    assert at_days(jnp.asarray(x[:, :0]), days).shape == (5, 3, 3)


def test_shapes_that_do_not_fit_are_refused():
    params, setting = encoder("conv")
    with pytest.raises(ValueError, match="kind must be"):
        init_history(jax.random.key(0), setting._replace(kind="gru"))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="features must be"):
        encode_history(params, features()[..., :2], np.zeros((5, 1), int), setting)
    with pytest.raises(ValueError, match="days must be"):
        encode_history(params, features(), np.zeros(5, int), setting)
    scale = fit_history(np.ones((2, 3, 1)), np.full(2, 3), ("visits",))
    with pytest.raises(ValueError, match="amounts must be"):
        history_features(np, np.ones((2, 3, 2)), scale)

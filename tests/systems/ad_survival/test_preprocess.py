"""What is fitted comes from training rows alone, and is what it says, also of odd columns."""

import json

import numpy as np
import pytest

from mtl_jax.data.lifetimes import MISSING, Category, Numbers
from mtl_jax.data.survival.creatives import CONFIGS, generate
from mtl_jax.errors import UserError
from mtl_jax.systems.ad_survival.preprocess import apply, fit, from_dict, to_dict

ROWS = 300


@pytest.fixture(scope="module")
def creatives():
    found = generate(CONFIGS["tiny"])
    vectors = np.random.default_rng(0).normal(3, 2, (ROWS, 4)).astype(np.float32)
    return found._replace(vectors={"made": vectors})


@pytest.fixture(scope="module")
def train(creatives):
    return creatives.splits["random"]["train"]


def with_numbers(found, **columns):
    numbers = [Numbers(name, np.asarray(v, np.float32), "linear") for name, v in columns.items()]
    return found._replace(numbers=tuple(numbers))


def test_other_rows_change_nothing_that_is_fitted(creatives, train):
    others = np.setdiff1d(np.arange(ROWS), train)

    def spoilt(values, by):
        values = values.copy()
        values[others] = by
        return values

    changed = creatives._replace(
        numbers=tuple(n._replace(values=spoilt(n.values, 1e6)) for n in creatives.numbers),
        categories=tuple(c._replace(codes=spoilt(c.codes, 0)) for c in creatives.categories),
        history=spoilt(creatives.history, 77.0),
        history_days=spoilt(creatives.history_days, 120),
        vectors={"made": spoilt(creatives.vectors["made"], -5.0)},
    )
    assert fit(changed, train) == fit(creatives, train)
    a, b = (apply(fit(each, train, days=5), each, days=5) for each in (creatives, changed))
    for name in a:
        np.testing.assert_array_equal(a[name][train], b[name][train], err_msg=name)


def test_numbers_are_centred_by_quantiles_and_cut(creatives, train):
    rng = np.random.default_rng(1)
    values = rng.normal(50, 7, ROWS)
    values[train[0]], values[train[1]] = np.nan, 1e9
    found = with_numbers(creatives, number=values)
    made = apply(fit(found, train), found)
    column = made["numbers"][:, 0]
    assert column[train[0]] == 0
    assert column[train[1]] == 5
    np.testing.assert_array_equal(made["missing"][:, 0], np.isnan(values))
    rest = column[train[2:]]
    low, middle, high = np.quantile(rest, (0.25, 0.5, 0.75))
    assert abs(middle) < 0.02
    assert abs(high - low - 1.349) < 0.05
    assert np.abs(made["numbers"]).max() <= 5


def test_the_unit_of_a_number_does_not_matter(creatives, train):
    values = np.random.default_rng(1).normal(50, 7, ROWS).astype(np.float32)
    found = with_numbers(creatives, plain=values, tiny=values * np.float32(2.0**-60))
    made = apply(fit(found, train), found)["numbers"]
    np.testing.assert_allclose(made[:, 0], made[:, 1], rtol=1e-6)
    assert np.ptp(made[:, 0]) > 1


def test_a_log_scale_makes_ratios_into_differences(creatives, train):
    made = apply(fit(creatives, train), creatives)
    (own,) = [n for n in fit(creatives, train).numbers if n.name == "audience"]
    place = [n.name for n in creatives.numbers].index("audience")
    raw = creatives.numbers[place].values.astype(np.float64)
    inside = np.abs(made["numbers"][:, place]) < 5
    expected = (np.log1p(raw) - own.centre) / own.scale
    np.testing.assert_allclose(made["numbers"][inside, place], expected[inside], rtol=1e-5)


def test_columns_without_variation_or_values_stay_finite(creatives, train):
    mostly = np.zeros(ROWS)
    mostly[train[:5]] = [1, 2, 3, 4, 5]
    found = with_numbers(
        creatives,
        constant=np.full(ROWS, 0.1),
        absent=np.full(ROWS, np.nan),
        mostly=mostly,
        late=np.where(np.isin(np.arange(ROWS), train), np.nan, 3.0),
    )
    fitted = fit(found, train)
    made = apply(fitted, found)
    assert np.isfinite(made["numbers"]).all()
    assert not made["numbers"][:, 0].any()
    assert not made["numbers"][:, 1].any()
    assert made["missing"][:, 1].all()
    # Its interquartile range is 0, its standard deviation is not.
    assert fitted.numbers[2].scale == pytest.approx(mostly[train].std())
    assert (made["numbers"][train[:5], 2] > 0).all()
    # Never seen in training: as it is.
    assert fitted.numbers[3][2:] == (0.0, 1.0)
    np.testing.assert_array_equal(made["missing"][train, 3], 1)


def test_rare_levels_share_a_code_and_missing_has_its_own(creatives, train):
    codes = np.full(ROWS, 2, np.int32)
    codes[train[:20]] = 0
    codes[train[20:23]] = 1
    codes[train[23]] = MISSING
    found = creatives._replace(categories=(Category("kind", ("a", "b", "c", "never"), codes),))
    fitted = fit(found, train, min_count=4)
    assert fitted.categories[0].kept == ("a", "c")
    made = apply(fitted, found)["codes"][:, 0]
    assert set(made[train[:20]]) == {0}
    assert set(made[train[20:23]]) == {2}
    assert made[train[23]] == MISSING
    assert set(made[train[24:]]) == {1}
    assert fit(found, train, min_count=3).categories[0].kept == ("a", "b", "c")


def test_levels_are_known_by_name_in_another_set(creatives, train):
    fitted = fit(creatives, train)
    genre = creatives.categories[0]
    turned = genre._replace(
        levels=("new", *genre.levels[::-1]),
        codes=(len(genre.levels) - genre.codes).astype(np.int32),
    )
    other = creatives._replace(categories=(turned, *creatives.categories[1:]))
    np.testing.assert_array_equal(apply(fitted, other)["codes"], apply(fitted, creatives)["codes"])
    unknown = creatives._replace(
        categories=(turned._replace(codes=0 * turned.codes), *creatives.categories[1:])
    )
    assert set(apply(fitted, unknown)["codes"][:, 0]) == {len(fitted.categories[0].kept)}


def test_vectors_are_centred_and_scaled_as_a_whole(creatives, train):
    made = apply(fit(creatives, train), creatives)["vectors/made"][train].astype(np.float64)
    np.testing.assert_allclose(made.mean(0), 0, atol=1e-5)
    assert np.square(made).mean() == pytest.approx(1, rel=1e-5)
    # Zeros stand for none.
    holes = creatives.vectors["made"].copy()
    holes[train[:30]] = 0
    found = creatives._replace(vectors={"made": holes})
    fitted = fit(found, train)
    assert fitted.vectors == fit(creatives, train[30:]).vectors
    again = apply(fitted, found)["vectors/made"]
    assert not again[train[:30]].any()
    assert again[train[30:]].any(1).all()
    assert not apply(fit(found, train[:30]), found)["vectors/made"][train[:30]].any()
    constant = creatives._replace(vectors={"made": np.full((ROWS, 4), 0.3, np.float32)})
    assert not apply(fit(constant, train), constant)["vectors/made"].any()


def test_history_is_cut_to_the_days_asked_for(creatives, train):
    fitted = fit(creatives, train, days=3)
    made = apply(fitted, creatives, days=3)
    assert made["history"].shape[:2] == (ROWS, 3)
    np.testing.assert_array_equal(made["history_days"], np.minimum(creatives.history_days, 3))
    # More days change nothing of the first ones.
    longer = apply(fitted, creatives, days=7)["history"]
    np.testing.assert_array_equal(longer[:, :3], made["history"])
    seen = made["history"][train][np.arange(3) < made["history_days"][train, None]]
    np.testing.assert_allclose(seen.mean(0), 0, atol=0.02)
    later = creatives.history.copy()
    later[:, 3:] = 1e5
    assert fit(creatives._replace(history=later), train, days=3) == fitted
    none = creatives._replace(history_names=(), history=np.zeros((ROWS, 0, 0), np.float32))
    assert "history" not in apply(fit(none, train), none)


def test_json_brings_back_what_was_fitted(creatives, train):
    fitted = fit(creatives, train, days=5)
    again = from_dict(json.loads(json.dumps(to_dict(fitted))))
    assert again == fitted
    without = fitted._replace(history=None, vectors=(), categories=())
    assert from_dict(json.loads(json.dumps(to_dict(without)))) == without
    with pytest.raises(UserError, match="damaged"):
        from_dict({"numbers": []})


def test_a_set_with_other_columns_is_told_apart(creatives, train):
    fitted = fit(creatives, train)
    for changed, message in (
        ({"numbers": creatives.numbers[1:]}, "no number 'bid'.*has audience, budget, target_cpa"),
        ({"categories": ()}, "no category 'genre'.*has none"),
        ({"vectors": {}}, "no vectors 'made'"),
        ({"vectors": {"made": np.zeros((ROWS, 2), np.float32)}}, "have 2 numbers.*with 4"),
        ({"history_names": ("a", "b", "c", "d")}, "a, b, c, d; the run was trained with imp"),
    ):
        with pytest.raises(UserError, match=message):
            apply(fitted, creatives._replace(**changed))
    with pytest.raises(UserError, match="no training row"):
        fit(creatives, train[:0])
    negative = creatives.numbers[0]._replace(values=-np.ones(ROWS, np.float32))
    with pytest.raises(UserError, match="row 0 has bid -1; on a log scale"):
        apply(fitted, creatives._replace(numbers=(negative, *creatives.numbers[1:])))

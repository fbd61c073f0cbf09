import hashlib

import numpy as np
import pytest

from mtl_jax.data.registry import DATASETS
from mtl_jax.data.survival import creatives_delivery as delivery
from mtl_jax.data.survival.creatives import CONFIGS, FAITHFUL, PER_ADVERTISER, generate
from mtl_jax.data.survival.creatives_world import (
    CAUSES,
    DAYS,
    FATIGUE,
    LATENTS,
    QUALITY,
    true_hazards,
)
from mtl_jax.errors import UserError

MIDDLE = FAITHFUL._replace(creatives=6000)
GOLDEN = "f9f1db5a7fb2edba"


@pytest.fixture(scope="module")
def middle():
    return generate(MIDDLE, seed=2)


@pytest.fixture(scope="module")
def feedback():
    return generate(FAITHFUL._replace(creatives=3000, feedback=True), seed=4)


def test_shares_of_the_faithful_preset(middle):
    stop = middle.truth["stop_day"]
    for share, want in (
        ((middle.event > 0).mean(), 0.86),
        ((stop < 10).mean(), 0.54),
        ((stop <= 3).mean(), 0.44),
        ((stop > DAYS).mean(), 0.07),
        ((stop > 1).mean(), 0.70),
        ((stop > 10).mean(), 0.43),
    ):
        error = np.sqrt(want * (1 - want) * (1 / len(stop) + 1 / 40_000))
        assert abs(share - want) < 3 * error + 0.005  # They are given to two digits.


def test_latents_are_standardised_and_do_not_tell_of_each_other(middle):
    latents = np.stack([middle.truth[name] for name in LATENTS]).astype(float)
    campaigns = len(np.unique(middle.group))
    for name, values in zip(LATENTS, latents, strict=True):
        known = name in ("a_t", "a_i", "c", "f_t", "f_i", "f_c", "f_n")
        rows = campaigns if name == "b" else len(values)
        assert abs(values.mean()) < (1e-5 if known else 4 / np.sqrt(rows))
        assert abs(values.var() - 1) < (1e-5 if known else 5 * np.sqrt(2 / rows))
    correlation = np.corrcoef(latents) - np.eye(len(LATENTS))
    # c and f_c are made of campaigns' genres, as b is of campaigns.
    assert np.abs(correlation).max() < 4.5 / np.sqrt(campaigns)
    free = [LATENTS.index(name) for name in ("a_t", "a_i", "x", "e", "f_t", "f_i", "f_n")]
    assert np.abs(correlation[free]).max() < 4.5 / np.sqrt(len(middle.time))


def test_quality_and_fatigue_are_the_weighted_sums(middle):
    truth = middle.truth
    q = 0.55 * truth["a_t"] + 0.55 * truth["a_i"] + 0.45 * truth["c"] + 0.40 * truth["x"]
    q = q + 0.35 * truth["b"] + 0.60 * truth["e"]
    f = 0.55 * truth["f_t"] + 0.55 * truth["f_i"] + 0.40 * truth["f_c"] + 0.50 * truth["f_n"]
    np.testing.assert_allclose(truth["q"], q, atol=1e-5)
    np.testing.assert_allclose(truth["f"], f - 0.25 * q, atol=1e-5)
    assert sum(w**2 for w in QUALITY.values()) == pytest.approx(1.45)
    assert sum(w**2 for w in FATIGUE.values()) == pytest.approx(1.015)


def formula_hazards(truth, row):
    """Total hazard of each day and the chance of each cause, straight from the definition."""
    a0, a1, b0, b1 = truth["hazard"][row]
    q, f = float(truth["q"][row]), float(truth["f"][row])
    found = np.zeros((DAYS, 3))
    for t in range(1, DAYS + 1):
        cut = np.exp(-(t - 1) / 4) / (1 + np.exp(a1 * q - a0))
        wear = 1 / (1 + np.exp(-(b0 + b1 * f + 1.1 * np.log(max(t - 6, 1))))) if t >= 8 else 0.0
        causes = np.array([cut, wear, 0.002])
        found[t - 1] = (1 - (1 - causes).prod()) * causes / causes.sum()
    return found


def test_hazards_are_those_of_the_definition(middle):
    rows = np.arange(0, len(middle.time), 601)
    hazards = true_hazards(middle, rows)
    for row, found in zip(rows, hazards, strict=True):
        np.testing.assert_allclose(found, formula_hazards(middle.truth, row), rtol=1e-9)


@pytest.mark.parametrize("which", ["middle", "feedback"])
def test_stops_come_at_the_true_hazards_by_day_and_cause(which, request):
    found = request.getfixturevalue(which)
    hazards = true_hazards(found)
    stop, cause = found.truth["stop_day"], found.truth["stop_cause"]
    at_risk = np.arange(1, DAYS + 1) <= stop[:, None]
    np.testing.assert_array_equal(cause > 0, stop <= DAYS)
    for low, high in ((1, 1), (2, 3), (4, 7), (8, 12), (13, 30), (31, 120)):
        days = slice(low - 1, high)
        for k in range(len(CAUSES)):
            chance = hazards[:, days, k] * at_risk[:, days]
            seen = ((stop >= low) & (stop <= high) & (cause == k + 1)).sum()
            error = np.sqrt((chance * (1 - chance)).sum())
            assert abs(seen - chance.sum()) < 4.5 * max(error, 1e-9) + 1e-9
    # And they tell rows apart, not only days.
    survival = np.cumprod(1 - hazards.sum(-1), 1)
    for day in (2, 10, 60):
        alive = survival[:, day - 1]
        for rows in np.array_split(np.argsort(alive), 10):
            error = np.sqrt((alive * (1 - alive))[rows].sum())
            assert abs((stop[rows] > day).sum() - alive[rows].sum()) < 4.5 * error + 0.5


def test_what_is_seen_is_the_beginning_of_what_is_true(middle):
    stop, last = middle.truth["stop_day"], np.minimum(DAYS, MIDDLE.window - middle.start)
    np.testing.assert_array_equal(middle.time, np.minimum(stop, last))
    cause = middle.truth["stop_cause"]
    np.testing.assert_array_equal(middle.event, np.where(stop <= last, cause, 0))
    np.testing.assert_array_equal(middle.history_days, middle.time - (middle.event > 0))
    on_record = np.arange(DAYS) < middle.history_days[:, None]
    np.testing.assert_array_equal(middle.history[on_record], middle.path[on_record])
    assert (middle.history[~on_record] == 0).all()
    sold = middle.history[..., 2].sum(1) * middle.truth["value_per_conversion"]
    np.testing.assert_allclose(middle.value, sold, rtol=1e-5)
    assert middle.start.min() == 0
    assert middle.start.max() == MIDDLE.window - 1


def test_delivery_is_drawn_at_the_stated_rates(middle):
    shown, clicked, converted, cost = np.moveaxis(middle.path.astype(float), -1, 0)
    truth = {name: values.astype(float) for name, values in middle.truth.items()}
    bid, budget, audience, _ = (n.values.astype(float) for n in middle.numbers)
    assert (converted <= clicked).all()
    assert (clicked <= shown).all()
    np.testing.assert_allclose(cost, shown * bid[:, None] / 1000, rtol=1e-6)
    np.testing.assert_allclose(truth["impressions_per_day"], 1000 * budget / bid, rtol=1e-5)
    frequency = np.log(budget / bid / audience)
    assert np.corrcoef(frequency, truth["f_n"])[0, 1] > 1 - 1e-6
    day = np.arange(DAYS)
    plan = truth["impressions_per_day"][:, None]
    weekday = delivery.WEEKDAY[(middle.start[:, None].astype(int) + day) % 7]
    expected = plan * weekday * (1 - 0.3 * np.exp(-day / 1.5))
    quality, fatigue = truth["q"][:, None], truth["f"][:, None]
    fall = np.log1p(np.exp(fatigue)) * np.maximum(day + 1 - 7, 0)
    click = 0.015 * np.exp(0.35 * quality - 0.02 * fall)
    convert = 0.03 * np.exp(0.3 * quality[:, 0] + 0.2 * truth["conversion_noise"])
    assert delivery.WEEKDAY.mean() == pytest.approx(1)
    for cut in (day < 3, (day >= 3) & (day < 20), day >= 60):
        for seen, of, rate in (
            (shown, expected, np.ones((1, 1))),
            (clicked, shown, click),
            (converted, clicked, convert[:, None]),
        ):
            want = (of * rate)[:, cut]
            spread = np.where(rate < 1, of * rate * (1 - rate), expected)[:, cut]
            assert abs(seen[:, cut].sum() - want.sum()) < 4.5 * np.sqrt(spread.sum())
            # Neither too regular nor too wild, cell by cell.
            well = spread > 30
            if well.sum() > 1000:
                z = (seen[:, cut] - want)[well] ** 2 / spread[well]
                assert abs(z.mean() - 1) < 5 * np.sqrt(2.1 / well.sum())


def test_the_operator_goes_by_three_days_of_smoothed_clicks():
    rng = np.random.default_rng(0)
    shown = rng.poisson(900, (2, 3, 9)).astype(float)
    clicked = rng.binomial(shown.astype(int), 0.02).astype(float)
    mean, sd = np.log(rng.uniform(0.01, 0.03, (2, 3))), rng.uniform(0.3, 0.6, (2, 3))
    found = delivery.operator_signal(shown, clicked, mean, sd)
    for place in np.ndindex(2, 3):
        usual = np.exp(mean[place])
        for day in range(9):
            days = slice(max(0, day - 3), day)
            rate = (clicked[place][days].sum() + 1000 * usual) / (shown[place][days].sum() + 1000)
            want = (np.log(rate) - mean[place]) / sd[place]
            assert found[place][day] == pytest.approx(want, abs=1e-12)


def test_in_feedback_mode_quality_acts_through_clicks_only(feedback):
    truth = feedback.truth
    genre = feedback.categories[0].codes
    rate = np.log(0.015) + 0.35 * truth["q"].astype(float)
    for code in np.unique(genre):
        own = genre == code
        np.testing.assert_allclose(truth["ctr_mean"][own], rate[own].mean(), rtol=1e-5)
    assert truth["ctr_sd"] == pytest.approx((rate - truth["ctr_mean"]).std(), rel=1e-4)
    hazards = true_hazards(feedback)
    first = 1 - (1 - 1 / (1 + np.exp(1.55))) * (1 - 0.002)
    np.testing.assert_allclose(hazards[:, 0].sum(-1), first)  # Nothing is seen before day 1.
    later = feedback.path.copy()
    later[:, 4:, :2] = later[:, 4:, :2][:, ::-1]
    changed = true_hazards(feedback._replace(path=later))
    np.testing.assert_array_equal(changed[:, :5], hazards[:, :5])  # Day 5 sees days 2..4.
    assert (changed[:, 5] != hazards[:, 5]).mean() > 0.5
    assert np.corrcoef(hazards[:, 3, 0], truth["q"])[0, 1] < -0.4


def test_categories_advertisers_and_campaigns(middle):
    genre, gender, format_ = (category.codes for category in middle.categories)
    truth = middle.truth
    cell = np.ravel_multi_index((genre, gender, format_), (12, 3, 4))
    for name in ("c", "f_c"):
        values = truth[name].astype(float)
        means = np.bincount(cell, values) / np.maximum(np.bincount(cell), 1)
        np.testing.assert_allclose(values, means[cell], atol=1e-5)  # A function of the cell.
    campaign, advertiser = middle.group, truth["advertiser"]
    for one, of in ((campaign, genre), (campaign, advertiser), (advertiser, genre)):
        pairs = np.unique(np.stack([one, of]), axis=1)
        assert pairs.shape[1] == len(np.unique(one))
    of_advertiser = np.unique(np.stack([advertiser, campaign]), axis=1)[0]
    assert np.bincount(of_advertiser).max() <= PER_ADVERTISER
    shares = np.bincount(genre) / len(genre)
    assert shares[0] > 2 * shares[3] > 2 * shares[11]
    effects = np.stack([campaign, truth["b"]])
    assert np.unique(effects, axis=1).shape[1] == len(np.unique(campaign))
    missing = np.isnan(middle.numbers[3].values).mean()
    assert 0.08 < missing < 0.12


def test_splits_by_campaign_at_random_and_by_day(middle):
    assert tuple(middle.splits) == ("group", "random", "time")
    for rows in middle.splits.values():
        assert sorted(np.concatenate(list(rows.values())).tolist()) == list(range(6000))
    groups = [set(middle.group[rows].tolist()) for rows in middle.splits["group"].values()]
    assert not groups[0] & groups[1] | groups[0] & groups[2] | groups[1] & groups[2]
    starts = [middle.start[rows] for rows in middle.splits["time"].values()]
    assert starts[0].max() < starts[1].min()
    assert starts[1].max() < starts[2].min()


def test_a_function_of_settings_and_seed_only():
    first, second = (generate(CONFIGS["tiny"]) for _ in range(2))
    for name in ("time", "event", "path", "image"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))
    other = generate(CONFIGS["tiny"], seed=1)
    assert (first.time != other.time).any()
    assert first.words[50:] != other.words[50:]
    # These draws are the same on every machine.
    drawn = [first.group, first.texts[1].words, first.categories[0].codes, first.truth["clutter"]]
    digest = hashlib.sha256(b"".join(values.astype("<i4").tobytes() for values in drawn))
    assert digest.hexdigest()[:16] == GOLDEN


def test_configs_are_those_of_the_table():
    assert DATASETS["creatives"].configs == tuple(CONFIGS)
    hazards = {name: tuple(settings[1:5]) for name, settings in CONFIGS.items()}
    for name in ("faithful", "large", "feedback", "tiny"):
        assert hazards[name] == (-1.55, 2.0, -7.2, 2.0)
    assert hazards["easy"] == (-1.7, 3.0, -8.2, 3.0)
    assert hazards["hard"] == (-1.55, 1.3, -6.6, 1.25)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"creatives": 149}, "creatives = 149; it must be at least 150"),
        ({"cut_base": float("nan")}, "cut_base, wear_base = nan, -7.2; it must be in"),
        ({"wear_base": 30.0}, "cut_base, wear_base = -1.55, 30.0"),
        ({"cut_slope": -1.0}, "cut_slope, wear_slope = -1.0, 2.0; it must be in 0..20"),
        ({"wear_slope": float("inf")}, "cut_slope, wear_slope = 2.0, inf"),
        ({"window": 10}, "window = 10; it must be at least 20 days"),
        ({"image_size": 48}, "image_size = 48; it must be 32 or 64"),
    ],
)
def test_settings_out_of_range(change, message):
    with pytest.raises(UserError, match=f"^creatives: {message}"):
        generate(FAITHFUL._replace(**change))


def test_seeds_out_of_range():
    with pytest.raises(UserError, match=r"^creatives: seed = -1; it must be in 0"):
        generate(CONFIGS["tiny"], seed=-1)


@pytest.mark.parametrize("change", [{"creatives": 150}, {"window": 20}, {"image_size": 64}])
def test_the_smallest_worlds(change):
    settings = FAITHFUL._replace(creatives=200)._replace(**change)
    found = generate(settings, seed=9)
    assert found.image.shape[1] == settings.image_size
    assert found.time.max() <= min(settings.window, DAYS)

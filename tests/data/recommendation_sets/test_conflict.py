import hashlib
import itertools

import numpy as np
import pytest

from mtl_jax.data.impression_builder import load_impressions
from mtl_jax.data.recommendation.conflict import CONFIGS, generate
from mtl_jax.data.recommendation.conflict_world import (
    FIELD_SIZES,
    Settings,
    make_weights,
    match_posterior,
)
from mtl_jax.errors import UserError
from mtl_jax.metrics.ranking import auc, bayes_auc, expected_auc

SMALL = Settings(users=40, behaviours=2, facets=2, values=3, tasks=3, max_events=5)
MIDDLE = Settings(users=4000, max_events=8)
GOLDEN = "898337f7565037f8"


@pytest.fixture(scope="module")
def middle():
    return generate(MIDDLE, seed=3)


def raw_inputs(found, facets):
    """What a model sees, ids turned into values: [N, S, L, F] with -1 for pads, [N, F], fields."""
    history = found.histories_of(np.arange(len(found.fields)), 20)
    tables = {attribute.name: attribute.ids[:, 0] for attribute in found.attributes}
    token = np.stack([tables[f"facet_{f}"][history] for f in range(facets)], -1) - 2
    token = np.where(history[..., None] > 0, token, -1)
    item = found.fields[:, 0]
    candidate = np.stack([tables[f"facet_{f}"][item] for f in range(facets)], -1) - 2
    fields = {"segment": found.fields[:, 1] - 2, "age": found.fields[:, 2] - 2}
    fields |= {"scene": found.fields[:, 3] - 2, "price": tables["price"][item] - 2}
    return token, candidate, fields


def logits_given(favourites, candidate, fields, weights, settings):
    """Logits [T] of one row, favourites [S, F] known; straight from the definition."""
    scene = fields["scene"]
    logits = np.full(settings.tasks, settings.bias)
    for t in range(settings.tasks):
        for s, f in itertools.product(range(settings.behaviours), range(settings.facets)):
            match = float(favourites[s][f] == candidate[f])
            logits[t] += weights.match[t, s, f, scene] * (match - 1 / settings.values)
        for name in FIELD_SIZES:
            logits[t] += weights.effects[name][t, fields[name]]
    return logits


def funnel(logits):
    p = 1 / (1 + np.exp(-logits))
    p[1] *= p[0]
    return p


@pytest.mark.parametrize("conflict", [0.0, 0.4, 1.0])
def test_truth_is_the_posterior_mean_over_every_favourite(conflict):
    settings = SMALL._replace(conflict=conflict, noise=0.45)
    found = generate(settings, seed=7).found
    weights = make_weights(settings, 7)
    token, candidate, fields = raw_inputs(found, settings.facets)
    values, told = settings.values, 1 - settings.noise
    shape = (settings.behaviours, settings.facets)
    for row in range(0, len(token), 9):
        total, expected = 0.0, np.zeros(settings.tasks)
        for flat in itertools.product(range(values), repeat=shape[0] * shape[1]):
            favourites = np.reshape(flat, shape)
            likelihood = 1.0
            for s, f in itertools.product(*map(range, shape)):
                for value in token[row, s, :, f]:
                    if value >= 0:
                        hit = told * (value == favourites[s, f])
                        likelihood *= hit + settings.noise / values
            here = {name: value[row] for name, value in fields.items()}
            logits = logits_given(favourites, candidate[row], here, weights, settings)
            expected += likelihood * funnel(logits)
            total += likelihood
        np.testing.assert_allclose(found.truth[row], expected / total, rtol=2e-6)


def test_oracle_is_the_definition_with_favourites_known():
    world = generate(SMALL, seed=5)
    weights = make_weights(SMALL, 5)
    _, candidate, fields = raw_inputs(world.found, SMALL.facets)
    for row in range(0, len(candidate), 7):
        here = {name: value[row] for name, value in fields.items()}
        favourites = world.favourites[world.found.group[row]]
        logits = logits_given(favourites, candidate[row], here, weights, SMALL)
        np.testing.assert_allclose(world.oracle[row], funnel(logits), rtol=1e-5)


def user_errors(residual, user, users):
    """Mean of a residual and its standard error over users, whose rows depend on each other."""
    sums = np.bincount(user, residual, users)
    return sums.sum(), np.sqrt((sums**2).sum())


def test_truth_is_calibrated_in_every_bin(middle):
    found = middle.found
    truth = found.truth.astype(float)
    pairs = [(truth[:, t], found.labels[:, t], np.ones(len(truth), bool)) for t in range(4)]
    clicked = found.labels[:, 0] == 1
    pairs.append((truth[:, 1] / truth[:, 0], found.labels[:, 1], clicked))
    for probability, label, kept in pairs:
        edges = np.quantile(probability[kept], np.linspace(0, 1, 11))
        where = np.clip(np.searchsorted(edges, probability, side="right") - 1, 0, 9)
        for b in range(10):
            own = kept & (where == b)
            error, scale = user_errors((label - probability)[own], found.group[own], MIDDLE.users)
            drawn = (probability[own] * (1 - probability[own])).sum()  # Matters where all are 0.
            scale = max(scale, np.sqrt(drawn))
            assert abs(error) < 4.5 * scale
            assert scale / own.sum() < 0.03  # The bin holds enough to tell.


def test_nothing_that_a_model_sees_predicts_what_truth_leaves_over(middle):
    found = middle.found
    token, candidate, fields = raw_inputs(found, 3)
    lengths = (found.ends - found.starts).astype(float)
    matches = (token == candidate[:, None, None]).sum(2).reshape(len(token), -1)
    partner = np.roll(candidate, 1, axis=0)  # Mostly another row of the same user.
    seen = [*lengths.T, *matches.T, *fields.values(), *candidate.T, *partner.T, found.time]
    residual = found.labels - found.truth
    for feature in seen:
        centred = feature - np.mean(feature)
        for t in range(4):
            error, scale = user_errors(residual[:, t] * centred, found.group, MIDDLE.users)
            assert abs(error) < 4.5 * scale


def test_bayes_auc_two_ways_and_no_score_beats_it(middle):
    found = middle.found
    rng = np.random.default_rng(0)
    for t in range(4):
        truth, label = found.truth[:, t], found.labels[:, t]
        best = bayes_auc(truth)
        positives = label.sum()
        error = np.sqrt(best * (1 - best) / min(positives, len(label) - positives))
        assert abs(auc(truth, label) - best) < 4 * error
        assert auc(middle.oracle[:, t], label) > auc(truth, label)
        for other in (truth + rng.normal(0, 0.05, len(truth)), found.truth[:, (t + 1) % 4]):
            assert expected_auc(other, truth) < best - 0.001


def test_base_rates_and_funnel(middle):
    found = middle.found
    rates = found.labels.mean(0)
    assert (rates > 0.08).all()
    assert (rates < 0.5).all()
    assert (found.labels[:, 1] <= found.labels[:, 0]).all()
    assert (found.truth[:, 1] < found.truth[:, 0]).all()
    assert found.labels[:, 1].sum() > 500
    assert (found.label_mask == 1).all()


def test_without_conflict_all_tasks_have_one_truth():
    settings = Settings(users=300, conflict=0.0, tasks=5)
    found = generate(settings, seed=1).found
    for t in (2, 3, 4):
        np.testing.assert_array_equal(found.truth[:, t], found.truth[:, 0])
    weights = make_weights(settings, 1)
    np.testing.assert_allclose(weights.match[1], weights.match[0])


def test_conflict_turns_directions_and_keeps_norms():
    flats = {}
    for conflict in (0.0, 0.3, 0.6, 1.0):
        weights = make_weights(Settings(users=10, tasks=5, conflict=conflict), 2)
        norms = np.sqrt((weights.match**2).sum((1, 2)))
        np.testing.assert_allclose(norms, 5.0)
        spread = sum(table.var(1) for table in weights.effects.values())
        np.testing.assert_allclose(spread, 0.36)
        flats[conflict] = weights.match.reshape(5, -1) / 5 / np.sqrt(3)
    cosines = {c: flat @ flat.T for c, flat in flats.items()}
    for first, second in ((0, 1), (0, 2), (1, 2), (2, 3), (1, 4)):
        falling = [cosines[c][first, second] for c in (0.0, 0.3, 0.6, 1.0)]
        assert falling[0] == pytest.approx(1)
        assert (np.diff(falling) < -0.05).all()
    strong = cosines[1.0]
    assert strong[2, 3] == pytest.approx(-1)  # Beyond F tasks signs are turned.
    assert strong[1, 4] == pytest.approx(-1)
    assert abs(strong[0, 1]) < 1e-9  # Other facets at the same place.


def test_noise_lowers_what_can_be_known_and_no_more():
    best = {}
    for noise in (0.1, 0.3, 0.6, 0.9, 1.0):
        world = generate(Settings(users=1500, noise=noise), seed=4)
        best[noise] = [bayes_auc(world.found.truth[:, t]) for t in range(4)]
        # Labels come from favourites: what they are does not depend on the noise of histories.
        np.testing.assert_array_equal(world.oracle, generate_oracle())
    assert (np.diff(list(best.values()), axis=0) < 0).all()


def generate_oracle():
    return generate(Settings(users=1500, noise=0.5), seed=4).oracle


def test_pure_noise_leaves_the_fields_only():
    settings = SMALL._replace(noise=1.0, users=60)
    found = generate(settings, seed=0).found
    _, _, fields = raw_inputs(found, settings.facets)
    key = np.ravel_multi_index(tuple(fields.values()), tuple(FIELD_SIZES.values()))
    for value in np.unique(key):
        own = found.truth[key == value]
        np.testing.assert_allclose(own, np.broadcast_to(own[0], own.shape), rtol=1e-5)


def test_posterior_of_one_event_is_bayes_rule():
    token = np.array([[[[1]]]])
    real = np.ones((1, 1, 1), bool)
    hit = match_posterior(token, real, np.array([[1]]), 4, 0.2)[0, 0, 0]
    miss = match_posterior(token, real, np.array([[2]]), 4, 0.2)[0, 0, 0]
    assert hit == pytest.approx(0.8 + 0.05)
    assert miss == pytest.approx(0.05)
    none = match_posterior(token, ~real, np.array([[1]]), 4, 0.2)[0, 0, 0]
    assert none == pytest.approx(0.25)


def test_users_are_in_one_split_and_have_one_history(middle):
    found = middle.found
    users = {split: set(found.group[rows].tolist()) for split, rows in found.splits.items()}
    assert [len(own) for own in users.values()] == [2800, 400, 800]
    assert len(set().union(*users.values())) == MIDDLE.users
    assert "user" not in [column.name for column in found.columns]
    for array in (found.starts, found.ends, found.fields[:, 1:3]):
        per_user = array.reshape(MIDDLE.users, MIDDLE.rows_per_user, -1)
        assert (per_user == per_user[:, :1]).all()
    lengths = found.ends - found.starts
    assert lengths.min() == MIDDLE.min_events
    assert lengths.max() == MIDDLE.max_events
    tokens = found.histories_of(np.arange(len(lengths)), MIDDLE.max_events)
    np.testing.assert_array_equal((tokens > 0).sum(2), lengths)


def test_a_function_of_settings_and_seed_only():
    first, second = (generate(CONFIGS["tiny"], seed=0) for _ in range(2))
    for name in ("fields", "labels", "truth", "ends"):
        np.testing.assert_array_equal(getattr(first.found, name), getattr(second.found, name))
    other = generate(CONFIGS["tiny"], seed=1)
    assert (first.found.fields != other.found.fields).any()
    # These draws are the same on every machine.
    drawn = first.found.fields.astype("<i4").tobytes() + first.found.histories[2].ids.tobytes()
    assert hashlib.sha256(drawn).hexdigest()[:16] == GOLDEN


def test_prepared_set_equals_the_generated_one(tmp_path):
    loaded = load_impressions("conflict/tiny", tmp_path)
    made = generate(CONFIGS["tiny"]).found
    order = np.concatenate([made.splits[split] for split in ("train", "validation", "test")])
    for name in ("fields", "labels", "truth", "group", "time"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(made, name)[order])
    np.testing.assert_array_equal(
        loaded.histories_of(np.arange(len(order)), 6), made.histories_of(order, 6)
    )
    assert loaded.task_names == ("click", "conversion", "signal_1", "signal_2")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"conflict": 1.5}, "conflict = 1.5; it must be in 0..1"),
        ({"noise": 0.0}, "noise = 0.0; it must be above 0"),
        ({"noise": float("nan")}, "noise = nan"),
        ({"tasks": 2}, "tasks = 2; it must be 3..5 with 3 facets"),
        ({"tasks": 6}, "tasks = 6"),
        ({"facets": 1}, "facets = 1; it must be at least 2"),
        ({"values": 1}, "values = 1"),
        ({"behaviours": 7}, r"behaviours = 7; it must be in 1\.\.6"),
        ({"min_events": 9, "max_events": 8}, "min_events = 9, max_events = 8"),
        ({"users": 3}, "users = 3"),
    ],
)
def test_settings_out_of_range(change, message):
    with pytest.raises(UserError, match=f"^conflict: {message}"):
        generate(MIDDLE._replace(**change))


@pytest.mark.parametrize("change", [{"behaviours": 1}, {"min_events": 0}, {"tasks": 3}])
def test_the_smallest_worlds(change):
    world = generate(Settings(users=50)._replace(**change), seed=9)
    assert np.isfinite(world.found.truth).all()
    assert (world.found.truth > 0).all()
    assert (world.found.truth < 1).all()

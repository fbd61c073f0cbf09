"""The network: heads and their losses, what a landmark may see, missing inputs, lone heads."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtl_jax import survival
from mtl_jax.data.survival.creatives import CONFIGS, generate
from mtl_jax.systems.ad_survival import builders
from mtl_jax.systems.ad_survival.config import Config, DataConfig, ModelConfig, WeightConfig
from mtl_jax.systems.ad_survival.data import columns_of, gather, loss_weights
from mtl_jax.systems.ad_survival.heads import hazards, outputs, row_losses
from mtl_jax.systems.ad_survival.model import make_system
from mtl_jax.systems.ad_survival.preprocess import fit
from mtl_jax.systems.ad_survival.terms import make_targets, make_terms, make_views
from mtl_jax.systems.ad_survival.text_tables import word_tables

SMALL = ModelConfig(
    text="bag", text_dim=4, text_hidden=4, image_widths=(4,), history_hidden=4, out=4, trunk=(8,)
)
DAYS = (0.0, 3.0)
ROWS = np.arange(24)


@pytest.fixture(scope="module")
def ready():
    found = generate(CONFIGS["tiny"], seed=2)
    splits = next(iter(found.splits.values()))
    fitted = fit(found, splits["train"], 1, 3)
    return builders.Prepared(found, splits, fitted, word_tables(found.words), None, 3)


def case(ready, model=SMALL, share=0.5, **data):
    config = Config(
        data=DataConfig(landmarks=DAYS, **data), model=model, weights=WeightConfig(share=share)
    )
    system = make_system(builders.make_network(ready, config))
    terms = make_terms(model.terms, config.data.short, config.data.long)
    views = make_views(config.data.protocol, config.data.landmarks)
    targets = make_targets(ready.found, terms, views, model.censoring)
    weights = loss_weights(ready.found, views, ready.splits["train"], config.weights)
    columns = columns_of(ready.found, builders.inputs_of(ready), targets, views, weights)
    batch = gather(np, columns, ROWS, True)
    params, _ = system.init(jax.random.key(0), batch)
    return system, params, batch


def losses(system, params, batch):
    z, _ = system.features(params, {}, batch, None, False)
    cut = {k: v for k, v in params.items() if system.owner((k,)) == "stacked"}
    rest = {k: v for k, v in params.items() if k not in cut}
    found = []
    for t in range(len(system.task_names)):
        own = jax.tree.map(lambda leaf, t=t: leaf[t], cut)
        found.append(system.task_loss({**rest, **own}, z, batch, t))
    return np.array(found)


def test_days_after_a_landmark_change_nothing_that_is_seen_at_it(ready):
    system, params, batch = case(ready)
    assert system.predict is not None
    before = system.predict(params, {}, batch)["hazards"]
    third = (np.arange(batch["history"].shape[1]) >= 2)[None, :, None]
    later = {**batch, "history": batch["history"] + 3 * third.astype(np.float32)}
    after = system.predict(params, {}, later)["hazards"]
    early = batch["days"][:, 1] < 3
    np.testing.assert_array_equal(before[:, :, 0], after[:, :, 0])
    np.testing.assert_array_equal(before[early, :, 1], after[early, :, 1])
    assert np.abs(before - after)[~early, :, 1].max() > 0


def test_lambda_shares_the_loss_between_the_terms(ready):
    even = losses(*case(ready))
    skewed = losses(*case(ready, share=0.8))
    np.testing.assert_allclose(skewed[:, 0], even[:, 0] * [1.6, 0.4], rtol=1e-5)
    np.testing.assert_array_equal(skewed[:, 1], even[:, 1])


def test_a_missing_input_is_the_vector_that_stands_for_it(ready):
    system, params, batch = case(ready)
    assert system.predict is not None
    dark = {**batch, "has_image": np.zeros(len(ROWS), bool)}
    first = system.predict(params, {}, dark)["hazards"]
    second = system.predict(params, {}, {**dark, "image": 255 - batch["image"]})["hazards"]
    np.testing.assert_array_equal(first, second)
    assert np.abs(system.predict(params, {}, batch)["hazards"] - first).max() > 0


def test_two_networks_side_by_side_share_nothing(ready):
    system, params, batch = case(ready, dataclasses.replace(SMALL, share=False))
    assert system.owner(("apart",)) == "stacked"
    found = losses(system, params, batch)
    assert np.isfinite(found).all()
    assert found[0, 0] != found[1, 0]


@pytest.mark.parametrize("head", ["cause", "pmf", "mtlr", "deephit"])
def test_losses_of_padded_heads_are_those_of_the_library(ready, head):
    terms, bins, causes = make_terms("two", (0, 3, 10), (0, 10, 30, 60, 120)), 4, 3
    views = make_views("landmark", (0.0,))
    found = ready.found
    targets = make_targets(found, terms, views, "midpoint")
    columns = {
        "event": targets.event,
        "exposure": targets.exposure,
        "counts": targets.counts,
        "entry": targets.entry,
        "time": found.time,
        "occurred": found.event,
    }
    batch = {name: jnp.asarray(leaf[ROWS]) for name, leaf in columns.items()}
    logits = jax.random.normal(jax.random.key(1), (len(ROWS), 1, outputs(head, bins, causes)))
    time, event = jnp.asarray(found.time[ROWS]), jnp.asarray(found.event[ROWS])
    for t, term in enumerate(terms):
        got = row_losses(head, terms, causes, logits, batch, jnp.asarray(t))[:, 0]
        own = logits[:, 0, : term.grid.bins]
        if head == "cause":
            own = logits[:, 0].reshape(len(ROWS), bins, causes)[:, : term.grid.bins]
            want = survival.cause_loss(own, time, event, term.grid)
        elif head == "deephit":
            counts = targets.counts[ROWS, t, 0].astype(np.float32)
            want = survival.deephit_loss(
                own[..., None], time, jnp.minimum(event, 1), term.grid, weights=counts
            )
        else:
            loss = survival.pmf_loss if head == "pmf" else survival.mtlr_loss
            want = loss(own, time, event, term.grid)
        np.testing.assert_allclose(got, want, rtol=2e-5, atol=2e-5)
        curve = hazards(head, term, bins, causes, logits[:, 0])
        assert curve.shape == (len(ROWS), bins)

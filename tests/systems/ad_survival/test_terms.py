"""Terms and views: who counts where, and what each says there."""

import numpy as np
import pytest

from mtl_jax.data.survival.creatives import CONFIGS, generate
from mtl_jax.survival import hazard_targets
from mtl_jax.systems.ad_survival.terms import (
    PAPER_DAYS,
    alive_at,
    make_targets,
    make_terms,
    make_views,
)

SHORT, LONG = (0, 3, 5, 7, 10), (0, 10, 30, 60, 90, 120)


@pytest.fixture(scope="module")
def found():
    return generate(CONFIGS["tiny"], seed=3)


def test_nobody_counts_after_the_end_and_no_bin_before_the_landmark_says_anything(found):
    terms, views = make_terms("two", SHORT, LONG), make_views("landmark", (0.0, 3.0, 10.0))
    targets = make_targets(found, terms, views, "midpoint")
    for m, day in enumerate(views.days):
        alive = found.time > day if day else np.ones(len(found.time), bool)
        np.testing.assert_array_equal(targets.alive[:, m], alive)
        assert not targets.counts[~alive, :, m].any()
        assert not targets.event[~alive, :, m].any()
        for t, term in enumerate(terms):
            over = np.flatnonzero(np.asarray(term.grid.edges[1:]) <= day)
            assert not targets.exposure[:, t, m, over].any()
            assert not targets.event[:, t, m, over].any()
    assert not targets.counts[:, 0, 2].any()  # The short term is over at its end.
    assert targets.counts[:, 1, 2].any()


def test_a_view_from_the_beginning_is_the_plain_likelihood(found):
    terms, views = make_terms("overall", SHORT, LONG), make_views("landmark", (0.0,))
    targets = make_targets(found, terms, views, "fraction")
    want = hazard_targets(found.time, found.event, terms[0].grid, censoring="fraction")
    np.testing.assert_array_equal(targets.event[:, 0, 0], want.event)
    np.testing.assert_array_equal(targets.exposure[:, 0, 0], want.exposure)


def test_in_the_paper_protocol_each_term_has_its_view_and_nobody_is_left_out(found):
    terms, views = make_terms("two", SHORT, LONG), make_views("paper", (0.0,))
    targets = make_targets(found, terms, views, "midpoint")
    assert views.days == PAPER_DAYS
    assert targets.alive.all()
    assert targets.counts[:, 0, 0].any()
    assert not targets.counts[:, 0, 1].any()
    assert targets.counts[:, 1, 1].any()
    assert not targets.counts[:, 1, 0].any()


def test_an_event_between_two_times_is_alive_at_the_first_of_them(found):
    rows = found._replace(
        time=np.array([0.0, 3.0, 3.0], np.float32),
        upper=np.array([1.0, 5.0, 3.0], np.float32),
        event=np.ones(3, np.int32),
        entry=np.zeros(3, np.float32),
    )
    np.testing.assert_array_equal(alive_at(rows, 3.0), [False, True, False])
    np.testing.assert_array_equal(alive_at(rows, 0.0), [True, True, True])

"""Grids: where times fall, what is refused, and quantiles that hold events."""

from __future__ import annotations

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from mtl_jax.errors import UserError
from mtl_jax.survival import LONG, OVERALL, SHORT, Grid, quantile_grid, uniform_grid


def test_the_papers_grids():
    assert SHORT.edges == (1, 3, 5, 7, 10)
    assert LONG.edges == (1, 10, 30, 60, 90, 120)
    assert OVERALL.edges == SHORT.edges + LONG.edges[2:]
    assert (SHORT.bins, LONG.bins, OVERALL.bins) == (4, 5, 8)
    assert SHORT.from_zero().edges == (0, 3, 5, 7, 10)
    assert hash(SHORT) == hash(Grid(SHORT.edges))


def test_days_and_times():
    """Day d is [d - 1, d): a time lived falls into the bin of its day on the shifted grid."""
    days = np.arange(1, 15)
    lived = days - 1 + np.array([[0.0], [0.5], [0.999]])
    found = SHORT.shift(-1).bin_of(lived)
    np.testing.assert_array_equal(found, np.broadcast_to(SHORT.bin_of(days), (3, 14)))


def test_bins_and_overlaps():
    grid = Grid((1, 2, 4))
    np.testing.assert_array_equal(grid.bin_of([0, 1, 1.99, 2, 3.99, 4, 99]), [-1, 0, 0, 1, 1, 2, 2])
    np.testing.assert_allclose(
        grid.overlap([0.0, 1.5, 3], [9.0, 2.5, 3]), [[1, 2], [0.5, 0.5], [0] * 2]
    )
    np.testing.assert_allclose(grid.share(-np.inf, np.inf), [1, 1])
    np.testing.assert_allclose(grid.share(1.5, np.array([3.0, 1.0])), [[0.5, 0.5], [0, 0]])
    assert (grid.widths, grid.midpoints) == ((1, 2), (1.5, 3))


@pytest.mark.parametrize(
    ("edges", "says"),
    [
        ((1,), "2 edges or more"),
        ((1, 3, 3), "must increase"),
        ((3, 1), "must increase"),
        ((1, 1 + 1e-9), "in float32"),
        ((-1, 1), "not negative"),
        ((0, float("nan")), "finite"),
        ((0, float("inf")), "finite"),
    ],
)
def test_bad_edges(edges, says):
    with pytest.raises(UserError, match=says) as error:
        Grid(edges)
    assert "\n" not in str(error.value)


def test_uniform_grid():
    assert uniform_grid(8, 4).edges == (0, 2, 4, 6, 8)
    assert uniform_grid(8, 2, start=4).edges == (4, 6, 8)
    with pytest.raises(UserError, match="0 bins"):
        uniform_grid(8, 0)


@hypothesis.given(st.integers(0, 10**6), st.integers(1, 12), st.booleans())
def test_quantile_grid_holds_an_event_in_every_bin(seed, bins, ties):
    rng = np.random.default_rng(seed)
    time = rng.geometric(0.3, 60).astype(float) if ties else rng.exponential(9, 60)
    event = rng.random(60) < 0.7
    distinct = len(np.unique(time[event]))
    if distinct < bins:
        with pytest.raises(UserError, match="distinct times of events"):
            quantile_grid(time, event, bins)
        return
    grid = quantile_grid(time, event, bins)
    assert grid.bins == bins
    counts = np.histogram(time[event], grid.edges)[0]
    assert counts.min() >= 1
    assert counts.sum() == event.sum()


def test_quantile_grid_has_equal_drops_of_the_kaplan_meier_curve():
    rng = np.random.default_rng(0)
    life, censoring = rng.exponential(10, 20000), rng.exponential(10, 20000)
    time, event = np.minimum(life, censoring), life <= censoring
    grid = quantile_grid(time, event, 4, end=20.0)
    left = 1 - np.exp(-2.0)
    exact = -10 * np.log(1 - left * np.arange(5) / 4)
    np.testing.assert_allclose(grid.edges, exact, rtol=0.05)
    # Without censoring these are quantiles of the times.
    plain = quantile_grid(np.arange(1.0, 9.0), np.ones(8), 4)
    assert plain.edges[:-1] == (0, 3, 5, 7)
    assert 8 < plain.end < 8.001


def test_quantile_grid_refuses():
    time, event = np.array([1.0, 2, 3]), np.ones(3)
    for given, says in [
        ((time, event[:2], 2), "must be"),
        ((time * np.nan, event, 2), "NaN"),
        ((time, 0 * event, 1), "distinct times"),
        ((time, event, 0), "1 or more"),
    ]:
        with pytest.raises(UserError, match=says):
            quantile_grid(*given)
    with pytest.raises(UserError, match="before start"):
        quantile_grid(time, event, 2, start=1.5)

"""Hazards and causes against likelihoods computed row by row in probabilities, and identities."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtl_jax.errors import UserError
from mtl_jax.survival import (
    CREDITS,
    SHORT,
    Grid,
    cause_loss,
    hazard_loss,
    hazard_targets,
    piecewise_exponential_loss,
    targets_loss,
    uniform_grid,
)
from mtl_jax.survival.logspace import log_bin_hazard, log_event, mean_survival
from tests.survival.reference import (
    GRID,
    TIMES,
    assert_finite,
    lifetimes,
    losses,
    nll,
)

ROWS = lifetimes()
RULES = pytest.mark.parametrize("rule", CREDITS)


def logits(*shape: int, scale: float = 1.5, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, scale, shape)


def rows_of(*names: str) -> dict[str, np.ndarray]:
    return {name: ROWS[name] for name in names}


@RULES
@pytest.mark.parametrize("names", [(), ("entry",), ("entry", "upper")], ids=lambda n: "+".join(n))
def test_hazard_loss_is_the_likelihood(rule, names):
    x = logits(len(ROWS["time"]), GRID.bins)
    got = nll(x, rule=rule, **rows_of("time", "event", *names))
    np.testing.assert_allclose(got, losses(x, rule, GRID, ROWS, names), rtol=1e-12, atol=1e-14)


@RULES
def test_cause_loss_is_the_likelihood(rule):
    x = logits(len(ROWS["time"]), GRID.bins, 3)
    got = nll(x, rule=rule, causes=True, **ROWS)
    np.testing.assert_allclose(got, losses(x, rule, GRID, ROWS), rtol=1e-11, atol=1e-13)


def test_one_cause_is_hazards():
    x = logits(len(ROWS["time"]), GRID.bins)
    for rule in ("full", "fraction"):
        known = {**ROWS, "event": np.minimum(ROWS["event"], 1)}
        one = nll(x[..., None], rule=rule, causes=True, **known)
        np.testing.assert_allclose(one, nll(x, rule=rule, **known), rtol=1e-12)


@RULES
def test_no_entry_is_entry_at_the_first_edge_or_before(rule):
    """Also through the arguments' default, None."""
    targets_of = jax.jit(hazard_targets, static_argnums=2, static_argnames="censoring")
    without = targets_of(ROWS["time"], ROWS["event"], GRID, censoring=rule)
    for entry in (0.0, GRID.start):
        entered = np.full_like(ROWS["time"], entry)
        within = targets_of(
            ROWS["time"], ROWS["event"], GRID, censoring=rule, entry=entered, upper=ROWS["time"]
        )
        for a, b in zip(without, within, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("rule", ["midpoint", "fraction"])
def test_a_row_split_in_two_has_the_same_loss(rule):
    """Censored at s, then entered at s, for all s before the event's bin."""
    time, split = np.array([(t, s) for t in TIMES for s in TIMES if s <= t]).T
    x = logits(len(time), GRID.bins)
    start = np.asarray(GRID.edges)[np.searchsorted(GRID.edges[1:], time, "right")]
    for event, fits in ((0, time >= 0), (1, split <= start)):
        happened = np.full(len(time), event)
        whole = nll(x, time, happened, rule)
        parts = nll(x, split, 0 * happened, rule) + nll(x, time, happened, rule, entry=split)
        np.testing.assert_allclose(parts[fits], whole[fits], rtol=1e-12, atol=1e-14)
        assert fits.sum() > 100


@RULES
def test_an_interval_without_end_is_a_survivor(rule):
    time = TIMES[TIMES >= 1]
    x, event = logits(len(time), GRID.bins), np.ones(len(time))
    got = nll(x, time, event, rule, upper=np.full(len(time), np.inf))
    np.testing.assert_array_equal(got, nll(x, time, 0 * event, rule))


@pytest.mark.parametrize("rule", ["midpoint", "full", "index"])
def test_an_interval_inside_a_bin_is_an_event_there(rule):
    time = np.array([1.0, 1.1, 2.2, 3.9, 5.0, 8.0])
    upper = np.array([2.0, 1.2, 3.9, 4.0, 5.01, 9.0])
    x, event = logits(len(time), GRID.bins), np.ones(len(time))
    np.testing.assert_array_equal(nll(x, time, event, rule, upper=upper), nll(x, time, event, rule))


def test_a_narrow_interval_is_a_density():
    """Under fraction, -log P(l < T <= l + width) tends to -log density - log width."""
    time = np.array([1.0, 1.3, 2.9, 4.0, 8.5])
    x, event, width = logits(5, GRID.bins), np.ones(5), 1e-6
    narrow = nll(x, time, event, "fraction", upper=time + width)
    np.testing.assert_allclose(narrow + np.log(width), nll(x, time, event, "density"), atol=1e-5)


def test_fraction_tends_to_the_exponential_likelihood():
    """A constant rate on ever finer bins: -log(rate) + rate (t - a), up to log(width) a event."""
    rate = 0.37
    rng = np.random.default_rng(3)
    entry = rng.uniform(0, 4, 50)
    time = np.minimum(entry + rng.exponential(1 / rate, 50), 9.9)
    event = rng.integers(0, 2, 50)
    exact = rate * (time - entry) - event * np.log(rate)
    errors = []
    with jax.enable_x64(True):
        for bins in (100, 200):
            grid, width = uniform_grid(10.0, bins), 10.0 / bins
            x = np.full((50, bins), np.log(np.expm1(rate * width)))
            got = jax.jit(hazard_loss, static_argnames=("grid", "censoring"))(
                x, time, event, grid, censoring="fraction", entry=entry
            )
            # Events in a bin that was entered inside count by the rest of the bin.
            inside = np.floor(entry / width) == np.floor(time / width)
            errors.append(np.max(np.abs(np.asarray(got) + event * np.log(width) - exact)[~inside]))
        density = jax.jit(piecewise_exponential_loss, static_argnames="grid")(
            x, time, event, grid, entry=entry
        )
        np.testing.assert_allclose(density, exact, rtol=1e-9, atol=1e-9)
    assert errors[0] < rate * 10.0 / 100
    assert errors[1] < 0.6 * errors[0]


def test_index_credit_is_pycox_logistic_hazard():
    """Binary cross-entropy over bins 0 .. index, the event's bin labelled 1."""
    index, event = np.array([0, 1, 3, 2, 0]), np.array([1, 0, 1, 1, 0])
    x = logits(5, 4)
    expected = np.zeros(5)
    for i in range(5):
        for k in range(index[i] + 1):
            label = event[i] and k == index[i]
            p = 1 / (1 + np.exp(-x[i, k]))
            expected[i] -= np.log(p if label else 1 - p)
    time = np.asarray(GRID.edges)[index] + 0.7
    np.testing.assert_allclose(nll(x, time, event, "index"), expected, rtol=1e-12)


def test_by_hand():
    """Logits 0 halve at every bin: all likelihoods are powers of 1 / 2."""
    time = np.array([1, 2, 3.5, 3.0, 4.9, 8.99, 9, 500.0, 2.0, 5.05])
    event = np.array([1, 1, 1, 0, 0, 1, 1, 0, 0, 0])
    halves = {
        "midpoint": [1, 2, 2, 2, 3, 4, 4, 4, 1, 3],
        "full": [1, 2, 2, 1, 2, 4, 4, 4, 1, 2],
        "index": [1, 2, 2, 2, 3, 4, 4, 4, 2, 3],
        "fraction": [1, 2, 2, 1.5, 2.6, 4, 4, 4, 1, 2.7],
    }
    for rule, expected in halves.items():
        got = nll(np.zeros((10, 4)), time, event, rule)
        np.testing.assert_allclose(got, np.array(expected) * np.log(2), rtol=1e-12)


def test_one_bin():
    grid = Grid((0.0, 2.0))
    time, event = np.array([1.0, 1.5, 2.0]), np.array([1, 0, 1])
    loss = jax.jit(lambda x: hazard_loss(x, time, event, grid, censoring="fraction"))
    died, alive = np.log1p(np.exp(-0.3)), np.log1p(np.exp(0.3))
    got = loss(np.full((3, 1), 0.3))
    np.testing.assert_allclose(got, [died, 0.75 * alive, alive], rtol=1e-6)


def test_rows_that_say_nothing():
    """Ended before entry, or before the first edge: no loss, no gradient, and told apart."""
    time, event = np.array([0.5, 0.5, 3.0, 3.0, 3.0]), np.array([1, 0, 1, 0, 1])
    entry = np.array([0.0, 0.0, 3.5, 3.5, 3.0])
    gradient = jax.jit(jax.grad(lambda x, targets: targets_loss(x, targets).sum()))
    targets_of = jax.jit(hazard_targets, static_argnums=2, static_argnames="censoring")
    for rule in CREDITS:
        targets = targets_of(time, event, GRID, censoring=rule, entry=entry)
        np.testing.assert_array_equal(targets.informative, [False] * 4 + [True])
        grads = np.asarray(gradient(np.zeros((5, 4), np.float32), targets))
        assert not np.any(grads[:4])
        assert np.any(grads[4])


@pytest.mark.parametrize("rule", ["fraction", "density", "causes"])
def test_gradients(rule):
    """By central differences; rows are apart, so that all of a column move together."""
    x, step = logits(len(ROWS["time"]), *((4, 3) if rule == "causes" else (4,))), 1e-6
    causes = {"rule": "fraction", "causes": True} if rule == "causes" else {"rule": rule}
    expected = np.zeros_like(x)
    for column in np.ndindex(x.shape[1:]):
        move = np.zeros_like(x)
        move[:, *column] = step
        up, down = (nll(x + sign * move, **causes, **ROWS) for sign in (1, -1))
        expected[:, *column] = (up - down) / (2 * step)
    loss = {"density": piecewise_exponential_loss, "causes": cause_loss}.get(rule, hazard_loss)
    options = {} if rule == "density" else {"censoring": "fraction"}
    with jax.enable_x64(True):
        got = jax.jit(jax.grad(lambda x: loss(x, grid=GRID, **options, **ROWS).sum()))(x)
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-7)


def test_extremes_stay_finite():
    """Logits of 80 and 10,000 in float32, every kind of row, and only censored rows."""
    size = np.resize([80.0, 80.0, 1e4], (len(ROWS["time"]), 1, 1))
    sign = np.random.default_rng(2).choice([-1, 1], (len(size), 4, 3))
    x = (size * sign).astype(np.float32)

    def losses_of(x, event):
        rows = {**ROWS, "event": event}
        single = hazard_loss(x[..., 0], grid=GRID, censoring="fraction", **rows)
        density = piecewise_exponential_loss(x[..., 0], grid=GRID, **rows)
        causes = cause_loss(x, grid=GRID, censoring="fraction", **rows)
        return jnp.sum(single + density + causes), (single, density, causes)

    step = jax.jit(jax.value_and_grad(losses_of, has_aux=True))
    assert_finite(step(x, ROWS["event"]))
    (total, _), grads = step(x, 0 * ROWS["event"])
    assert_finite((total, grads))
    # More hazard is never better for rows that survive.
    assert np.asarray(grads).min() >= 0


def test_float32_agrees_with_float64():
    x = logits(len(ROWS["time"]), GRID.bins, scale=4.0)
    loss = jax.jit(lambda x: hazard_loss(x, grid=GRID, censoring="fraction", **ROWS))
    got = loss(x.astype(np.float32))
    np.testing.assert_allclose(got, nll(x, rule="fraction", **ROWS), rtol=2e-5, atol=1e-6)
    assert jax.eval_shape(loss, jnp.zeros(x.shape, jnp.bfloat16)).dtype == jnp.float32
    with jax.enable_x64(True):  # Times in float64 do not widen a float32 model.
        assert jax.eval_shape(loss, x).dtype == jnp.float64
        assert jax.eval_shape(loss, x.astype(np.float32)).dtype == jnp.float32


def test_vmap_and_leading_axes():
    x = logits(6, 5, GRID.bins)
    time, event = ROWS["time"][:30].reshape(6, 5), ROWS["event"][:30].reshape(6, 5)
    loss = jax.jit(lambda *args: hazard_loss(*args, GRID))
    both = loss(x, time, event)
    assert both.shape == (6, 5)
    expected = nll(x.reshape(30, -1), time.ravel(), event.ravel()).reshape(6, 5)
    np.testing.assert_allclose(both, expected, rtol=1e-5)
    np.testing.assert_allclose(jax.vmap(loss)(x, time, event), both, rtol=1e-6)
    np.testing.assert_allclose(loss(x[0, 0], time[0, 0], event[0, 0]), both[0, 0], rtol=1e-6)


def test_elementary_functions():
    """Against float64 formulas where those are exact, and their limits where they are not."""
    x = np.concatenate([np.linspace(-30, 30, 1201), [-9.9999, -10.0, -10.0001]])
    z = np.array([0.0, 1e-9, 9.9e-4, 1.01e-3, 0.5, 40.0, 800.0])
    with jax.enable_x64(True):
        log_hazard, log_chance, mean, slope = jax.jit(
            lambda x, z: (
                log_bin_hazard(x),
                log_event(log_bin_hazard(x)),
                mean_survival(z),
                jax.vmap(jax.grad(mean_survival))(z),
            )
        )(x, z)
    usual, tail = x > -9, np.exp(x)
    np.testing.assert_allclose(log_hazard[usual], np.log(np.logaddexp(0, x))[usual], rtol=1e-12)
    y = tail[~usual]
    series = x[~usual] + np.log1p(-y / 2 + y**2 / 3 - y**3 / 4)
    np.testing.assert_allclose(log_hazard[~usual], series, rtol=1e-12)
    # log(1 - exp(-H)) of the hazard of a bin is log sigmoid.
    np.testing.assert_allclose(log_chance, -np.logaddexp(0, -x), rtol=1e-12)
    some = np.where(z > 0, z, 1)
    np.testing.assert_allclose(mean, np.where(z > 0, -np.expm1(-z) / some, 1), rtol=1e-13)
    np.testing.assert_allclose(slope[0], -0.5, rtol=1e-12)
    assert np.isfinite(slope).all()


def test_bad_arguments():
    x, time, event = np.zeros((3, 4)), np.ones(3), np.ones(3)
    with pytest.raises(UserError, match=r"censoring 'middle' is unknown; .*midpoint"):
        hazard_loss(x, time, event, SHORT, censoring="middle")
    with pytest.raises(UserError, match=r"logits have shape \(3, 4\).*8 bins"):
        hazard_loss(x, time, event, uniform_grid(8, 8))
    with pytest.raises(UserError, match=r"event has shape \(2,\)"):
        hazard_loss(x, time, event[:2], SHORT)
    with pytest.raises(UserError, match=r"entry has shape \(1,\)"):
        hazard_loss(x, time, event, SHORT, entry=np.zeros(1))
    with pytest.raises(UserError, match="axis of causes"):
        cause_loss(x, time, event, SHORT)

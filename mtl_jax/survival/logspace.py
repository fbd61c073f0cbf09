"""Elementary functions in log space, finite with finite gradients for every finite input.

A bin of hazard h = sigmoid(x) has the cumulative hazard H = -log(1 - h) = softplus(x). What the
losses need of it, log H, log(1 - exp(-H)) and sums of these, would overflow or cancel when written
down as probabilities: float32 rounds 1 - h to 1 from x = -17 on.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

Array = jax.Array

# Stands for log 0 where a later sum needs a finite number: exp of it is 0 in every dtype, and
# differences of two such numbers are not NaN.
LOG_ZERO = -1e30


def as_float(values: Any) -> Array:
    """Returns an array of float32 or of the wider float dtype that `values` have."""
    values = jnp.asarray(values)
    return values.astype(jnp.promote_types(values.dtype, jnp.float32))


def bin_hazard(logits: Array) -> Array:
    """Cumulative hazard -log(1 - sigmoid(x)) that a bin adds; any shape."""
    return -jax.nn.log_sigmoid(-logits)


def log_bin_hazard(logits: Array) -> Array:
    """log(-log(1 - sigmoid(x))); any shape."""
    small = logits < -10
    y = jnp.exp(jnp.where(small, logits, -10))
    # log(log(1 + y)) with y = exp(x), as a series: log(1 + y) would round to y's leading digits.
    series = logits - y / 2 + 5 * y**2 / 24
    return jnp.where(small, series, jnp.log(bin_hazard(jnp.where(small, 0, logits))))


def log_event(log_hazard: Array) -> Array:
    """log(1 - exp(-H)) from log H: the chance of an event while the cumulative hazard grows by H.

    Args:
      log_hazard: any shape; H itself must not overflow.
    """
    small = log_hazard < -10
    large = log_hazard > 0
    tiny = jnp.exp(jnp.where(small, log_hazard, -10))
    series = log_hazard - tiny / 2 + tiny**2 / 24
    z = jnp.exp(jnp.where(small, -10, log_hazard))
    middle = jnp.log(-jnp.expm1(-jnp.where(large, 1, z)))
    upper = jnp.log1p(-jnp.exp(-jnp.where(large, z, 1)))
    return jnp.where(small, series, jnp.where(large, upper, middle))


def hazard_logit(log_hazard: Array) -> Array:
    """The logit x of the hazard whose bin adds H: log(exp(H) - 1) from log H. Any shape."""
    return jnp.exp(log_hazard) + log_event(log_hazard)


def mean_survival(hazard: Array) -> Array:
    """(1 - exp(-z)) / z, the mean of exp(-z u) over u in (0, 1); 1 at z = 0. Any shape, z >= 0."""
    small = hazard < 1e-3
    z = jnp.where(small, 1, hazard)
    series = 1 - hazard / 2 + hazard**2 / 6 - hazard**3 / 24
    return jnp.where(small, series, -jnp.expm1(-z) / z)


def sums_before(values: Array) -> Array:
    """Sums along the last axis over the entries before each: [..., K] gives [..., K]."""
    # Not cumsum(values) - values: that difference would lose what is small beside its own entry.
    shifted = jnp.concatenate([jnp.zeros_like(values[..., :1]), values[..., :-1]], axis=-1)
    return jnp.cumsum(shifted, axis=-1)


def log_sum(values: Array, counts: Array | None = None, axis: int = -1) -> Array:
    """The log of sum_k counts_k exp(values_k); `LOG_ZERO` or less where every count is 0.

    Args:
      values: [..., K, ...].
      counts: same shape, not negative; None counts everything once.
      axis: summed over.
    """
    if counts is not None:
        some = counts > 0
        values = jnp.where(some, values + jnp.log(jnp.where(some, counts, 1)), LOG_ZERO)
    return jax.nn.logsumexp(values, axis=axis)


def log_sums_from(values: Array) -> Array:
    """Log of the sum of exp(values) over each entry and those after it, along the last axis.

    What `lax.cumlogsumexp` computes in reverse. That one compiles for many seconds together with
    its gradient; this is one small loop over distances 1, 2, 4, ..., run log2(K) times.

    Args:
      values: [..., K].
    """
    size = values.shape[-1]
    beyond = jnp.full_like(values, LOG_ZERO)

    def step(sums: Array, distance: Array) -> tuple[Array, None]:
        both = jnp.concatenate([sums, beyond], axis=-1)
        after = jax.lax.dynamic_slice_in_dim(both, distance, size, axis=-1)
        return jnp.logaddexp(sums, after), None

    steps = max(size - 1, 0).bit_length()
    if not steps:
        return values
    return jax.lax.scan(step, values, 2 ** jnp.arange(steps, dtype=jnp.int32))[0]

"""Batch normalisation over one device or many, with its gradient written out."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.typing import Dtype
from jax import lax

from mtl_jax.layers.axis import bound_axis

Array = jax.Array


def _pmean(x: Array, axis_name: str | None) -> Array:
    return x if axis_name is None else lax.pmean(x, axis_name)


def _like(vector: Array, x: Array) -> Array:
    """Returns a vector [C] as [1, ..., 1, C], of the rank of x: no silent broadcasting."""
    return vector.reshape((1,) * (x.ndim - 1) + (-1,))


def _channel_mean(x: Array) -> Array:
    """Returns the mean over all axes but the last, of [B, ..., C].

    In two stages, positions and then examples: XLA:CPU runs the first one in parallel.
    """
    per_example = x.reshape(x.shape[0], -1, x.shape[-1]).mean(1)
    return per_example.mean(0)


def batch_moments(x: Array, axis_name: str | None = None) -> tuple[Array, Array]:
    """Returns the mean and biased variance [C] of a batch [B, ..., C], over all devices of an axis.

    The variance is the mean square about a point near the mean, that of the first example, so a
    mean that is large against the spread does not cancel it away; it is never negative. Every
    device must hold the same number of examples.
    """
    near = lax.stop_gradient(x[:1].reshape(-1, x.shape[-1]).mean(0))
    centred = x - _like(near, x)
    offset, square = _channel_mean(centred), _channel_mean(lax.square(centred))
    local = jnp.maximum(square - lax.square(offset), 0)
    mean = _pmean(near + offset, axis_name)
    if axis_name is None:
        return mean, local
    return mean, _pmean(local + lax.square(near + offset - mean), axis_name)


def _affine(
    x: Array, scale: Array, bias: Array, mean: Array, variance: Array, epsilon: float
) -> Array:
    slope = lax.rsqrt(variance + epsilon) * scale
    return (x - _like(mean, x)) * _like(slope, x) + _like(bias, x)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def batch_norm(
    x: Array, scale: Array, bias: Array, epsilon: float = 1e-5, axis_name: str | None = None
) -> tuple[Array, Array, Array]:
    """Normalises each channel by the mean and variance of the batch.

    Source: Ioffe & Szegedy, 2015, Alg. 1. With `axis_name` the batch is that of all devices on the
    axis, and the gradient follows the convention "each device differentiates its own loss, then
    parameter gradients are summed over devices": the result is that of one large batch.

    Args:
      x: [B, ..., C], float32 or float64.
      scale: [C].
      bias: [C].
      epsilon: added to the variance.
      axis_name: of a bound axis, or None.

    Returns:
      The normalised batch like `x`, the mean [C] and the biased variance [C].
    """
    mean, variance = batch_moments(x, axis_name)
    return _affine(x, scale, bias, mean, variance, epsilon), mean, variance


def _batch_norm_fwd(
    x: Array, scale: Array, bias: Array, epsilon: float, axis_name: str | None
) -> tuple[tuple[Array, Array, Array], tuple]:
    # Calls the rule's own function, so that a second derivative comes through the rule again.
    out = batch_norm(x, scale, bias, epsilon, axis_name)
    return out, (x, scale, out[1], out[2])


def _batch_norm_bwd(
    epsilon: float, axis_name: str | None, residuals: tuple, cotangents: tuple
) -> tuple[Array, Array, Array]:
    x, scale, mean, variance = residuals
    dy, dmean, dvariance = cotangents
    count = x.size // x.shape[-1]
    inverse = lax.rsqrt(variance + epsilon)
    centred = x - _like(mean, x)
    bias_mean = _channel_mean(dy)
    scale_mean = _channel_mean(centred * dy) * inverse
    # dx = a * dy + b * (x - mean) + c, with all that is per channel gathered in a, b and c. The
    # mean over devices of the local means is the mean over the whole batch.
    a = scale * inverse
    b = 2 * _pmean(dvariance, axis_name) / count - a * inverse * _pmean(scale_mean, axis_name)
    c = _pmean(dmean, axis_name) / count - a * _pmean(bias_mean, axis_name)
    dx = _like(a, x) * dy + _like(b, x) * centred + _like(c, x)
    return dx, scale_mean * count, bias_mean * count


batch_norm.defvjp(_batch_norm_fwd, _batch_norm_bwd)


class BatchNorm(nn.Module):
    """A batch normalisation layer over `batch_norm`.

    Variables as in `nn.BatchNorm`: params `scale`, `bias` and batch_stats `mean`, `var`, all [C].
    Running statistics move as  new = momentum * old + (1 - momentum) * batch  and hold the biased
    variance, as in Flax (PyTorch keeps the unbiased one and calls 1 - momentum its momentum).

    Attributes:
      use_running_average: normalise by the running statistics instead of the batch's; here or in
        the call.
      momentum: of the running statistics.
      epsilon: added to the variance.
      axis_name: device axis to take the batch over. Where the axis is not bound (a plain `jit`,
        initialisation) the batch is that of the one device.
      dtype: type of the result; None takes that of the inputs and parameters. Statistics are at
        least float32.
      param_dtype: type of the parameters.
    """

    use_running_average: bool | None = None
    momentum: float = 0.9
    epsilon: float = 1e-5
    axis_name: str | None = None
    dtype: Dtype | None = None
    param_dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array, use_running_average: bool | None = None) -> Array:
        """Normalises a batch [B, ..., C]."""
        use_running = nn.merge_param(
            "use_running_average", self.use_running_average, use_running_average
        )
        shape = (x.shape[-1],)
        scale = self.param("scale", nn.initializers.ones, shape, self.param_dtype)
        bias = self.param("bias", nn.initializers.zeros, shape, self.param_dtype)
        mean = self.variable("batch_stats", "mean", jnp.zeros, shape, jnp.float32)
        var = self.variable("batch_stats", "var", jnp.ones, shape, jnp.float32)

        out_dtype = self.dtype or jnp.result_type(x, scale, bias)
        inner = jnp.promote_types(out_dtype, jnp.float32)
        x, scale, bias = (value.astype(inner) for value in (x, scale, bias))
        if use_running:
            y = _affine(x, scale, bias, mean.value, var.value, self.epsilon)
            return y.astype(out_dtype)
        axis_name = None if self.is_initializing() else bound_axis(self.axis_name)
        y, batch_mean, batch_var = batch_norm(x, scale, bias, self.epsilon, axis_name)
        if not self.is_initializing():
            keep = self.momentum
            mean.value = keep * mean.value + (1 - keep) * lax.stop_gradient(batch_mean)
            var.value = keep * var.value + (1 - keep) * lax.stop_gradient(batch_var)
        return y.astype(out_dtype)

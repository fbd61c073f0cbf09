"""Losses of dense prediction: sums over labelled pixels, and how many there are.

As in MTAN (Liu et al. 2019) and the works that follow it: cross-entropy with unlabelled pixels
left out, L1 on known depths, 1 - cosine on known normals. Every function returns (sum, weight),
float32 scalars, so that the mean is one over all labelled pixels of a step, not of a device.
`mask` [B] is 0 for images that do not count; what stands in them is ignored.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

Array = jax.Array

IGNORE = -1
_TINY = 1e-12


def plane(x: Array) -> Array:
    """Returns [B, H, W] from [B, H, W] or [B, H, W, 1].

    Raises:
      ValueError: another shape.
    """
    if x.ndim == 4 and x.shape[-1] == 1:
        return x[..., 0]
    if x.ndim != 3:
        raise ValueError(f"expected [B, H, W] or [B, H, W, 1]. Found {x.shape}.")
    return x


def with_mask(valid: Array, mask: Array | None) -> Array:
    """Returns which pixels [B, H, W] count, from those that are labelled and the mask [B]."""
    return valid if mask is None else valid & (mask != 0)[:, None, None]


def labelled(labels: Array, num_classes: int, mask: Array | None = None) -> Array:
    """Returns [B, H, W] bool: pixels with a class in 0 .. num_classes - 1."""
    return with_mask((labels >= 0) & (labels < num_classes), mask)


def known_depth(target: Array, mask: Array | None = None) -> Array:
    """Returns [B, H, W] bool: pixels with a positive, finite depth.

    MTAN's code takes every depth but 0; a negative one is no depth either.
    """
    depth = plane(target)
    return with_mask((depth > 0) & jnp.isfinite(depth), mask)


def known_normal(target: Array, mask: Array | None = None) -> Array:
    """Returns [B, H, W] bool: pixels whose normal [B, H, W, 3] is finite and not zero.

    MTAN's code takes those whose components do not add up to 0, which drops some true normals.
    """
    known = jnp.isfinite(target).all(-1) & (target != 0).any(-1)
    return with_mask(known, mask)


def _total(values: Array, valid: Array) -> tuple[Array, Array]:
    total = jnp.sum(jnp.where(valid, values, 0), dtype=jnp.float32)
    return total, jnp.sum(valid, dtype=jnp.float32)


def segmentation_nll(
    logits: Array, labels: Array, mask: Array | None = None
) -> tuple[Array, Array]:
    """Negative log-likelihood of the pixels' classes, in nats.

    Args:
      logits: [B, H, W, C].
      labels: [B, H, W] ints; -1, and any other value that is no class, is left out.
      mask: [B] or None.

    Returns:
      The sum over labelled pixels and their number.
    """
    valid = labelled(labels, logits.shape[-1], mask)
    log_p = jax.nn.log_softmax(logits.astype(jnp.promote_types(logits.dtype, jnp.float32)))
    index = jnp.where(valid, labels, 0)[..., None]
    return _total(-jnp.take_along_axis(log_p, index, -1)[..., 0], valid)


def depth_l1(prediction: Array, target: Array, mask: Array | None = None) -> tuple[Array, Array]:
    """Absolute error of the depth, in the target's unit, over pixels of known depth.

    Args:
      prediction: [B, H, W] or [B, H, W, 1].
      target: [B, H, W] or [B, H, W, 1]; 0 or less, or not finite, is unknown.
      mask: [B] or None.

    Returns:
      The sum over known pixels and their number.
    """
    valid = known_depth(target, mask)
    # Unknown values, NaN among them, must not enter the arithmetic.
    depth = jnp.where(valid, plane(target), 0)
    return _total(jnp.abs(plane(prediction) - depth), valid)


def unit_vectors(x: Array) -> Array:
    """Returns vectors [..., 3] scaled to length 1; a zero vector stays zero."""
    return x * jax.lax.rsqrt(jnp.sum(x * x, -1, keepdims=True) + _TINY)


def normals_cosine(
    prediction: Array, target: Array, mask: Array | None = None
) -> tuple[Array, Array]:
    """1 - cosine of the angle to the surface normal, over pixels of known normal.

    MTAN's code averages -cosine: the same gradient, and 1 lower.

    Args:
      prediction: [B, H, W, 3], of any length.
      target: [B, H, W, 3], of any length; zero or not finite is unknown.
      mask: [B] or None.

    Returns:
      The sum over known pixels and their number.
    """
    valid = known_normal(target, mask)
    normal = jnp.where(valid[..., None], target, 0)
    cosine = jnp.sum(unit_vectors(prediction) * unit_vectors(normal), -1)
    return _total(1 - cosine, valid)

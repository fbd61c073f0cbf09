"""Random zoom and mirroring of an image together with its label maps, at one size throughout.

Sources: the augmentation that Nash-MTL, FS-MTL and others add to MTAN's NYUv2 and CityScapes
(after Vandenhende et al. 2020, MTI-Net): a factor s of 1, 1.2 or 1.5, a window of 1/s of the image
at a random place enlarged to the full size, and a horizontal flip of every second image. As there,
images and normals are interpolated between pixels whose corners are aligned, labels and depths
take the nearest pixel, depths are divided by s (what is enlarged by s is nearer by s; CityScapes'
depth files as well), and mirroring turns the first component of a normal round.

Different from those codes: every example draws from a key of its own, on the device, so that the
draw depends on neither the number of devices nor the order in which examples are read; and the
nearest pixel is found in whole numbers, which rounding cannot move.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array

SCALES = (1.0, 1.2, 1.5)
INTERPOLATED = ("image", "normal")
MIRRORED_NORMAL = (-1.0, 1.0, 1.0)


class View(NamedTuple):
    """Which part of an image is seen, scalars each.

    Attributes:
      scale: the factor s that depths are divided by.
      top: first row of the window.
      left: first column of the window.
      height: rows of the window.
      width: columns of the window.
      flip: whether left and right change places, after the enlargement.
    """

    scale: Array
    top: Array
    left: Array
    height: Array
    width: Array
    flip: Array


def draw_view(key: Array, height: int, width: int) -> View:
    """Draws a view of an image of this size."""
    of_scale, of_top, of_left, of_flip = jax.random.split(key, 4)
    which = jax.random.randint(of_scale, (), 0, len(SCALES))
    rows = jnp.asarray([int(height / s) for s in SCALES])[which]
    columns = jnp.asarray([int(width / s) for s in SCALES])[which]
    return View(
        scale=jnp.asarray(SCALES, jnp.float32)[which],
        top=jax.random.randint(of_top, (), 0, height - rows + 1),
        left=jax.random.randint(of_left, (), 0, width - columns + 1),
        height=rows,
        width=columns,
        flip=jax.random.bernoulli(of_flip),
    )


def apply_view(example: Mapping[str, Array], view: View) -> dict[str, Array]:
    """Returns what a view shows, of the same shapes and types.

    Args:
      example: "image" [H, W, 3], "label" [H, W] and any of "depth" [H, W, 1], "normal" [H, W, 3].
      view: see `View`.
    """
    height, width = example["image"].shape[:2]
    y, x = jnp.arange(height), jnp.arange(width)
    x = jnp.where(view.flip, width - 1 - x, x)
    rows = view.top + y * view.height // height
    columns = view.left + x * view.width // width

    def seen(name: str, field: Array) -> Array:
        if name not in INTERPOLATED:
            return jnp.take(jnp.take(field, rows, 0, mode="clip"), columns, 1, mode="clip")
        field = _between(field, view.top, view.height, y, 0)
        return _between(field, view.left, view.width, x, 1)

    out = {name: seen(name, field) for name, field in example.items()}
    if "depth" in out:
        out["depth"] = out["depth"] / view.scale
    if "normal" in out:
        mirror = np.asarray(MIRRORED_NORMAL, np.float32).reshape(1, 1, 3)
        out["normal"] = jnp.where(view.flip, out["normal"] * mirror, out["normal"])
    return out


def _between(field: Array, first: Array, size: Array, position: Array, axis: int) -> Array:
    """Stretches `size` pixels from `first` on to the whole axis, linearly, ends upon ends.

    `position` [N] says which places of the result to return, in order.
    """
    length = field.shape[axis]
    at = position * ((size - 1) / max(length - 1, 1))
    low = jnp.floor(at).astype(jnp.int32)
    share = (at - low).reshape((-1, 1, 1) if axis == 0 else (1, -1, 1)).astype(field.dtype)
    high = jnp.minimum(low + 1, size - 1)
    before = jnp.take(field, first + low, axis, mode="clip")
    after = jnp.take(field, first + high, axis, mode="clip")
    return before * (1 - share) + after * share


def augment(batch: Mapping[str, Array], keys: Array) -> dict[str, Array]:
    """Shows every example of a batch [B, ...] in a view drawn from its key, keys [B]."""
    height, width = batch["image"].shape[1:3]
    return jax.vmap(lambda one, key: apply_view(one, draw_view(key, height, width)))(
        dict(batch), keys
    )


def assemble_augmented(resident: Any, host: dict[str, Array], keys: Array | None) -> Any:
    """An `assemble`, see `systems.base.Data`: `augment` in training, nothing in evaluation."""
    del resident
    return host if keys is None else augment(host, keys)

"""Images: a small residual network with group normalisation, for 32 to 64 pixels.

Residual blocks with the normalisation in front of each convolution and one more before the pooling
(He et al. 2016, "Identity mappings in deep residual networks", figure 1b), GroupNorm (Wu and He
2018). Nothing normalises the sum that runs past the blocks. Kitada et al. use a pretrained ResNet34
that is not trained further; vectors of such a network come in as precomputed ones (`precomputed`).

What is pooled is not only the mean of the last maps but means and standard deviations, of them, of
the first convolution and of the colours themselves. GroupNorm divides contrast away, and a mean of
deep maps is a long way to learn that an image is large, dark or colourful from lifetimes, which say
little: on 60,000 generated images and 4 epochs (60,000 lifetimes as targets, stride 4) the
correlation with what decides the appeal was 0.33 with the mean alone and 0.90 with all of these.

On two CPU cores a step at 256 images of 32 pixels is bound by the convolutions, so widths are
small and the first stage is at half the resolution.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mtl_jax.layers.conv import conv2d
from mtl_jax.layers.dropout import dropout
from mtl_jax.layers.initializers import kaiming_normal_fan_out
from mtl_jax.layers.nets import dense, init_dense
from mtl_jax.layers.precision import wide

Array = jax.Array
Tree = Any

EPS = 1e-5
MIDDLE, SPREAD = 0.5, 0.25  # of brightness: roughly its mean and standard deviation

_kernel = kaiming_normal_fan_out()


class ImageSetting(NamedTuple):
    """What an image encoder is made of.

    Attributes:
      widths: channels of the stages; each stage but the first halves the resolution.
      blocks: residual blocks a stage.
      stride: of the first convolution, which is 3 pixels wide or as wide as its stride.
      groups: of channels in the normalisations, at most: a width that it does not divide has
        as many as divide both.
      out: size of the encoding.
      rate: dropout of the pooled channels.
    """

    widths: tuple[int, ...] = (16, 32, 64)
    blocks: int = 1
    stride: int = 2
    groups: int = 4
    out: int = 64
    rate: float = 0.2


def init_image(key: Array, setting: ImageSetting) -> Tree:
    """Returns the parameters of an image encoder.

    Raises:
      ValueError: no stage, or a size below 1.
    """
    sizes = (*setting.widths, setting.blocks, setting.stride, setting.groups, setting.out)
    if not setting.widths or min(sizes) < 1:
        raise ValueError(f"widths must not be empty and all sizes 1 or more. Found {setting}.")
    keys = iter(jax.random.split(key, 2 + len(setting.widths) * setting.blocks))
    side = _stem_side(setting)
    stem = _kernel(next(keys), (side, side, 3, setting.widths[0]))
    stages, inputs = [], setting.widths[0]
    for stage, width in enumerate(setting.widths):
        blocks = []
        for number in range(setting.blocks):
            blocks.append(_init_block(next(keys), inputs, width, _stride(stage, number)))
            inputs = width
        stages.append(blocks)
    return {
        "stem": stem,
        "stages": stages,
        "norm": _init_norm(inputs),
        "out": init_dense(next(keys), 2 * (3 + setting.widths[0] + inputs), setting.out),
    }


def _stem_side(setting: ImageSetting) -> int:
    # As wide as the stride at least: no pixel goes unread.
    return max(3, setting.stride)


def _stride(stage: int, block: int) -> int:
    return 2 if stage and not block else 1


def _init_block(key: Array, inputs: int, width: int, stride: int) -> Tree:
    a, b, c = jax.random.split(key, 3)
    block = {
        "norm_a": _init_norm(inputs),
        "conv_a": _kernel(a, (3, 3, inputs, width)),
        "norm_b": _init_norm(width),
        "conv_b": _kernel(b, (3, 3, width, width)),
    }
    if inputs != width or stride > 1:
        block["past"] = _kernel(c, (stride, stride, inputs, width))
    return block


def _init_norm(width: int) -> Tree:
    return {"scale": jnp.ones(width), "shift": jnp.zeros(width)}


def encode_image(
    params: Tree, images: Array, setting: ImageSetting, keys: Array | None = None, site: int = 0
) -> Array:
    """Encodes images.

    Args:
      params: of `init_image`.
      images: [B, H, W, 3], uint8 from 0 to 255 or floats from 0 to 1.
      setting: see `ImageSetting`.
      keys: one an example for dropout; None for evaluation.
      site: number of the one dropout mask, so that no two encoders draw the same.

    Returns:
      [B, out], in the dtype of the parameters.

    Raises:
      ValueError: images of another shape, or without a pixel.
    """
    if images.ndim != 4 or images.shape[-1] != 3 or min(images.shape[1:3]) < 1:
        raise ValueError(f"images must be [B, H, W, 3] with H, W >= 1. Found {images.shape}.")
    x = images.astype(jnp.promote_types(params["stem"].dtype, jnp.float32))
    if jnp.issubdtype(images.dtype, jnp.integer):
        x = x / 255
    stride, before = setting.stride, (_stem_side(setting) - setting.stride + 1) // 2
    pads = [(before, max(before, -side % stride)) for side in x.shape[1:3]]
    x = ((x - MIDDLE) / SPREAD).astype(params["stem"].dtype)
    pooled = [_statistics(x)]
    x = conv2d(x, params["stem"], stride, pads)
    pooled.append(_statistics(x))
    for stage, blocks in enumerate(params["stages"]):
        for number, block in enumerate(blocks):
            x = _block(block, x, _stride(stage, number), setting.groups)
    pooled.append(_statistics(jax.nn.relu(_norm(params["norm"], x, setting.groups))))
    return dense(params["out"], dropout(jnp.concatenate(pooled, -1), keys, setting.rate, site))


def _statistics(x: Array) -> Array:
    """Mean and standard deviation of each channel, [B, H, W, C] to [B, 2 C]; at least float32."""
    own = wide(x)
    mean = own.mean((1, 2))
    variance = jnp.square(own - mean[:, None, None]).mean((1, 2))
    # Within the root: the derivative of that of 0 is infinite, and an image may be blank.
    return jnp.concatenate([mean, jnp.sqrt(variance + EPS)], -1).astype(x.dtype)


def _block(block: Tree, x: Array, stride: int, groups: int) -> Array:
    y = jax.nn.relu(_norm(block["norm_a"], x, groups))
    y = conv2d(y, block["conv_a"], stride, 1)
    y = conv2d(jax.nn.relu(_norm(block["norm_b"], y, groups)), block["conv_b"], 1, 1)
    if "past" in block:
        # A window as wide as the stride: every second pixel alone would alias.
        pads = [(0, -side % stride) for side in x.shape[1:3]]
        x = conv2d(x, block["past"], stride, pads)
    return x + y


def _norm(params: Tree, x: Array, groups: int) -> Array:
    return group_norm(x, params["scale"], params["shift"], math.gcd(groups, x.shape[-1]))


def group_norm(x: Array, scale: Array, shift: Array, groups: int, eps: float = EPS) -> Array:
    """Normalises each group of channels of each image (Wu and He 2018).

    The statistics, biased variance included, are taken in float32 or wider, in two passes.

    Args:
      x: [B, H, W, C].
      scale: [C].
      shift: [C].
      groups: divides C; neighbouring channels form a group.
      eps: added to the variance.

    Returns:
      [B, H, W, C], in the dtype of `x`.
    """
    own = wide(x)
    mean = _over_groups(own.mean((1, 2)), groups)
    centred = own - mean[:, None, None]
    variance = _over_groups(jnp.square(centred).mean((1, 2)), groups)
    factor = jax.lax.rsqrt(variance + eps) * scale.astype(own.dtype)[None]
    out = centred * factor[:, None, None] + shift.astype(own.dtype)[None, None, None]
    return out.astype(x.dtype)


def _over_groups(values: Array, groups: int) -> Array:
    """[B, C] to the mean of each group of channels, at each of its channels."""
    mean = values.reshape(len(values), groups, -1).mean(-1, keepdims=True)
    each = jnp.broadcast_to(mean, (len(values), groups, values.shape[-1] // groups))
    return each.reshape(values.shape)


def augment(key: Array, image: Array, shift: int = 2, flip: bool = True) -> Array:
    """Moves an image by up to `shift` pixels each way, and mirrors it left to right or not.

    What comes in at the sides repeats the edge. Not part of the encoder: call it on training
    images only, `jax.vmap(augment)(keys, images)` with one key an example.

    Args:
      key: of this example.
      image: [H, W, C].
      shift: pixels, 0 for none.
      flip: whether half of the images are mirrored.

    Returns:
      [H, W, C] in the dtype of `image`.
    """
    moved, mirrored = jax.random.split(key)
    if shift:
        at = jax.random.randint(moved, (2,), 0, 2 * shift + 1)
        padded = jnp.pad(image, ((shift, shift), (shift, shift), (0, 0)), mode="edge")
        image = jax.lax.dynamic_slice(padded, (at[0], at[1], 0), image.shape)
    if flip:
        image = jnp.where(jax.random.bernoulli(mirrored), image[:, ::-1], image)
    return image

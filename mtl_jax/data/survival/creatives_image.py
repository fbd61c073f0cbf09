"""The images of `creatives`: a shape on a coloured ground, drawn from numbers that are known.

Size, contrast and shape make the appeal of an image, clutter and saturation its fatigue. Where the
shape is, how it is turned, the bars at the bottom and the noise mean nothing.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from mtl_jax.data.recommendation.draws import Draws

SIDE = 32.0  # Lengths below are in these units, whatever the number of pixels.
SHAPES = 4  # disc, square, triangle, cross
NOISE = 0.03  # Standard deviation of the noise; 1 is white.
CLUTTER = 8  # Specks at most.
_CELLS = (7, 8)  # Rows and columns of places for specks; the last four units have the bars.
_GROUND = 0.6  # Brightest colour of the ground.
_ROWS_AT_ONCE = 250


class ImageLatents(NamedTuple):
    """What the images are drawn from, each [N] float64 unless said otherwise.

    Attributes:
      hue: 0..1 around the colour circle.
      saturation: of the ground, standardised.
      shape: int, in 0..SHAPES-1.
      size: of the shape, standardised.
      contrast: of the shape to the ground, standardised.
      clutter: int, number of specks.
      specks: [N, 7, 8] bool, where they are.
      x: of the shape's middle.
      y: of it.
      turn: of the shape, radians.
      bars: [N, 8] bool, which bars of text there are.
    """

    hue: np.ndarray
    saturation: np.ndarray
    shape: np.ndarray
    size: np.ndarray
    contrast: np.ndarray
    clutter: np.ndarray
    specks: np.ndarray
    x: np.ndarray
    y: np.ndarray
    turn: np.ndarray
    bars: np.ndarray


def draw_latents(hue_group: np.ndarray, groups: int, seed: int) -> ImageLatents:
    """Returns the latents of N images.

    Args:
      hue_group: [N] int in 0..groups-1: which part of the colour circle the ground is of.
      groups: how many there are.
      seed: of the draws.
    """
    draws, rows = Draws(seed, 13), len(hue_group)
    # Sums of four uniform numbers: nearly normal, and bounded, so that every shape fits.
    saturation, size, contrast = (draws.uniform(3, rows, 4).sum(-1) - 2) * np.sqrt(3)
    clutter = (draws.uniform(rows, CLUTTER) < 0.5).sum(1)
    cells = draws.uniform(rows, _CELLS[0] * _CELLS[1])
    specks = np.argsort(np.argsort(cells, 1, kind="stable"), 1, kind="stable") < clutter[:, None]
    density = draws.uniform(rows)
    return ImageLatents(
        hue=(hue_group + 0.5 * (draws.uniform(rows) - 0.5)) / groups % 1.0,
        saturation=saturation,
        shape=draws.integers(SHAPES, rows),
        size=size,
        contrast=contrast,
        clutter=clutter,
        specks=specks.reshape(rows, *_CELLS),
        x=SIDE / 2 + 12 * (draws.uniform(rows) - 0.5),
        y=14 + 8 * (draws.uniform(rows) - 0.5),
        turn=2 * np.pi * draws.uniform(rows),
        bars=draws.uniform(rows, 8) < density[:, None],
    )


def image_sums(latents: ImageLatents, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the appeal and the fatigue of images, each [N] float64, variance about 1."""
    order = np.argsort(Draws(seed, 14).uniform(SHAPES), kind="stable")
    of_shape = (order - (SHAPES - 1) / 2) / np.sqrt((SHAPES**2 - 1) / 12)
    appeal = 0.6 * latents.size + 0.6 * latents.contrast + 0.53 * of_shape[latents.shape]
    specks = (latents.clutter - CLUTTER / 2) / np.sqrt(CLUTTER / 4)
    return appeal, (specks + latents.saturation) / np.sqrt(2)


def render(latents: ImageLatents, pixels: int, seed: int) -> np.ndarray:
    """Returns images [N, pixels, pixels, 3] uint8; `seed` is that of the noise."""
    draws, rows = Draws(seed, 15), len(latents.hue)
    images = np.empty((rows, pixels, pixels, 3), np.uint8)
    for start in range(0, rows, _ROWS_AT_ONCE):
        block = slice(start, start + _ROWS_AT_ONCE)
        image = _render(ImageLatents(*(values[block] for values in latents)), pixels)
        image += np.float32(NOISE) * _noise(draws, *image.shape)
        image *= 255
        images[block] = np.rint(np.clip(image, 0, 255, out=image), out=image)
    return images


def _render(latents: ImageLatents, pixels: int) -> np.ndarray:
    rows, scale = len(latents.hue), pixels / SIDE
    saturation = 0.6 + 0.1 * latents.saturation
    ground = _colour(latents.hue, saturation).astype(np.float32)
    contrast = (0.5 + 0.085 * latents.contrast).astype(np.float32)
    shape = contrast[:, None, None] * _shape_mask(latents, pixels)
    image = ground[:, None, None] + shape[..., None] * (1 - ground)[:, None, None]
    bars = image[:, pixels - round(3 * scale) : pixels - round(scale)]
    columns = np.repeat(latents.bars, pixels // 8, axis=1)
    columns[:, :: pixels // 8] = False  # A gap before each bar.
    np.copyto(bars, 0.95, where=columns[:, None, :, None])
    # A cell is four units wide, a speck the two in its middle.
    cells = np.kron(latents.specks, _speck(pixels)).astype(bool)
    np.copyto(image[:, : cells.shape[1]], 0.05, where=cells[..., None])
    assert image.shape == (rows, pixels, pixels, 3)
    return image


def _speck(pixels: int) -> np.ndarray:
    cell = np.zeros((4, 4), np.uint8)
    cell[1:3, 1:3] = 1
    return np.kron(cell, np.ones((pixels // 32, pixels // 32), np.uint8))


def _shape_mask(latents: ImageLatents, pixels: int) -> np.ndarray:
    """How much of each pixel is inside the shape, [N, pixels, pixels] float32."""
    grid = ((np.arange(pixels) + 0.5) * (SIDE / pixels)).astype(np.float32)
    fields = (latents.x, latents.y, np.cos(latents.turn), np.sin(latents.turn))
    x, y, cos, sin = (np.asarray(v, np.float32)[:, None, None] for v in fields)
    radius = (6.5 + 0.72 * latents.size).astype(np.float32)[:, None, None]
    across, down = grid - x, grid[:, None] - y
    u, v = cos * across + sin * down, cos * down - sin * across
    outside = np.empty(u.shape, np.float32)  # Distance to the edge, negative inside.
    for shape in range(SHAPES):
        own = latents.shape == shape
        outside[own] = _distance(shape, u[own], v[own], radius[own])
    return np.clip(0.5 - outside * (pixels / SIDE), 0, 1)


def _distance(shape: int, u: np.ndarray, v: np.ndarray, radius: np.ndarray) -> np.ndarray:
    if shape == 0:
        return np.sqrt(u**2 + v**2) - radius
    u, v_abs = np.abs(u), np.abs(v)
    if shape == 1:
        return np.maximum(u, v_abs) - 0.85 * radius
    if shape == 2:
        return np.maximum(0.866 * u + 0.5 * v, -v) - 0.55 * radius
    arms = np.minimum(u, v_abs), np.maximum(u, v_abs)
    return np.maximum(arms[0] - 0.35 * radius, arms[1] - radius)


def _colour(hue: np.ndarray, saturation: np.ndarray) -> np.ndarray:
    """RGB [N, 3] of a colour whose brightest channel is `_GROUND`."""
    sector = (6 * hue[:, None] + np.array([5, 3, 1])) % 6
    share = np.clip(np.minimum(sector, 4 - sector), 0, 1)
    return _GROUND * (1 - saturation[:, None] * share)


def _noise(draws: Draws, *shape: int) -> np.ndarray:
    """Standardised sums of four uniform numbers of 13 bits, all four out of one draw; float32."""
    bits = (draws.uniform(*shape) * 2.0**52).astype(np.int64)
    total = sum(((bits >> (13 * part)) & 8191 for part in range(1, 4)), bits & 8191)
    return (total.astype(np.float32) - np.float32(2 * 8191)) / np.float32(8192 / np.sqrt(3))

"""Two 28x28 images on one 36x36 canvas, and which images meet: the Multi-MNIST family.

The family follows Lin et al. 2019 (Pareto Multi-Task Learning), whose generator was never
released. What is known of it: canvas 36 = 28 + 8, task 1 top-left at [0:28, 0:28], task 2
bottom-right at [8:36, 8:36], two partners for each base image, no validation split.

Choices of this package, where the original is silent or unknown:

- Where the two overlap (20 x 20 pixels) the brighter one wins, as ink does. A third-party rebuild
  adds the two, which overflows uint8 unless it is clipped. Sener and Koltun 2018 also take the
  maximum, but place the second image at [6:34, 6:34], shrink the canvas to 28x28, draw one random
  partner an image and normalise: their numbers belong to another set.
- Source images are split before composing, so no digit of a test image was seen in training.
- The validation split is ours, cut from the training sources.

Everything that must never change between machines or versions of numpy is drawn from the raw bits
of a Philox generator: numpy keeps that stream fixed, but not that of `permutation`.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mtl_jax.data.raw import SIDE
from mtl_jax.errors import UserError

SHIFT = 8
CANVAS = SIDE + SHIFT


def compose(first: Any, second: Any) -> Any:
    """Returns `first` at the top left and `second` at the bottom right, maximum where both are.

    Pure; takes numpy arrays, or JAX arrays inside or outside `jit`, and gives back the same kind.

    Args:
      first: [..., 28, 28], any real type (uint8 as stored).
      second: the same shape and type.

    Returns:
      [..., 36, 36] of the same type; pixels that neither image covers are 0.
    """
    if first.shape != second.shape or first.shape[-2:] != (SIDE, SIDE):
        raise ValueError(f"expected two [..., 28, 28] arrays, got {first.shape}, {second.shape}")
    xp = jnp if isinstance(first, jax.Array) or isinstance(second, jax.Array) else np
    lead = ((0, 0),) * (first.ndim - 2)
    before = xp.pad(first, (*lead, (0, SHIFT), (0, SHIFT)))
    after = xp.pad(second, (*lead, (SHIFT, 0), (SHIFT, 0)))
    return xp.maximum(before, after)


def stable_permutation(n: int, *key: int) -> np.ndarray:
    """Returns a permutation of 0..n-1 [n] int64: a function of `n` and at most two `key`s only."""
    words = np.zeros(2, np.uint64)
    words[: len(key)] = key
    bits = np.random.Philox(key=words).random_raw(n)
    return np.argsort(bits, kind="stable")


def balanced_order(labels: np.ndarray, *key: int) -> np.ndarray:
    """Returns a random order [N] of the images whose every prefix has the classes in proportion.

    So a split is a cut of this order, and a smaller training set is a prefix of a larger one.
    """
    shuffled = stable_permutation(len(labels), *key)
    position = np.empty(len(labels))
    for label in np.unique(labels):
        members = shuffled[labels[shuffled] == label]
        position[members] = (np.arange(len(members)) + 0.5) / len(members)
    return shuffled[np.argsort(position[shuffled], kind="stable")]


def split_sources(
    labels: np.ndarray, num_test: int, cap: int | None, seed: int = 0
) -> dict[str, np.ndarray]:
    """Returns disjoint image indices for "train", "validation" and "test".

    Args:
      labels: [N] int.
      num_test: how many of the last images are the official test set; 0 where there is none.
      cap: at most so many images in all, 70/10/20 % of them for the three splits. None takes every
        image: with an official test set a twelfth of the others validates (55,000/5,000/10,000 of
        MNIST), without one 70/10/20 % again.
      seed: of the order.

    Raises:
      UserError: a split would be left with fewer than three images.
    """
    n = len(labels)
    rest = n - num_test
    total = n if cap is None else min(n, cap)
    if num_test and cap is None:
        sizes = {"train": rest - rest // 12, "validation": rest // 12, "test": num_test}
    else:
        sizes = {"validation": total // 10, "test": total // 5}
        sizes["train"] = total - sum(sizes.values())
    if num_test:
        sizes["test"] = min(sizes["test"], num_test)
        sizes["train"] = min(sizes["train"], rest - sizes["validation"])
    short = [name for name, size in sizes.items() if size < 3]
    if short:
        raise UserError(
            f"{n} source images leave {sizes[short[0]]} for the {short[0]} split, "
            "at least 3 are needed; give more images (30 or more)"
        )
    order = balanced_order(labels[:rest], seed)
    final = rest + balanced_order(labels[rest:], seed) if num_test else order[::-1]
    return {
        "train": order[: sizes["train"]],
        "validation": order[sizes["train"] : sizes["train"] + sizes["validation"]],
        "test": final[: sizes["test"]],
    }


def make_pairs(
    n_first: int, n_second: int, n_pairs: int, key: tuple[int, int], one_pool: bool
) -> np.ndarray:
    """Returns [n_pairs, 2] int32: who is top-left and who is bottom-right.

    The images of the larger side are dealt evenly: each appears n_pairs / n times, rounded up or
    down, and so do those of the smaller. With one pool for both sides no image meets itself and,
    up to n_pairs = n (n - 1), no pair comes twice.

    Args:
      n_first: images to choose from for task 1.
      n_second: the same for task 2; equal to `n_first` when `one_pool`.
      n_pairs: how many pairs.
      key: two non-negative numbers; the same key gives the same pairs on every machine.
      one_pool: both sides draw from the same images.
    """
    if one_pool and n_first < 2:
        raise UserError(f"{n_first} images cannot be paired with each other, at least 2 are needed")
    if min(n_first, n_second) < 1:
        raise UserError(f"cannot pair {n_first} with {n_second} images; a split is empty")
    first = stable_permutation(n_first, *key)
    second = first if one_pool else stable_permutation(n_second, key[0], key[1] + (1 << 32))
    place, around = np.arange(n_pairs), max(n_first, n_second)
    # Deal around the circle again and again, each time with the other side one seat further on.
    turn = place // around
    if one_pool:
        turn = 1 + turn % (n_first - 1)
    pairs = np.stack([first[place % n_first], second[(place % around + turn) % n_second]], axis=1)
    # Neighbours on the circle share an image: shuffle, so that no batch is made of neighbours.
    return pairs[stable_permutation(n_pairs, key[0], key[1] + (2 << 32))].astype(np.int32)

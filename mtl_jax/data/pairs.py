"""Loads a set of the Multi-MNIST family: two stacks of images and pairs of indices into them.

A batch is `compose(first[pairs[:, 0]], second[pairs[:, 1]])`, cheap enough to run inside the
training step on images that live on the device.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mtl_jax.data.overlay import make_pairs
from mtl_jax.data.prepare import open_set, prepare, reading
from mtl_jax.data.registry import parse
from mtl_jax.errors import UserError

SPLITS = ("train", "validation", "test")
TASKS = {
    "multi_mnist": ("top_left", "bottom_right"),
    "multi_fashion": ("top_left", "bottom_right"),
    "multi_fashion_mnist": ("digit", "garment"),
}


@dataclasses.dataclass(frozen=True)
class PairData:
    """Images and pairs, as numpy arrays in memory.

    Attributes:
      tasks: names of task 1 (top left) and task 2 (bottom right).
      images: two arrays [N, 28, 28] uint8, training sources first. The same object twice where
        both tasks draw from one pool: place it on the device once.
      labels: two arrays [N] int32 in 0..9 (the same object twice likewise).
      pairs: for each split, [M, 2] int32 indices into `images[0]` and `images[1]`.
      train_counts: how many training sources lead each array.
      sources: where the images came from, for logs.
      labelled: for each task, [N] bool, False where a label is not known; None where all are.
    """

    tasks: tuple[str, str]
    images: tuple[np.ndarray, np.ndarray]
    labels: tuple[np.ndarray, np.ndarray]
    pairs: dict[str, np.ndarray]
    train_counts: tuple[int, int]
    sources: tuple[str, ...]
    labelled: tuple[np.ndarray, np.ndarray] | None = None

    def pair_labels(self, pairs: np.ndarray) -> np.ndarray:
        """Returns the labels [M, 2] int32 of `pairs` [M, 2]."""
        return np.stack([self.labels[t][pairs[:, t]] for t in (0, 1)], axis=1)

    def fresh_pairs(self, seed: int, epoch: int, n: int | None = None) -> np.ndarray:
        """Returns new training pairs [n, 2] int32, a function of (seed, epoch) alone.

        Drawn from the training sources only; `n` is the fixed pairs' number unless given. The
        original has one fixed list of pairs: fresh ones are a choice of this package.
        """
        if seed < 0 or epoch < 0:
            raise ValueError(f"seed and epoch must not be negative, got {seed}, {epoch}")
        n = len(self.pairs["train"]) if n is None else n
        one_pool = self.images[0] is self.images[1]
        # Epoch 0 of seed 0 is not the fixed list, which has key (pair_seed, 0).
        return make_pairs(*self.train_counts, n, (seed, epoch + 1), one_pool)


def load_pairs(
    name: str,
    data_dir: str | Path | None = None,
    manual_dir: str | Path | None = None,
    *,
    train_size: int | None = None,
    partners: int = 2,
    pair_seed: int = 0,
) -> PairData:
    """Returns set "NAME" or "NAME/CONFIG", preparing it first where it is missing.

    Args:
      name: a set of the family, config "small" (default) or "full".
      data_dir: where sets are; None for the default.
      manual_dir: the user's own raw files, for building.
      train_size: takes so many training sources of each pool, balanced over classes; None for all.
        A smaller set is a part of a larger one.
      partners: pairs for each image of the larger pool; the published sets have 2.
      pair_seed: of the fixed pairs.

    Raises:
      UserError: unknown name, a set that cannot be built, a damaged shard, sizes out of range.
    """
    base = parse(name)[0].name
    if base not in TASKS:
        raise UserError(f"data set {base!r} has no pairs; {', '.join(sorted(TASKS))} have")
    if partners < 1:
        raise UserError(f"partners = {partners}, at least 1 is needed")
    folder = prepare(name, data_dir, manual_dir)
    builder, found, _ = open_set(name, data_dir)
    with reading(name, folder):
        blocks = {split: list(builder.as_data_source(split)) for split in SPLITS}
    first = _pool(name, blocks, 0, train_size)
    one_pool = all(block["pool"] == 0 for block in blocks["train"])
    second = first if one_pool else _pool(name, blocks, 1, train_size)
    others = min(first.counts[0], second.counts[0]) - one_pool
    if partners > others:
        raise UserError(
            f"partners = {partners}, but a training image of {name} has {others} others to meet;"
            f" choose 1..{others}"
        )
    pairs, offsets = {}, [0, 0]
    for k, split in enumerate(SPLITS):
        counts = first.counts[k], second.counts[k]
        chosen = make_pairs(*counts, partners * max(counts), (pair_seed, 0), one_pool)
        pairs[split] = chosen + np.asarray(offsets, np.int32)
        offsets = [offsets[t] + counts[t] for t in (0, 1)]
    return PairData(
        tasks=TASKS[base],
        images=(first.images, second.images),
        labels=(first.labels, second.labels),
        pairs=pairs,
        train_counts=(first.counts[0], second.counts[0]),
        sources=tuple(found["sources"]),
    )


class _Stack(NamedTuple):
    """One pool: images and labels of all splits, and how many there are of each split."""

    images: np.ndarray
    labels: np.ndarray
    counts: list[int]


def _pool(name: str, blocks: dict[str, list[Any]], number: int, train_size: int | None) -> _Stack:
    images, labels = [], []
    for split in SPLITS:
        mine = [block for block in blocks[split] if block["pool"] == number]
        stack = np.concatenate([block["images"] for block in mine])
        if split == "train" and train_size is not None:
            if not 3 <= train_size <= len(stack):
                raise UserError(f"train_size = {train_size}, data set {name} has 3..{len(stack)}")
            stack = stack[:train_size]
        images.append(stack)
        labels.append(np.concatenate([block["labels"] for block in mine])[: len(stack)])
    counts = [len(part) for part in images]
    return _Stack(np.concatenate(images), np.concatenate(labels).astype(np.int32), counts)

"""Splits samples into "train", "validation" and "test", the same ones in every run."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mtl_jax.data.operators import SPLITS
from mtl_jax.data.overlay import stable_permutation
from mtl_jax.errors import UserError


def check_fractions(validation: float, test: float) -> None:
    """Raises a `UserError` unless all three splits get a part."""
    for name, value in (("validation", validation), ("test", test)):
        if not 0 < value < 1:
            raise UserError(f"{name} is the fraction {value}; it must be between 0 and 1")
    if validation + test >= 1:
        raise UserError(
            f"validation {validation} and test {test} leave nothing to train on; lower one"
        )


def split_tasks(
    task: np.ndarray,
    names: tuple[str, ...],
    validation: float,
    test: float,
    source: str,
    seed: int = 0,
) -> dict[str, np.ndarray]:
    """Draws each split from each task: its fraction of the task's samples, at least one.

    Args:
      task: [S] int.
      names: of the tasks.
      validation: fraction for validation.
      test: fraction for the test; the rest trains.
      source: where the samples come from, for the error.
      seed: of the draw.

    Raises:
      UserError: a task with too few samples for three splits.
    """
    check_fractions(validation, test)
    chosen: dict[str, list[np.ndarray]] = {split: [] for split in SPLITS}
    for t, name in enumerate(names):
        own = np.flatnonzero(task == t)
        held = [max(1, round(fraction * len(own))) for fraction in (test, validation)]
        if len(own) <= sum(held):
            raise UserError(
                f"{source}: task {name} has {len(own)} samples, too few to train, validate (a"
                f" fraction of {validation}) and test ({test}) on; 3 are the least"
            )
        order = own[stable_permutation(len(own), seed, t)]
        parts = np.split(order, np.cumsum(held))
        for split, part in zip(("test", "validation", "train"), parts, strict=True):
            chosen[split].append(part)
    return {
        split: np.sort(np.concatenate(parts)).astype(np.int32) for split, parts in chosen.items()
    }


def given_splits(
    labels: Sequence[str | int], task: np.ndarray, names: tuple[str, ...], source: str
) -> dict[str, np.ndarray]:
    """Returns the splits that S names, or 0, 1, 2, give the samples.

    Raises:
      UserError: another value, or a task without a sample in one of them.
    """
    known = {name: name for name in SPLITS} | dict(zip("012", SPLITS, strict=True))
    words = np.array([known.get(str(label), "") for label in labels])
    if (words == "").any():
        first = int(np.flatnonzero(words == "")[0])
        raise UserError(
            f"{source}: split[{first}] is {labels[first]!r}; it must be one of {', '.join(SPLITS)}"
            " (or 0, 1, 2)"
        )
    for name in SPLITS:
        for t, label in enumerate(names):
            if not ((words == name) & (task == t)).any():
                raise UserError(
                    f"{source}: no sample of task {label} is in the {name} split; each task needs"
                    " one in each"
                )
    return {name: np.flatnonzero(words == name).astype(np.int32) for name in SPLITS}
